//! Two sessions talking over a pipe that can misbehave, with a fake clock: for tests, never for the field.
//!
//! The pipe delivers each write as one chunk unless told otherwise. With [`Line::split`] it behaves as TCP does; with
//! loss, duplication and reordering as UDP does. Everything follows from the seed: a failing seed replays.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Batch, Context, Input, Instant, Now, Outcome, Random, Request, Session, Step, Transport, WallTime};

/// A repeatable stream of octets (SplitMix64: S. Vigna, public domain). Not for secrets.
#[derive(Clone, Debug)]
pub struct SeededRandom(u64);

impl SeededRandom {
    /// The stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// True with the probability `per_mille` / 1000.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1_000) < u64::from(per_mille)
    }
}

impl Random for SeededRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let octets = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&octets[..chunk.len()]);
        }
    }
}

/// How the pipe treats what is written to it. All probabilities are per mille of a chunk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Least time from write to delivery.
    pub delay: Duration,
    /// Further time, up to this much, at random.
    pub jitter: Duration,
    /// The chunk never arrives.
    pub loss: u32,
    /// The chunk arrives twice.
    pub duplication: u32,
    /// The chunk may overtake others (otherwise order is kept).
    pub reordering: u32,
    /// The chunk arrives in pieces of random size.
    pub split: u32,
    /// The connection breaks for both instead of the delivery.
    pub reset: u32,
    /// One bit of the chunk is flipped.
    pub corruption: u32,
}

impl Line {
    /// What becomes of a chunk written at `now`: `deliver` is called for each piece that arrives, with the moment.
    /// `last` is when the piece before it arrives, which this one does not overtake unless the line reorders.
    /// Returns true if the line breaks instead.
    pub fn carry(
        &self,
        mut octets: Vec<u8>,
        now: Instant,
        last: Instant,
        random: &mut SeededRandom,
        mut deliver: impl FnMut(Instant, Vec<u8>),
    ) -> bool {
        if random.chance(self.reset) {
            return true;
        }
        if random.chance(self.loss) {
            return false;
        }
        if random.chance(self.corruption) {
            let bit = random.below(octets.len() as u64 * 8) as usize;
            octets[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = if random.chance(self.duplication) { 2 } else { 1 };
        let mut last = last;
        for _ in 0..copies {
            let jitter = Duration::from_nanos(random.below(self.jitter.as_nanos() as u64 + 1));
            let mut at = now + self.delay + jitter;
            if !random.chance(self.reordering) {
                at = at.max(last);
            }
            last = last.max(at);
            let mut rest = octets.as_slice();
            while !rest.is_empty() {
                let cut =
                    if random.chance(self.split) { 1 + random.below(rest.len() as u64) as usize } else { rest.len() };
                deliver(at, rest[..cut].to_vec());
                rest = &rest[cut..];
            }
        }
        false
    }
}

/// One end of the pipe with its session and everything it said.
pub struct End<S: Session> {
    /// The session.
    pub session: S,
    /// The rows that it appended.
    pub batch: Batch,
    /// Requests that it finished.
    pub finished: Vec<(Request<S::Work>, Outcome)>,
    /// Identities that it learnt.
    pub identified: Vec<Vec<u8>>,
    /// Every chunk that it wrote, in order.
    pub written: Vec<Vec<u8>>,
    received: Vec<u8>,
    deadline: Option<Instant>,
    inbox: VecDeque<(Instant, Vec<u8>)>,
}

impl<S: Session> End<S> {
    fn new(session: S) -> Self {
        Self {
            session,
            batch: Batch::default(),
            finished: Vec::new(),
            identified: Vec::new(),
            written: Vec::new(),
            received: Vec::new(),
            deadline: None,
            inbox: VecDeque::new(),
        }
    }

    /// Step the session; returns what it wrote and whether it wants the connection closed.
    fn step(&mut self, input: Input<'_, S::Work, S::Control>, now: Now, random: &mut SeededRandom) -> (Vec<u8>, bool) {
        let mut to_send = Vec::new();
        let mut cx = Context { now, random, to_send: &mut to_send, batch: &mut self.batch };
        let Step { deadline, transport, finished, identified, .. } = self.session.step(input, &mut cx);
        self.identified.extend(identified);
        self.deadline = deadline;
        self.finished.extend(finished);
        (to_send, transport == Transport::Close)
    }

    fn receive(&mut self, octets: &[u8], now: Now, random: &mut SeededRandom) -> (Vec<u8>, bool) {
        self.received.extend_from_slice(octets);
        let mut received = std::mem::take(&mut self.received);
        let mut to_send = Vec::new();
        let mut close = false;
        while !received.is_empty() && !close {
            let mut cx = Context { now, random, to_send: &mut to_send, batch: &mut self.batch };
            let step = self.session.step(Input::Bytes(&mut received), &mut cx);
            self.deadline = step.deadline;
            self.finished.extend(step.finished);
            self.identified.extend(step.identified);
            close = step.transport == Transport::Close;
            received.drain(..step.consumed);
            if step.consumed == 0 {
                break;
            }
        }
        self.received = received;
        (to_send, close)
    }
}

/// Two ends, the pipe between them, and the clock.
pub struct Rig<A: Session, B: Session> {
    /// The end that opened the connection, usually the head-end.
    pub near: End<A>,
    /// The end that accepted it, usually the meter.
    pub far: End<B>,
    /// How the pipe behaves, both ways.
    pub line: Line,
    /// The fake clock.
    pub now: Now,
    /// Whether the connection is open.
    pub open: bool,
    random: SeededRandom,
}

impl<A: Session, B: Session> Rig<A, B> {
    /// Both ends, not yet connected, on a perfect pipe, at `wall`.
    pub fn new(near: A, far: B, seed: u64, wall: WallTime) -> Self {
        Self {
            near: End::new(near),
            far: End::new(far),
            line: Line::default(),
            now: Now { monotonic: Instant(1), wall },
            open: false,
            random: SeededRandom::new(seed),
        }
    }

    /// Open the connection: both ends step [`Input::Opened`], the far end first.
    pub fn connect(&mut self) {
        assert!(!self.open, "the pipe is open already");
        self.open = true;
        let (sent, close) = self.far.step(Input::Opened, self.now, &mut self.random);
        self.after_far(sent, close);
        let (sent, close) = self.near.step(Input::Opened, self.now, &mut self.random);
        self.after_near(sent, close);
    }

    /// Break the connection: both ends step [`Input::Closed`]; what is on its way is lost.
    pub fn disconnect(&mut self) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        self.near.inbox.clear();
        self.far.inbox.clear();
        self.near.received.clear();
        self.far.received.clear();
        let _ = self.near.step(Input::Closed, self.now, &mut self.random);
        let _ = self.far.step(Input::Closed, self.now, &mut self.random);
    }

    /// Give the near end an input that is neither bytes nor time.
    pub fn tell_near(&mut self, input: Input<'_, A::Work, A::Control>) {
        let (sent, close) = self.near.step(input, self.now, &mut self.random);
        self.after_near(sent, close);
    }

    /// Give the far end an input that is neither bytes nor time.
    pub fn tell_far(&mut self, input: Input<'_, B::Work, B::Control>) {
        let (sent, close) = self.far.step(input, self.now, &mut self.random);
        self.after_far(sent, close);
    }

    /// Put octets in front of the near end as if the far end had sent them.
    pub fn inject_near(&mut self, octets: &[u8]) {
        let (sent, close) = self.near.receive(octets, self.now, &mut self.random);
        self.after_near(sent, close);
    }

    /// Put octets in front of the far end as if the near end had sent them.
    pub fn inject_far(&mut self, octets: &[u8]) {
        let (sent, close) = self.far.receive(octets, self.now, &mut self.random);
        self.after_far(sent, close);
    }

    /// Let deliveries and deadlines happen until nothing is due within `span`, or `events` have happened.
    /// Returns how many happened.
    pub fn run(&mut self, span: Duration, events: usize) -> usize {
        let end = self.now.monotonic + span;
        for count in 0..events {
            let Some(at) = self.next_due().filter(|at| *at <= end) else {
                self.advance_to(end);
                return count;
            };
            self.advance_to(at);
            self.one_event();
        }
        events
    }

    fn next_due(&self) -> Option<Instant> {
        let inboxes = [self.near.inbox.front(), self.far.inbox.front()];
        inboxes.into_iter().flatten().map(|(at, _)| *at).chain(self.near.deadline).chain(self.far.deadline).min()
    }

    fn advance_to(&mut self, at: Instant) {
        let passed = at.since(self.now.monotonic);
        self.now.monotonic = self.now.monotonic + passed;
        self.now.wall.0 += i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
    }

    fn one_event(&mut self) {
        let now = self.now.monotonic;
        if self.far.inbox.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, octets)) = self.far.inbox.pop_front() {
                let (sent, close) = self.far.receive(&octets, self.now, &mut self.random);
                self.after_far(sent, close);
            }
        } else if self.near.inbox.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, octets)) = self.near.inbox.pop_front() {
                let (sent, close) = self.near.receive(&octets, self.now, &mut self.random);
                self.after_near(sent, close);
            }
        } else if self.near.deadline.is_some_and(|at| at <= now) {
            self.near.deadline = None;
            let (sent, close) = self.near.step(Input::Deadline, self.now, &mut self.random);
            self.after_near(sent, close);
        } else if self.far.deadline.is_some_and(|at| at <= now) {
            self.far.deadline = None;
            let (sent, close) = self.far.step(Input::Deadline, self.now, &mut self.random);
            self.after_far(sent, close);
        }
    }

    fn after_near(&mut self, sent: Vec<u8>, close: bool) {
        if self.open && !sent.is_empty() {
            self.near.written.push(sent.clone());
            let reset = carry(&mut self.far.inbox, sent, &self.line, self.now.monotonic, &mut self.random);
            if reset {
                self.disconnect();
            }
        }
        if close {
            self.disconnect();
        }
    }

    fn after_far(&mut self, sent: Vec<u8>, close: bool) {
        if self.open && !sent.is_empty() {
            self.far.written.push(sent.clone());
            let reset = carry(&mut self.near.inbox, sent, &self.line, self.now.monotonic, &mut self.random);
            if reset {
                self.disconnect();
            }
        }
        if close {
            self.disconnect();
        }
    }
}

/// Put a chunk into the other end's inbox as the line would; true if the line breaks instead.
fn carry(
    inbox: &mut VecDeque<(Instant, Vec<u8>)>,
    octets: Vec<u8>,
    line: &Line,
    now: Instant,
    random: &mut SeededRandom,
) -> bool {
    let last = inbox.back().map_or(now, |(last, _)| *last);
    line.carry(octets, now, last, random, |at, piece| {
        let place = inbox.partition_point(|(due, _)| *due <= at);
        inbox.insert(place, (at, piece));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each octet by the next one, until 200.
    struct Counter {
        open: bool,
    }

    impl Session for Counter {
        type Work = ();
        type Control = ();

        fn step(&mut self, input: Input<'_, (), ()>, cx: &mut Context<'_>) -> Step<()> {
            let mut step = Step::wait(Some(cx.now.monotonic + Duration::from_secs(5)));
            match input {
                Input::Opened => self.open = true,
                Input::Closed => self.open = false,
                Input::Request(request) => {
                    cx.to_send.push(0);
                    step.finished = Some((request, Outcome::Done));
                }
                Input::Bytes(octets) => {
                    step.consumed = 1;
                    if octets[0] < 200 {
                        cx.to_send.push(octets[0] + 1);
                    }
                }
                Input::Deadline => step.transport = Transport::Close,
                Input::Cancel(_) | Input::Control(()) | Input::Probe | Input::Release => {}
            }
            step
        }

        fn ready(&self) -> bool {
            self.open
        }

        fn associated(&self) -> bool {
            self.open
        }
    }

    fn talk(seed: u64, line: Line) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut rig = Rig::new(Counter { open: false }, Counter { open: false }, seed, WallTime(0));
        rig.line = line;
        rig.connect();
        let deadline = Instant(u64::MAX);
        let request =
            Request { id: 1, deadline, priority: Priority::OnDemand, attempts_left: 0, exchanges: 0, work: () };
        rig.tell_near(Input::Request(request));
        rig.run(Duration::from_secs(60), 10_000);
        (rig.near.written, rig.far.written)
    }

    use crate::Priority;

    #[test]
    fn perfect_line_carries_everything_in_order() {
        let (near, far) = talk(1, Line::default());

        assert_eq!(near.concat(), (0..=200).step_by(2).collect::<Vec<u8>>());
        assert_eq!(far.concat(), (1..200).step_by(2).collect::<Vec<u8>>());
    }

    #[test]
    fn a_seed_replays_to_the_bit() {
        let bad = Line {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(90),
            loss: 20,
            duplication: 50,
            reordering: 200,
            split: 300,
            reset: 2,
            corruption: 5,
        };
        for seed in 0..200 {
            assert_eq!(talk(seed, bad), talk(seed, bad), "seed {seed}");
        }
    }
}
