//! Keys and the system titles that go with them.

use std::fmt;

use ipss_session::ProtocolError;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A 128-bit key. Wiped when dropped; never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// A key from its octets.
    ///
    /// # Errors
    /// Local, `bad-key`, unless there are 16 octets.
    pub fn from_slice(octets: &[u8]) -> Result<Self, ProtocolError> {
        let octets = octets.try_into().map_err(|_| {
            ProtocolError::local(
                "ciphering",
                "bad-key",
                format!("a key of {} octets; suite 0 takes 16 (AES-128)", octets.len()),
            )
        })?;
        Ok(Self(octets))
    }
}

/// Shows that there is a key, not which.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Takes the same time whichever octet differs.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Key {}

/// The eight octets that name one end of an association (Green Book, "System title"): three of the manufacturer, five
/// of its own numbering.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SystemTitle(pub [u8; 8]);

impl SystemTitle {
    /// A system title from its octets.
    ///
    /// # Errors
    /// Local, `bad-system-title`, unless there are 8 octets.
    pub fn from_slice(octets: &[u8]) -> Result<Self, ProtocolError> {
        let octets = octets.try_into().map_err(|_| {
            ProtocolError::local(
                "ciphering",
                "bad-system-title",
                format!("a system title of {} octets; the standard says 8", octets.len()),
            )
        })?;
        Ok(Self(octets))
    }

    /// The 96-bit initialization vector: title and invocation counter (Green Book, "Initialization vector").
    pub(crate) fn initialization_vector(self, counter: u32) -> [u8; 12] {
        let mut vector = [0; 12];
        vector[..8].copy_from_slice(&self.0);
        vector[8..].copy_from_slice(&counter.to_be_bytes());
        vector
    }
}

/// Sixteen hexadecimal digits.
impl fmt::Display for SystemTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02X}"))
    }
}

impl fmt::Debug for SystemTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
