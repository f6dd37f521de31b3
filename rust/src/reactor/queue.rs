//! The requests that wait for one meter: the most urgent first, the oldest first among equals, and never too many.

use ipss_session::{Instant, Outcome, Request};

/// A request that waits, with what its end has to report.
#[derive(Debug)]
pub struct Waiting<W> {
    /// The request.
    pub request: Request<W>,
    /// When it was accepted.
    pub accepted: Instant,
    /// Its age among all requests: the smaller the older.
    pub age: u64,
}

/// The queue. Kept with the next to serve at the end.
#[derive(Debug)]
pub struct Queue<W>(Vec<Waiting<W>>);

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<W> Queue<W> {
    /// Put a request in its place. If there are more than `capacity` then, the newest of the least urgent comes back
    /// to be ended as overloaded; that may be the one that was put.
    pub fn push(&mut self, waiting: Waiting<W>, capacity: usize) -> Option<Waiting<W>> {
        let urgency = |waiting: &Waiting<W>| (waiting.request.priority, u64::MAX - waiting.age);
        let place = self.0.partition_point(|other| urgency(other) < urgency(&waiting));
        if self.0.len() >= capacity && place == 0 {
            return Some(waiting);
        }
        self.0.insert(place, waiting);
        if self.0.len() > capacity { Some(self.0.remove(0)) } else { None }
    }

    /// The next to serve.
    #[inline]
    pub fn pop(&mut self) -> Option<Waiting<W>> {
        let next = self.0.pop();
        // An idle meter keeps no more than the place for a few requests.
        if self.0.is_empty() && self.0.capacity() > KEPT {
            self.0 = Vec::new();
        }
        next
    }

    /// Look at the next to serve.
    pub fn peek(&self) -> Option<&Waiting<W>> {
        self.0.last()
    }

    /// Take out all that `over` says are over.
    pub fn take_if(&mut self, over: impl Fn(&Waiting<W>) -> bool, mut taken: impl FnMut(Waiting<W>)) {
        let mut place = 0;
        while place < self.0.len() {
            if over(&self.0[place]) {
                taken(self.0.remove(place));
            } else {
                place += 1;
            }
        }
    }

    /// Each of them spends one try on a connection that could not be opened or did not last; those that have none
    /// left are taken out.
    pub fn charge(&mut self, mut taken: impl FnMut(Waiting<W>, Outcome)) {
        let mut place = 0;
        while place < self.0.len() {
            if self.0[place].request.attempts_left == 0 {
                taken(self.0.remove(place), Outcome::Unreachable);
            } else {
                self.0[place].request.attempts_left -= 1;
                place += 1;
            }
        }
    }

    /// The earliest deadline among them.
    pub fn deadline(&self) -> Instant {
        self.0.iter().map(|waiting| waiting.request.deadline).min().unwrap_or(Instant(u64::MAX))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Places that an empty queue may keep.
const KEPT: usize = 4;

#[cfg(test)]
mod tests {
    use ipss_session::Priority::{self, Backfill, Critical, OnDemand, Scheduled};
    use ipss_session::RequestId;

    use super::*;

    fn waiting(id: RequestId, priority: Priority) -> Waiting<()> {
        let deadline = Instant(1_000 - id);
        let request = Request { id, deadline, priority, attempts_left: (id % 2) as u8, exchanges: 0, work: () };
        Waiting { request, accepted: Instant(0), age: id }
    }

    fn drain(queue: &mut Queue<()>) -> Vec<RequestId> {
        std::iter::from_fn(|| queue.pop()).map(|waiting| waiting.request.id).collect()
    }

    #[test]
    fn urgent_goes_first_and_old_before_new() {
        let mut queue = Queue::default();
        for (id, priority) in [(1, Scheduled), (2, OnDemand), (3, Scheduled), (4, Critical), (5, Backfill)] {
            assert!(queue.push(waiting(id, priority), 16).is_none());
        }

        assert_eq!(drain(&mut queue), [4, 2, 1, 3, 5]);
    }

    #[test]
    fn request_that_comes_back_keeps_its_age() {
        let mut queue = Queue::default();
        queue.push(waiting(7, Scheduled), 16);
        queue.push(waiting(3, Scheduled), 16);

        assert_eq!(drain(&mut queue), [3, 7]);
    }

    #[test]
    fn overflow_sheds_the_newest_of_the_least_urgent() {
        let mut queue = Queue::default();
        for (id, priority) in [(1, Backfill), (2, Scheduled), (3, Backfill), (4, OnDemand)] {
            assert!(queue.push(waiting(id, priority), 4).is_none());
        }

        assert_eq!(queue.push(waiting(5, Critical), 4).unwrap().request.id, 3);
        assert_eq!(queue.push(waiting(6, Backfill), 4).unwrap().request.id, 6);
        assert_eq!(queue.push(waiting(7, Scheduled), 4).unwrap().request.id, 1);
        assert_eq!(drain(&mut queue), [5, 4, 2, 7]);
    }

    #[test]
    fn failed_connection_costs_each_one_try() {
        let mut queue = Queue::default();
        (1..=4).for_each(|id| assert!(queue.push(waiting(id, Scheduled), 9).is_none()));
        let mut ended = Vec::new();

        queue.charge(|waiting, _| ended.push(waiting.request.id));
        assert_eq!(ended, [4, 2]);
        queue.charge(|waiting, _| ended.push(waiting.request.id));

        assert_eq!(ended, [4, 2, 3, 1]);
        assert!(queue.is_empty());
    }
}
