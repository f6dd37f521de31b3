//! Rows for the other side of the border, in columns: what sessions say, many meters at a time.
//!
//! A *line* is what a meter captured at one moment: one value for a register, one value a channel for a load
//! profile. Its layout (which object, attribute, scaler and unit stands in which place) is known to whoever asked,
//! under the layout's number, and is not repeated here. Values are exact integers; what is no integer travels as
//! its own A-XDR octets.

use crate::error::Outcome;
use crate::time::WallTime;
use crate::{MeterId, RequestId};

/// One value of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// The meter gave no value.
    Null,
    /// An exact integer, to be scaled by its column's scaler.
    Integer(i64),
    /// Anything else: the value as the protocol encoded it (A-XDR for DLMS, registers for Modbus).
    Raw(&'a [u8]),
}

/// What stands at the head of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose value it is.
    pub meter: MeterId,
    /// The request that asked for it, 0 if the meter sent it by itself.
    pub request: RequestId,
    /// Which item of the request it answers, from 0.
    pub item: u16,
    /// What stands in which place, by the number that the asker gave it; 0 if unknown.
    pub layout: u32,
    /// When the meter captured it, in UTC; [`WallTime::UNKNOWN`] if it did not say.
    pub capture_time: WallTime,
    /// The meter's deviation in minutes as it sent it (local + deviation = UTC), [`Line::NO_DEVIATION`] if unspecified.
    pub deviation: i16,
    /// The meter's clock status octet; 0xFF if unspecified.
    pub clock_status: u8,
}

impl Line {
    /// The deviation of a meter that does not specify one (Blue Book: 0x8000).
    pub const NO_DEVIATION: i16 = i16::MIN;
}

/// What a value in [`Batch::kinds`] is.
pub mod kind {
    /// No value.
    pub const NULL: u8 = 0;
    /// [`super::Batch::integers`] holds it.
    pub const INTEGER: u8 = 1;
    /// The next entry of [`super::Batch::raw_ends`] holds it.
    pub const RAW: u8 = 2;
}

/// Things worth knowing that are no readings. The numbers are part of the batch's shape and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum EventKind {
    /// A connection opened. Number: 0 outbound, 1 inbound.
    Connected = 1,
    /// The association stands; the meter has proved who it is if its profile asks for it.
    Associated = 2,
    /// The connection ended. Detail: why.
    Disconnected = 3,
    /// The meter refused the association. Number: the diagnostic. Detail: its name.
    AssociationRejected = 4,
    /// The meter's proof was wrong, or it refused ours.
    AuthenticationFailed = 5,
    /// An authentication tag did not verify; nothing of the APDU was used.
    TagInvalid = 6,
    /// A frame's invocation counter was not above the high-water mark. Number: the counter.
    ReplayRefused = 7,
    /// Security weaker than, or different from, the meter's pinned profile. Detail: what was found and expected.
    WeakerSecurity = 8,
    /// Another system title than the provisioned one, or our own. Detail: both.
    SystemTitleMismatch = 9,
    /// The peer broke the protocol. Detail: layer, code and message.
    ProtocolViolation = 10,
    /// An answer that nobody waits for (late, duplicate, or for another request) was dropped.
    UnexpectedAnswer = 11,
    /// The reserved invocation counters run low. Number: how many are left.
    CountersLow = 12,
    /// No reserved invocation counter is left; nothing more is sealed until a block is granted.
    CountersExhausted = 13,
    /// The meter says that our invocation counter is behind. Number: the value it expects (a hint, not proof).
    CounterBehind = 14,
    /// The meter's invocation counter jumped far ahead. Number: the counter.
    CounterJump = 15,
    /// The meter sent a notification. Its content follows as lines with request 0.
    Notified = 16,
    /// An inbound connection claimed a meter that it may not take over, or that nobody knows. Detail: the claim.
    ClaimRefused = 17,
    /// Too many failures in a row: the meter is left alone for a while. Number: seconds.
    BackedOff = 18,
    /// The meter role saw a request. Only virtual meters with their log switched on say so.
    Served = 19,
    /// The meter released the association or closed in good order.
    Released = 20,
    /// The meter role opened a protected APDU. Number: its invocation counter. Only with the nonce log switched on.
    NonceSeen = 21,
    /// Octets as they passed, for who asked to see them. Number: 0 received, 1 sent. Detail: hexadecimal digits.
    Traced = 22,
    /// An inbound connection brought a push that no session could have: its meter is not known, or has a connection
    /// already. Detail: the peer's address, a space, and all octets that came in hexadecimal digits.
    PushUnclaimed = 23,
    /// A push that the owner handed to a session. Number: what the owner calls it. Detail: nothing if it was taken (its
    /// lines are in the same batch), else why not.
    PushHeard = 24,
    /// Two connections from different addresses proved that they are the same meter, and both were alive: one of them
    /// is a copy. The first one stays. Detail: the claim, and both addresses.
    CloneDetected = 25,
}

/// Rows of one or many steps, in the order in which things happened within each kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Heads of the lines.
    pub lines: Vec<Line>,
    /// For each line, the end of its values in `kinds` and `integers`; the start is the previous line's end.
    pub line_ends: Vec<u32>,
    /// For each value, what it is ([`kind`]).
    pub kinds: Vec<u8>,
    /// For each value, the integer; 0 where `kinds` says that there is none.
    pub integers: Vec<i64>,
    /// For each raw value, in order, the end of its octets in `raw`.
    pub raw_ends: Vec<u32>,
    /// The octets of the raw values.
    pub raw: Vec<u8>,

    /// What happened, beside readings.
    pub events: Vec<Event>,
    /// The meters' own *no* to single items.
    pub refusals: Vec<Refusal>,
    /// Requests that are over.
    pub ends: Vec<End>,
    /// The highest invocation counter believed, a row each time that it rose under a key that outlives the
    /// association. Must be made durable together with the lines of the same batch.
    pub peer_counters: Vec<(MeterId, u32)>,
}

/// See [`EventKind`] for what `number` and `detail` mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who it is about.
    pub meter: MeterId,
    /// When it was noticed.
    pub at: WallTime,
    /// What happened.
    pub kind: EventKind,
    /// A number that belongs to it, or 0.
    pub number: i64,
    /// Words that belong to it, or nothing. Never a secret.
    pub detail: String,
}

/// The meter answered one item by its own *no*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who refused.
    pub meter: MeterId,
    /// The request.
    pub request: RequestId,
    /// Which of its items, from 0.
    pub item: u16,
    /// The protocol's own number: a data-access-result, an action-result, a Modbus exception code.
    pub code: u8,
}

/// A request is over. Reported once for each request that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The request.
    pub request: RequestId,
    /// Its meter.
    pub meter: MeterId,
    /// How it ended.
    pub outcome: Outcome,
    /// Questions asked and answered over the line for it, all tries together.
    pub exchanges: u32,
    /// From acceptance to end, in microseconds.
    pub duration_us: u64,
    /// Why, where the outcome alone does not say. Never a secret.
    pub detail: String,
}

impl Batch {
    /// Append one line.
    pub fn push_line<'a>(&mut self, line: Line, cells: impl IntoIterator<Item = Cell<'a>>) {
        for cell in cells {
            self.push_cell(cell);
        }
        self.close_line(line);
    }

    /// Append one value of the line that the next [`Batch::close_line`] ends.
    #[inline]
    pub fn push_cell(&mut self, cell: Cell<'_>) {
        let (kind, integer) = match cell {
            Cell::Null => (kind::NULL, 0),
            Cell::Integer(integer) => (kind::INTEGER, integer),
            Cell::Raw(octets) => {
                self.raw.extend_from_slice(octets);
                self.raw_ends.push(self.raw.len() as u32);
                (kind::RAW, 0)
            }
        };
        self.kinds.push(kind);
        self.integers.push(integer);
    }

    /// End the line whose values were appended since the last one.
    #[inline]
    pub fn close_line(&mut self, line: Line) {
        self.lines.push(line);
        self.line_ends.push(self.kinds.len() as u32);
    }

    /// Take back the values and lines appended since [`Batch::mark`], for a message that turned out to be broken.
    pub fn rewind(&mut self, mark: Mark) {
        self.lines.truncate(mark.lines);
        self.line_ends.truncate(mark.lines);
        self.kinds.truncate(mark.values);
        self.integers.truncate(mark.values);
        self.raw_ends.truncate(mark.raws);
        self.raw.truncate(mark.raw);
    }

    /// A place to [`Batch::rewind`] to.
    pub fn mark(&self) -> Mark {
        Mark { lines: self.lines.len(), values: self.kinds.len(), raws: self.raw_ends.len(), raw: self.raw.len() }
    }

    /// Append one event.
    pub fn event(&mut self, meter: MeterId, at: WallTime, kind: EventKind, number: i64, detail: impl Into<String>) {
        self.events.push(Event { meter, at, kind, number, detail: detail.into() });
    }

    /// Note that `counter` is now the highest counter believed of this meter's lasting key.
    #[inline]
    pub fn peer_counter(&mut self, meter: MeterId, counter: u32) {
        match self.peer_counters.last_mut() {
            Some(last) if last.0 == meter => last.1 = counter,
            _ => self.peer_counters.push((meter, counter)),
        }
    }

    /// Rows of all kinds: what the bound on a batch counts.
    pub fn rows(&self) -> usize {
        self.lines.len() + self.events.len() + self.refusals.len() + self.ends.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0 && self.peer_counters.is_empty()
    }

    /// The values of line `index`, for tests and for those who take one line at a time. Costs a walk over the raw
    /// values before it.
    pub fn cells(&self, index: usize) -> Vec<Cell<'_>> {
        let start = if index == 0 { 0 } else { self.line_ends[index - 1] as usize };
        let end = self.line_ends[index] as usize;
        let mut raw = self.kinds[..start].iter().filter(|kind| **kind == kind::RAW).count();
        (start..end)
            .map(|value| match self.kinds[value] {
                kind::INTEGER => Cell::Integer(self.integers[value]),
                kind::RAW => {
                    let from = if raw == 0 { 0 } else { self.raw_ends[raw - 1] as usize };
                    let to = self.raw_ends[raw] as usize;
                    raw += 1;
                    Cell::Raw(&self.raw[from..to])
                }
                _ => Cell::Null,
            })
            .collect()
    }
}

/// A place in a batch, see [`Batch::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    lines: usize,
    values: usize,
    raws: usize,
    raw: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(meter: MeterId) -> Line {
        Line {
            meter,
            request: 7,
            item: 0,
            layout: 1,
            capture_time: WallTime(0),
            deviation: Line::NO_DEVIATION,
            clock_status: 0,
        }
    }

    #[test]
    fn lines_keep_their_own_values() {
        let mut batch = Batch::default();

        batch.push_line(line(1), [Cell::Integer(-5), Cell::Raw(b"ab"), Cell::Null]);
        batch.push_line(line(2), [Cell::Raw(b"cde"), Cell::Integer(i64::MAX)]);

        assert_eq!(batch.cells(0), [Cell::Integer(-5), Cell::Raw(b"ab"), Cell::Null]);
        assert_eq!(batch.cells(1), [Cell::Raw(b"cde"), Cell::Integer(i64::MAX)]);
    }

    #[test]
    fn rewind_leaves_nothing_of_a_broken_message() {
        let mut batch = Batch::default();
        batch.push_line(line(1), [Cell::Raw(b"ab")]);
        let before = batch.clone();

        let mark = batch.mark();
        batch.push_line(line(1), [Cell::Raw(b"xy"), Cell::Integer(3)]);
        batch.push_cell(Cell::Null);
        batch.rewind(mark);

        assert_eq!(batch, before);
    }

    #[test]
    fn peer_counter_keeps_the_last_of_a_run() {
        let mut batch = Batch::default();

        batch.peer_counter(1, 5);
        batch.peer_counter(1, 6);
        batch.peer_counter(2, 1);

        assert_eq!(batch.peer_counters, [(1, 6), (2, 1)]);
    }
}
