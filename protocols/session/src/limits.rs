//! What a peer may make us hold. Each session carries its own, so that a meter's profile can raise one.

use std::time::Duration;

/// Bounds on what one peer can cost. The defaults follow the fleet's security requirements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets in one frame or APDU. 64 KiB is the wrapper's own bound (its length field has 16 bits).
    pub apdu: usize,
    /// Octets in an APDU before the peer has proved who it is: an AARE with certificates fits in 4 KiB.
    pub apdu_before_association: usize,
    /// Octets in a value put together from blocks. A year of quarter-hours with four channels is under 1 MiB.
    pub reassembly: usize,
    /// Blocks in one transfer, so that a peer cannot keep us busy with empty ones.
    pub blocks: u32,
    /// Elements in one array, structure or compact-array.
    pub elements: usize,
    /// Structures inside structures. The deepest standard object (an association's access rights) needs 5.
    pub depth: usize,
    /// Wait for the association, challenges included.
    pub associate: Duration,
    /// Wait for one answer.
    pub answer: Duration,
    /// Wait for the rest of a frame whose first octet has arrived.
    pub frame: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            apdu: 65_535,
            apdu_before_association: 4_096,
            reassembly: 1 << 20,
            blocks: 10_000,
            elements: 65_536,
            depth: 16,
            associate: Duration::from_secs(60),
            answer: Duration::from_secs(30),
            frame: Duration::from_secs(30),
        }
    }
}
