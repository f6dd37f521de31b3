//! Faults that a virtual meter shows on request, so that tests and demonstrations see what real fleets do.

use std::time::Duration;

/// How a virtual meter misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It behaves.
    #[default]
    None,
    /// Every answer comes this much later.
    Slow(Duration),
    /// It accepts connections and answers nothing.
    Silent,
    /// It closes the connection instead of giving every `n`th answer.
    Resets(u32),
    /// It does what an action-request says and closes the connection instead of answering.
    Reboots,
    /// Every `n`th protected answer has a wrong authentication tag.
    WrongTag(u32),
    /// Every `n`th protected answer is the one before, octet for octet.
    Replays(u32),
    /// Block transfers break off behind the first block: the next ones come empty and never say that they are last.
    TruncatedBlocks,
    /// It answers in the clear although the association is protected.
    Plaintext,
    /// It sends octets that are no frame.
    Garbage,
    /// Its answers say that another logical device sent them (wrapper).
    Impostor,
}
