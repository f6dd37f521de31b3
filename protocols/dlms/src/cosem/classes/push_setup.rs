//! Push setup, class 40: what a meter sends unasked, where to and when.

use ipss_session::ProtocolError;

use super::{list, mismatch, number, structure};
use crate::apdu::selection::capture_object;
use crate::axdr::{Data, DateTime};
use crate::cosem::descriptor::CaptureObject;

/// Where pushes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// 0 TCP, 1 UDP, 2 FTP, 3 SMTP, 4 SMS, 5 HDLC, 6 M-Bus, 7 ZigBee, 8 DLMS gateway.
    pub transport_service: u8,
    /// The address in the transport's own form.
    pub destination: Vec<u8>,
    /// 0 A-XDR encoded xDLMS APDU, 1 XML encoded.
    pub message: u8,
}

/// Attribute 2: what is sent, in order. This is the layout of the notification's body.
///
/// # Errors
/// `type-mismatch`
pub fn push_object_list(data: &Data) -> Result<Vec<CaptureObject>, ProtocolError> {
    let objects = list(data, "push_object_list")?;
    objects.iter().map(|object| capture_object(object).ok_or_else(|| mismatch(object, "a push object"))).collect()
}

/// Attribute 3.
///
/// # Errors
/// `type-mismatch`
pub fn send_destination_and_method(data: &Data) -> Result<Destination, ProtocolError> {
    let [transport, destination, message] = structure(data, "send_destination_and_method")?;
    Ok(Destination {
        transport_service: number(transport, "transport_service")?,
        destination: destination.as_octets().ok_or_else(|| mismatch(destination, "destination"))?.to_vec(),
        message: number(message, "message")?,
    })
}

/// Attribute 4: patterns of beginning and end; always open if there are none.
///
/// # Errors
/// `type-mismatch`
pub fn communication_window(data: &Data) -> Result<Vec<(DateTime, DateTime)>, ProtocolError> {
    let moment = |data: &Data| data.as_date_time().ok_or_else(|| mismatch(data, "a communication window's end"));
    let window = |data: &Data| {
        let [from, to] = structure(data, "an element of communication_window")?;
        Ok((moment(from)?, moment(to)?))
    };
    list(data, "communication_window")?.iter().map(window).collect()
}

/// Attribute 5: pushes are delayed by up to so many seconds, by chance.
///
/// # Errors
/// `type-mismatch`
pub fn randomisation_start_interval_s(data: &Data) -> Result<u16, ProtocolError> {
    number(data, "randomisation_start_interval")
}

/// Attribute 6.
///
/// # Errors
/// `type-mismatch`
pub fn number_of_retries(data: &Data) -> Result<u8, ProtocolError> {
    number(data, "number_of_retries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_and_window_are_decoded() {
        let destination =
            Data::Structure(vec![Data::Enum(0), Data::OctetString(b"10.0.0.1:4059".to_vec()), Data::Enum(0)]);
        let moment = || Data::OctetString(DateTime::UNSPECIFIED.0.to_vec());

        assert_eq!(send_destination_and_method(&destination).unwrap().destination, b"10.0.0.1:4059");
        let window = Data::Array(vec![Data::Structure(vec![moment(), moment()])]);
        assert_eq!(communication_window(&window).unwrap(), [(DateTime::UNSPECIFIED, DateTime::UNSPECIFIED)]);
    }
}
