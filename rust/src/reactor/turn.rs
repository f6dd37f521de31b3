//! One turn: collect what is ready, step each session with its bytes, write replies, fire what is due, carry out
//! commands, hand over the batch. Nothing in it depends on how many meters are quiet.
//!
//! The turn knows a [`Network`] and no more of the world, so the same code runs in a reactor thread and in the
//! simulation. How one session is stepped stands in `service`, how connections come and go in `connection`.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ipss_session::{Batch, Instant, MeterId, Now, Outcome, Request, Session};

use super::admission::TokenBucket;
use super::challenge::Challenge;
use super::command::{Acceptor, Command, Ending, Shared, Submission};
use super::config::Config;
use super::endpoint::LineKey;
use super::entry::{Entry, NewMeter, State};
use super::handover::Wake;
use super::line::SharedLine;
use super::network::{Inbound, Network, Ready, Token};
use super::queue::Waiting;
use super::slab::Slab;
use super::stats::Stats;
use super::wheel::Wheel;

/// Everything that one thread serves. [`Engine::turn`] is its loop's body.
pub(super) struct Engine<S: Session, N: Network> {
    pub(super) config: Config,
    pub(super) network: N,
    pub(super) now: Now,
    pub(super) entries: Slab<Entry<S, N::Socket>>,
    pub(super) meters: HashMap<MeterId, u32, BuildHasherDefault<IdHasher>>,
    pub(super) wheel: Wheel,
    pub(super) listeners: Vec<Listening<S, N>>,
    /// Connections that wait for the token bucket, each with the number of its listener.
    pub(super) lobby: VecDeque<(usize, Inbound<N::Socket>)>,
    pub(super) bucket: TokenBucket,
    /// Pushes of refused connections that may be handed over.
    pub(super) unclaimed: TokenBucket,
    /// Slots that wait for a connection: first those that somebody waits for.
    pub(super) urgent: VecDeque<u32>,
    pub(super) ordinary: VecDeque<u32>,
    /// Connections that several peers share, and their numbers.
    pub(super) lines: Slab<SharedLine<N::Socket>>,
    pub(super) line_numbers: HashMap<LineKey, u32>,
    /// Those to look at before this turn is over.
    pub(super) lines_due: Vec<u32>,
    /// No descriptor was left; not tried again before this moment.
    pub(super) exhausted_until: Instant,
    pub(super) batch: Batch,
    /// What sessions say that are not to be believed: emptied with each step.
    pub(super) aside: Batch,
    /// Refused connections that prove themselves.
    pub(super) challenges: Vec<Challenge>,
    first_row: Option<Instant>,
    /// The batch holds the end of a request that somebody waits for: it is handed over with this turn.
    pub(super) awaited: bool,
    pub(super) shared: Arc<Shared<S, N>>,
    pub(super) shard: usize,
    wake: Arc<dyn Wake>,
    /// The consumer is behind: no socket is read until a batch can be handed over.
    pub(super) blocked: bool,
    pub(super) backlog: VecDeque<Command<S, N>>,
    /// How far the first command of the backlog has been carried out.
    cursor: usize,
    /// Sockets that are to be read without a further event.
    pub(super) deferred: Vec<Token>,
    ready: Vec<Ready>,
    fired: Vec<u32>,
    /// Where octets are read into, lent to one session after the other.
    pub(super) buffer: Vec<u8>,
    /// What the session being stepped wants sent.
    pub(super) to_send: Vec<u8>,
    pub(super) stats: Stats,
    pub(super) age: u64,
    pub(super) epoch: u32,
    pub(super) phase: Phase,
}

/// A listener of this turn.
pub(super) struct Listening<S: Session, N: Network> {
    pub listener: N::Listener,
    pub acceptor: Arc<Acceptor<S>>,
    /// There may be connections to accept.
    pub pending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Draining(Instant),
    Stopped,
}

impl<S: Session, N: Network> Engine<S, N>
where
    S::Work: Clone,
{
    pub fn new(config: Config, mut network: N, shared: Arc<Shared<S, N>>, shard: usize) -> Self {
        let now = network.now();
        let share = shared.inboxes.len() as u32;
        let (rate, burst) = (config.connects_per_second.div_ceil(share), config.connect_burst.div_ceil(share));
        Self {
            wake: network.wake(),
            now,
            entries: Slab::default(),
            meters: HashMap::default(),
            wheel: Wheel::new(now.monotonic),
            listeners: Vec::new(),
            lobby: VecDeque::new(),
            bucket: TokenBucket::new(rate, burst, now.monotonic),
            unclaimed: TokenBucket::new(
                config.unclaimed_per_second.div_ceil(share),
                config.unclaimed_burst.div_ceil(share),
                now.monotonic,
            ),
            urgent: VecDeque::new(),
            ordinary: VecDeque::new(),
            lines: Slab::default(),
            line_numbers: HashMap::new(),
            lines_due: Vec::new(),
            exhausted_until: Instant::ORIGIN,
            batch: Batch::default(),
            aside: Batch::default(),
            challenges: Vec::new(),
            first_row: None,
            awaited: false,
            shared,
            shard,
            blocked: false,
            backlog: VecDeque::new(),
            cursor: 0,
            deferred: Vec::new(),
            ready: Vec::new(),
            fired: Vec::new(),
            buffer: vec![0; config.partial + CHUNK],
            to_send: Vec::new(),
            stats: Stats::default(),
            age: 0,
            epoch: 0,
            phase: Phase::Running,
            config,
            network,
        }
    }

    /// Run one turn; waits for something to do. False once everything has ended.
    pub fn turn(&mut self) -> io::Result<bool> {
        let mut ready = std::mem::take(&mut self.ready);
        let timeout = self.next_due().map(|due| due.since(self.now.monotonic));
        let polled = self.network.poll(timeout, &mut ready);
        self.now = self.network.now();
        self.stats.turns += 1;
        if self.blocked {
            self.hand_over();
        }
        self.commands();
        self.timers();
        self.deferred();
        for (count, ready) in ready.drain(..).enumerate() {
            if count % CLOCK_EVERY == CLOCK_EVERY - 1 {
                self.now = self.network.now();
            }
            self.on_ready(ready);
        }
        self.ready = ready;
        self.serve_lines();
        self.take_in();
        self.admit();
        if let Phase::Draining(deadline) = self.phase {
            if self.stats.connections == 0 || deadline <= self.now.monotonic {
                self.stop();
            }
        }
        let row_due = self.first_row.is_some_and(|first| first + self.config.batch_delay <= self.now.monotonic);
        if (row_due || self.awaited) && !self.blocked {
            self.hand_over();
        }
        self.stats.datagrams_dropped = self.network.datagrams_dropped();
        *self.shared.stats[self.shard].lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
        polled?;
        Ok(self.phase != Phase::Stopped)
    }

    /// When the next turn has something to do even if nothing happens; `None` for never.
    pub fn next_due(&mut self) -> Option<Instant> {
        let now = self.now.monotonic;
        let can_submit = !self.blocked || !matches!(self.backlog.front(), None | Some(Command::Submit(_)));
        if (!self.backlog.is_empty() && can_submit) || (!self.deferred.is_empty() && !self.blocked) {
            return Some(now);
        }
        let mut due = self.wheel.next_due();
        let mut sooner = |at: Instant| due = Some(due.map_or(at, |due| due.min(at)));
        if !self.blocked {
            if let Some(first) = self.first_row {
                sooner(first + self.config.batch_delay);
            }
            if !self.lines_due.is_empty() {
                sooner(now);
            }
            if self.wants_admission() {
                // Without room under the bound on connections it is a closing connection that makes room: look again
                // from time to time, as that may happen in another thread.
                let room = if self.has_room() { now } else { now + ROOM_CHECK };
                sooner(self.bucket.next(now).max(room).max(self.exhausted_until));
            }
        }
        if let Phase::Draining(deadline) = self.phase {
            sooner(deadline);
        }
        due
    }

    /// End every request and connection now, and hand over what is left.
    pub fn stop(&mut self) {
        if self.phase == Phase::Stopped {
            return;
        }
        self.phase = Phase::Draining(Instant::ORIGIN);
        self.stop_listening();
        let _ = self.shared.inboxes[self.shard].collect(&mut self.backlog);
        let backlog = std::mem::take(&mut self.backlog);
        let mut cursor = std::mem::take(&mut self.cursor);
        for command in backlog {
            match command {
                Command::Submit(submission) => {
                    for (meter, offset) in submission.meters.iter().skip(std::mem::take(&mut cursor)) {
                        self.refuse(*meter, submission.ids_from + u64::from(*offset), Outcome::Cancelled, "stopped");
                    }
                }
                Command::Adopt(adoption) => {
                    self.network.close(adoption.inbound.socket);
                    self.connection_gone();
                }
                _ => cursor = 0,
            }
        }
        for slot in self.entries.slots() {
            self.end_queue(slot, Outcome::Cancelled, "stopped");
            self.close(slot, "stopped", true);
        }
        self.close_all_parked();
        self.phase = Phase::Stopped;
        self.shared.handover.finish(std::mem::take(&mut self.batch));
    }

    fn timers(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.advance(self.now.monotonic, &mut fired);
        for slot in fired.drain(..) {
            self.fire(slot);
        }
        self.fired = fired;
    }

    fn deferred(&mut self) {
        if self.blocked || self.deferred.is_empty() {
            return;
        }
        for token in std::mem::take(&mut self.deferred) {
            if let Some(slot) = self.slot_of(token) {
                self.undefer(slot);
                if self.blocked {
                    self.defer(slot);
                } else {
                    self.read(slot, false);
                }
            }
        }
    }

    fn commands(&mut self) {
        let inbox = self.shared.inboxes[self.shard].clone();
        match inbox.collect(&mut self.backlog) {
            Some(Ending::Stop) => return self.stop(),
            Some(Ending::Drain(deadline)) if self.phase == Phase::Running => self.drain(deadline),
            _ => {}
        }
        let mut budget = COMMANDS_A_TURN;
        while budget > 0 {
            match self.backlog.front() {
                None => return,
                Some(Command::Submit(_)) if self.blocked => return,
                Some(_) => {}
            }
            let Some(command) = self.backlog.pop_front() else { return };
            let weight = match command {
                Command::Submit(submission) => {
                    let from = self.cursor;
                    let to = submission.meters.len().min(from + budget);
                    let whole = to == submission.meters.len();
                    self.submit(&submission, from, to);
                    self.cursor = if whole { 0 } else { to };
                    if !whole {
                        self.backlog.push_front(Command::Submit(submission));
                    }
                    to - from
                }
                Command::Cancel(requests) => {
                    // What waits goes first, so that it is not given to a session by the end of what runs.
                    requests.iter().for_each(|(meter, request)| self.cancel_waiting(*meter, *request));
                    requests.iter().for_each(|(meter, request)| self.cancel_active(*meter, *request));
                    requests.len()
                }
                Command::Add(meters) => {
                    let weight = meters.len();
                    meters.into_iter().for_each(|meter| self.add(meter));
                    weight
                }
                Command::Remove(meters) => {
                    meters.iter().for_each(|meter| self.remove(*meter));
                    meters.len()
                }
                Command::Control(controls) => {
                    let weight = controls.len();
                    controls.into_iter().for_each(|(meter, control)| self.control(meter, control));
                    weight
                }
                Command::Listen(listener, acceptor) => {
                    self.start_listening(listener, acceptor);
                    1
                }
                Command::Adopt(adoption) => {
                    self.stats.connections += 1;
                    self.adopt(adoption);
                    1
                }
            };
            inbox.done(weight);
            budget = budget.saturating_sub(weight.max(1));
        }
    }

    /// Accept the requests of `submission` from `from` up to, without, `to`.
    fn submit(&mut self, submission: &Submission<S::Work>, from: usize, to: usize) {
        for (meter, offset) in &submission.meters[from..to] {
            let id = submission.ids_from + u64::from(*offset);
            let Some(slot) = self.meters.get(meter).copied() else {
                self.refuse(*meter, id, Outcome::Impossible, "no such meter");
                continue;
            };
            if self.phase != Phase::Running {
                self.refuse(*meter, id, Outcome::Cancelled, "the reactor is stopping");
                continue;
            }
            let request = Request {
                id,
                deadline: submission.deadline,
                priority: submission.priority,
                attempts_left: submission.attempts.saturating_sub(1),
                exchanges: 0,
                work: submission.work.clone(),
            };
            self.age += 1;
            self.accept_request(slot, Waiting { request, accepted: self.now.monotonic, age: self.age });
        }
    }

    fn add(&mut self, new: NewMeter<S>) {
        if self.meters.contains_key(&new.meter) {
            self.remove(new.meter);
        }
        let slot = self.entries.insert(Entry::new(new.meter, new.session, new.route, None));
        self.meters.insert(new.meter, slot);
        self.stats.meters += 1;
        if !new.identities.is_empty() {
            let mut identities = self.shared.identities.write().unwrap_or_else(PoisonError::into_inner);
            identities.extend(new.identities.into_iter().map(|identity| (identity, new.meter)));
        }
        self.join_line(slot);
        self.want_connection(slot);
    }

    fn remove(&mut self, meter: MeterId) {
        let Some(slot) = self.meters.remove(&meter) else { return };
        self.stats.meters -= 1;
        self.shared.identities.write().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| *owner != meter);
        self.end_queue(slot, Outcome::Cancelled, "the meter was removed");
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.active.cancel_all();
        }
        self.close(slot, "the meter was removed", true);
        self.end_queue(slot, Outcome::Cancelled, "the meter was removed");
        self.wheel.clear(slot);
        self.quit_line(slot);
        self.entries.remove(slot);
        self.check_batch();
    }

    fn drain(&mut self, deadline: Instant) {
        self.phase = Phase::Draining(deadline);
        self.stop_listening();
        for slot in self.entries.slots() {
            self.end_queue(slot, Outcome::Cancelled, "the reactor is stopping");
            self.drain_one(slot);
        }
        self.close_all_parked();
    }

    /// Note that rows came; hand them over if they are enough.
    #[inline]
    pub(super) fn check_batch(&mut self) {
        if self.first_row.is_none() && !self.batch.is_empty() {
            self.first_row = Some(self.now.monotonic);
        }
        if !self.blocked && self.batch.rows() >= self.config.batch_rows {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let rows = self.batch.rows();
        let fresh = Batch {
            ends: Vec::with_capacity(self.batch.ends.len()),
            lines: Vec::with_capacity(self.batch.lines.len()),
            ..Batch::default()
        };
        match self.shared.handover.push(std::mem::replace(&mut self.batch, fresh), &self.wake) {
            None => {
                self.first_row = None;
                self.awaited = false;
                self.blocked = false;
                self.stats.batches += 1;
                self.stats.rows += rows as u64;
            }
            Some(batch) => {
                self.batch = batch;
                if !self.blocked {
                    self.blocked = true;
                    self.stats.stalls += 1;
                }
            }
        }
    }

    /// The slot that an event is for, if its connection is still the one that it was meant for.
    #[inline]
    pub(super) fn slot_of(&self, token: Token) -> Option<u32> {
        let slot = token as u32;
        let link = self.entries.get(slot)?.link.as_ref()?;
        (link.epoch == (token >> 32) as u32).then_some(slot)
    }

    fn on_ready(&mut self, ready: Ready) {
        if ready.token & LISTENER != 0 {
            if let Some(listening) = self.listeners.get_mut((ready.token & !LISTENER) as usize) {
                listening.pending = true;
            }
            return;
        }
        let Some(slot) = self.slot_of(ready.token) else { return };
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if entry.state == State::Connecting {
            // A handshake above the connection goes on when something can be read.
            if !self.connection_over(slot) {
                return;
            }
        } else if ready.writable {
            self.write_unsent(slot);
        }
        if ready.readable || ready.ended {
            if ready.ended {
                let link = self.entries.get_mut(slot).and_then(|entry| entry.link.as_mut());
                link.into_iter().for_each(|link| link.ended = true);
            }
            if self.blocked {
                self.defer(slot);
            } else {
                self.read(slot, false);
            }
        }
    }
}

/// Octets asked for in one read: what a kernel holds for a meter is a few frames.
pub(super) const CHUNK: usize = 65_536;
/// Events after which the clock is read again within a turn.
const CLOCK_EVERY: usize = 32;
/// Requests accepted in one turn, so that a bulk submission does not keep sockets and timers waiting.
const COMMANDS_A_TURN: usize = 256;
/// How often to look whether another thread has closed a connection.
const ROOM_CHECK: Duration = Duration::from_millis(100);
/// Marks a listener's token.
pub(super) const LISTENER: Token = 1 << 31;

/// Spreads meter numbers, which are dense, by one multiplication (Knuth's constant).
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
