//! How one device, or one gateway with the devices behind it, is to be treated.

use std::time::Duration;

use ipss_session::Limits;

use crate::quirks::Quirks;

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// MBAP over a stream: TCP, or TLS (Modbus/TCP Security).
    Tcp,
    /// MBAP over UDP; each [`ipss_session::Input::Bytes`] is a datagram.
    Udp,
    /// RTU on a serial line.
    Rtu(SerialTiming),
    /// RTU frames over a stream, through a converter (row 60): no pause tells where a frame ends.
    RtuOverTcp,
    /// ASCII, on a serial line or over a stream.
    Ascii,
}

impl Framing {
    /// Whether each answer names its request.
    pub fn has_transaction_ids(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// Pauses on a serial line (MODBUS over Serial Line V1.02, clause 2.5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialTiming {
    /// Bits a second.
    pub baud: u32,
    /// How late octets may reach us beyond what the line itself needs: 16 ms for common USB adapters.
    pub slack: Duration,
    /// End a frame at a pause of 1.5 characters within it, as the specification demands. Only where the driver tells
    /// when octets really came.
    pub strict: bool,
}

impl SerialTiming {
    /// A line of this speed behind a common adapter.
    pub fn new(baud: u32) -> Self {
        Self { baud: baud.max(1), slack: Duration::from_millis(20), strict: false }
    }

    /// The time that so many characters take: a start bit, eight of data, parity, a stop bit.
    pub fn characters(&self, count: usize) -> Duration {
        Duration::from_nanos(count as u64 * 11_000_000_000 / u64::from(self.baud.max(1)))
    }

    /// The longest pause within a frame.
    pub fn t1_5(&self) -> Duration {
        if self.baud > 19_200 { Duration::from_micros(750) } else { self.characters(3) / 2 }
    }

    /// The shortest pause between frames.
    pub fn t3_5(&self) -> Duration {
        if self.baud > 19_200 { Duration::from_micros(1_750) } else { self.characters(7) / 2 }
    }
}

/// See the fields; [`Profile::tcp`] and its like are where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How frames travel.
    pub framing: Framing,
    /// What is wrong with it.
    pub quirks: Quirks,
    /// Questions on the wire at once. More than one only where answers name their request.
    pub in_flight: u8,
    /// Of these, how many to one unit.
    pub in_flight_per_unit: u8,
    /// Requests that the session holds at once, so that the units behind a gateway do not wait for each other. A session
    /// of one unit needs no more than it may have on the wire ([`Profile::concurrent`]).
    pub requests: u8,
    /// Least time from an answer (or a question that has none) to the next question on this line (row 65).
    pub gap: Duration,
    /// Least time from one question to the next for the same unit.
    pub interval: Duration,
    /// Wait for an answer; on a serial line, beside the time that the octets need.
    pub answer: Duration,
    /// How long after that an answer may still come. Where answers do not name their request, a unit is not asked
    /// again before then, so that a late answer finds no question that it could be taken for.
    pub late: Duration,
    /// Wait after a broadcast, for the units to do it.
    pub turnaround: Duration,
    /// How often a read without an answer is asked again. A write never is.
    pub retries: u8,
    /// Wait after a unit said that it is busy (exceptions 05, 06 to a read, and 0B from a unit that has answered).
    pub busy: Duration,
    /// How often.
    pub busy_retries: u8,
    /// Registers of one read, if the device takes fewer than 125.
    pub max_registers: u16,
    /// Coils or inputs of one read, if the device takes fewer than 2,000.
    pub max_bits: u16,
    /// Registers that nobody wants but that may be read along to save a question.
    pub max_gap: u16,
    /// Other sessions ask other units over the same connection: it is not given up for one that is silent.
    pub shared: bool,
    /// Questions in a row without an answer after which a unit rests, if others share the line; without any octet
    /// from the line, after which the connection is given up.
    pub failures: u8,
    /// The first rest of a silent unit; each further one is twice as long, with jitter.
    pub rest: Duration,
    /// The longest rest.
    pub longest_rest: Duration,
    /// What a peer may make us hold. Modbus needs little of it: [`Limits::frame`], [`Limits::answer`] are not used.
    pub limits: Limits,
}

impl Profile {
    /// A device, or a gateway, over TCP.
    pub fn tcp() -> Self {
        Self {
            framing: Framing::Tcp,
            quirks: Quirks::default(),
            in_flight: 1,
            in_flight_per_unit: 1,
            requests: 8,
            gap: Duration::ZERO,
            interval: Duration::ZERO,
            answer: Duration::from_secs(3),
            late: Duration::from_secs(3),
            turnaround: Duration::from_millis(200),
            retries: 1,
            busy: Duration::from_millis(500),
            busy_retries: 3,
            max_registers: 125,
            max_bits: 2000,
            max_gap: 8,
            shared: false,
            failures: 3,
            rest: Duration::from_secs(60),
            longest_rest: Duration::from_secs(6 * 3_600),
            limits: Limits::default(),
        }
    }

    /// The same over UDP.
    pub fn udp() -> Self {
        Self { framing: Framing::Udp, retries: 2, ..Self::tcp() }
    }

    /// RTU behind a converter to TCP.
    pub fn rtu_over_tcp() -> Self {
        Self { framing: Framing::RtuOverTcp, ..Self::tcp() }
    }

    /// RTU on a serial line.
    pub fn rtu(baud: u32) -> Self {
        let timing = SerialTiming::new(baud);
        let answer = Duration::from_secs(1);
        Self { framing: Framing::Rtu(timing), gap: timing.t3_5(), answer, late: answer, ..Self::tcp() }
    }

    /// ASCII on a serial line or over a stream.
    pub fn ascii() -> Self {
        Self { framing: Framing::Ascii, ..Self::tcp() }
    }

    /// Up to so many requests to one unit are on the wire at once, where answers name theirs; else one.
    #[must_use]
    pub fn concurrent(self, in_flight: u8) -> Self {
        let in_flight = in_flight.max(1);
        let requests = if self.is_tagged() { in_flight } else { 1 };
        Self { in_flight, in_flight_per_unit: in_flight, requests, ..self }
    }

    /// Whether answers can be told apart by their transaction ids.
    pub fn is_tagged(&self) -> bool {
        self.framing.has_transaction_ids() && !self.quirks.transaction_id_not_echoed
    }

    /// Questions that may be on the wire at once.
    pub fn in_flight(&self) -> usize {
        if self.is_tagged() { usize::from(self.in_flight.max(1)) } else { 1 }
    }

    /// Whether unit 0 means all units, which do not answer.
    pub fn unit_zero_broadcasts(&self) -> bool {
        !self.framing.has_transaction_ids() || self.quirks.unit_zero_broadcasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_those_of_the_specification() {
        let slow = SerialTiming::new(9_600);
        assert_eq!(slow.t3_5().as_micros(), 4_010);
        assert_eq!(slow.t1_5().as_micros(), 1_718);
        let fast = SerialTiming::new(115_200);
        assert_eq!((fast.t1_5().as_micros(), fast.t3_5().as_micros()), (750, 1_750));
    }

    #[test]
    fn one_question_at_a_time_where_answers_do_not_name_theirs() {
        assert_eq!(Profile { in_flight: 8, ..Profile::tcp() }.in_flight(), 8);
        assert_eq!(Profile { in_flight: 8, ..Profile::rtu_over_tcp() }.in_flight(), 1);
        let quirks = Quirks { transaction_id_not_echoed: true, ..Quirks::default() };
        assert_eq!(Profile { in_flight: 8, quirks, ..Profile::tcp() }.in_flight(), 1);
        assert_eq!(Profile::tcp().concurrent(8).requests, 8);
        assert_eq!(Profile { quirks, ..Profile::tcp() }.concurrent(8).requests, 1);
    }
}
