//! The protected channel of one association: which key, which wrapping, which counters, both directions.

use ipss_session::{ProtocolError, Random};

use super::cipher::{self, PROOF, Sealer};
use super::counter::{CounterBlock, Exhausted, HighWater};
use super::curve::{PrivateKey, PublicKey};
use super::general;
use super::keys::{Key, SystemTitle};
use super::setup::NewKeys;
use super::suite::{Protection, Suite};
use crate::apdu::ciphered::{self, CipheredApdu};
use crate::apdu::tags::{self, KeyKind};
use crate::profile::{Ciphering, Profile};

/// The keys and counters of one end towards one peer. Lives as long as the meter is known; the dedicated key lives as
/// long as the association.
#[derive(Clone, Debug)]
pub struct Channel {
    pub(super) own: Sealer,
    pub(super) authentication_key: Key,
    pub(super) peer: SystemTitle,
    pub(super) peer_counter: HighWater,
    /// The peer's high-water mark when this association began.
    floor: HighWater,
    dedicated: Option<Box<(Sealer, HighWater)>>,
    credentials: Option<Box<Credentials>>,
    /// Whether there is a key at all: without one nothing is ever sealed or opened.
    keyed: bool,
}

/// The master key, and the key pairs of suites 1 and 2, as far as they are used. Certificates are for whoever provisions: these are pinned.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The key that wraps other keys on their way.
    pub master: Option<Key>,
    /// Our private key for signatures.
    pub signing: Option<PrivateKey>,
    /// Our private key for key agreement.
    pub agreement: Option<PrivateKey>,
    /// The peer's public key for signatures.
    pub peer_signing: Option<PublicKey>,
    /// The peer's public key for key agreement.
    pub peer_agreement: Option<PublicKey>,
}

/// What unprotecting gave: where the plain APDU stands, and what is to be noted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// First octet of the plain APDU.
    pub start: usize,
    /// Behind its last octet.
    pub end: usize,
    /// The invocation counter.
    pub counter: u32,
    /// Whether the counter belongs to the lasting key, so that its high-water mark must be made durable.
    pub lasting: bool,
    /// The counter is far ahead of the one before.
    pub jump: bool,
}

impl Channel {
    /// A channel from our own sealer (title, encryption key, reserved counters), the authentication key, and the
    /// peer's title with the highest counter believed of it.
    pub fn new(own: Sealer, authentication_key: Key, peer: SystemTitle, peer_counter: HighWater) -> Self {
        Self {
            own,
            authentication_key,
            peer,
            peer_counter,
            floor: peer_counter,
            dedicated: None,
            credentials: None,
            keyed: true,
        }
    }

    /// A channel that knows both ends' titles and no symmetric key: for mechanisms 6 and 7 without ciphering.
    pub fn without_keys(own: SystemTitle, peer: SystemTitle) -> Self {
        let none = Key::Aes128([0; 16]);
        let sealer = Sealer::new(own, none.clone(), CounterBlock::default());
        Self { keyed: false, ..Self::new(sealer, none, peer, HighWater::default()) }
    }

    /// The same with key pairs.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(Box::new(credentials));
        self
    }

    /// The key pairs, if there are any.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_deref()
    }

    /// Whether there are symmetric keys.
    pub fn is_keyed(&self) -> bool {
        self.keyed
    }

    /// The suite of the lasting key.
    pub fn suite(&self) -> Suite {
        self.own.suite()
    }

    /// Use new keys from now on. Under a new encryption key both ends' counters start anew (Blue Book, "Security
    /// setup", key_transfer): `counters` are ours. The dedicated key of a running association stays.
    ///
    /// # Errors
    /// Local, `bad-key`: a key of another length than the suite's; nothing was replaced.
    pub fn renew(&mut self, new: &NewKeys, counters: CounterBlock) -> Result<(), ProtocolError> {
        for key in [&new.encryption, &new.authentication].into_iter().flatten() {
            Key::for_suite(self.own.suite(), key.octets())?;
        }
        if let Some(key) = new.encryption.as_ref().filter(|key| *key != self.own.key()) {
            self.own = Sealer::of_suite(self.own.suite(), self.own.title, key.clone(), counters)?;
            self.peer_counter = HighWater::default();
            self.floor = HighWater::default();
        }
        if let Some(key) = &new.authentication {
            self.authentication_key = key.clone();
        }
        if let (Some(key), Some(credentials)) = (&new.master, &mut self.credentials) {
            credentials.master = Some(key.clone());
        }
        Ok(())
    }

    /// The peer's provisioned system title.
    pub fn peer(&self) -> SystemTitle {
        self.peer
    }

    /// Our own system title.
    pub fn title(&self) -> SystemTitle {
        self.own.title
    }

    /// The counters left of the lasting key.
    pub fn counters(&self) -> &CounterBlock {
        self.own.counters()
    }

    /// Take the peer's title as it names itself: for a meter, which learns its head-ends' titles from their AARQs.
    /// Another title than before has counters of its own.
    pub fn meet(&mut self, peer: SystemTitle) {
        if peer != self.peer {
            self.peer = peer;
            self.peer_counter = HighWater::default();
        }
    }

    /// The highest counter believed of the peer under the lasting key.
    pub fn peer_counter(&self) -> HighWater {
        self.peer_counter
    }

    /// Add a durably reserved block of counters.
    pub fn grant(&mut self, next: u32, end: u32) -> bool {
        self.keyed && self.own.grant(next, end)
    }

    /// A channel for a second association with the same peer, with `count` counters of its own, which are spent here from
    /// now on; `None` if fewer are left. What it hears raises no high-water mark here.
    pub fn split(&mut self, count: u32) -> Option<Self> {
        let own = if self.keyed { self.own.split(count)? } else { self.own.clone() };
        Some(Self {
            own,
            authentication_key: self.authentication_key.clone(),
            peer: self.peer,
            peer_counter: self.peer_counter,
            floor: self.peer_counter,
            dedicated: None,
            credentials: self.credentials.clone(),
            keyed: self.keyed,
        })
    }

    /// Use a dedicated key from now on: fresh for this association, its counters start anew (Green Book, "Dedicated
    /// key").
    pub fn dedicate(&mut self, key: Key) {
        let counters = CounterBlock::new(0, u32::MAX);
        // Both ends made the key for the suite.
        if let Ok(sealer) = Sealer::of_suite(self.own.suite(), self.own.title, key, counters) {
            self.dedicated = Some(Box::new((sealer, HighWater::default())));
        }
    }

    /// Begin a new association: an earlier one's dedicated key is forgotten.
    pub fn begin(&mut self) {
        self.dedicated = None;
        self.floor = self.peer_counter;
    }

    /// Protect the plain APDU at `out[start..]` in place as the profile says, in the form that is given: under the
    /// dedicated key if there is one and `kind` asks for it.
    ///
    /// # Errors
    /// Local: `counters-exhausted`; `profile` when a key is missing. `out` is as it was.
    pub fn protect(
        &mut self,
        profile: &Profile,
        form: Ciphering,
        kind: KeyKind,
        random: &mut dyn Random,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<u32, ProtocolError> {
        let plain_tag = out.get(start).copied().unwrap_or_default();
        // What initiates an association travels in its own form whatever follows: meters and other people's head-ends
        // look for glo-initiate-request and glo-initiate-response, some for nothing else.
        let initiates = matches!(plain_tag, tags::INITIATE_REQUEST | tags::INITIATE_RESPONSE);
        let counter = match form {
            Ciphering::GeneralCiphering(key) if !initiates => general::protect(self, profile, key, random, out, start)?,
            form => self
                .protect_simply(profile.protection, form, kind, initiates, out, start)
                .map_err(|error| ProtocolError::local("ciphering", "counters-exhausted", error.to_string()))?,
        };
        if profile.signing && !initiates {
            general::sign(self, random, out, start)?;
        }
        Ok(counter)
    }

    fn protect_simply(
        &mut self,
        protection: Protection,
        form: Ciphering,
        kind: KeyKind,
        initiates: bool,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<u32, Exhausted> {
        let (sealer, kind) = match (&mut self.dedicated, kind) {
            (Some(dedicated), KeyKind::Dedicated) => (&mut dedicated.0, KeyKind::Dedicated),
            _ => (&mut self.own, KeyKind::Global),
        };
        let plain_tag = out.get(start).copied().unwrap_or_default();
        let counter = sealer.seal(protection, &self.authentication_key, out, start)?;
        match (form, tags::ciphered(plain_tag, kind)) {
            (_, Some(tag)) if initiates => ciphered::wrap_service(out, start, tag),
            (Ciphering::ServiceSpecific, Some(tag)) => ciphered::wrap_service(out, start, tag),
            // Services without a tag of their own, as notifications, always travel in the general form.
            _ => ciphered::wrap_general(out, start, kind, &sealer.title.0),
        }
        Ok(counter)
    }

    /// Open a protected APDU in place: framing, then tag, then counter.
    ///
    /// # Errors
    /// Remote, see [`cipher::open`]; also `bad-ciphering` for broken framing, `system-title` for another title than
    /// the provisioned one, `no-dedicated-key`.
    pub fn unprotect(&mut self, profile: &Profile, apdu: &mut [u8]) -> Result<Plain, ProtocolError> {
        let initiates = apdu
            .first()
            .and_then(|tag| tags::plain(*tag))
            .is_some_and(|(plain, _)| matches!(plain, tags::INITIATE_REQUEST | tags::INITIATE_RESPONSE));
        if !profile.signing || initiates {
            return self.decipher(profile, initiates, apdu);
        }
        if apdu.first() != Some(&tags::GENERAL_SIGNING) {
            return Err(ProtocolError::remote(
                "ciphering",
                0,
                "weaker-security",
                "an APDU without a signature, but signatures are pinned for this meter",
            ));
        }
        let content = general::verify(self, apdu)?;
        let plain = self.decipher(profile, false, &mut apdu[content.clone()])?;
        Ok(Plain { start: content.start + plain.start, end: content.start + plain.end, ..plain })
    }

    /// Open a ciphered APDU that stands alone.
    fn decipher(&mut self, profile: &Profile, initiates: bool, apdu: &mut [u8]) -> Result<Plain, ProtocolError> {
        if !self.keyed {
            return Err(ProtocolError::remote(
                "ciphering",
                0,
                "no-key",
                "a protected APDU, but there is no key for it",
            ));
        }
        if apdu.first() == Some(&tags::GENERAL_CIPHERING) {
            return general::unprotect(self, profile, apdu);
        }
        if matches!(profile.ciphering, Ciphering::GeneralCiphering(_)) && !initiates {
            return Err(ProtocolError::remote(
                "ciphering",
                0,
                "weaker-security",
                "another form than general-ciphering, which is pinned for this meter",
            ));
        }
        let frame = CipheredApdu::decode(apdu)?;
        if frame.system_title.is_some_and(|title| !title.is_empty() && apdu[title] != self.peer.0) {
            return Err(ProtocolError::remote(
                "ciphering",
                2,
                "system-title",
                format!("the APDU does not name system title {}", self.peer),
            ));
        }
        if !self.keyed {
            return Err(ProtocolError::remote(
                "ciphering",
                0,
                "no-key",
                "a protected APDU, but there is no key for it",
            ));
        }
        let lasting = frame.key == KeyKind::Global;
        let (key, water) = match (&mut self.dedicated, frame.key) {
            (_, KeyKind::Global) => (self.own.key(), &mut self.peer_counter),
            (Some(dedicated), KeyKind::Dedicated) => (dedicated.0.key(), &mut dedicated.1),
            (None, KeyKind::Dedicated) => {
                return Err(ProtocolError::remote(
                    "ciphering",
                    0,
                    "no-dedicated-key",
                    "protected under a dedicated key, but this association has none",
                ));
            }
        };
        let before = *water;
        let content = frame.body;
        let opened = cipher::open(
            self.own.suite(),
            key,
            &self.authentication_key,
            self.peer,
            profile.protection,
            water,
            &mut apdu[content.clone()],
        )
        .map_err(|error| match error.code {
            "compression" if profile.compression => ProtocolError {
                code: "compression-unsupported",
                message: "the meter compresses, as its profile allows; this head-end cannot undo it".into(),
                ..error
            },
            _ => error,
        })?;
        let (start, end) = (content.start + opened.start, content.start + opened.end);
        let inner = apdu[start..end].first().copied();
        if frame.plain_tag.is_some() && inner != frame.plain_tag {
            return Err(ProtocolError::remote(
                "ciphering",
                start,
                "bad-ciphering",
                "the protected APDU is not of the kind that its tag says",
            ));
        }
        Ok(Plain { start, end, counter: opened.counter, lasting, jump: before.is_jump(opened.counter) })
    }

    /// Our proof for the peer's challenge (HLS-GMAC), under the lasting key.
    ///
    /// # Errors
    /// [`Exhausted`]
    pub fn proof(&mut self, challenge: &[u8]) -> Result<[u8; PROOF], Exhausted> {
        self.own.gmac_proof(&self.authentication_key, challenge)
    }

    /// Check the peer's proof of our challenge (HLS-GMAC), under the lasting key.
    ///
    /// # Errors
    /// Remote, see [`cipher::verify_gmac_proof`].
    pub fn verify_proof(&mut self, challenge: &[u8], proof: &[u8]) -> Result<u32, ProtocolError> {
        let (key, floor) = (self.own.key(), self.floor);
        let counter = cipher::verify_gmac_proof(
            self.own.suite(),
            key,
            &self.authentication_key,
            self.peer,
            challenge,
            floor,
            proof,
        )?;
        // Lower than the carrying APDU's own counter as a rule: then there is nothing to raise.
        let _ = self.peer_counter.raise(counter);
        Ok(counter)
    }
}
