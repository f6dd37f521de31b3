//! Disconnect control, class 70: the supply's breaker.

use ipss_session::ProtocolError;

use super::{boolean, mismatch, number};
use crate::axdr::Data;

/// The method that disconnects.
pub const REMOTE_DISCONNECT: i8 = 1;
/// The method that reconnects, or makes ready for the customer to reconnect, as the control mode has it.
pub const REMOTE_RECONNECT: i8 = 2;

/// Attribute 3: what the logic wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ControlState {
    /// No supply.
    Disconnected = 0,
    /// Supply.
    Connected = 1,
    /// No supply until the customer presses the button.
    ReadyForReconnection = 2,
}

/// Attribute 2: what the breaker really does; true for supply.
///
/// # Errors
/// `type-mismatch`
pub fn output_state(data: &Data) -> Result<bool, ProtocolError> {
    boolean(data, "output_state")
}

/// Attribute 3.
///
/// # Errors
/// `type-mismatch`
pub fn control_state(data: &Data) -> Result<ControlState, ProtocolError> {
    match number::<u8>(data, "control_state")? {
        0 => Ok(ControlState::Disconnected),
        1 => Ok(ControlState::Connected),
        2 => Ok(ControlState::ReadyForReconnection),
        _ => Err(mismatch(data, "control_state")),
    }
}

/// Attribute 4: 0 none (always connected) to 6, which transitions are possible.
///
/// # Errors
/// `type-mismatch`
pub fn control_mode(data: &Data) -> Result<u8, ProtocolError> {
    number(data, "control_mode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_decoded_and_others_refused() {
        assert_eq!(control_state(&Data::Enum(2)).unwrap(), ControlState::ReadyForReconnection);
        assert_eq!(control_state(&Data::Enum(3)).unwrap_err().code, "type-mismatch");
        assert!(output_state(&Data::Boolean(true)).unwrap());
    }
}
