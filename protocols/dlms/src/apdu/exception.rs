//! The meter cannot even answer: Exception-Response \[216\] (Green Book, "Exception-Response").

use ipss_session::ProtocolError;

use super::list::open;
use super::tags;

/// Informs us and proves nothing: it is never protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionResponse {
    /// 1 service-not-allowed, 2 service-unknown.
    pub state_error: u8,
    /// 1 to 6, see [`ExceptionResponse::service_error_name`].
    pub service_error: u8,
    /// With service error 6: the invocation counter that the meter expects at least. Some meters leave it out.
    pub invocation_counter: Option<u32>,
}

impl ExceptionResponse {
    /// Our invocation counter is behind.
    pub const INVOCATION_COUNTER_ERROR: u8 = 6;

    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `trailing-octets`.
    pub fn decode(apdu: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::EXCEPTION_RESPONSE)?;
        let (state_error, service_error) = (reader.u8()?, reader.u8()?);
        let counter_follows = service_error == Self::INVOCATION_COUNTER_ERROR && !reader.is_empty();
        let invocation_counter = if counter_follows { Some(reader.u32()?) } else { None };
        reader.finish()?;
        Ok(Self { state_error, service_error, invocation_counter })
    }

    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[tags::EXCEPTION_RESPONSE, self.state_error, self.service_error]);
        if let Some(counter) = self.invocation_counter {
            out.extend_from_slice(&counter.to_be_bytes());
        }
    }

    /// The standard's name of the state error.
    pub fn state_error_name(&self) -> Option<&'static str> {
        ["service-not-allowed", "service-unknown"].get(usize::from(self.state_error).wrapping_sub(1)).copied()
    }

    /// The standard's name of the service error.
    pub fn service_error_name(&self) -> Option<&'static str> {
        let names = [
            "operation-not-possible",
            "service-not-supported",
            "other-reason",
            "pdu-too-long",
            "deciphering-error",
            "invocation-counter-error",
        ];
        names.get(usize::from(self.service_error).wrapping_sub(1)).copied()
    }
}
