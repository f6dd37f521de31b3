//! Elliptic curves: signatures and shared secrets on P-256 (suite 1) and P-384 (suite 2) (Green Book, "Public key
//! algorithms"; FIPS 186-4, NIST SP 800-56A). Keys and signatures travel as bare numbers: x || y, r || s.

use std::fmt;

use ipss_session::{ProtocolError, Random};
use p256::ecdsa::signature::{Signer, Verifier};
use zeroize::{Zeroize, Zeroizing};

use super::suite::Suite;

/// A private key, for signing or for agreeing on keys. Wiped when dropped; never shown.
#[derive(Clone)]
pub enum PrivateKey {
    /// Of suite 1.
    P256(p256::SecretKey),
    /// Of suite 2.
    P384(p384::SecretKey),
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PublicKey {
    /// Of suite 1.
    P256(p256::PublicKey),
    /// Of suite 2.
    P384(p384::PublicKey),
}

impl Suite {
    /// Octets of a coordinate, a private key or half a signature; `None` for suite 0, which has no curve.
    pub fn coordinate_octets(self) -> Option<usize> {
        match self {
            Self::Zero => None,
            Self::One => Some(32),
            Self::Two => Some(48),
        }
    }
}

impl PrivateKey {
    /// A private key from its octets: the number itself (32 or 48 octets), or PKCS #8 or SEC 1 in DER.
    ///
    /// # Errors
    /// Local, `bad-private-key`.
    pub fn from_slice(suite: Suite, octets: &[u8]) -> Result<Self, ProtocolError> {
        use p256::pkcs8::DecodePrivateKey;

        let bare = suite.coordinate_octets() == Some(octets.len());
        let key = match suite {
            Suite::Zero => None,
            Suite::One if bare => p256::SecretKey::from_slice(octets).ok().map(Self::P256),
            Suite::Two if bare => p384::SecretKey::from_slice(octets).ok().map(Self::P384),
            Suite::One => p256::SecretKey::from_pkcs8_der(octets)
                .ok()
                .or_else(|| p256::SecretKey::from_sec1_der(octets).ok())
                .map(Self::P256),
            Suite::Two => p384::SecretKey::from_pkcs8_der(octets)
                .ok()
                .or_else(|| p384::SecretKey::from_sec1_der(octets).ok())
                .map(Self::P384),
        };
        key.ok_or_else(|| {
            let message = format!("not a private key of suite {}: its number, PKCS #8 or SEC 1", suite.number());
            ProtocolError::local("ciphering", "bad-private-key", message)
        })
    }

    /// A fresh private key; `None` for suite 0.
    pub fn random(suite: Suite, random: &mut dyn Random) -> Option<Self> {
        let mut octets = Zeroizing::new([0; 48]);
        let octets = &mut octets[..suite.coordinate_octets()?];
        // All but one number in 2^32 are keys; a source that never gives one is broken, and so is everything else.
        for _ in 0..64 {
            random.fill(octets);
            if let Ok(key) = Self::from_slice(suite, octets) {
                return Some(key);
            }
        }
        None
    }

    /// The suite whose curve it is on.
    pub fn suite(&self) -> Suite {
        match self {
            Self::P256(_) => Suite::One,
            Self::P384(_) => Suite::Two,
        }
    }

    /// The number itself.
    pub fn octets(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::P256(key) => take(key.to_bytes()),
            Self::P384(key) => take(key.to_bytes()),
        }
    }

    /// The public key that belongs to it.
    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::P256(key) => PublicKey::P256(key.public_key()),
            Self::P384(key) => PublicKey::P384(key.public_key()),
        }
    }

    /// Sign with ECDSA under the suite's hash: r || s. The nonce follows from key and message (RFC 6979), so that no
    /// random source can give the key away.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = p256::ecdsa::SigningKey::from(key).sign(message);
                signature.to_vec()
            }
            Self::P384(key) => {
                let signature: p384::ecdsa::Signature = p384::ecdsa::SigningKey::from(key).sign(message);
                signature.to_vec()
            }
        }
    }

    /// The secret that both ends come to: x of the common point.
    ///
    /// # Errors
    /// Local, `bad-public-key`: the other key is on another curve.
    pub fn agree(&self, other: &PublicKey) -> Result<Zeroizing<Vec<u8>>, ProtocolError> {
        match (self, other) {
            (Self::P256(own), PublicKey::P256(other)) => {
                let secret = p256::ecdh::diffie_hellman(own.to_nonzero_scalar(), other.as_affine());
                Ok(Zeroizing::new(secret.raw_secret_bytes().to_vec()))
            }
            (Self::P384(own), PublicKey::P384(other)) => {
                let secret = p384::ecdh::diffie_hellman(own.to_nonzero_scalar(), other.as_affine());
                Ok(Zeroizing::new(secret.raw_secret_bytes().to_vec()))
            }
            _ => Err(ProtocolError::local(
                "ciphering",
                "bad-public-key",
                "two keys on different curves agree on nothing",
            )),
        }
    }
}

impl PublicKey {
    /// A public key from x || y, with or without the octet 04 in front.
    ///
    /// # Errors
    /// Remote, `bad-public-key`: not a point of the suite's curve.
    pub fn from_slice(suite: Suite, octets: &[u8]) -> Result<Self, ProtocolError> {
        let wrong = || {
            let message = format!("{} octets that are no public key of suite {}", octets.len(), suite.number());
            ProtocolError::remote("ciphering", 0, "bad-public-key", message)
        };
        let coordinate = suite.coordinate_octets().ok_or_else(wrong)?;
        let mut point = [4; 97];
        let point = &mut point[..=2 * coordinate];
        match octets.len().checked_sub(2 * coordinate) {
            Some(0) => point[1..].copy_from_slice(octets),
            Some(1) => point.copy_from_slice(octets),
            _ => return Err(wrong()),
        }
        if point[0] != 4 {
            return Err(wrong());
        }
        match suite {
            Suite::Two => p384::PublicKey::from_sec1_bytes(point).map(Self::P384).map_err(|_| wrong()),
            _ => p256::PublicKey::from_sec1_bytes(point).map(Self::P256).map_err(|_| wrong()),
        }
    }

    /// The suite whose curve it is on.
    pub fn suite(&self) -> Suite {
        match self {
            Self::P256(_) => Suite::One,
            Self::P384(_) => Suite::Two,
        }
    }

    /// x || y.
    pub fn octets(&self) -> Vec<u8> {
        // The first octet says that both coordinates follow.
        match self {
            Self::P256(key) => key.to_sec1_bytes()[1..].to_vec(),
            Self::P384(key) => key.to_sec1_bytes()[1..].to_vec(),
        }
    }

    /// Whether `signature` (r || s) is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| p256::ecdsa::VerifyingKey::from(key).verify(message, &signature).is_ok()),
            Self::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| p384::ecdsa::VerifyingKey::from(key).verify(message, &signature).is_ok()),
        }
    }
}

/// Shows that there is a key, not which.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(suite {})", self.suite().number())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey(suite {})", self.suite().number())
    }
}

fn take(mut octets: impl AsRef<[u8]> + Zeroize) -> Zeroizing<Vec<u8>> {
    let taken = Zeroizing::new(octets.as_ref().to_vec());
    octets.zeroize();
    taken
}
