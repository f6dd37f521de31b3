//! What carries APDUs between two ends: the only thing that the sessions of both roles know of a transport.
//!
//! ```text
//! let mark = link.begin(out, source, destination);   // append the APDU, protect it where it stands
//! link.finish(out, mark, now)?;                      // now it is framed, or held until the peer may be spoken to
//! loop { match link.next(octets, limits, now, out)? { (taken, Received::Apdu { .. }) => .., .. } }
//! ```
//!
//! A wrapper frame is completed where it stands and found where it arrived, without a copy. Other links hold APDUs:
//! they wait for a data link, go out in segments and come in so; such a link also speaks for itself (`out`) and has a
//! deadline of its own.

pub mod hdlc;
pub mod wrapper;

use std::ops::Range;

use ipss_session::{Instant, Limits, ProtocolError, SerialSettings};

/// How the sessions of one meter are framed. The default is the wrapper over a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkConfig {
    /// What stands around an APDU.
    pub framing: Framing,
}

/// What stands around an APDU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// The wrapper over a stream (TCP): `dlms+tcp://`.
    #[default]
    Wrapper,
    /// The wrapper over datagrams (UDP), one WPDU in each: `dlms+udp://`. The driver offers one datagram at a time.
    Datagram,
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Wrapper,
    Datagram,
}

/// What [`Link::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing whole: wait for more octets.
    Nothing,
    /// An APDU.
    Apdu {
        /// Who sends: a client's service access point or a logical device.
        source: u16,
        /// Who is meant.
        destination: u16,
        /// Where it is.
        apdu: Apdu,
    },
    /// A part of an APDU: the peer is at work, the rest follows.
    Progress,
    /// The peer set the data link up (again): an association that stood is void.
    Opened,
    /// The peer ended the data link, for this reason.
    Closed(&'static str),
    /// Octets that are for nobody here, for this reason; they are passed over.
    Dropped(&'static str),
}

/// An APDU that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Apdu {
    /// It stands in the octets offered, counted from their front.
    Here(Range<usize>),
    /// It was put together.
    Held(Vec<u8>),
}

impl Link {
    /// The end that asks, for the given service access points of head-end and meter.
    pub fn head_end(config: &LinkConfig, _client: u16, _server: u16) -> Self {
        Self::new(config)
    }

    /// The end that answers.
    pub fn meter(config: &LinkConfig) -> Self {
        Self::new(config)
    }

    fn new(config: &LinkConfig) -> Self {
        let kind = match &config.framing {
            Framing::Wrapper => Kind::Wrapper,
            Framing::Datagram => Kind::Datagram,
        };
        Self { kind }
    }

    /// A connection is open: forget an earlier one and begin to set up the data link, if there is one.
    pub fn open(&mut self, _now: Instant, _out: &mut Vec<u8>) {}

    /// The connection is gone.
    pub fn reset(&mut self) {}

    /// Begin an APDU at the end of `out`: append it behind what this appends, then [`Link::finish`].
    #[inline]
    pub fn begin(&self, out: &mut Vec<u8>, source: u16, destination: u16) -> usize {
        wrapper::begin(out, source, destination)
    }

    /// The APDU begun at `mark` is complete.
    ///
    /// # Errors
    /// Local: `length-over-limit` if it does not fit; it is taken out of `out` again.
    #[inline]
    pub fn finish(&mut self, out: &mut Vec<u8>, mark: usize, _now: Instant) -> Result<(), ProtocolError> {
        wrapper::finish(out, mark)
    }

    /// As [`Link::finish`], for an APDU that nobody asked for.
    ///
    /// # Errors
    /// As [`Link::finish`].
    pub fn finish_notification(&mut self, out: &mut Vec<u8>, mark: usize, now: Instant) -> Result<(), ProtocolError> {
        self.finish(out, mark, now)
    }

    /// The next thing in `octets`, and how many of them are done with. Call it again, with what follows, until it
    /// finds [`Received::Nothing`].
    ///
    /// # Errors
    /// Remote: the link's own codes; the connection is of no use any more.
    #[inline]
    pub fn next(
        &mut self,
        octets: &[u8],
        limits: &Limits,
        _now: Instant,
        _out: &mut Vec<u8>,
    ) -> Result<(usize, Received), ProtocolError> {
        match &mut self.kind {
            Kind::Wrapper => Ok(match wrapper::next_wpdu_place(octets, limits)? {
                Some(wrapper::WpduPlace { source, destination, apdu }) => {
                    (apdu.end, Received::Apdu { source, destination, apdu: Apdu::Here(apdu) })
                }
                None => (0, Received::Nothing),
            }),
            Kind::Datagram => Ok(datagram(octets, limits)),
        }
    }

    /// The step is over: answer a peer that waits to be answered and got nothing yet.
    pub fn settle(&mut self, _now: Instant, _out: &mut Vec<u8>) {}

    /// Whether it speaks for itself, holds APDUs or has deadlines: a driver may skip what belongs to that if not.
    #[inline]
    pub fn is_active(&self) -> bool {
        false
    }

    /// Whether [`Link::next`] has more to find without further octets.
    #[inline]
    pub fn has_more(&self) -> bool {
        false
    }

    /// When to [`Link::wake`] it.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Its deadline may have passed: repeat what was lost.
    ///
    /// # Errors
    /// Remote: `no-answer` when all repetitions were in vain.
    pub fn wake(&mut self, _now: Instant, _out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        Ok(())
    }

    /// End the data link in good order. True if there is nothing to wait for; else [`Received::Closed`] follows.
    pub fn close(&mut self, _now: Instant, _out: &mut Vec<u8>) -> bool {
        true
    }

    /// The connection is about to be closed without waiting: say so to the peer, if there is a way.
    pub fn hang_up(&mut self, _out: &mut Vec<u8>) {}

    /// How a serial line is to be driven from now on. Asked once; what was sent before has left the line.
    pub fn take_serial(&mut self) -> Option<SerialSettings> {
        None
    }

    /// Whether octets that are no frame are noise to be passed over, not a fault of the peer.
    #[inline]
    pub fn is_lossy(&self) -> bool {
        matches!(self.kind, Kind::Datagram)
    }
}

/// One WPDU and nothing else in a datagram, or it is passed over.
fn datagram(octets: &[u8], limits: &Limits) -> (usize, Received) {
    if octets.is_empty() {
        return (0, Received::Nothing);
    }
    match wrapper::next_wpdu_place(octets, limits) {
        Ok(Some(wrapper::WpduPlace { source, destination, apdu })) if apdu.end == octets.len() => {
            (octets.len(), Received::Apdu { source, destination, apdu: Apdu::Here(apdu) })
        }
        _ => (octets.len(), Received::Dropped("a datagram that is not one WPDU")),
    }
}
