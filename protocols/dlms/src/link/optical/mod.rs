//! IEC 62056-21: how a conversation over an optical head or a current loop begins, and the data that meters read out as
//! text.
//!
//! ```text
//! head-end                         meter
//! /?!                   300 7E1 ->
//!                               <- /XXXZ\2ident
//! ACK 2 Z 2                     ->            mode E: both go on at the rate Z names, with HDLC
//! ACK 0 Z 0                     ->            mode C: a data block follows at that rate, with a check character
//! ```

mod opening;
mod readout;

pub use opening::{Identification, Opening, Turn};
pub use readout::{DataLine, Readout, check_character, data_block, password_command, read_command};

use std::time::Duration;

/// How the line is opened before HDLC is spoken on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeE {
    /// The device address in the sign-on, up to 32 characters; empty for the only device on the line.
    pub device: Box<str>,
    /// The rate of the sign-on.
    pub first_baud: u32,
    /// The highest rate to go on at, whatever the meter offers.
    pub most_baud: u32,
    /// Repeat the sign-on after this long.
    pub answer: Duration,
    /// How often.
    pub retries: u8,
    /// Rest between the change of rate and the first frame.
    pub pause: Duration,
    /// Ask for the data readout (mode C) and not for HDLC; a meter of mode A reads out by itself.
    pub readout: bool,
}

impl Default for ModeE {
    fn default() -> Self {
        Self {
            device: "".into(),
            first_baud: 300,
            most_baud: 115_200,
            // A meter answers within 1.5 s, and its identification takes another half at 300 baud.
            answer: Duration::from_secs(3),
            retries: 3,
            pause: Duration::from_millis(300),
            readout: false,
        }
    }
}

/// Rates by the character that names them (IEC 62056-21, "Baud rate identification", protocol modes C and E).
pub const RATES: [u32; 10] = [300, 600, 1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200];
