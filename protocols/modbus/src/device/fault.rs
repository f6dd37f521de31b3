//! How a virtual device misbehaves.

use std::time::Duration;

/// What is wrong with every answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// No answer.
    Silent,
    /// Only this unit gives no answer.
    SilentUnit(u8),
    /// Each answer so much later.
    Late(Duration),
    /// Each answer twice.
    Twice,
    /// Each answer under another unit id.
    WrongUnit,
    /// Each answer under another function code.
    WrongFunction,
    /// Each answer under another transaction id.
    WrongTransaction,
    /// The request comes back instead of the answer.
    Echo,
    /// The length (in the MBAP header, or the byte count of a serial answer) is off by so much.
    LengthLie(i8),
    /// The check of a serial frame is wrong.
    WrongCheck,
    /// Octets that mean nothing stand in front of each answer.
    Garbage(u8),
    /// Each answer octet by octet, so far apart.
    Slow(Duration),
    /// Always busy: exception 06.
    Busy,
    /// Blocks of more registers than this get exception 0B, as through a radio gateway (row 64).
    SmallBlocks(u16),
}
