//! X.509 certificates as far as meters use them: who is certified, which key, who certifies, and requests for one
//! (Green Book, "Public key certificates"). Chains longer than one step are for whoever provisions.

use der::{Decode, Encode};
use ipss_session::ProtocolError;
use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::curve::{PrivateKey, PublicKey};
use super::keys::SystemTitle;
use super::suite::Suite;

/// Certificates are longer than this only to do harm.
pub const LONGEST: usize = 4_096;

const ECDSA_WITH_SHA256: der::asn1::ObjectIdentifier = der::asn1::ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: der::asn1::ObjectIdentifier = der::asn1::ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const COMMON_NAME: der::asn1::ObjectIdentifier = der::asn1::ObjectIdentifier::new_unwrap("2.5.4.3");

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate itself, DER.
    pub octets: Vec<u8>,
    /// Its number at the issuer.
    pub serial: Vec<u8>,
    /// The issuer's name, DER.
    pub issuer: Vec<u8>,
    /// The certified end's system title: its common name, 16 hexadecimal digits; `None` for a certification authority.
    pub system_title: Option<SystemTitle>,
    /// The certified key.
    pub public_key: PublicKey,
    /// Seconds since 1970 between which it is valid.
    pub valid: (u64, u64),
}

impl Certificate {
    /// Read a certificate. Nothing is believed of it yet: see [`Certificate::is_signed_by`].
    ///
    /// # Errors
    /// Remote, `bad-certificate`: not X.509 in DER, too long, or of a key on neither curve.
    pub fn decode(octets: &[u8]) -> Result<Self, ProtocolError> {
        if octets.len() > LONGEST {
            return Err(bad("more octets than a certificate has"));
        }
        let read = x509_cert::Certificate::from_der(octets).map_err(|_| bad("not a certificate in DER"))?;
        let body = read.tbs_certificate();
        let key = body.subject_public_key_info().to_der().map_err(|_| bad("a broken public key"))?;
        let public_key = p256::PublicKey::from_public_key_der(&key)
            .map(PublicKey::P256)
            .or_else(|_| p384::PublicKey::from_public_key_der(&key).map(PublicKey::P384))
            .map_err(|_| bad("a key on neither P-256 nor P-384"))?;
        let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
        Ok(Self {
            octets: octets.to_vec(),
            serial: body.serial_number().as_bytes().to_vec(),
            issuer: body.issuer().to_der().map_err(|_| bad("a broken issuer"))?,
            system_title: system_title(body.subject()),
            public_key,
            valid: (seconds(&body.validity().not_before), seconds(&body.validity().not_after)),
        })
    }

    /// Whether `issuer`'s key signed it, under the hash of that key's suite.
    pub fn is_signed_by(&self, issuer: &PublicKey) -> bool {
        let Ok(read) = x509_cert::Certificate::from_der(&self.octets) else { return false };
        let (Ok(body), Some(signature)) = (read.tbs_certificate().to_der(), read.signature().as_bytes()) else {
            return false;
        };
        let wanted = signature_algorithm(issuer.suite());
        let bare = match issuer.suite() {
            Suite::Two => p384::ecdsa::Signature::from_der(signature).map(|signature| signature.to_vec()),
            _ => p256::ecdsa::Signature::from_der(signature).map(|signature| signature.to_vec()),
        };
        read.signature_algorithm().oid == wanted && bare.is_ok_and(|bare| issuer.verify(&body, &bare))
    }
}

/// A request (PKCS #10, DER) to certify `key` for the end with this title, signed with the key itself.
///
/// # Errors
/// Local, `bad-certificate`: the request cannot be written.
pub fn request(title: SystemTitle, key: &PrivateKey) -> Result<Vec<u8>, ProtocolError> {
    let wrong = |_| ProtocolError::local("ciphering", "bad-certificate", "the request cannot be written");
    let public = match key.public_key() {
        PublicKey::P256(key) => key.to_public_key_der(),
        PublicKey::P384(key) => key.to_public_key_der(),
    };
    let public = public.map_err(|_| ProtocolError::local("ciphering", "bad-certificate", "a broken public key"))?;
    let info = CertReqInfo {
        version: Version::V1,
        subject: format!("CN={title}").parse().map_err(wrong)?,
        public_key: SubjectPublicKeyInfoOwned::from_der(public.as_bytes()).map_err(wrong)?,
        attributes: Default::default(),
    };
    let signature = key.sign(&info.to_der().map_err(wrong)?);
    let signature = match key.suite() {
        Suite::Two => p384::ecdsa::Signature::from_slice(&signature).map(|one| one.to_der().as_bytes().to_vec()),
        _ => p256::ecdsa::Signature::from_slice(&signature).map(|one| one.to_der().as_bytes().to_vec()),
    };
    let signature = signature.unwrap_or_default();
    let request = CertReq {
        info,
        algorithm: AlgorithmIdentifierOwned { oid: signature_algorithm(key.suite()), parameters: None },
        signature: der::asn1::BitString::from_bytes(&signature).map_err(wrong)?,
    };
    request.to_der().map_err(wrong)
}

fn signature_algorithm(suite: Suite) -> der::asn1::ObjectIdentifier {
    if suite == Suite::Two { ECDSA_WITH_SHA384 } else { ECDSA_WITH_SHA256 }
}

fn system_title(subject: &x509_cert::name::Name) -> Option<SystemTitle> {
    let text = subject.iter().find(|part| part.oid == COMMON_NAME)?.value.value();
    let mut title = [0; 8];
    if text.len() != 16 {
        return None;
    }
    for (octet, digits) in title.iter_mut().zip(text.chunks_exact(2)) {
        *octet = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(SystemTitle(title))
}

fn bad(what: &str) -> ProtocolError {
    ProtocolError::remote("ciphering", 0, "bad-certificate", what)
}
