//! HDLC (IEC 62056-46; Green Book, "Data link layer using the HDLC protocol").

mod frame;

pub use frame::{FLAG, Frame, FrameType, check_sequence, check_sequence_ok, next_frame};
