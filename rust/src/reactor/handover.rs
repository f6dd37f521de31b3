//! Where batches change hands: a bounded queue from all turns to one consumer, with a descriptor to wait on.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipss_session::Batch;
use mio::unix::pipe;

/// What a turn that had to stop reading gives, to be told when it may go on.
pub trait Wake: Send + Sync {
    /// Make the turn's wait return. Cheap to call twice.
    fn wake(&self);
}

/// The queue. When it is full the producer keeps its batch and stops reading sockets.
pub struct Handover {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

struct State {
    batches: VecDeque<Batch>,
    waiting: Vec<Arc<dyn Wake>>,
    producers: usize,
    taken: u64,
    pipe: Option<(pipe::Sender, pipe::Receiver)>,
}

impl Handover {
    /// A queue of at most `capacity` batches from `producers` turns, without a descriptor: for one thread.
    pub fn new(capacity: usize, producers: usize) -> Self {
        let state = State { batches: VecDeque::new(), waiting: Vec::new(), producers, taken: 0, pipe: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity: capacity.max(1) }
    }

    /// The same, with a descriptor that is readable while there is a batch or all producers have ended.
    pub fn with_descriptor(capacity: usize, producers: usize) -> io::Result<Self> {
        let handover = Self::new(capacity, producers);
        handover.lock().pipe = Some(pipe::new()?);
        Ok(handover)
    }

    /// The descriptor to wait on until it is readable; nobody else may read from it.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.lock().pipe.as_ref().map(|(_, receiver)| receiver.as_raw_fd())
    }

    /// Hand a batch over, or get it back if the queue is full; `wake` is then called once there is room.
    pub fn push(&self, batch: Batch, wake: &Arc<dyn Wake>) -> Option<Batch> {
        let mut state = self.lock();
        if state.batches.len() >= self.capacity {
            state.waiting.push(wake.clone());
            return Some(batch);
        }
        self.put(&mut state, batch);
        None
    }

    /// Hand a producer's last batch over, whatever the bound says, and let it go.
    pub fn finish(&self, batch: Batch) {
        let mut state = self.lock();
        if !batch.is_empty() {
            self.put(&mut state, batch);
        }
        state.producers = state.producers.saturating_sub(1);
        if state.producers == 0 {
            state.signal();
            self.changed.notify_all();
        }
    }

    fn put(&self, state: &mut State, batch: Batch) {
        state.batches.push_back(batch);
        if state.batches.len() == 1 {
            state.signal();
        }
        self.changed.notify_one();
    }

    /// The oldest batch, if there is one.
    pub fn take(&self) -> Option<Batch> {
        let (batch, waiting) = {
            let mut state = self.lock();
            let batch = state.batches.pop_front()?;
            state.taken += 1;
            if state.batches.is_empty() && state.producers > 0 {
                state.clear();
            }
            (batch, std::mem::take(&mut state.waiting))
        };
        waiting.iter().for_each(|producer| producer.wake());
        Some(batch)
    }

    /// The oldest batch; waits up to `timeout` for one. For consumers that have a thread to block.
    pub fn take_timeout(&self, timeout: Duration) -> Option<Batch> {
        let state = self.lock();
        let empty = |state: &mut State| state.batches.is_empty() && state.producers > 0;
        drop(self.changed.wait_timeout_while(state, timeout, empty).unwrap_or_else(PoisonError::into_inner));
        self.take()
    }

    /// Whether every batch has been taken and none will follow.
    pub fn finished(&self) -> bool {
        let state = self.lock();
        state.producers == 0 && state.batches.is_empty()
    }

    /// Batches that wait, and batches taken so far.
    pub fn depth(&self) -> (usize, u64) {
        let state = self.lock();
        (state.batches.len(), state.taken)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the queue whole: every change to it is one push or pop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn signal(&mut self) {
        if let Some((sender, _)) = &mut self.pipe {
            // A full pipe is readable already.
            let _ = sender.write(&[1]);
        }
    }

    fn clear(&mut self) {
        if let Some((_, receiver)) = &mut self.pipe {
            let _ = receiver.read(&mut [0; 16]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn batch(meter: u32) -> Batch {
        Batch { peer_counters: vec![(meter, 1)], ..Batch::default() }
    }

    fn readable(handover: &Handover) -> bool {
        let descriptor = handover.descriptor().unwrap();
        let mut poll = mio::Poll::new().unwrap();
        let mut source = mio::unix::SourceFd(&descriptor);
        let interest = mio::Interest::READABLE;
        mio::event::Source::register(&mut source, poll.registry(), mio::Token(0), interest).unwrap();
        let mut events = mio::Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }

    #[test]
    fn full_queue_gives_the_batch_back_and_wakes_its_owner_when_there_is_room() {
        let handover = Handover::new(2, 1);
        let count = Arc::new(Count::default());
        let wake: Arc<dyn Wake> = count.clone();

        assert_eq!(handover.push(batch(1), &wake), None);
        assert_eq!(handover.push(batch(2), &wake), None);
        assert_eq!(handover.push(batch(3), &wake), Some(batch(3)));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);

        assert_eq!(handover.take(), Some(batch(1)));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(handover.push(batch(3), &wake), None);
        assert_eq!(handover.depth(), (2, 1));
    }

    #[test]
    fn descriptor_is_readable_exactly_while_there_is_something_to_take() {
        let handover = Handover::with_descriptor(8, 1).unwrap();
        let wake: Arc<dyn Wake> = Arc::new(Count::default());
        assert!(!readable(&handover));

        handover.push(batch(1), &wake);
        handover.push(batch(2), &wake);
        assert!(readable(&handover));
        handover.take();
        assert!(readable(&handover));
        handover.take();
        assert!(!readable(&handover));

        handover.finish(Batch::default());
        assert!(readable(&handover));
        assert!(handover.finished());
    }
}
