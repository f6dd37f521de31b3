//! Connections that several meters share: the devices behind a gateway or a concentrator, or on one RS-485 line.
//!
//! Its meters take turns. Whose turn it is has the connection for itself, as if it were its own: the session is told
//! that it opened, is given requests, is asked to release, and is told that it closed; the socket goes on to the next.
//! So a late answer never meets another session's question, and every protocol can share.
//!
//! A silent meter costs its neighbours one wait a turn, and the longer it is silent the rarer its turns get, as its own
//! back-off keeps it out of the line. Each meter has its own bounded queue and stands in the line once.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use ipss_session::{EventKind, Instant, Priority, Session};

use super::admission::backoff;
use super::connection::token;
use super::endpoint::{Endpoint, LineKey};
use super::entry::{Link, NEVER, State};
use super::network::Network;
use super::turn::{CHUNK, Engine, Phase};

/// A connection and who wants it.
pub(super) struct SharedLine<K> {
    key: LineKey,
    members: usize,
    /// Slots that wait for their turn: first those that somebody waits for.
    urgent: VecDeque<u32>,
    ordinary: VecDeque<u32>,
    /// The last turn was an urgent one: if anybody else waits, the next is not.
    was_urgent: bool,
    holder: Option<u32>,
    /// The open connection, between turns.
    parked: Option<K>,
    /// The next turn does not begin before.
    free_at: Instant,
    /// Connection attempts in a row that failed.
    failures: u32,
    /// Turns in a row without an octet from the far end.
    silent: u32,
    /// It is in the list of those to look at.
    due: bool,
}

impl<S: Session, N: Network> Engine<S, N>
where
    S::Work: Clone,
{
    /// Have the new peer in `slot` share its connection, if it is to.
    pub(super) fn join_line(&mut self, slot: u32) {
        let Some(key) = self.entries.get(slot).and_then(|entry| entry.route.line()) else { return };
        let number = match self.line_numbers.get(&key) {
            Some(number) => *number,
            None => {
                let line = SharedLine {
                    key: key.clone(),
                    members: 0,
                    urgent: VecDeque::new(),
                    ordinary: VecDeque::new(),
                    was_urgent: false,
                    holder: None,
                    parked: None,
                    free_at: Instant::ORIGIN,
                    failures: 0,
                    silent: 0,
                    due: false,
                };
                let number = self.lines.insert(line);
                self.line_numbers.insert(key, number);
                number
            }
        };
        if let Some(line) = self.lines.get_mut(number) {
            line.members += 1;
        }
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.line = Some(number);
        }
    }

    /// The peer in `slot` is forgotten; its connection is closed already.
    pub(super) fn quit_line(&mut self, slot: u32) {
        let Some(number) = self.entries.get(slot).and_then(|entry| entry.line) else { return };
        let Some(line) = self.lines.get_mut(number) else { return };
        line.urgent.retain(|waiting| *waiting != slot);
        line.ordinary.retain(|waiting| *waiting != slot);
        if line.holder == Some(slot) {
            line.holder = None;
        }
        line.members -= 1;
        if line.members == 0 {
            let parked = line.parked.take();
            let key = line.key.clone();
            self.line_numbers.remove(&key);
            self.lines.remove(number);
            self.close_parked(parked);
        } else {
            self.line_due(number);
        }
    }

    /// The peer in `slot` has something to ask: it stands in line.
    pub(super) fn stand_in_line(&mut self, slot: u32, number: u32, urgent: bool) {
        let Some(line) = self.lines.get_mut(number) else { return };
        let waiting = if urgent { &mut line.urgent } else { &mut line.ordinary };
        if !waiting.contains(&slot) {
            waiting.push_back(slot);
        }
        if let Some(holder) = line.holder {
            self.consider_turn(holder);
        }
        self.line_due(number);
    }

    /// Look at this line before the turn is over.
    pub(super) fn line_due(&mut self, number: u32) {
        if let Some(line) = self.lines.get_mut(number) {
            if !std::mem::replace(&mut line.due, true) {
                self.lines_due.push(number);
            }
        }
    }

    /// Begin the turns that can begin.
    pub(super) fn serve_lines(&mut self) {
        if self.blocked {
            return;
        }
        for number in std::mem::take(&mut self.lines_due) {
            if let Some(line) = self.lines.get_mut(number) {
                line.due = false;
                self.serve_line(number);
            }
        }
    }

    fn serve_line(&mut self, number: u32) {
        let now = self.now.monotonic;
        if self.phase != Phase::Running {
            return;
        }
        let Self { lines, entries, .. } = self;
        let Some(line) = lines.get_mut(number).filter(|line| line.holder.is_none()) else { return };
        let waits = |slot: &u32| {
            entries.get(*slot).is_some_and(|entry| entry.state == State::Waiting && entry.line == Some(number))
        };
        line.urgent.retain(waits);
        line.ordinary.retain(waits);
        let urgent = !line.urgent.is_empty() && (!line.was_urgent || line.ordinary.is_empty());
        let waiting = if urgent { &mut line.urgent } else { &mut line.ordinary };
        let Some(slot) = waiting.front().copied() else { return };
        if now < line.free_at {
            let free_at = line.free_at;
            if let Some(entry) = entries.get_mut(slot) {
                entry.state_deadline = free_at;
            }
            return self.arm(slot);
        }
        waiting.pop_front();
        line.was_urgent = urgent;
        line.holder = Some(slot);
        let Some(mut socket) = line.parked.take() else { return self.ask_admission(slot, urgent) };
        if self.emptied(&mut socket) {
            self.begin_turn(slot, socket);
        } else {
            self.close_parked(Some(socket));
            self.ask_admission(slot, urgent);
        }
    }

    fn ask_admission(&mut self, slot: u32, urgent: bool) {
        if urgent { &mut self.urgent } else { &mut self.ordinary }.push_back(slot);
    }

    /// Discard what came after the last turn: nobody asked for it. False if the connection is no more.
    fn emptied(&mut self, socket: &mut N::Socket) -> bool {
        for _ in 0..DISCARDS {
            match self.network.read(socket, &mut self.buffer[..CHUNK]) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn begin_turn(&mut self, slot: u32, mut socket: N::Socket) {
        let token = self.next_token(slot);
        let now = self.now.monotonic;
        let settings = match self.entries.get(slot).and_then(|entry| entry.route.address.as_ref()) {
            Some(Endpoint::Serial(serial)) => Some(serial.settings),
            _ => None,
        };
        let ready = settings.map_or(Ok(()), |settings| self.network.configure(&mut socket, settings));
        if let Err(error) = ready.and_then(|()| self.network.adopt(&mut socket, token)) {
            self.close_parked(Some(socket));
            return self.line_failed(slot, &error.to_string());
        }
        let nature = self.network.nature(&socket);
        let Some(entry) = self.entries.get_mut(slot) else { return };
        entry.link = Some(Link { turn: true, ..Link::new(socket, token, nature, now, false) });
        self.open(slot, "");
        self.consider_turn(slot);
    }

    /// The connection of the peer in `slot` could not be opened, so nobody's could: all that wait have spent one try,
    /// and the line rests.
    pub(super) fn line_failed(&mut self, slot: u32, why: &str) {
        let now = self.now;
        let Some(number) = self.entries.get(slot).and_then(|entry| entry.line) else { return };
        let Some(line) = self.lines.get_mut(number) else { return };
        line.holder = None;
        line.failures = line.failures.saturating_add(1);
        let failures = line.failures;
        let pause = backoff(self.config.backoff_base, self.config.backoff_cap, failures, self.network.random());
        line.free_at = now.monotonic + pause;
        let mut all: Vec<u32> = line.urgent.drain(..).chain(line.ordinary.drain(..)).collect();
        all.push(slot);
        if failures == self.config.breaker {
            if let Some(entry) = self.entries.get(slot) {
                let seconds = pause.as_secs_f64().ceil() as i64;
                self.batch.event(entry.meter, now.wall, EventKind::BackedOff, seconds, why);
            }
        }
        for slot in all {
            let Some(entry) = self.entries.get_mut(slot) else { continue };
            (entry.state, entry.state_deadline) = (State::Idle, NEVER);
            self.charge_queue(slot, why);
            self.want_connection(slot);
            self.settle(slot);
        }
    }

    /// Whether the peer in `slot` has the turn on its line, or belongs to none.
    pub(super) fn may_connect(&self, slot: u32) -> bool {
        let Some(entry) = self.entries.get(slot).filter(|entry| entry.state == State::Waiting) else { return false };
        let Some(number) = entry.line else { return true };
        self.lines.get(number).is_some_and(|line| line.holder == Some(slot))
    }

    /// The connection of the peer in `slot` opened.
    pub(super) fn line_opened(&mut self, slot: u32) {
        let Some(number) = self.entries.get(slot).and_then(|entry| entry.line) else { return };
        if let Some(line) = self.lines.get_mut(number) {
            line.failures = 0;
            line.silent = 0;
        }
        self.consider_turn(slot);
    }

    /// Should the peer in `slot` end its turn, as others wait? Does nothing for peers that share with nobody.
    pub(super) fn consider_turn(&mut self, slot: u32) {
        let now = self.now.monotonic;
        let Self { lines, entries, config, .. } = self;
        let Some(entry) = entries.get_mut(slot) else { return };
        let Some(line) = entry.line.and_then(|number| lines.get(number)) else { return };
        if line.holder != Some(slot) || !matches!(entry.state, State::Open | State::Associating) {
            return;
        }
        let Some(link) = &mut entry.link else { return };
        let others = !line.urgent.is_empty() || !line.ordinary.is_empty();
        let next = entry.queue.peek().map(|waiting| waiting.request.priority);
        let outranked = !line.urgent.is_empty() && next.is_some_and(|priority| priority < Priority::OnDemand);
        // A meter that does not answer ends its turn even if it is alone: so its back-off begins.
        let over = link.failed || (others && (next.is_none() || link.served >= TURN || outranked));
        if entry.active.is_empty() && over && (entry.state == State::Open || next.is_none()) {
            link.yields = true;
            entry.state_deadline = now;
        } else if others {
            entry.state_deadline = entry.state_deadline.min(link.last_received + config.turn).max(now);
        }
        self.arm(slot);
    }

    /// The deadline of the state of a peer that shares its connection has passed. True if that was all about it.
    pub(super) fn turn_over(&mut self, slot: u32) -> bool {
        let now = self.now.monotonic;
        let Self { lines, entries, config, .. } = self;
        let Some(entry) = entries.get_mut(slot) else { return true };
        let Some(line) = entry.line.and_then(|number| lines.get(number)) else { return false };
        let Some(link) = entry.link.as_ref().filter(|link| !link.yields) else { return false };
        if line.holder != Some(slot) || (line.urgent.is_empty() && line.ordinary.is_empty()) {
            return false;
        }
        let silent_at = link.last_received + config.turn;
        if entry.state == State::Associating && now >= link.opened + config.associate_timeout {
            return false;
        }
        if now < silent_at {
            entry.state_deadline = silent_at;
        } else {
            let why = format!("silent for {:?} while others wait for the line", config.turn);
            self.close(slot, &why, false);
        }
        true
    }

    /// The turn of the peer in `slot` is over: the connection goes back to the line, or is closed if it is no good.
    /// Returns whether it was kept.
    pub(super) fn end_turn(&mut self, slot: u32, mut socket: N::Socket, link: EndedTurn) -> bool {
        let now = self.now.monotonic;
        let (number, gap) = match self.entries.get(slot) {
            Some(entry) => (entry.line, entry.route.shared.unwrap_or_default().gap),
            None => (None, Duration::ZERO),
        };
        let running = self.phase == Phase::Running;
        let line = number.and_then(|number| self.lines.get_mut(number)).filter(|line| line.holder == Some(slot));
        let Some(line) = line else {
            self.close_parked(Some(socket));
            return false;
        };
        line.holder = None;
        line.free_at = now + gap;
        line.silent = if link.heard { 0 } else { line.silent + 1 };
        // A gateway that is silent for all of them may have lost the connection without a word.
        let serial = matches!(line.key, LineKey::Serial(_));
        let lost = link.broken || (!serial && (link.confused || line.silent >= SILENT_TURNS));
        let keep = running && !lost && self.network.disown(&mut socket).is_ok();
        if keep {
            line.parked = Some(socket);
        } else {
            line.silent = 0;
            self.close_parked(Some(socket));
        }
        if let Some(number) = number {
            self.line_due(number);
        }
        keep
    }

    fn close_parked(&mut self, socket: Option<N::Socket>) {
        if let Some(socket) = socket {
            self.network.close(socket);
            self.connection_gone();
        }
    }

    /// Close what no turn holds.
    pub(super) fn close_all_parked(&mut self) {
        for number in self.lines.slots() {
            let parked = self.lines.get_mut(number).and_then(|line| line.parked.take());
            self.close_parked(parked);
        }
    }

    /// Give the serial line of the peer in `slot` other settings.
    pub(super) fn configure(&mut self, slot: u32, settings: ipss_session::SerialSettings) {
        // What was said before leaves at the old speed.
        self.flush(slot);
        let Some(link) = self.entries.get_mut(slot).and_then(|entry| entry.link.as_mut()) else { return };
        if let Err(error) = self.network.configure(&mut link.socket, settings) {
            link.broken = true;
            let why = error.to_string();
            self.close(slot, &why, false);
        }
    }

    /// A token for a new connection of the peer in `slot`.
    pub(super) fn next_token(&mut self, slot: u32) -> super::network::Token {
        self.epoch = self.epoch.wrapping_add(1);
        token(slot, self.epoch)
    }
}

/// What a turn says about its connection when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndedTurn {
    /// The transport failed.
    pub broken: bool,
    /// The far end broke its protocol: where its next frame begins is not known.
    pub confused: bool,
    /// Something came.
    pub heard: bool,
}

/// Requests that a meter may have served in one turn while others wait.
const TURN: u16 = 16;
/// Turns without an octet after which a connection is opened afresh.
const SILENT_TURNS: u32 = 3;
/// Reads of what nobody asked for before a turn.
const DISCARDS: usize = 4;
