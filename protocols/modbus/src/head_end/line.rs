//! The octets of one connection, and the frames in them.

use std::time::Duration;

use ipss_session::Instant;

use crate::adu::{Direction, ascii, rtu, tcp, udp};
use crate::function::EXCEPTION;
use crate::pdu::Extent;
use crate::profile::{Framing, Profile};

/// What answer is waited for where frames are found by what is in them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Any unit if `None`.
    pub unit: Option<u8>,
    pub function: u8,
    /// Octets of the answer's PDU, if the question tells.
    pub length: Option<usize>,
}

/// A connection's octets that are no frame yet.
#[derive(Debug)]
pub(super) enum Line {
    /// What is not whole stays with whoever drives the session.
    Tcp,
    Udp,
    Rtu(Box<Serial>),
    Ascii(Box<ascii::Receiver>),
}

#[derive(Debug, Default)]
pub(super) struct Serial {
    pub receiver: rtu::Receiver,
    pub last_octet: Instant,
    /// Our own octets that the line is still to repeat.
    echo: Vec<u8>,
    /// How long it may pause before what has begun is over; `None` where pauses mean nothing.
    silence: Option<Duration>,
    /// How long it may pause within a frame.
    pause: Option<Duration>,
}

/// A frame from the line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub transaction: Option<u16>,
    pub unit: u8,
    pub pdu: &'a [u8],
}

impl Line {
    pub fn new(profile: &Profile) -> Self {
        match profile.framing {
            Framing::Tcp => Self::Tcp,
            Framing::Udp => Self::Udp,
            Framing::RtuOverTcp => Self::Rtu(Box::default()),
            Framing::Rtu(timing) => Self::Rtu(Box::new(Serial {
                silence: Some(timing.t3_5() + timing.slack),
                pause: timing.strict.then(|| timing.t1_5()),
                ..Serial::default()
            })),
            Framing::Ascii => Self::Ascii(Box::default()),
        }
    }

    /// Append a frame with what `pdu` appends.
    pub fn write(&mut self, transaction: u16, unit: u8, pdu: &[u8], profile: &Profile, out: &mut Vec<u8>) {
        match self {
            Self::Tcp | Self::Udp => {
                let mark = tcp::begin(out, transaction, unit);
                out.extend_from_slice(pdu);
                tcp::finish(out, mark);
            }
            Self::Rtu(serial) => {
                let mark = rtu::begin(out, unit);
                out.extend_from_slice(pdu);
                rtu::finish(out, mark);
                // What arrived before the question is no answer to it.
                serial.receiver.clear();
                if profile.quirks.echo {
                    serial.echo = out[mark..].to_vec();
                }
            }
            Self::Ascii(receiver) => {
                receiver.clear();
                ascii::encode(unit, pdu, out);
            }
        }
    }

    /// Void what has begun, for a new connection.
    pub fn reset(&mut self) {
        match self {
            Self::Tcp | Self::Udp => {}
            Self::Rtu(serial) => {
                serial.receiver.clear();
                serial.echo.clear();
            }
            Self::Ascii(receiver) => receiver.clear(),
        }
    }

    /// The next frame in what is held and in `octets`, and how many of these are done with. Not for TCP, whose frames
    /// are taken where they are.
    pub fn take<'a>(
        &'a mut self,
        octets: &'a [u8],
        wanted: Option<Wanted>,
        profile: &Profile,
        now: Instant,
    ) -> (Option<Answer<'a>>, usize) {
        let answer = |adu: tcp::Adu<'a>| Answer { transaction: Some(adu.transaction), unit: adu.unit, pdu: adu.pdu };
        match self {
            Self::Tcp => (None, 0),
            Self::Udp => {
                let adu = udp::next(octets, Direction::Response, &profile.quirks);
                (adu.map(answer), adu.map_or(octets.len(), |adu| adu.length))
            }
            Self::Rtu(serial) => {
                let mut taken = serial.hear(octets, now);
                loop {
                    let room = serial.receiver.room().min(octets.len() - taken);
                    serial.receiver.push(&octets[taken..taken + room]);
                    taken += room;
                    if let Some(place) = find(&mut serial.receiver, true, wanted, profile) {
                        return (serial.take(place), taken);
                    }
                    if taken == octets.len() {
                        return (None, taken);
                    }
                    if serial.receiver.room() == 0 {
                        // A full buffer without a frame: nothing in it is held any longer.
                        if let Some(place) = find(&mut serial.receiver, false, wanted, profile) {
                            return (serial.take(place), taken);
                        }
                        serial.receiver.clear();
                    }
                }
            }
            Self::Ascii(receiver) => {
                let end = octets.iter().position(|octet| *octet == b'\n').map_or(octets.len(), |at| at + 1);
                let (last, before) = match octets[..end].split_last() {
                    Some((last, before)) => (*last, before),
                    None => return (None, 0),
                };
                for octet in before {
                    let _ = receiver.push(*octet);
                }
                let found = receiver.push(last);
                let answer = found.map(|(unit, pdu)| Answer { transaction: None, unit, pdu });
                (answer, end)
            }
        }
    }

    /// A frame in what was held back, now that nothing is: the line was silent, or the time for an answer is over.
    pub fn take_held(&mut self, wanted: Option<Wanted>, profile: &Profile) -> Option<Answer<'_>> {
        let Self::Rtu(serial) = self else { return None };
        match find(&mut serial.receiver, false, wanted, profile) {
            Some(place) => serial.take(place),
            None => {
                serial.receiver.clear();
                None
            }
        }
    }

    /// When what has begun is over, if nothing more comes.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Rtu(serial) if !serial.receiver.is_empty() => serial.silence.map(|pause| serial.last_octet + pause),
            _ => None,
        }
    }

    /// Octets that belonged to no frame, and frames that were broken, so far.
    pub fn noise(&self) -> (u64, u64) {
        match self {
            Self::Tcp | Self::Udp => (0, 0),
            Self::Rtu(serial) => (serial.receiver.garbage, serial.receiver.broken),
            Self::Ascii(receiver) => (receiver.garbage, receiver.broken),
        }
    }
}

impl Serial {
    /// Octets arrived: how many of them are the line's echo of our own.
    fn hear(&mut self, octets: &[u8], now: Instant) -> usize {
        if octets.is_empty() {
            return 0;
        }
        let broken = |pause: Duration| !self.receiver.is_empty() && now.since(self.last_octet) > pause;
        if self.pause.is_some_and(broken) {
            self.receiver.clear();
        }
        self.last_octet = now;
        if self.echo.is_empty() {
            return 0;
        }
        let same = self.echo.iter().zip(octets).take_while(|(own, heard)| own == heard).count();
        if same == octets.len().min(self.echo.len()) {
            self.echo.drain(..same);
            return same;
        }
        // It is no echo after all.
        self.echo.clear();
        0
    }

    fn take(&mut self, place: std::ops::Range<usize>) -> Option<Answer<'_>> {
        let (unit, pdu) = self.receiver.take(place)?;
        Some(Answer { transaction: None, unit, pdu })
    }
}

fn find(
    receiver: &mut rtu::Receiver,
    hold: bool,
    wanted: Option<Wanted>,
    profile: &Profile,
) -> Option<std::ops::Range<usize>> {
    let extent = |pdu: &[u8]| match (Direction::Response.extent(pdu, profile.quirks.wide_byte_count), wanted) {
        (Extent::Open, Some(Wanted { function, length: Some(length), .. })) if pdu.first() == Some(&function) => {
            Extent::Known(length)
        }
        (extent, _) => extent,
    };
    let is_wanted = |rest: &[u8]| {
        let Some(wanted) = wanted else { return false };
        let unit = wanted.unit.is_none_or(|unit| rest.first() == Some(&unit));
        let function = rest.get(1).is_none_or(|function| *function & !EXCEPTION == wanted.function);
        let length = match (rest.get(1), wanted.length) {
            (Some(function), Some(length)) if *function == wanted.function => match extent(&rest[1..]) {
                Extent::Known(found) => found == length || profile.quirks.wide_registers,
                Extent::More | Extent::Open => true,
            },
            _ => true,
        };
        unit && function && length
    };
    receiver.next(hold, extent, is_wanted)
}
