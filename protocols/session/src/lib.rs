//! The contract between a meter protocol and the engine that drives it.
//!
//! A protocol is a [`Session`]: bytes, time and requests go in; bytes, rows and one deadline come out. It owns no
//! socket, no clock, no thread and no source of randomness, so the same code runs in the reactor, under the
//! simulated world and in a unit test. The loop that drives it is short:
//!
//! ```text
//! loop {
//!     wait until bytes arrive, a request comes down, or the session's deadline passes;
//!     let step = session.step(input, &mut cx);   // cx: now, randomness, to_send, batch
//!     drop step.consumed bytes from the front of the receive buffer;
//!     write cx.to_send to the transport;
//!     if step.transport == Transport::Close, close it and step Input::Closed;
//!     keep step.deadline; hand step.finished back to whoever asked;
//! }
//! ```
//!
//! Both roles implement it: a head-end's session asks, a virtual meter's session answers.

#![forbid(unsafe_code)]

pub mod batch;
pub mod error;
pub mod explain;
pub mod json;
pub mod limits;
pub mod rig;
pub mod time;

use std::time::Duration;

pub use batch::{Batch, Cell, EventKind, Line};
pub use error::{Fault, Outcome, ProtocolError};
pub use limits::Limits;
pub use time::{CivilDateTime, Instant, Now, WallTime};

/// A meter, by the handle that the owner of the reactor gave it. Never reused while the reactor lives.
pub type MeterId = u32;

/// A request, by the number that the reactor gave it. Never reused while the reactor lives.
pub type RequestId = u64;

/// A source of random bytes: the operating system's generator in production, a seeded one in tests.
pub trait Random {
    /// Fill `bytes` with random octets.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// Everything that a step may use and fill, lent by whoever drives the session.
pub struct Context<'a> {
    /// The moment at which the input is handled.
    pub now: Now,
    /// The source of challenges, dedicated keys and jitter.
    pub random: &'a mut dyn Random,
    /// Octets for the peer are appended here; the driver sends them in order, all or (if the line breaks) a prefix.
    pub to_send: &'a mut Vec<u8>,
    /// Readings, events and ends of requests are appended here.
    pub batch: &'a mut Batch,
}

/// Order of service when several requests wait for one meter, and of shedding under overload.
///
/// Declared from least to most urgent, so that `Ord` says which goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// Filling old gaps.
    Backfill = 0,
    /// The read plan's regular work.
    Scheduled = 1,
    /// Somebody waits for the answer.
    OnDemand = 2,
    /// Switching supply and what belongs to it.
    Critical = 3,
}

impl Priority {
    /// The priority for its number 0 to 3 (backfill, scheduled, on-demand, critical).
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Backfill, Self::Scheduled, Self::OnDemand, Self::Critical].get(usize::from(number)).copied()
    }
}

/// One piece of work for one meter.
#[derive(Clone, Debug)]
pub struct Request<W> {
    /// The number under which its rows and its end are reported.
    pub id: RequestId,
    /// The moment after which nobody wants the answer any more. Absolute: retries do not extend it.
    pub deadline: Instant,
    /// Its place among the requests that wait for the same meter.
    pub priority: Priority,
    /// How many more times it may be tried after a broken line. Work that is not repeatable is never retried once
    /// a byte of it may have reached the meter, whatever this says.
    pub attempts_left: u8,
    /// Questions asked and answered over the line for it, all tries together. Whoever serves it counts on.
    pub exchanges: u32,
    /// What to do, in the protocol's own terms.
    pub work: W,
}

/// What happens to a session. `W` is its [`Session::Work`], `C` its [`Session::Control`].
#[derive(Debug)]
pub enum Input<'a, W, C> {
    /// A fresh connection to the peer is open. State of an earlier connection is void.
    Opened,
    /// All octets received and not yet consumed, oldest first. The session may change them in place (deciphering).
    /// What it leaves unconsumed is offered again, in front of what arrives next.
    Bytes(&'a mut [u8]),
    /// The deadline that the last step asked for has passed.
    Deadline,
    /// A request to serve. Only offered when [`Session::ready`] said so.
    Request(Request<W>),
    /// Nobody wants this request any more; if the session holds it, it hands it back as [`Outcome::Cancelled`].
    Cancel(RequestId),
    /// A word from the owner that is no request and has no end: invocation counters granted, keys replaced.
    /// May come at any time, connected or not.
    Control(C),
    /// Somebody else claims to be this peer. Ask it for a sign of life now, and ask for [`Transport::Close`] if none
    /// comes within [`Limits::answer`]. A session that is waiting for an answer anyway has nothing to add.
    Probe,
    /// End the association in good order, then ask for [`Transport::Close`].
    Release,
    /// The connection is gone, whoever closed it. Nothing can be sent.
    Closed,
}

/// What a session wants done with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Leave it as it is.
    Keep,
    /// Send what is in `to_send`, then close. The driver answers with [`Input::Closed`].
    Close,
    /// Set the serial line so, at once; other transports do nothing. A session that has just sent something asks when
    /// it has left the line: a character takes [`SerialSettings::bits`] of them, one each 1/baud seconds.
    Serial(SerialSettings),
}

/// How a serial line is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SerialSettings {
    /// Bits a second.
    pub baud: u32,
    /// Data bits of a character, 5 to 8.
    pub data_bits: u8,
    /// What the parity bit says.
    pub parity: Parity,
    /// Stop bits, 1 or 2.
    pub stop_bits: u8,
}

impl SerialSettings {
    /// Eight data bits, no parity, one stop bit.
    pub const fn new(baud: u32) -> Self {
        Self { baud, data_bits: 8, parity: Parity::None, stop_bits: 1 }
    }

    /// Seven data bits, even parity, one stop bit: how IEC 62056-21 opens, at 300 baud.
    pub const fn seven_even(baud: u32) -> Self {
        Self { baud, data_bits: 7, parity: Parity::Even, stop_bits: 1 }
    }

    /// Bits of a character on the line, start bit included.
    pub const fn bits(&self) -> u32 {
        1 + self.data_bits as u32 + (self.parity as u32 > 0) as u32 + self.stop_bits as u32
    }

    /// How long `count` characters take on the line.
    pub fn time(&self, count: usize) -> Duration {
        let bits = u64::from(self.bits()).saturating_mul(count as u64);
        Duration::from_nanos(bits.saturating_mul(1_000_000_000) / u64::from(self.baud.max(1)))
    }
}

/// The parity bit of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Parity {
    /// There is none.
    None = 0,
    /// The number of ones is even with it.
    Even = 1,
    /// The number of ones is odd with it.
    Odd = 2,
}

/// The result of one step.
#[derive(Debug)]
#[must_use]
pub struct Step<W> {
    /// How many octets of [`Input::Bytes`] are done with, from the front.
    pub consumed: usize,
    /// When to step with [`Input::Deadline`] if nothing happens before. Replaces the deadline of earlier steps.
    pub deadline: Option<Instant>,
    /// What to do with the connection.
    pub transport: Transport,
    /// The request that this step finished, given back, and how it ended.
    ///
    /// The driver decides on a retry from the outcome ([`Outcome::may_retry`]) and reports the end; the session
    /// has already appended the rows.
    pub finished: Option<(Request<W>, Outcome)>,
    /// Why `finished` ended so, where the outcome alone does not say; else empty. Never a secret.
    pub detail: String,
    /// Who an unknown peer says it is (a logical device name or a system title), as a session that greets inbound
    /// connections learns it. The driver hands the connection to the session of that peer, which starts it afresh
    /// with [`Input::Opened`] and has to prove the claim; this session sees [`Input::Closed`].
    pub identified: Option<Vec<u8>>,
}

impl<W> Step<W> {
    /// Nothing consumed, nothing wanted but to be woken at `deadline`.
    pub fn wait(deadline: Option<Instant>) -> Self {
        Self {
            consumed: 0,
            deadline,
            transport: Transport::Keep,
            finished: None,
            detail: String::new(),
            identified: None,
        }
    }
}

/// One end of a protocol conversation.
pub trait Session {
    /// What may be asked of it, in the protocol's own terms.
    type Work;

    /// What its owner may tell it beside requests; `()` if nothing.
    type Control;

    /// Handle one input. Whatever octets a peer sends, the result is rows, a request to close, or a wait for more:
    /// never a panic, and never an allocation larger than the session's [`Limits`] allow.
    fn step(&mut self, input: Input<'_, Self::Work, Self::Control>, cx: &mut Context<'_>) -> Step<Self::Work>;

    /// Whether [`Input::Request`] may be given now: connected, associated or able to associate, and not full.
    fn ready(&self) -> bool;

    /// Whether the association stands (for a protocol without one: whether the connection does). Rows of state and
    /// counts of live sessions come from here.
    fn associated(&self) -> bool;

    /// A session that has whoever is at the far end of another connection prove that it is this peer, and asks nothing
    /// else: for when somebody claims to be a peer that is associated already. What it spends of invocation counters is
    /// spent here from now on, and nothing that it hears comes back. `None` if this peer can prove nothing, or not now.
    fn challenger(&mut self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_takes_its_start_data_parity_and_stop_bits() {
        assert_eq!(SerialSettings::new(9_600).bits(), 10);
        assert_eq!(SerialSettings::seven_even(300).bits(), 10);
        assert_eq!(SerialSettings { parity: Parity::Even, stop_bits: 2, ..SerialSettings::new(1) }.bits(), 12);
        assert_eq!(SerialSettings::seven_even(300).time(6), Duration::from_millis(200));
    }
}
