//! High level security: what both ends prove to each other, mechanisms 2 to 7 (Green Book, "HLS authentication
//! mechanisms").
//!
//! Each end sends a challenge and answers the other's. The answers of mechanisms 3 and 4 hang on nothing but challenge
//! and secret, so that a challenge of our own that comes back would make us answer for the peer: it is refused whatever
//! the mechanism, and so is a peer that claims our title.

use std::fmt;

use ipss_session::{ProtocolError, Random};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::channel::Channel;
use super::keys::SystemTitle;
use crate::profile::{Authentication, Profile};

/// The longest challenge (Green Book: 8 to 64 octets).
const LONGEST: usize = 64;
/// The shortest challenge for ECDSA (Green Book: 32 to 64 octets).
const SHORTEST_ECDSA: usize = 32;
/// The shortest challenge that the standard has for the others; a profile that goes down to it is signed off.
const SHORTEST: usize = 8;

/// Both challenges of an association in the making.
#[derive(Debug)]
pub struct Challenges {
    /// What we sent, for the peer to answer.
    pub ours: Vec<u8>,
    /// What the peer sent, for us to answer.
    pub theirs: Vec<u8>,
}

/// What goes into one end's proof.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The title of the end that proves itself.
    pub prover: SystemTitle,
    /// The title of the end that it proves itself to.
    pub verifier: SystemTitle,
    /// The verifier's challenge.
    pub challenge: &'a [u8],
    /// The prover's own challenge.
    pub own: &'a [u8],
}

/// Mechanism 2: a manufacturer's own procedure, given by whoever embeds this crate. Without one, mechanism 2 is refused.
pub trait VendorMechanism: fmt::Debug + Send + Sync {
    /// The prover's answer to the verifier's challenge; `None` if it cannot be given.
    fn proof(&self, secret: &[u8], exchange: &Exchange<'_>) -> Option<Vec<u8>>;

    /// Whether `proof` is the prover's. A procedure whose proofs differ from call to call has a check of its own.
    fn verify(&self, secret: &[u8], exchange: &Exchange<'_>, proof: &[u8]) -> bool {
        self.proof(secret, exchange).is_some_and(|expected| expected.ct_eq(proof).into())
    }
}

impl Exchange<'_> {
    /// f of mechanism 6: SHA-256 over secret, titles and challenges.
    fn sha256(&self, secret: &[u8]) -> Vec<u8> {
        Sha256::new_with_prefix(secret).chain_update(self.signed()).finalize().to_vec()
    }

    /// What mechanism 7 signs, and mechanism 6 hashes behind the secret.
    fn signed(&self) -> Vec<u8> {
        [&self.prover.0[..], &self.verifier.0, self.challenge, self.own].concat()
    }
}

/// A fresh challenge of our own; empty for mechanisms without one.
pub(crate) fn challenge(authentication: Authentication, random: &mut dyn Random) -> Vec<u8> {
    let octets = match authentication {
        Authentication::None | Authentication::Low => 0,
        Authentication::HlsEcdsa => SHORTEST_ECDSA,
        _ => 16,
    };
    let mut challenge = vec![0; octets];
    random.fill(&mut challenge);
    challenge
}

/// Refuse a challenge that is too short to be one, too long, or our own.
///
/// # Errors
/// Remote: `bad-challenge`, `reflection`.
pub(crate) fn check_challenge(profile: &Profile, ours: &[u8], theirs: &[u8]) -> Result<(), ProtocolError> {
    let shortest = match profile.authentication {
        Authentication::HlsEcdsa => SHORTEST_ECDSA,
        _ => usize::from(profile.shortest_challenge).max(SHORTEST),
    };
    if !(shortest..=LONGEST).contains(&theirs.len()) {
        let message = format!("a challenge of {} octets; {shortest} to {LONGEST} are accepted", theirs.len());
        return refuse("bad-challenge", message);
    }
    if theirs == ours {
        return refuse("reflection", "the peer's challenge is our own".into());
    }
    Ok(())
}

/// Our proof of the peer's challenge.
///
/// # Errors
/// Local: `counters-exhausted`; `profile` if keys are missing or there is no procedure for mechanism 2.
pub(crate) fn prove(
    profile: &Profile,
    channel: Option<&mut Channel>,
    secret: &[u8],
    challenges: &Challenges,
) -> Result<Vec<u8>, ProtocolError> {
    let (own, peer) = titles(channel.as_deref());
    let exchange = Exchange { prover: own, verifier: peer, challenge: &challenges.theirs, own: &challenges.ours };
    match (profile.authentication, channel) {
        (Authentication::HlsGmac, Some(channel)) => {
            let proof = channel
                .proof(&challenges.theirs)
                .map_err(|exhausted| ProtocolError::local("ciphering", "counters-exhausted", exhausted.to_string()))?;
            Ok(proof.to_vec())
        }
        (Authentication::HlsEcdsa, Some(channel)) => {
            let key = channel.credentials().and_then(|credentials| credentials.signing.as_ref());
            key.map(|key| key.sign(&exchange.signed())).ok_or_else(|| missing("a private key for signing"))
        }
        (authentication, _) => {
            keyed(profile, authentication, secret, &exchange).ok_or_else(|| missing("what the mechanism needs"))
        }
    }
}

/// Check the peer's proof of our challenge. The invocation counter that it was made under, with mechanism 5.
///
/// # Errors
/// Remote: `bad-proof`, `replay`, `reflection`; local `profile` if keys are missing.
pub(crate) fn verify(
    profile: &Profile,
    channel: Option<&mut Channel>,
    secret: &[u8],
    challenges: &Challenges,
    proof: &[u8],
) -> Result<Option<u32>, ProtocolError> {
    let (own, peer) = titles(channel.as_deref());
    let exchange = Exchange { prover: peer, verifier: own, challenge: &challenges.ours, own: &challenges.theirs };
    let genuine = match (profile.authentication, channel) {
        (Authentication::HlsGmac, Some(channel)) => return channel.verify_proof(&challenges.ours, proof).map(Some),
        (Authentication::HlsEcdsa, Some(channel)) => {
            let key = channel.credentials().and_then(|credentials| credentials.peer_signing.as_ref());
            key.ok_or_else(|| missing("the peer's public key for signing"))?.verify(&exchange.signed(), proof)
        }
        (Authentication::HlsVendor, _) => {
            let vendor = profile.vendor.as_ref().ok_or_else(|| missing("a procedure for mechanism 2"))?;
            vendor.verify(secret, &exchange, proof)
        }
        (authentication, _) => {
            keyed(profile, authentication, secret, &exchange).is_some_and(|expected| expected.ct_eq(proof).into())
        }
    };
    if !genuine {
        return refuse("bad-proof", "the peer's proof does not verify".into());
    }
    Ok(None)
}

/// The proofs that hang on a shared secret; `None` for others.
fn keyed(profile: &Profile, authentication: Authentication, secret: &[u8], exchange: &Exchange<'_>) -> Option<Vec<u8>> {
    match authentication {
        Authentication::HlsVendor => profile.vendor.as_ref()?.proof(secret, exchange),
        Authentication::HlsMd5 => {
            Some(md5::Md5::new_with_prefix(exchange.challenge).chain_update(secret).finalize().to_vec())
        }
        Authentication::HlsSha1 => {
            Some(sha1::Sha1::new_with_prefix(exchange.challenge).chain_update(secret).finalize().to_vec())
        }
        Authentication::HlsSha256 => Some(exchange.sha256(secret)),
        _ => None,
    }
}

/// Our title and the peer's; nobody's where the mechanism needs none.
fn titles(channel: Option<&Channel>) -> (SystemTitle, SystemTitle) {
    channel.map_or_else(Default::default, |channel| (channel.title(), channel.peer()))
}

fn refuse<T>(code: &'static str, message: String) -> Result<T, ProtocolError> {
    Err(ProtocolError::remote("association", 0, code, message))
}

fn missing(what: &str) -> ProtocolError {
    ProtocolError::local("association", "profile", format!("there is no {what}"))
}
