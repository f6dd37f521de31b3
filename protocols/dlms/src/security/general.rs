//! Protecting and opening general-ciphering and general-signing APDUs (Green Book, "Protected APDUs", "Key agreement").
//!
//! Whichever key such an APDU names, its invocation counter is taken from, and compared with, that of the lasting key:
//! an APDU under a key of its own cannot be sent again either.

use ipss_session::{ProtocolError, Random};

use super::channel::{Channel, Plain};
use super::cipher::{self, Sealer};
use super::counter::CounterBlock;
use super::curve::{PrivateKey, PublicKey};
use super::derive::{self, Purpose};
use super::keys::{Key, SystemTitle};
use super::suite::Suite;
use crate::apdu::general::{GeneralCiphering, GeneralSigning, Header, KeyInfo};
use crate::profile::{Ciphering, KeyForm, Profile};

/// key-parameters of the two schemes (Green Book, "Key agreement schemes").
const ONE_PASS: u8 = 1;
const STATIC_UNIFIED: u8 = 2;
/// Identified keys.
const GLOBAL_UNICAST: u8 = 0;
const GLOBAL_BROADCAST: u8 = 1;
/// The key that wraps: the master key.
const MASTER: u8 = 0;
/// Octets of a transaction-id that we make.
const TRANSACTION_ID: usize = 8;

/// Protect the plain APDU at `out[start..]` in place with the kind of key that the profile pins.
///
/// # Errors
/// Local: `counters-exhausted`, `profile` when a key is missing; `out` is as it was.
pub(super) fn protect(
    channel: &mut Channel,
    profile: &Profile,
    form: KeyForm,
    random: &mut dyn Random,
    out: &mut Vec<u8>,
    start: usize,
) -> Result<u32, ProtocolError> {
    let mut transaction_id = [0; TRANSACTION_ID];
    random.fill(&mut transaction_id);
    let (own, peer, suite) = (channel.title(), channel.peer(), channel.suite());
    let header = header(&transaction_id, &own, &peer);
    let mut data;
    let (key, info) = match form {
        KeyForm::Identified => (None, KeyInfo::Identified(GLOBAL_UNICAST)),
        KeyForm::Wrapped => {
            let key = Key::random(suite, random);
            let master = credentials(channel)?.master.as_ref().ok_or_else(|| missing("a master key"))?;
            data = derive::wrap(master, &key);
            (Some(key), KeyInfo::Wrapped { wrapped_by: MASTER, key: &data })
        }
        KeyForm::OnePass => {
            let ephemeral = PrivateKey::random(suite, random).ok_or_else(|| missing("a curve in suite 0"))?;
            let z = ephemeral.agree(peer_agreement(channel)?)?;
            data = ephemeral.public_key().octets();
            let signature = signing(channel)?.sign(&data);
            data.extend_from_slice(&signature);
            let key = derive::derive(suite, Purpose::Cipher, &z, &own.0, &peer.0)?;
            (Some(key), KeyInfo::Agreed { parameters: &[ONE_PASS], data: &data })
        }
        KeyForm::StaticUnified => {
            let z = agreement(channel)?.agree(peer_agreement(channel)?)?;
            let key = static_unified(suite, &z, own, peer, &transaction_id)?;
            (Some(key), KeyInfo::Agreed { parameters: &[STATIC_UNIFIED], data: &[] })
        }
    };
    let mut beside = Vec::with_capacity(48);
    header.encode(&mut beside);
    let counter = channel.seal_with(key, profile.protection, &beside, out, start)?;
    GeneralCiphering::wrap(&header, &info, out, start);
    Ok(counter)
}

/// Open a general-ciphering APDU in place: framing and titles, then tag, then counter.
///
/// # Errors
/// Remote, as [`cipher::open`]; also `system-title`, `weaker-security` for another kind of key than is pinned,
/// `broadcast-key`, `bad-wrapped-key`, `bad-public-key`, `bad-signature`. Local: `profile` when a key is missing.
pub(super) fn unprotect(channel: &mut Channel, profile: &Profile, apdu: &mut [u8]) -> Result<Plain, ProtocolError> {
    let Ciphering::GeneralCiphering(form) = profile.ciphering else {
        return refuse("weaker-security", "general-ciphering, but another form is pinned for this meter");
    };
    let frame = GeneralCiphering::decode(apdu)?;
    check_titles(channel, &frame.header)?;
    let (own, peer, suite) = (channel.title(), channel.peer(), channel.suite());
    let key = match (form, frame.key) {
        (_, Some(KeyInfo::Identified(GLOBAL_BROADCAST))) => {
            return refuse("broadcast-key", "the broadcast key, which all meters hold: it proves nothing here");
        }
        (KeyForm::Identified, None | Some(KeyInfo::Identified(GLOBAL_UNICAST))) => None,
        (KeyForm::Wrapped, Some(KeyInfo::Wrapped { wrapped_by: MASTER, key })) => {
            let master = credentials(channel)?.master.as_ref().ok_or_else(|| missing("a master key"))?;
            Some(derive::unwrap(master, key)?)
        }
        (KeyForm::OnePass, Some(KeyInfo::Agreed { parameters: [ONE_PASS], data })) => {
            let coordinate = suite.coordinate_octets().unwrap_or_default();
            let Some((public, signature)) = data.split_at_checked(2 * coordinate) else {
                return refuse("bad-public-key", "no room for the ephemeral public key");
            };
            let signer = credentials(channel)?.peer_signing.as_ref();
            if !signer.ok_or_else(|| missing("the peer's public key for signatures"))?.verify(public, signature) {
                return refuse("bad-signature", "the ephemeral public key is not signed by the peer");
            }
            let z = agreement(channel)?.agree(&PublicKey::from_slice(suite, public)?)?;
            Some(derive::derive(suite, Purpose::Cipher, &z, &peer.0, &own.0)?)
        }
        (KeyForm::StaticUnified, Some(KeyInfo::Agreed { parameters: [STATIC_UNIFIED], data: [] })) => {
            let z = agreement(channel)?.agree(peer_agreement(channel)?)?;
            Some(static_unified(suite, &z, peer, own, frame.header.transaction_id)?)
        }
        _ => return refuse("weaker-security", "another kind of key than is pinned for this meter"),
    };
    let beside = apdu[frame.authenticated.clone()].to_vec();
    let body = frame.body.clone();
    channel.open_with(key.as_ref(), profile, &beside, body, apdu)
}

/// Sign the APDU at `out[start..]`, whatever protects it.
///
/// # Errors
/// Local, `profile`: there is no key to sign with.
pub(super) fn sign(
    channel: &Channel,
    random: &mut dyn Random,
    out: &mut Vec<u8>,
    start: usize,
) -> Result<(), ProtocolError> {
    let mut transaction_id = [0; TRANSACTION_ID];
    random.fill(&mut transaction_id);
    let (own, peer) = (channel.title(), channel.peer());
    let header = header(&transaction_id, &own, &peer);
    let mut message = Vec::with_capacity(48 + out.len() - start);
    header.encode(&mut message);
    message.extend_from_slice(&out[start..]);
    let signature = signing(channel)?.sign(&message);
    GeneralSigning::wrap(&header, &signature, out, start);
    Ok(())
}

/// Check a general-signing APDU; where the signed APDU stands.
///
/// # Errors
/// Remote: framing, `system-title`, `bad-signature`. Local: `profile` when the peer's key is missing.
pub(super) fn verify(channel: &Channel, apdu: &[u8]) -> Result<std::ops::Range<usize>, ProtocolError> {
    let frame = GeneralSigning::decode(apdu)?;
    check_titles(channel, &frame.header)?;
    let message = [&apdu[frame.signed], &apdu[frame.content.clone()]].concat();
    let signer = credentials(channel)?.peer_signing.as_ref();
    if !signer.ok_or_else(|| missing("the peer's public key for signatures"))?.verify(&message, frame.signature) {
        return refuse("bad-signature", "the APDU is not signed by the peer");
    }
    Ok(frame.content)
}

impl Channel {
    /// Seal under `key`, or under the lasting key if there is none, with a counter of the lasting key.
    fn seal_with(
        &mut self,
        key: Option<Key>,
        protection: super::Protection,
        beside: &[u8],
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<u32, ProtocolError> {
        let exhausted =
            |error: super::Exhausted| ProtocolError::local("ciphering", "counters-exhausted", error.to_string());
        let Some(key) = key else {
            return self.own.seal_within(protection, &self.authentication_key, beside, out, start).map_err(exhausted);
        };
        let counter = self.own.take_counter().map_err(exhausted)?;
        let block = CounterBlock::new(counter, counter.saturating_add(1));
        let mut sealer = Sealer::of_suite(self.own.suite(), self.own.title, key, block)?;
        sealer.seal_within(protection, &self.authentication_key, beside, out, start).map_err(exhausted)
    }

    fn open_with(
        &mut self,
        key: Option<&Key>,
        profile: &Profile,
        beside: &[u8],
        body: std::ops::Range<usize>,
        apdu: &mut [u8],
    ) -> Result<Plain, ProtocolError> {
        let before = self.peer_counter;
        let control = profile.protection.security_control(self.own.suite());
        let opened = cipher::open_within(
            control,
            key.unwrap_or(self.own.key()),
            &self.authentication_key,
            self.peer,
            profile.protection,
            &mut self.peer_counter,
            beside,
            &mut apdu[body.clone()],
        )?;
        Ok(Plain {
            start: body.start + opened.start,
            end: body.start + opened.end,
            counter: opened.counter,
            lasting: true,
            jump: before.is_jump(opened.counter),
        })
    }
}

fn header<'a>(transaction_id: &'a [u8], own: &'a SystemTitle, peer: &'a SystemTitle) -> Header<'a> {
    Header { transaction_id, originator: &own.0, recipient: &peer.0, ..Header::default() }
}

fn check_titles(channel: &Channel, header: &Header<'_>) -> Result<(), ProtocolError> {
    if header.originator != channel.peer().0 || header.recipient != channel.title().0 {
        let message = format!("the APDU does not go from {} to {}", channel.peer(), channel.title());
        return Err(ProtocolError::remote("ciphering", 2, "system-title", message));
    }
    Ok(())
}

/// The key of C(0e, 2s): the transaction-id, its length before it, makes each one different.
fn static_unified(
    suite: Suite,
    z: &[u8],
    originator: SystemTitle,
    recipient: SystemTitle,
    transaction_id: &[u8],
) -> Result<Key, ProtocolError> {
    let Ok(length) = u8::try_from(transaction_id.len()) else {
        return refuse("bad-ciphering", "a transaction-id of more than 255 octets");
    };
    let party_u = [&originator.0[..], &[length], transaction_id].concat();
    derive::derive(suite, Purpose::Cipher, z, &party_u, &recipient.0)
}

fn credentials(channel: &Channel) -> Result<&super::Credentials, ProtocolError> {
    channel.credentials().ok_or_else(|| missing("keys beyond the symmetric ones"))
}

fn signing(channel: &Channel) -> Result<&PrivateKey, ProtocolError> {
    credentials(channel)?.signing.as_ref().ok_or_else(|| missing("a private key for signatures"))
}

fn agreement(channel: &Channel) -> Result<&PrivateKey, ProtocolError> {
    credentials(channel)?.agreement.as_ref().ok_or_else(|| missing("a private key for key agreement"))
}

fn peer_agreement(channel: &Channel) -> Result<&PublicKey, ProtocolError> {
    credentials(channel)?.peer_agreement.as_ref().ok_or_else(|| missing("the peer's public key for key agreement"))
}

fn refuse<T>(code: &'static str, message: &str) -> Result<T, ProtocolError> {
    Err(ProtocolError::remote("ciphering", 0, code, message))
}

fn missing(what: &str) -> ProtocolError {
    ProtocolError::local("ciphering", "profile", format!("there is no {what}"))
}
