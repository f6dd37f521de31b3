//! HDLC (IEC 62056-46; Green Book, "Data link layer using the HDLC protocol"): normal response mode, in which the
//! head-end (the primary) polls and the meter (the secondary) speaks when polled.
//!
//! ```text
//! Down --open--> [Resetting --UA, DM-->] Connecting --UA--> Connected --close--> Closing --UA, DM--> Down
//! ```
//!
//! [`Endpoint`] is one end, of either role. An APDU goes out in as many information frames as the other end's limits
//! ask for and is repeated until it is acknowledged, as often as [`HdlcConfig::retries`] allows; what arrives twice is
//! taken once.

mod address;
mod deframer;
mod endpoint;
mod frame;
mod parameters;
mod primary;
mod secondary;

use std::time::Duration;

pub use address::Address;
pub use deframer::Deframer;
pub use endpoint::Endpoint;
pub use frame::{FLAG, Frame, FrameType, check_sequence, check_sequence_ok, encode, next_frame};
pub use parameters::{LARGEST, Parameters};

use super::optical::ModeE;

/// How a meter is spoken to over HDLC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HdlcConfig {
    /// The physical device, the lower part of the meter's address, if it is used.
    pub physical: Option<u16>,
    /// Octets of the meter's address: 1, 2 or 4; 0 for as few as hold it.
    pub address_size: u8,
    /// What this end proposes, or accepts at most.
    pub parameters: Parameters,
    /// Repeat what got no answer after this long. A slow line needs the time of its longest frames on top.
    pub answer: Duration,
    /// How often, until the line counts as broken.
    pub retries: u8,
    /// A pause inside a frame after which its rest does not come any more.
    pub inter_octet: Duration,
    /// The meter ends a data link without a frame for this long; the head-end polls before three quarters of it are
    /// over. Zero for never.
    pub inactivity: Duration,
    /// Poll again after this long when the meter has no answer yet, or is busy.
    pub poll: Duration,
    /// Send DISC before SNRM: some meters keep the data link of a client that went away.
    pub disconnect_first: bool,
    /// The sign-on of IEC 62056-21 mode E, if the line has to be opened with it.
    pub opening: Option<ModeE>,
}

impl Default for HdlcConfig {
    fn default() -> Self {
        Self {
            physical: None,
            address_size: 0,
            // Room for most answers in one frame; a meter that takes less says so in its UA.
            parameters: Parameters {
                information_transmit: 1024,
                information_receive: 1024,
                window_transmit: 1,
                window_receive: 1,
            },
            answer: Duration::from_secs(5),
            retries: 3,
            // The Green Book's default is 25 ms on the line; networks and adapters on the way add theirs.
            inter_octet: Duration::from_millis(1500),
            inactivity: Duration::from_secs(120),
            poll: Duration::from_millis(200),
            disconnect_first: false,
            opening: None,
        }
    }
}
