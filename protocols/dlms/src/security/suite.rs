//! The security suites, and what a security control octet asks for (Green Book, "Security suites").

use super::cipher::TAG;
use crate::apdu::ciphered::SecurityControl;

/// A security suite. All cipher with AES-GCM and wrap with AES key wrap; 1 and 2 add signatures and key agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Suite {
    /// 0: AES-GCM-128.
    #[default]
    Zero,
    /// 1: AES-GCM-128, ECDSA and ECDH on P-256, SHA-256.
    One,
    /// 2: AES-GCM-256, ECDSA and ECDH on P-384, SHA-384.
    Two,
}

impl Suite {
    /// The suite with this number; `None` above 2.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Zero),
            1 => Some(Self::One),
            2 => Some(Self::Two),
            _ => None,
        }
    }

    /// Its number, as it stands in a security control octet.
    #[inline]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Octets of its symmetric keys.
    pub fn key_octets(self) -> usize {
        if self == Self::Two { 32 } else { 16 }
    }
}

/// How an APDU is protected (Green Book, "Security control byte").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Nothing: the APDU travels in the clear.
    None,
    /// Authenticated only.
    Authenticated,
    /// Encrypted only.
    Encrypted,
    /// Authenticated and encrypted.
    Both,
}

impl Protection {
    /// The security control octet for a suite under a unicast key, without compression.
    #[inline]
    pub fn security_control(self, suite: Suite) -> u8 {
        let bits = match self {
            Self::None => 0x00,
            Self::Authenticated => 0x10,
            Self::Encrypted => 0x20,
            Self::Both => 0x30,
        };
        bits | suite.number()
    }

    /// The suite and protection that a security control octet names; `None` for a suite that does not exist, a
    /// broadcast key, or compression.
    pub fn from_security_control(octet: u8) -> Option<(Suite, Self)> {
        let control = SecurityControl(octet);
        if control.broadcast() || control.compressed() {
            return None;
        }
        let protection = match (control.authenticated(), control.encrypted()) {
            (false, false) => Self::None,
            (true, false) => Self::Authenticated,
            (false, true) => Self::Encrypted,
            (true, true) => Self::Both,
        };
        Suite::from_number(control.suite()).map(|suite| (suite, protection))
    }

    /// Octets that the protection adds around a plaintext: security control, counter, tag.
    pub fn overhead(self) -> usize {
        match self {
            Self::None => 0,
            Self::Encrypted => 5,
            Self::Authenticated | Self::Both => 5 + TAG,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_security_control_octets_name_a_suite_and_a_protection() {
        let known: Vec<u8> = (0..=255).filter(|octet| Protection::from_security_control(*octet).is_some()).collect();

        assert_eq!(known, [0x00, 0x01, 0x02, 0x10, 0x11, 0x12, 0x20, 0x21, 0x22, 0x30, 0x31, 0x32]);
        for octet in known {
            let (suite, protection) = Protection::from_security_control(octet).unwrap();
            assert_eq!(protection.security_control(suite), octet);
        }
    }
}
