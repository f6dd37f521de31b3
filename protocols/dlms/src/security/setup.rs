//! Security setup (class 64, version 1): its methods as typed parameters for both roles, and what a meter does with
//! them (Blue Book, "Security setup").
//!
//! The head-end makes a [`Method`], sends its number and [`Method::encode`], and gives what comes back to
//! [`Agreement::finish`] or [`Certificate::decode`]. A meter's model keeps a [`SecuritySetup`] and hands methods to it.

use ipss_session::{Limits, ProtocolError, Random};

use super::certificate::{self, Certificate};
use super::curve::{PrivateKey, PublicKey};
use super::derive::{self, Purpose};
use super::keys::{Key, SystemTitle};
use super::suite::Suite;
use crate::axdr::{Data, tag, write_length};
use crate::cosem::ActionResult;

/// The interface class.
pub const CLASS_ID: u16 = 64;
/// More keys or certificates than this in one call, or kept, are no setup.
const MOST: usize = 16;

/// Which symmetric key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyId {
    /// 0: the global unicast encryption key.
    GlobalUnicast,
    /// 1: the global broadcast encryption key.
    GlobalBroadcast,
    /// 2: the authentication key.
    Authentication,
    /// 3: the master key.
    Master,
}

/// What a key pair is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyPair {
    /// 0: signatures.
    Signature,
    /// 1: key agreement.
    Agreement,
    /// 2: TLS.
    Tls,
}

/// How a certificate is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// By whose it is.
    Entity {
        /// 0 server, 1 client, 2 certification authority, 3 other.
        owner: u8,
        /// 0 signatures, 1 key agreement, 2 TLS, 3 other.
        kind: u8,
        /// The certified end.
        system_title: Vec<u8>,
    },
    /// By its number at its issuer.
    Serial {
        /// The number.
        serial: Vec<u8>,
        /// The issuer's name, DER.
        issuer: Vec<u8>,
    },
}

/// A method with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// 1 security_activate: the new policy, which may only be stronger.
    Activate(u8),
    /// 2 key_transfer: keys wrapped under the master key.
    KeyTransfer(Vec<(KeyId, Vec<u8>)>),
    /// 3 key_agreement: for each key an ephemeral public key and its signature.
    KeyAgreement(Vec<(KeyId, Vec<u8>)>),
    /// 4 generate_key_pair
    GenerateKeyPair(KeyPair),
    /// 5 generate_certificate_request
    GenerateCertificateRequest(KeyPair),
    /// 6 import_certificate: DER.
    ImportCertificate(Vec<u8>),
    /// 7 export_certificate
    ExportCertificate(CertificateName),
    /// 8 remove_certificate
    RemoveCertificate(CertificateName),
}

/// Keys that take the place of others. What is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewKeys {
    /// The global unicast encryption key.
    pub encryption: Option<Key>,
    /// The authentication key.
    pub authentication: Option<Key>,
    /// The master key.
    pub master: Option<Key>,
    /// The global broadcast encryption key: kept for whoever receives broadcasts, used for nothing here.
    pub broadcast: Option<Key>,
}

impl KeyId {
    /// The key with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::GlobalUnicast, Self::GlobalBroadcast, Self::Authentication, Self::Master]
            .get(usize::from(number))
            .copied()
    }
}

impl KeyPair {
    /// The key pair with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Signature, Self::Agreement, Self::Tls].get(usize::from(number)).copied()
    }
}

impl NewKeys {
    /// Put a key in its place.
    pub fn put(&mut self, id: KeyId, key: Key) {
        let place = match id {
            KeyId::GlobalUnicast => &mut self.encryption,
            KeyId::GlobalBroadcast => &mut self.broadcast,
            KeyId::Authentication => &mut self.authentication,
            KeyId::Master => &mut self.master,
        };
        *place = Some(key);
    }
}

impl Method {
    /// key_transfer of these keys under the meter's master key.
    pub fn transfer<'a>(master: &Key, keys: impl IntoIterator<Item = (KeyId, &'a Key)>) -> Self {
        Self::KeyTransfer(keys.into_iter().map(|(id, key)| (id, derive::wrap(master, key))).collect())
    }

    /// Its number.
    pub fn number(&self) -> i8 {
        match self {
            Self::Activate(_) => 1,
            Self::KeyTransfer(_) => 2,
            Self::KeyAgreement(_) => 3,
            Self::GenerateKeyPair(_) => 4,
            Self::GenerateCertificateRequest(_) => 5,
            Self::ImportCertificate(_) => 6,
            Self::ExportCertificate(_) => 7,
            Self::RemoveCertificate(_) => 8,
        }
    }

    /// Its parameters as A-XDR data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Activate(policy) => out.extend_from_slice(&[tag::ENUM, *policy]),
            Self::KeyTransfer(keys) | Self::KeyAgreement(keys) => encode_keys(&mut out, keys),
            Self::GenerateKeyPair(pair) | Self::GenerateCertificateRequest(pair) => {
                out.extend_from_slice(&[tag::ENUM, *pair as u8]);
            }
            Self::ImportCertificate(octets) => octet_string(&mut out, octets),
            Self::ExportCertificate(name) | Self::RemoveCertificate(name) => match name {
                CertificateName::Entity { owner, kind, system_title } => {
                    out.extend_from_slice(&[tag::STRUCTURE, 2, tag::ENUM, 0, tag::STRUCTURE, 3]);
                    out.extend_from_slice(&[tag::ENUM, *owner, tag::ENUM, *kind]);
                    octet_string(&mut out, system_title);
                }
                CertificateName::Serial { serial, issuer } => {
                    out.extend_from_slice(&[tag::STRUCTURE, 2, tag::ENUM, 1, tag::STRUCTURE, 2]);
                    octet_string(&mut out, serial);
                    octet_string(&mut out, issuer);
                }
            },
        }
        out
    }

    /// The method with this number and these parameters; `None` if they are not what it takes.
    ///
    /// # Errors
    /// Remote: the parameters are no A-XDR data.
    pub fn decode(number: i8, parameters: &[u8], limits: &Limits) -> Result<Option<Self>, ProtocolError> {
        let data = Data::from_octets(parameters, limits)?;
        Ok(match number {
            1 => enumeration(&data).map(Self::Activate),
            2 => decode_keys(&data).map(Self::KeyTransfer),
            3 => decode_keys(&data).map(Self::KeyAgreement),
            4 => enumeration(&data).and_then(KeyPair::from_number).map(Self::GenerateKeyPair),
            5 => enumeration(&data).and_then(KeyPair::from_number).map(Self::GenerateCertificateRequest),
            6 => data.as_octets().map(|octets| Self::ImportCertificate(octets.to_vec())),
            7 => certificate_name(&data).map(Self::ExportCertificate),
            8 => certificate_name(&data).map(Self::RemoveCertificate),
            _ => None,
        })
    }
}

/// The head-end's half of key_agreement, between question and answer: ephemeral unified model, C(2e, 0s).
#[derive(Debug)]
pub struct Agreement {
    suite: Suite,
    ephemeral: Vec<(KeyId, PrivateKey)>,
}

impl Agreement {
    /// The method that asks the meter to agree on these keys.
    ///
    /// # Errors
    /// Local, `bad-key`: suite 0 agrees on no keys.
    pub fn begin(
        suite: Suite,
        keys: &[KeyId],
        signing: &PrivateKey,
        random: &mut dyn Random,
    ) -> Result<(Self, Method), ProtocolError> {
        let mut ephemeral = Vec::with_capacity(keys.len());
        let mut offered = Vec::with_capacity(keys.len());
        for id in keys {
            let (key, data) = offer(suite, *id, signing, random)?;
            ephemeral.push((*id, key));
            offered.push((*id, data));
        }
        Ok((Self { suite, ephemeral }, Method::KeyAgreement(offered)))
    }

    /// The keys, from the return parameters of the method.
    ///
    /// # Errors
    /// Remote: no A-XDR data, `bad-key-agreement` for other keys than were offered, `bad-signature`,
    /// `bad-public-key`.
    pub fn finish(
        self,
        returned: &[u8],
        meter: &PublicKey,
        titles: (SystemTitle, SystemTitle),
        limits: &Limits,
    ) -> Result<NewKeys, ProtocolError> {
        let answers = decode_keys(&Data::from_octets(returned, limits)?);
        let answers = answers.filter(|answers| answers.len() == self.ephemeral.len());
        let answers = answers.ok_or_else(|| bad("bad-key-agreement", "another number of keys than was offered"))?;
        let mut keys = NewKeys::default();
        for ((id, own), (answered, data)) in self.ephemeral.iter().zip(&answers) {
            if id != answered {
                return Err(bad("bad-key-agreement", "another key than was offered"));
            }
            keys.put(*id, agree(self.suite, *id, own, data, meter, titles)?);
        }
        Ok(keys)
    }
}

/// What a meter keeps for its security setup object, and does with its methods.
#[derive(Debug)]
pub struct SecuritySetup {
    /// The suite.
    pub suite: Suite,
    /// The policy: bits as the Blue Book has them. It is only ever made stronger.
    pub policy: u8,
    /// The client's system title.
    pub client_title: SystemTitle,
    /// The meter's own.
    pub server_title: SystemTitle,
    /// The master key.
    pub master: Key,
    /// The meter's private keys: signatures, key agreement, TLS.
    pub private_keys: [Option<PrivateKey>; 3],
    /// The client's public key for signatures.
    pub client_signing: Option<PublicKey>,
    /// The key whose certificates are imported; without one none is.
    pub authority: Option<PublicKey>,
    /// The certificates.
    pub certificates: Vec<Certificate>,
    new_keys: Option<NewKeys>,
}

impl SecuritySetup {
    /// A setup with symmetric keys only.
    pub fn new(suite: Suite, client_title: SystemTitle, server_title: SystemTitle, master: Key) -> Self {
        Self {
            suite,
            policy: 0,
            client_title,
            server_title,
            master,
            private_keys: [None, None, None],
            client_signing: None,
            authority: None,
            certificates: Vec::new(),
            new_keys: None,
        }
    }

    /// Keys that a method replaced and nobody has taken yet. They come into use after the answer.
    pub fn new_keys(&mut self) -> Option<NewKeys> {
        self.new_keys.take()
    }

    /// Invoke a method; append return parameters to `out`.
    pub fn act(
        &mut self,
        number: i8,
        parameters: Option<&[u8]>,
        random: &mut dyn Random,
        out: &mut Vec<u8>,
    ) -> ActionResult {
        if !(1..=8).contains(&number) {
            return ActionResult::ObjectUndefined;
        }
        let limits = Limits::default();
        let Ok(Some(method)) = Method::decode(number, parameters.unwrap_or(&[tag::NULL_DATA]), &limits) else {
            return ActionResult::TypeUnmatched;
        };
        self.invoke(method, random, out).unwrap_or(ActionResult::OtherReason)
    }

    fn invoke(
        &mut self,
        method: Method,
        random: &mut dyn Random,
        out: &mut Vec<u8>,
    ) -> Result<ActionResult, ProtocolError> {
        match method {
            // A policy may only gain bits.
            Method::Activate(policy) if policy & self.policy != self.policy => {
                return Ok(ActionResult::ReadWriteDenied);
            }
            Method::Activate(policy) => self.policy = policy,
            Method::KeyTransfer(keys) => {
                let mut new = self.new_keys.clone().unwrap_or_default();
                for (id, wrapped) in keys {
                    let key = derive::unwrap(&self.master, &wrapped)?;
                    new.put(id, Key::for_suite(self.suite, key.octets())?);
                }
                self.replace(new);
            }
            Method::KeyAgreement(offers) => {
                let (Some(signing), Some(client)) = (&self.private_keys[0], &self.client_signing) else {
                    return Ok(ActionResult::TemporaryFailure);
                };
                let titles = (self.client_title, self.server_title);
                let mut new = self.new_keys.clone().unwrap_or_default();
                let mut answers = Vec::with_capacity(offers.len());
                for (id, data) in offers {
                    let (own, answer) = offer(self.suite, id, signing, random)?;
                    new.put(id, agree(self.suite, id, &own, &data, client, titles)?);
                    answers.push((id, answer));
                }
                encode_keys(out, &answers);
                self.replace(new);
            }
            Method::GenerateKeyPair(pair) => {
                let Some(key) = PrivateKey::random(self.suite, random) else {
                    return Ok(ActionResult::TemporaryFailure);
                };
                self.private_keys[pair as usize] = Some(key);
            }
            Method::GenerateCertificateRequest(pair) => {
                let Some(key) = &self.private_keys[pair as usize] else { return Ok(ActionResult::TemporaryFailure) };
                octet_string(out, &certificate::request(self.server_title, key)?);
            }
            Method::ImportCertificate(octets) => {
                let read = Certificate::decode(&octets)?;
                let certified = self.authority.as_ref().is_some_and(|authority| read.is_signed_by(authority));
                if !certified || self.certificates.len() >= MOST {
                    return Ok(ActionResult::ReadWriteDenied);
                }
                self.certificates.retain(|kept| (&kept.serial, &kept.issuer) != (&read.serial, &read.issuer));
                self.certificates.push(read);
            }
            Method::ExportCertificate(name) => match self.certificates.iter().find(|one| is_named(one, &name)) {
                Some(found) => octet_string(out, &found.octets),
                None => return Ok(ActionResult::ObjectUndefined),
            },
            Method::RemoveCertificate(name) => {
                let before = self.certificates.len();
                self.certificates.retain(|one| !is_named(one, &name));
                if self.certificates.len() == before {
                    return Ok(ActionResult::ObjectUndefined);
                }
            }
        }
        Ok(ActionResult::Success)
    }

    fn replace(&mut self, new: NewKeys) {
        if let Some(master) = &new.master {
            self.master = master.clone();
        }
        self.new_keys = Some(new);
    }
}

fn is_named(certificate: &Certificate, name: &CertificateName) -> bool {
    match name {
        CertificateName::Entity { system_title, .. } => {
            certificate.system_title.is_some_and(|title| title.0 == system_title[..])
        }
        CertificateName::Serial { serial, issuer } => (&certificate.serial, &certificate.issuer) == (serial, issuer),
    }
}

/// A fresh ephemeral key, and its public half with the signature over key-id and public key.
fn offer(
    suite: Suite,
    id: KeyId,
    signing: &PrivateKey,
    random: &mut dyn Random,
) -> Result<(PrivateKey, Vec<u8>), ProtocolError> {
    let key = PrivateKey::random(suite, random)
        .ok_or_else(|| ProtocolError::local("ciphering", "bad-key", "suite 0 agrees on no keys"))?;
    let mut data = key.public_key().octets();
    let signature = signing.sign(&[&[id as u8][..], &data].concat());
    data.extend_from_slice(&signature);
    Ok((key, data))
}

/// The key that follows from our ephemeral key and what the peer offers.
fn agree(
    suite: Suite,
    id: KeyId,
    own: &PrivateKey,
    offered: &[u8],
    peer_signing: &PublicKey,
    (client, server): (SystemTitle, SystemTitle),
) -> Result<Key, ProtocolError> {
    let coordinate = suite.coordinate_octets().unwrap_or_default();
    let (public, signature) = offered
        .split_at_checked(2 * coordinate)
        .ok_or_else(|| bad("bad-public-key", "no room for an ephemeral public key"))?;
    if !peer_signing.verify(&[&[id as u8][..], public].concat(), signature) {
        return Err(bad("bad-signature", "the ephemeral public key is not signed by the peer"));
    }
    let z = own.agree(&PublicKey::from_slice(suite, public)?)?;
    let purpose = if id == KeyId::Master { Purpose::Wrap } else { Purpose::Cipher };
    derive::derive(suite, purpose, &z, &client.0, &server.0)
}

fn encode_keys(out: &mut Vec<u8>, keys: &[(KeyId, Vec<u8>)]) {
    out.push(tag::ARRAY);
    write_length(out, keys.len());
    for (id, data) in keys {
        out.extend_from_slice(&[tag::STRUCTURE, 2, tag::ENUM, *id as u8]);
        octet_string(out, data);
    }
}

fn decode_keys(data: &Data) -> Option<Vec<(KeyId, Vec<u8>)>> {
    let Data::Array(keys) = data else { return None };
    if keys.is_empty() || keys.len() > MOST {
        return None;
    }
    keys.iter()
        .map(|key| match key {
            Data::Structure(parts) => match &parts[..] {
                [id, data] => Some((KeyId::from_number(enumeration(id)?)?, data.as_octets()?.to_vec())),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn certificate_name(data: &Data) -> Option<CertificateName> {
    let Data::Structure(parts) = data else { return None };
    let [kind, Data::Structure(options)] = &parts[..] else { return None };
    match (enumeration(kind)?, &options[..]) {
        (0, [owner, kind, title]) => Some(CertificateName::Entity {
            owner: enumeration(owner)?,
            kind: enumeration(kind)?,
            system_title: title.as_octets()?.to_vec(),
        }),
        (1, [serial, issuer]) => {
            Some(CertificateName::Serial { serial: serial.as_octets()?.to_vec(), issuer: issuer.as_octets()?.to_vec() })
        }
        _ => None,
    }
}

fn enumeration(data: &Data) -> Option<u8> {
    match data {
        Data::Enum(number) => Some(*number),
        _ => None,
    }
}

fn octet_string(out: &mut Vec<u8>, octets: &[u8]) {
    out.push(tag::OCTET_STRING);
    write_length(out, octets.len());
    out.extend_from_slice(octets);
}

fn bad(code: &'static str, message: &str) -> ProtocolError {
    ProtocolError::remote("ciphering", 0, code, message)
}
