//! Opening what is protected, for people who hold the keys. Counters are shown, not judged: a capture may be old.

use std::fmt;

use ipss_session::ProtocolError;

use crate::apdu::ciphered::CipheredApdu;
use crate::apdu::tags::{self, KeyKind};
use crate::security::cipher::{TAG, open};
use crate::security::{HighWater, Key, Protection, SystemTitle};

/// What is known of one meter's keys.
#[derive(Clone, Default)]
pub struct Keys {
    /// The global unicast encryption key.
    pub encryption_key: Option<Key>,
    /// The authentication key. Without it encrypted APDUs are opened unverified, with a warning.
    pub authentication_key: Option<Key>,
    /// The dedicated key; learnt from an opened initiate-request if it is not given.
    pub dedicated_key: Option<Key>,
    /// The head-end's system title; learnt from an AARQ.
    pub client_system_title: Option<SystemTitle>,
    /// The meter's system title; learnt from an AARE and from general ciphering.
    pub server_system_title: Option<SystemTitle>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("client_system_title", &self.client_system_title)
            .field("server_system_title", &self.server_system_title)
            .finish_non_exhaustive()
    }
}

/// What the octets so far have told.
#[derive(Default)]
pub(super) struct Learnt {
    pub(super) client_title: Option<SystemTitle>,
    pub(super) server_title: Option<SystemTitle>,
    pub(super) dedicated_key: Option<Key>,
}

/// How opening went.
pub(super) enum Opening {
    /// The plain APDU, and what is to be said about it.
    Opened(Vec<u8>, Option<&'static str>),
    /// It stays closed.
    Protected(&'static str),
}

/// Open one ciphered APDU.
pub(super) fn try_open(
    keys: &[Keys],
    learnt: &Learnt,
    frame: &CipheredApdu,
    apdu: &[u8],
) -> Result<Opening, ProtocolError> {
    let from_client = frame.plain_tag.is_some_and(is_from_client);
    let sent = frame.system_title.clone().and_then(|place| SystemTitle::from_slice(&apdu[place]).ok());
    let heard = if from_client { learnt.client_title } else { learnt.server_title };
    let Some(keys) = choose(keys, sent.or(heard)) else { return Ok(Opening::Protected("no key was given")) };
    let given = if from_client { keys.client_system_title } else { keys.server_system_title };
    let body = &apdu[frame.body.clone()];
    let (suite, protection) = match Protection::from_security_control(frame.security_control.0) {
        None => return Ok(Opening::Protected("another suite, a broadcast key or compression: not opened")),
        Some((_, Protection::None)) => return Ok(Opening::Opened(body[5..].to_vec(), None)),
        // The suite's number is authenticated as the meter sent it; which AES it is, the key says.
        Some(both) => both,
    };
    if protection == Protection::Authenticated && keys.authentication_key.is_none() {
        let Some(end) = body.len().checked_sub(TAG).filter(|end| *end >= 5) else { return Err(no_tag(body)) };
        return Ok(Opening::Opened(body[5..end].to_vec(), Some(UNVERIFIED)));
    }
    let Some(title) = sent.or(heard).or(given) else {
        return Ok(Opening::Protected("the sender's system title is not known"));
    };
    let key = match frame.key {
        KeyKind::Global => keys.encryption_key.as_ref(),
        KeyKind::Dedicated => keys.dedicated_key.as_ref().or(learnt.dedicated_key.as_ref()),
    };
    let Some(key) = key else { return Ok(Opening::Protected("the key that it needs was not given")) };
    let mut octets = body.to_vec();
    let (protection, remark) = match (protection, &keys.authentication_key) {
        (Protection::Both, None) => {
            // The keystream is the same without the tag.
            let Some(end) = octets.len().checked_sub(TAG).filter(|end| *end >= 5) else { return Err(no_tag(body)) };
            octets.truncate(end);
            octets[0] = Protection::Encrypted.security_control(suite);
            (Protection::Encrypted, Some(UNVERIFIED))
        }
        (protection, _) => (protection, None),
    };
    let authentication_key = keys.authentication_key.clone().unwrap_or(Key::Aes128([0; 16])); // not used if there is none
    let opened = open(suite, key, &authentication_key, title, protection, &mut HighWater::default(), &mut octets)?;
    octets.truncate(opened.end);
    octets.drain(..opened.start);
    Ok(Opening::Opened(octets, remark))
}

/// The keys of the meter with this title, or of a meter whose title is not known.
fn choose(keys: &[Keys], title: Option<SystemTitle>) -> Option<&Keys> {
    let named = keys
        .iter()
        .find(|keys| title.is_some() && (keys.server_system_title == title || keys.client_system_title == title));
    named.or_else(|| keys.iter().find(|keys| keys.server_system_title.is_none())).or_else(|| keys.first())
}

fn is_from_client(plain: u8) -> bool {
    matches!(
        plain,
        tags::INITIATE_REQUEST
            | tags::READ_REQUEST
            | tags::WRITE_REQUEST
            | tags::UNCONFIRMED_WRITE_REQUEST
            | tags::GET_REQUEST
            | tags::SET_REQUEST
            | tags::ACTION_REQUEST
    )
}

#[cold]
fn no_tag(body: &[u8]) -> ProtocolError {
    let message = format!("{} octets of ciphered content have no room for a tag", body.len());
    ProtocolError::remote("ciphering", body.len(), "truncated-ciphering", message)
}

const UNVERIFIED: &str = "opened without an authentication key: the tag was not verified";
