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

pub mod gateway;
pub mod hdlc;
pub mod llc;
pub mod mbus;
pub mod optical;
pub mod wrapper;

use std::ops::Range;

pub use gateway::GatewayAddress;
pub use hdlc::HdlcConfig;
pub use optical::ModeE;

use ipss_session::{Instant, Limits, ProtocolError, SerialSettings};

/// How the sessions of one meter are framed. The default is the wrapper over a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkConfig {
    /// What stands around an APDU.
    pub framing: Framing,
    /// The gateway in front of the meter, if it is spoken to through one.
    pub gateway: Option<GatewayAddress>,
}

/// What stands around an APDU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// The wrapper over a stream (TCP): `dlms+tcp://`.
    #[default]
    Wrapper,
    /// The wrapper over datagrams (UDP), one WPDU in each: `dlms+udp://`. The driver offers one datagram at a time.
    Datagram,
    /// HDLC: `dlms+hdlc+tcp://`, `dlms+hdlc+serial://`; with an opening `dlms+optical://`.
    Hdlc(HdlcConfig),
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    kind: Kind,
    gateway: Option<Box<gateway::Gateway>>,
}

#[derive(Debug)]
enum Kind {
    Wrapper,
    Datagram,
    // Boxed: most meters have none.
    Hdlc(Box<hdlc::Endpoint>),
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
    pub fn head_end(config: &LinkConfig, client: u16, server: u16) -> Self {
        let kind = match &config.framing {
            Framing::Wrapper => Kind::Wrapper,
            Framing::Datagram => Kind::Datagram,
            Framing::Hdlc(hdlc) => Kind::Hdlc(Box::new(hdlc::Endpoint::head_end(hdlc, client, server))),
        };
        Self { kind, gateway: config.gateway.clone().map(|address| Box::new(gateway::Gateway::head_end(address))) }
    }

    /// The end that answers.
    pub fn meter(config: &LinkConfig) -> Self {
        let kind = match &config.framing {
            Framing::Wrapper => Kind::Wrapper,
            Framing::Datagram => Kind::Datagram,
            Framing::Hdlc(hdlc) => Kind::Hdlc(Box::new(hdlc::Endpoint::meter(hdlc))),
        };
        Self { kind, gateway: config.gateway.clone().map(|address| Box::new(gateway::Gateway::meter(address))) }
    }

    /// A connection is open: forget an earlier one and begin to set up the data link, if there is one.
    pub fn open(&mut self, now: Instant, out: &mut Vec<u8>) {
        if let Kind::Hdlc(endpoint) = &mut self.kind {
            endpoint.open(now, out);
        }
    }

    /// The connection is gone.
    pub fn reset(&mut self) {
        if let Kind::Hdlc(endpoint) = &mut self.kind {
            endpoint.reset();
        }
    }

    /// Begin an APDU at the end of `out`: append it behind what this appends, then [`Link::finish`].
    #[inline]
    pub fn begin(&self, out: &mut Vec<u8>, source: u16, destination: u16) -> usize {
        let mark = match &self.kind {
            Kind::Wrapper | Kind::Datagram => wrapper::begin(out, source, destination),
            Kind::Hdlc(_) => out.len(),
        };
        if let Some(gateway) = &self.gateway {
            gateway.begin(out);
        }
        mark
    }

    /// The APDU begun at `mark` is complete.
    ///
    /// # Errors
    /// Local: `length-over-limit` if it does not fit, `queue-full`; it is taken out of `out` again.
    #[inline]
    pub fn finish(&mut self, out: &mut Vec<u8>, mark: usize, now: Instant) -> Result<(), ProtocolError> {
        match &mut self.kind {
            Kind::Wrapper | Kind::Datagram => wrapper::finish(out, mark),
            Kind::Hdlc(endpoint) => endpoint.submit(out, mark, now),
        }
    }

    /// As [`Link::finish`], for an APDU that nobody asked for.
    ///
    /// # Errors
    /// As [`Link::finish`].
    pub fn finish_notification(
        &mut self,
        out: &mut Vec<u8>,
        mark: usize,
        source: u16,
        destination: u16,
    ) -> Result<(), ProtocolError> {
        match &mut self.kind {
            Kind::Wrapper | Kind::Datagram => wrapper::finish(out, mark),
            Kind::Hdlc(endpoint) => {
                endpoint.push(out, mark, source, destination);
                Ok(())
            }
        }
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
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Received), ProtocolError> {
        let (taken, mut received) = match &mut self.kind {
            Kind::Wrapper => match wrapper::next_wpdu_place(octets, limits)? {
                Some(wrapper::WpduPlace { source, destination, apdu }) => {
                    (apdu.end, Received::Apdu { source, destination, apdu: Apdu::Here(apdu) })
                }
                None => (0, Received::Nothing),
            },
            Kind::Datagram => datagram(octets, limits),
            Kind::Hdlc(endpoint) => endpoint.next(octets, limits, now, out)?,
        };
        if let Some(gateway) = &mut self.gateway {
            received = gateway.strip(octets, received);
        }
        Ok((taken, received))
    }

    /// The step is over: answer a peer that waits to be answered and got nothing yet.
    pub fn settle(&mut self, now: Instant, out: &mut Vec<u8>) {
        if let Kind::Hdlc(endpoint) = &mut self.kind {
            endpoint.settle(now, out);
        }
    }

    /// Whether it speaks for itself, holds APDUs or has deadlines: a driver may skip what belongs to that if not.
    #[inline]
    pub fn is_active(&self) -> bool {
        matches!(self.kind, Kind::Hdlc(_))
    }

    /// Whether [`Link::next`] has more to find without further octets.
    #[inline]
    pub fn has_more(&self) -> bool {
        matches!(&self.kind, Kind::Hdlc(endpoint) if endpoint.has_more())
    }

    /// When to [`Link::wake`] it.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        if let Kind::Hdlc(endpoint) = &self.kind { endpoint.deadline() } else { None }
    }

    /// Its deadline may have passed: repeat what was lost.
    ///
    /// # Errors
    /// Remote: `no-answer` when all repetitions were in vain, `length-over-limit`.
    pub fn wake(&mut self, limits: &Limits, now: Instant, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        if let Kind::Hdlc(endpoint) = &mut self.kind { endpoint.wake(limits, now, out) } else { Ok(()) }
    }

    /// End the data link in good order. True if there is nothing to wait for; else [`Received::Closed`] follows.
    pub fn close(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if let Kind::Hdlc(endpoint) = &mut self.kind { endpoint.close(now, out) } else { true }
    }

    /// The connection is about to be closed without waiting: say so to the peer, if there is a way.
    pub fn hang_up(&mut self, out: &mut Vec<u8>) {
        if let Kind::Hdlc(endpoint) = &mut self.kind {
            endpoint.hang_up(out);
        }
    }

    /// How a serial line is to be driven from now on. Asked once; what was sent before has left the line.
    pub fn take_serial(&mut self) -> Option<SerialSettings> {
        if let Kind::Hdlc(endpoint) = &mut self.kind { endpoint.take_serial() } else { None }
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
