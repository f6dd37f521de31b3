//! Keys and the system titles that go with them.

use std::fmt;

use ipss_session::ProtocolError;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::suite::Suite;

/// A symmetric key: 128 bits for suites 0 and 1, 256 for suite 2. Wiped when dropped; never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub enum Key {
    /// For suites 0 and 1.
    Aes128([u8; 16]),
    /// For suite 2.
    Aes256([u8; 32]),
}

impl Key {
    /// A key from its octets.
    ///
    /// # Errors
    /// Local, `bad-key`, unless there are 16 or 32 octets.
    pub fn from_slice(octets: &[u8]) -> Result<Self, ProtocolError> {
        if let Ok(octets) = octets.try_into() {
            return Ok(Self::Aes128(octets));
        }
        octets.try_into().map(Self::Aes256).map_err(|_| {
            let message = format!(
                "a key of {} octets; suites 0 and 1 take 16 (AES-128), suite 2 takes 32 (AES-256)",
                octets.len()
            );
            ProtocolError::local("ciphering", "bad-key", message)
        })
    }

    /// A key for `suite` from its octets.
    ///
    /// # Errors
    /// Local, `bad-key`, unless there are as many octets as the suite's keys have.
    pub fn for_suite(suite: Suite, octets: &[u8]) -> Result<Self, ProtocolError> {
        if octets.len() != suite.key_octets() {
            let (found, number, wanted) = (octets.len(), suite.number(), suite.key_octets());
            let message = format!("a key of {found} octets; suite {number} takes {wanted}");
            return Err(ProtocolError::local("ciphering", "bad-key", message));
        }
        Self::from_slice(octets)
    }

    /// A fresh key for `suite` from the random source given.
    pub fn random(suite: Suite, random: &mut dyn ipss_session::Random) -> Self {
        let mut key = if suite == Suite::Two { Self::Aes256([0; 32]) } else { Self::Aes128([0; 16]) };
        match &mut key {
            Self::Aes128(octets) => random.fill(octets),
            Self::Aes256(octets) => random.fill(octets),
        }
        key
    }

    /// Its octets, to be put where keys are used and nowhere else.
    #[inline]
    pub fn octets(&self) -> &[u8] {
        match self {
            Self::Aes128(octets) => octets,
            Self::Aes256(octets) => octets,
        }
    }
}

impl From<[u8; 16]> for Key {
    fn from(octets: [u8; 16]) -> Self {
        Self::Aes128(octets)
    }
}

impl From<[u8; 32]> for Key {
    fn from(octets: [u8; 32]) -> Self {
        Self::Aes256(octets)
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
        self.octets().ct_eq(other.octets()).into()
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
