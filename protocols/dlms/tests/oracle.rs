//! What pyca/cryptography makes of the same keys, octet by octet: `vectors/oracle/oracle.py` has written it, and says how.

use ipss_dlms::apdu::tags::KeyKind;
use ipss_dlms::profile::{Authentication, Ciphering, KeyForm, Profile};
use ipss_dlms::security::cipher::verify_gmac_proof;
use ipss_dlms::security::derive::{Purpose, derive};
use ipss_dlms::security::{
    Channel, CounterBlock, Credentials, HighWater, Key, PrivateKey, Protection, Sealer, Suite, SystemTitle,
};
use ipss_session::Random;
use serde::Deserialize;

const A: SystemTitle = SystemTitle(*b"IPS\0\0\0\0A");
const B: SystemTitle = SystemTitle(*b"IPS\0\0\0\0B");

#[derive(Deserialize)]
struct Vectors {
    suite: Vec<Keys>,
    frame: Vec<Frame>,
    proof: Vec<Proof>,
    derivation: Vec<Derivation>,
}

#[derive(Deserialize)]
struct Keys {
    number: u8,
    encryption_key: String,
    authentication_key: String,
    master: String,
    signing: String,
    agreement: String,
    peer_agreement: String,
}

#[derive(Deserialize)]
struct Frame {
    suite: usize,
    form: String,
    protection: String,
    what: String,
    counter: u32,
    random: String,
    plain: String,
    protected: String,
}

#[derive(Deserialize)]
struct Proof {
    suite: usize,
    counter: u32,
    challenge: String,
    proof: String,
}

#[derive(Deserialize)]
struct Derivation {
    suite: u8,
    wrapping: u8,
    z: String,
    key: String,
}

fn vectors() -> Vectors {
    toml::from_str(include_str!("../vectors/oracle/security.toml")).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key(text: &str) -> Key {
    Key::from_slice(&hex(text)).unwrap()
}

/// The octets that the oracle drew, in order; it panics when more are asked for.
struct Script(Vec<u8>);

impl Random for Script {
    fn fill(&mut self, bytes: &mut [u8]) {
        let rest = self.0.split_off(bytes.len());
        bytes.copy_from_slice(&std::mem::replace(&mut self.0, rest));
    }
}

impl Keys {
    fn suite(&self) -> Suite {
        Suite::from_number(self.number).unwrap()
    }

    /// The channel of A, whose next counter is `counter`, or of B.
    fn channel(&self, is_a: bool, counter: u32) -> Channel {
        let private = |text: &str| PrivateKey::from_slice(self.suite(), &hex(text)).ok();
        let public = |text: &str| private(text).map(|key| key.public_key());
        let (own, peer) = if is_a { (A, B) } else { (B, A) };
        let counters = CounterBlock::new(counter, counter + 1);
        let sealer = Sealer::of_suite(self.suite(), own, key(&self.encryption_key), counters).unwrap();
        let (agreement, peer_agreement) =
            if is_a { (&self.agreement, &self.peer_agreement) } else { (&self.peer_agreement, &self.agreement) };
        Channel::new(sealer, key(&self.authentication_key), peer, HighWater::new(Some(counter - 1))).with_credentials(
            Credentials {
                master: Some(key(&self.master)),
                signing: private(&self.signing),
                peer_signing: public(&self.signing),
                agreement: private(agreement),
                peer_agreement: public(peer_agreement),
            },
        )
    }
}

fn profile(frame: &Frame, suite: Suite) -> Profile {
    Profile {
        authentication: Authentication::HlsGmac,
        suite,
        protection: match frame.protection.as_str() {
            "auth" => Protection::Authenticated,
            "enc" => Protection::Encrypted,
            _ => Protection::Both,
        },
        ciphering: match frame.form.as_str() {
            "service" => Ciphering::ServiceSpecific,
            "identified" => Ciphering::GeneralCiphering(KeyForm::Identified),
            "wrapped" => Ciphering::GeneralCiphering(KeyForm::Wrapped),
            "one-pass" => Ciphering::GeneralCiphering(KeyForm::OnePass),
            "static-unified" => Ciphering::GeneralCiphering(KeyForm::StaticUnified),
            _ => Ciphering::General,
        },
        signing: frame.form == "signed",
        ..Profile::public()
    }
}

#[test]
fn frames_come_out_as_the_oracles_and_open() {
    let vectors = vectors();
    assert_eq!(vectors.frame.len(), 4 * 9 + 2 * 7 * 9);
    for frame in &vectors.frame {
        let name = format!("suite {} {} {} {}", frame.suite, frame.form, frame.protection, frame.what);
        let keys = &vectors.suite[frame.suite];
        let profile = profile(frame, keys.suite());

        let (mut apdu, mut random) = (hex(&frame.plain), Script(hex(&frame.random)));
        keys.channel(true, frame.counter)
            .protect(&profile, profile.ciphering, KeyKind::Global, &mut random, &mut apdu, 0)
            .unwrap();
        assert_eq!(apdu, hex(&frame.protected), "{name}");
        assert!(random.0.is_empty(), "{name}");

        let plain = keys.channel(false, frame.counter).unprotect(&profile, &mut apdu).unwrap();
        assert_eq!((&apdu[plain.start..plain.end], plain.counter), (&hex(&frame.plain)[..], frame.counter), "{name}");
    }
}

#[test]
fn no_frame_of_the_oracle_opens_with_a_bit_changed() {
    let vectors = vectors();
    let authenticated = vectors.frame.iter().filter(|frame| frame.protection != "enc" && frame.plain.len() < 60);
    for frame in authenticated {
        let keys = &vectors.suite[frame.suite];
        let profile = profile(frame, keys.suite());
        let genuine = hex(&frame.protected);
        // The last octet is the tag's or the signature's.
        for at in [genuine.len() - 1, genuine.len() - 6, genuine.len() - 13] {
            let mut apdu = genuine.clone();
            apdu[at] ^= 1;
            let opened = keys.channel(false, frame.counter).unprotect(&profile, &mut apdu);
            assert!(opened.is_err(), "suite {} {} {} octet {at}", frame.suite, frame.form, frame.protection);
        }
    }
}

#[test]
fn proofs_of_hls_gmac_come_out_as_the_oracles_and_verify() {
    let vectors = vectors();
    for proof in &vectors.proof {
        let keys = &vectors.suite[proof.suite];
        let (encryption, authentication) = (key(&keys.encryption_key), key(&keys.authentication_key));
        let counters = CounterBlock::new(proof.counter, proof.counter + 1);
        let mut sealer = Sealer::of_suite(keys.suite(), A, encryption.clone(), counters).unwrap();
        let challenge = hex(&proof.challenge);

        assert_eq!(sealer.gmac_proof(&authentication, &challenge).unwrap().to_vec(), hex(&proof.proof));
        let floor = HighWater::new(None);
        let verified =
            verify_gmac_proof(keys.suite(), &encryption, &authentication, A, &challenge, floor, &hex(&proof.proof));
        assert_eq!(verified.unwrap(), proof.counter);
    }
}

#[test]
fn agreed_keys_are_the_oracles() {
    let vectors = vectors();
    for derivation in &vectors.derivation {
        let keys = &vectors.suite[usize::from(derivation.suite)];
        let own = PrivateKey::from_slice(keys.suite(), &hex(&keys.agreement)).unwrap();
        let peer = PrivateKey::from_slice(keys.suite(), &hex(&keys.peer_agreement)).unwrap();
        let z = own.agree(&peer.public_key()).unwrap();
        assert_eq!(z.to_vec(), hex(&derivation.z));
        let purpose = if derivation.wrapping == 1 { Purpose::Wrap } else { Purpose::Cipher };
        assert_eq!(derive(keys.suite(), purpose, &z, &A.0, &B.0).unwrap(), key(&derivation.key));
    }
}
