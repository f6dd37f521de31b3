//! Who is at fault, said in the type, and how a request ends.

use thiserror::Error;

/// Who broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The peer sent what its standard forbids, or what its security profile forbids.
    Remote,
    /// We were asked for something that the standard or our configuration forbids.
    Local,
}

/// A broken rule. The meter's own *no* is not one: it is an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{layer}: {message} (at octet {offset})")]
pub struct ProtocolError {
    /// Who broke it.
    pub fault: Fault,
    /// The layer that noticed: `wrapper`, `hdlc`, `apdu`, `acse`, `data`, `ciphering`, `association`, `modbus`.
    pub layer: &'static str,
    /// Where in the layer's own octets, counted from 0.
    pub offset: usize,
    /// A short, stable, lower-case name with hyphens, for machines: `length-over-limit`.
    pub code: &'static str,
    /// What was found and what was expected, for people. Never a key, a password or a customer's value.
    pub message: String,
}

impl ProtocolError {
    /// The peer's fault.
    pub fn remote(layer: &'static str, offset: usize, code: &'static str, message: impl Into<String>) -> Self {
        Self { fault: Fault::Remote, layer, offset, code, message: message.into() }
    }

    /// Our own caller's fault.
    pub fn local(layer: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { fault: Fault::Local, layer, offset: 0, code, message: message.into() }
    }
}

/// How a request ended. The numbers are part of the batch's shape and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Every item was answered with a value.
    Done = 0,
    /// Every item was answered, some by the meter's own *no* (see the refusals).
    Refused = 1,
    /// The deadline passed.
    TimedOut = 2,
    /// No connection could be opened, or it broke, as often as it could be tried.
    Unreachable = 3,
    /// The meter broke its protocol.
    Violation = 4,
    /// The meter could not prove who it is, refused our proof, or used weaker security than its profile pins.
    AuthenticationFailed = 5,
    /// Withdrawn by whoever asked.
    Cancelled = 6,
    /// No invocation counter is left that is durably reserved; more must be granted first.
    CountersExhausted = 7,
    /// The meter's queue, or the reactor's, was full; nothing was sent.
    Overloaded = 8,
    /// A write or an action was sent and its answer was lost. It must be resolved by reading, never by repeating.
    Unknown = 9,
    /// The request asks for what the association does not allow or the meter's profile forbids; nothing was sent.
    Impossible = 10,
    /// The line broke under work that may be repeated. Only between session and driver; never reported.
    Interrupted = 11,
}

impl Outcome {
    /// Whether another try could help and can do no harm.
    pub fn may_retry(self) -> bool {
        matches!(self, Self::Interrupted | Self::Unreachable)
    }

    /// The name for logs and for Python: lower case with hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::Violation => "violation",
            Self::AuthenticationFailed => "authentication-failed",
            Self::Cancelled => "cancelled",
            Self::CountersExhausted => "counters-exhausted",
            Self::Overloaded => "overloaded",
            Self::Unknown => "unknown",
            Self::Impossible => "impossible",
            Self::Interrupted => "interrupted",
        }
    }

    /// All outcomes, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Done,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Violation,
        Self::AuthenticationFailed,
        Self::Cancelled,
        Self::CountersExhausted,
        Self::Overloaded,
        Self::Unknown,
        Self::Impossible,
        Self::Interrupted,
    ];
}
