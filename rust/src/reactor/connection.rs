//! How connections come and go: admission, opening, octets in and out, closing and what follows from it.

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipss_session::{EventKind, Input, Outcome, Priority, Session, Transport};

use super::admission::backoff;
use super::entry::{Entry, Hold, Link, NEVER, State};
use super::line::EndedTurn;
use super::network::{Nature, Network, Token};
use super::service::Flow;
use super::turn::{CHUNK, Engine, LISTENER, Phase};

impl<S: Session, N: Network> Engine<S, N>
where
    S::Work: Clone,
{
    /// Line up for a connection, if the peer in `slot` has none and needs one.
    pub(super) fn want_connection(&mut self, slot: u32) {
        let running = self.phase == Phase::Running;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if !running || !entry.wants_connection() {
            return;
        }
        let urgent = entry.queue.peek().is_some_and(|next| next.request.priority >= Priority::OnDemand);
        if let Some(line) = entry.line {
            if entry.state == State::Idle {
                (entry.state, entry.state_deadline) = (State::Waiting, NEVER);
                self.stand_in_line(slot, line, urgent);
            } else if urgent && entry.state == State::Waiting {
                self.stand_in_line(slot, line, true);
            }
            return;
        }
        match entry.state {
            State::Idle => {
                (entry.state, entry.state_deadline) = (State::Waiting, NEVER);
                if urgent { &mut self.urgent } else { &mut self.ordinary }.push_back(slot);
            }
            // It waits in the other line already; whichever comes first serves it.
            State::Waiting if urgent && entry.queue.len() == 1 => self.urgent.push_back(slot),
            _ => {}
        }
    }

    /// Whether anything waits for [`Engine::admit`].
    pub(super) fn wants_admission(&self) -> bool {
        !self.urgent.is_empty()
            || !self.ordinary.is_empty()
            || !self.lobby.is_empty()
            || self.listeners.iter().any(|listening| listening.pending)
    }

    /// Whether one more connection fits under the bound on descriptors.
    pub(super) fn has_room(&self) -> bool {
        self.shared.connections.load(Ordering::Relaxed) < self.config.connections
    }

    /// The same for one that a peer opens: while meters wait to be dialled, the last sixteenth of the room is theirs.
    pub(super) fn has_room_for_peers(&self) -> bool {
        let dials = !self.urgent.is_empty() || !self.ordinary.is_empty();
        let kept = if dials { self.config.connections / 16 + 1 } else { 0 };
        self.shared.connections.load(Ordering::Relaxed) + kept < self.config.connections
    }

    /// Start as many new connections, in and out in turn, as the token bucket and the descriptors allow.
    pub(super) fn admit(&mut self) {
        if self.blocked || self.phase != Phase::Running {
            return;
        }
        while self.wants_admission() {
            let now = self.now.monotonic;
            let possible = !self.lobby.is_empty() || self.has_room();
            if now < self.exhausted_until || !possible || !self.bucket.take(now) {
                self.stats.admission_delays += 1;
                return;
            }
            let accepted = self.accept_one();
            let next = loop {
                let slot = self.urgent.pop_front().or_else(|| self.ordinary.pop_front());
                match slot {
                    Some(slot) if self.may_connect(slot) => break Some(slot),
                    Some(_) => {}
                    None => break None,
                }
            };
            let Some(slot) = next else {
                if accepted {
                    continue;
                }
                return self.bucket.put_back();
            };
            if !accepted || (self.has_room() && self.bucket.take(now)) {
                self.connect(slot);
            } else {
                self.urgent.push_front(slot);
            }
        }
    }

    fn connect(&mut self, slot: u32) {
        let token = self.next_token(slot);
        let now = self.now.monotonic;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let Some(address) = &entry.route.address else { return };
        match self.network.connect(address, entry.route.local, token) {
            Ok(socket) => {
                self.stats.connects += 1;
                self.stats.connections += 1;
                self.shared.connections.fetch_add(1, Ordering::Relaxed);
                let nature = self.network.nature(&socket);
                let at_once = nature == Nature::Datagrams || address.is_serial();
                entry.link = Some(Link::new(socket, token, nature, now, false));
                (entry.state, entry.state_deadline) = (State::Connecting, now + self.config.connect_timeout);
                if at_once {
                    // There is nothing to wait for.
                    self.connection_over(slot);
                }
                self.arm(slot);
            }
            Err(error) if out_of_descriptors(&error) => {
                self.exhausted_until = now + DESCRIPTOR_PAUSE;
                self.urgent.push_front(slot);
            }
            Err(error) => {
                self.stats.connects += 1;
                self.connect_failed(slot, &error.to_string());
            }
        }
    }

    /// A connection attempt made progress. False if it failed.
    pub(super) fn connection_over(&mut self, slot: u32) -> bool {
        let now = self.now;
        let Some(entry) = self.entries.get_mut(slot) else { return false };
        let Some(link) = &mut entry.link else { return false };
        match self.network.opened(&mut link.socket) {
            Ok(()) => {
                link.opened = now.monotonic;
                link.last_received = now.monotonic;
                self.open(slot, "");
                self.line_opened(slot);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => {
                let why = error.to_string();
                if error.kind() == ErrorKind::PermissionDenied {
                    self.not_admitted(slot, &why);
                } else {
                    self.connect_failed(slot, &why);
                }
                false
            }
        }
    }

    /// One end of a connection that was being opened did not prove who it is, or may not speak.
    fn not_admitted(&mut self, slot: u32, why: &str) {
        let Some(entry) = self.entries.get(slot) else { return };
        self.batch.event(entry.meter, self.now.wall, EventKind::AuthenticationFailed, 0, why);
        self.end_queue(slot, Outcome::AuthenticationFailed, why);
        self.connect_failed(slot, why);
        if self.entries.get(slot).is_some_and(|entry| entry.line.is_none()) {
            self.rest(slot, true, self.config.authentication_pause, why);
            self.arm(slot);
        }
    }

    pub(super) fn open(&mut self, slot: u32, peer: &str) {
        let now = self.now;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let Some(link) = &entry.link else { return };
        let bound = if entry.greeter.is_some() { self.config.identify_timeout } else { self.config.associate_timeout };
        (entry.state, entry.state_deadline) = (State::Associating, now.monotonic + bound);
        if entry.greeter.is_none() && !link.turn {
            self.batch.event(entry.meter, now.wall, EventKind::Connected, link.inbound.into(), peer);
        }
        self.tell(slot, Input::Opened);
    }

    fn connect_failed(&mut self, slot: u32, why: &str) {
        self.stats.connect_failures += 1;
        if let Some(link) = self.entries.get_mut(slot).and_then(|entry| entry.link.take()) {
            self.network.close(link.socket);
            self.connection_gone();
        }
        if self.entries.get(slot).is_some_and(|entry| entry.line.is_some()) {
            return self.line_failed(slot, why);
        }
        self.charge_queue(slot, why);
        self.rest(slot, true, Duration::ZERO, why);
        self.settle(slot);
    }

    /// Read what is there and step the session with it. `kept`: offer what is there from before even if nothing new
    /// is.
    pub(super) fn read(&mut self, slot: u32, kept: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let end = self.read_into(slot, &mut buffer, kept);
        self.buffer = buffer;
        match end {
            ReadEnd::Drained => self.settle(slot),
            ReadEnd::More => {
                self.settle(slot);
                self.defer(slot);
            }
            ReadEnd::Gone => self.check_batch(),
            ReadEnd::Broken(why) => {
                self.flush(slot);
                if let Some(link) = self.entries.get_mut(slot).and_then(|entry| entry.link.as_mut()) {
                    link.broken = true;
                }
                self.close(slot, &why, false);
            }
            ReadEnd::Identified(identity) => self.claim(slot, identity),
        }
    }

    fn read_into(&mut self, slot: u32, buffer: &mut [u8], mut kept: bool) -> ReadEnd {
        let now = self.now.monotonic;
        for _ in 0..READS_A_TURN {
            let Some(link) = self.entries.get_mut(slot).and_then(|entry| entry.link.as_mut()) else {
                return ReadEnd::Gone;
            };
            let before = link.received.len();
            let read = match self.network.read(&mut link.socket, &mut buffer[before..before + CHUNK]) {
                Ok(0) => return ReadEnd::Broken("the peer closed it".into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => {
                    if error.kind() == ErrorKind::PermissionDenied {
                        link.rejected = Some(Outcome::AuthenticationFailed);
                    }
                    return ReadEnd::Broken(error.to_string());
                }
            };
            if read == 0 && !std::mem::take(&mut kept) {
                return ReadEnd::Drained;
            }
            if before > 0 {
                buffer[..before].copy_from_slice(&link.received);
                link.received.clear();
            }
            link.last_received = now;
            link.heard = true;
            self.stats.octets_in += read as u64;
            let (mut from, to) = (0, before + read);
            let mut identity = None;
            while from < to {
                let Some(step) = self.step(slot, Input::Bytes(&mut buffer[from..to])) else { return ReadEnd::Gone };
                let consumed = step.consumed.min(to - from);
                from += consumed;
                match self.after(slot, step) {
                    Flow::Open => {}
                    Flow::Gone => return ReadEnd::Gone,
                    Flow::Identified(who) => identity = Some(who),
                }
                if consumed == 0 || identity.is_some() {
                    break;
                }
            }
            let Some(link) = self.entries.get_mut(slot).and_then(|entry| entry.link.as_mut()) else {
                return ReadEnd::Gone;
            };
            if from < to && (link.nature != Nature::Datagrams || identity.is_some()) {
                link.received.extend_from_slice(&buffer[from..to]);
                if link.received.len() > self.config.partial {
                    return ReadEnd::Broken(format!("a frame is longer than {} octets", self.config.partial));
                }
                if from > 0 || link.frame_deadline == NEVER {
                    link.frame_deadline = now + self.config.frame_timeout;
                }
            } else if link.frame_deadline != NEVER {
                link.frame_deadline = NEVER;
                link.received = Vec::new();
            }
            if let Some(identity) = identity {
                return ReadEnd::Identified(identity);
            }
            if read < CHUNK && !link.ended && link.nature == Nature::Stream {
                return ReadEnd::Drained;
            }
        }
        ReadEnd::More
    }

    /// Write what the session in `slot` wants sent; keep what the transport does not take.
    pub(super) fn flush(&mut self, slot: u32) {
        if self.to_send.is_empty() {
            return;
        }
        let Some(link) = self.entries.get_mut(slot).and_then(|entry| entry.link.as_mut()) else {
            self.to_send.clear();
            return;
        };
        let mut broken = None;
        if link.unsent.is_empty() {
            match self.network.write(&mut link.socket, &self.to_send) {
                Ok(written) => {
                    self.stats.octets_out += written as u64;
                    if written < self.to_send.len() {
                        link.unsent.extend_from_slice(&self.to_send[written..]);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    link.unsent.extend_from_slice(&self.to_send);
                }
                Err(error) => broken = Some(error.to_string()),
            }
        } else {
            link.unsent.extend_from_slice(&self.to_send);
        }
        if link.unsent.len() > self.config.unsent {
            broken = Some(format!("the peer leaves more than {} octets unread", self.config.unsent));
        }
        link.broken |= broken.is_some();
        self.to_send.clear();
        if let Some(why) = broken {
            self.close(slot, &why, false);
        }
    }

    /// The transport takes octets again.
    pub(super) fn write_unsent(&mut self, slot: u32) {
        let Some(link) = self.entries.get_mut(slot).and_then(|entry| entry.link.as_mut()) else { return };
        if let Err(error) = self.network.writable(&mut link.socket) {
            link.broken = true;
            let why = error.to_string();
            return self.close(slot, &why, false);
        }
        if link.unsent.is_empty() {
            return;
        }
        while !link.unsent.is_empty() {
            match self.network.write(&mut link.socket, &link.unsent) {
                Ok(written) => {
                    self.stats.octets_out += written as u64;
                    link.unsent.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let why = error.to_string();
                    link.broken = true;
                    self.close(slot, &why, false);
                    return;
                }
            }
        }
        link.unsent = Vec::new();
    }

    /// Close the connection of the peer in `slot`, if it has one, and decide what follows. `orderly`: it ended
    /// because we wanted it to.
    pub(super) fn close(&mut self, slot: u32, why: &str, orderly: bool) {
        let now = self.now;
        self.to_send.clear();
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let orderly = orderly || entry.state == State::Releasing;
        let opening = entry.state == State::Connecting;
        let Some(link) = entry.link.take() else { return };
        (entry.state, entry.state_deadline) = (State::Idle, NEVER);
        if std::mem::take(&mut entry.associated) {
            self.stats.associated -= 1;
        }
        let (greeter, challenges) = (entry.greeter.is_some(), entry.challenges());
        let meter = entry.meter;
        // A meter that did not answer leaves a shared connection alone for a while, however its turn ended.
        let orderly = orderly && !(link.failed && entry.line.is_some());
        let kept = if entry.line.is_some() && !link.inbound && !opening {
            // The rest of a frame that has begun would come in somebody else's turn.
            let confused = link.confused || !link.received.is_empty();
            let ended = EndedTurn { broken: link.broken, confused, heard: link.heard };
            self.end_turn(slot, link.socket, ended)
        } else {
            self.network.close(link.socket);
            self.connection_gone();
            false
        };
        let mut rejected = link.rejected;
        if !opening {
            // Requests are handed back one a step.
            let mut step = self.step(slot, Input::Closed);
            while let Some((Some((request, outcome)), detail)) = step.take().map(|step| (step.finished, step.detail)) {
                if outcome == Outcome::AuthenticationFailed {
                    rejected = Some(outcome);
                }
                self.finished(slot, request, outcome, detail);
                if self.entries.get(slot).is_some_and(|entry| !entry.active.is_empty()) {
                    step = self.step(slot, Input::Deadline);
                }
            }
            self.to_send.clear();
            self.end_lost(slot);
            if !(greeter || link.told || (kept && orderly)) {
                self.batch.event(meter, now.wall, EventKind::Disconnected, 0, why);
            }
        }
        if greeter {
            self.wheel.clear(slot);
            self.entries.remove(slot);
            if challenges {
                self.challenge_over(slot);
            }
            return self.check_batch();
        }
        let mut pause = Duration::ZERO;
        if let Some(outcome) = rejected {
            pause = self.config.authentication_pause;
            self.end_queue(slot, outcome, why);
        } else if self.entries.get(slot).is_some_and(|entry| entry.dead) {
            self.end_queue(slot, Outcome::Impossible, why);
        } else if !link.associated && !opening && !orderly {
            self.charge_queue(slot, why);
        }
        let lasted = link.associated && now.monotonic.since(link.opened) >= LASTING;
        if orderly {
            self.go_on(slot);
        } else {
            // A peer that dialled in and associated has done all that can be asked of it.
            let served = link.useful || lasted || (link.inbound && link.associated);
            self.rest(slot, !served, pause, why);
        }
        self.arm(slot);
        self.check_batch();
    }

    /// A session that did not hand its requests back although its connection is gone: what it sent is not known.
    fn end_lost(&mut self, slot: u32) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let meter = entry.meter;
        while let Some(active) = entry.active.pop() {
            self.stats.active -= 1;
            self.stats.ended[Outcome::Unknown as usize] += 1;
            self.batch.ends.push(ipss_session::batch::End {
                request: active.id,
                meter,
                outcome: Outcome::Unknown,
                exchanges: 0,
                duration_us: self.now.monotonic.since(active.accepted).as_micros() as u64,
                detail: "the session did not hand it back".into(),
            });
        }
    }

    /// After a connection that ended in good order: open the next one if it is wanted.
    fn go_on(&mut self, slot: u32) {
        let Some(entry) = self.entries.get(slot) else { return };
        if entry.queue.is_empty() && entry.wants_connection() {
            // Held open, and released by the meter or by us: not at once again, or all would come back together.
            return self.rest(slot, false, Duration::ZERO, "");
        }
        self.want_connection(slot);
    }

    /// Leave the peer in `slot` alone for a while.
    fn rest(&mut self, slot: u32, failed: bool, at_least: Duration, why: &str) {
        let now = self.now;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        entry.failures = if failed { entry.failures.saturating_add(1) } else { 0 };
        let bounds = (self.config.backoff_base, self.config.backoff_cap);
        let pause = backoff(bounds.0, bounds.1, entry.failures.max(1), self.network.random()).max(at_least);
        let dialled = entry.route.address.is_some();
        let open_breaker = entry.failures >= self.config.breaker;
        if self.phase != Phase::Running || entry.dead || (!dialled && !open_breaker && at_least.is_zero()) {
            (entry.state, entry.state_deadline) = (State::Idle, NEVER);
        } else {
            (entry.state, entry.state_deadline) = (State::BackingOff, now.monotonic + pause);
        }
        if failed && (entry.failures == self.config.breaker || !at_least.is_zero()) {
            let seconds = pause.as_secs_f64().ceil() as i64;
            self.batch.event(entry.meter, now.wall, EventKind::BackedOff, seconds, why);
        }
    }

    /// The deadline that belongs to the state of the peer in `slot` has passed.
    pub(super) fn state_over(&mut self, slot: u32) {
        let now = self.now.monotonic;
        let draining = self.phase != Phase::Running;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        entry.state_deadline = NEVER;
        if entry.challenges() {
            return self.challenge_due(slot);
        }
        if entry.line.is_some() && matches!(entry.state, State::Open | State::Associating) && self.turn_over(slot) {
            return;
        }
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let yields = entry.link.as_ref().is_some_and(|link| link.yields);
        match entry.state {
            State::Connecting => {
                let why = format!("no connection within {:?}", self.config.connect_timeout);
                self.connect_failed(slot, &why);
            }
            State::Associating if entry.greeter.is_some() => self.greeter_over(slot),
            State::Associating if !draining && !yields => {
                let why = format!("no association within {:?}", self.config.associate_timeout);
                self.close(slot, &why, false);
            }
            State::Open | State::Associating => {
                if let (Hold::OnDemand { idle }, false) = (entry.route.hold, draining || yields) {
                    if !entry.active.is_empty() || !entry.queue.is_empty() {
                        entry.state_deadline = now + idle;
                        return;
                    }
                }
                (entry.state, entry.state_deadline) = (State::Releasing, now + self.config.release_timeout);
                self.tell(slot, Input::Release);
            }
            State::Releasing => self.close(slot, "released", true),
            State::BackingOff => {
                entry.state = State::Idle;
                self.want_connection(slot);
            }
            State::Waiting => entry.line.into_iter().for_each(|line| self.line_due(line)),
            State::Idle => {}
        }
    }

    /// Read the socket in `slot` again without a further event.
    pub(super) fn defer(&mut self, slot: u32) {
        let Some(link) = self.entries.get_mut(slot).and_then(|entry| entry.link.as_mut()) else { return };
        if !std::mem::replace(&mut link.deferred, true) {
            self.deferred.push(token(slot, link.epoch));
        }
    }

    /// The socket in `slot` has been taken off the list of deferred ones.
    pub(super) fn undefer(&mut self, slot: u32) {
        if let Some(link) = self.entries.get_mut(slot).and_then(|entry| entry.link.as_mut()) {
            link.deferred = false;
        }
    }

    /// One connection of this turn is no more.
    pub(super) fn connection_gone(&mut self) {
        self.stats.connections = self.stats.connections.saturating_sub(1);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Put an inbound connection under the peer in `slot` and start it.
    pub(super) fn start_inbound(&mut self, slot: u32, mut socket: N::Socket, received: Vec<u8>, peer: &str) {
        let token = self.next_token(slot);
        let now = self.now.monotonic;
        let nature = self.network.nature(&socket);
        if self.network.adopt(&mut socket, token).is_err() {
            self.network.close(socket);
            return self.connection_gone();
        }
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let more = !received.is_empty();
        entry.link = Some(Link { received, ..Link::new(socket, token, nature, now, true) });
        self.open(slot, peer);
        if more {
            self.read(slot, true);
        }
    }

    /// Ask a session that has a connection whether its peer lives.
    pub(super) fn probe(&mut self, slot: u32) {
        let Some(step) = self.step(slot, Input::Probe) else { return };
        let close = step.transport == Transport::Close;
        let _ = self.after(slot, step);
        if !close {
            self.settle(slot);
        }
    }
}

impl<S: Session, K> Entry<S, K> {
    /// Whether its connection may give way to a new one that claims the same meter.
    pub(super) fn gives_way(&self, now: ipss_session::Instant, grace: Duration) -> bool {
        match (&self.link, self.state) {
            (None, _) | (_, State::Connecting) => true,
            (Some(link), _) => !self.associated && now.since(link.last_received) >= grace,
        }
    }
}

enum ReadEnd {
    Drained,
    More,
    Gone,
    Broken(String),
    Identified(Vec<u8>),
}

pub(super) fn token(slot: u32, epoch: u32) -> Token {
    debug_assert!(u64::from(slot) < LISTENER);
    Token::from(epoch) << 32 | Token::from(slot)
}

/// Whether the process or the system has no descriptor left (EMFILE 24, ENFILE 23 on all Unixes).
pub(super) fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// Reads of one socket in one turn, so that one meter with much to say does not keep the others waiting.
const READS_A_TURN: usize = 4;
/// Pause after the kernel refused a descriptor.
pub(super) const DESCRIPTOR_PAUSE: Duration = Duration::from_secs(1);
/// An association that stood so long is no failure when it ends, even if nobody asked anything over it.
const LASTING: Duration = Duration::from_secs(60);
