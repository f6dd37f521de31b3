//! Security suite 0: AES-128-GCM with 96-bit tags (Green Book, "Security suite 0"; NIST SP 800-38D).

use aes::Aes128;
use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U12;
use aes_gcm::{AesGcm, KeyInit, Nonce, Tag};
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use ipss_session::ProtocolError;
use subtle::ConstantTimeEq;

use super::counter::{CounterBlock, Exhausted, HighWater};
use super::keys::{Key, SystemTitle};

type Gcm = AesGcm<Aes128, U12, U12>;

/// Octets of an authentication tag.
pub const TAG: usize = 12;

/// Octets of a proof of HLS-GMAC: security control, invocation counter, tag.
pub const PROOF: usize = 5 + TAG;

/// What a security control octet asks for (Green Book, "Security control byte").
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
    /// The security control octet for suite 0 under a unicast key, without compression.
    pub fn security_control(self) -> u8 {
        match self {
            Self::None => 0x00,
            Self::Authenticated => 0x10,
            Self::Encrypted => 0x20,
            Self::Both => 0x30,
        }
    }

    /// The protection that a security control octet names; `None` for another suite, a broadcast key, or compression.
    pub fn from_security_control(octet: u8) -> Option<Self> {
        match octet {
            0x00 => Some(Self::None),
            0x10 => Some(Self::Authenticated),
            0x20 => Some(Self::Encrypted),
            0x30 => Some(Self::Both),
            _ => None,
        }
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

/// Seals what we send under one key: owns the counter, so that none can be used twice.
#[derive(Clone, Debug)]
pub struct Sealer {
    /// Our own system title.
    pub title: SystemTitle,
    key: Key,
    counters: CounterBlock,
}

impl Sealer {
    /// A sealer for a key with the counters that are reserved for it.
    pub fn new(title: SystemTitle, key: Key, counters: CounterBlock) -> Self {
        Self { title, key, counters }
    }

    /// Add a durably reserved block; false if it reaches back ([`CounterBlock::grant`]).
    pub fn grant(&mut self, next: u32, end: u32) -> bool {
        self.counters.grant(next, end)
    }

    /// The counters left.
    pub fn counters(&self) -> &CounterBlock {
        &self.counters
    }

    /// The key, to open what the peer seals with it.
    pub fn key(&self) -> &Key {
        &self.key
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
        let counter = self.counters.take()?;
        let control = protection.security_control();
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
                let tag = authenticate(&self.key, &vector, &with_plain(control, authentication_key, plain));
                out.extend_from_slice(&tag);
            }
            Protection::Both => {
                let aad = additional_data(control, authentication_key);
                let tag = cipher(&self.key)
                    .encrypt_inout_detached(&Nonce::from(vector), &aad, plain.into())
                    // The only error is a plaintext over 64 GiB.
                    .unwrap_or_default();
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
        let tag = gmac(&self.key, authentication_key, self.title, counter, challenge);
        let mut proof = [0; PROOF];
        proof[0] = Protection::Authenticated.security_control();
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
/// `pinned` is the protection that the meter's profile demands; any other security control octet is refused before
/// a key is touched. The plaintext is only to be used when the result is `Ok`.
///
/// # Errors
/// Remote: `truncated-ciphering`, `weaker-security`, `tag-invalid`, `replay`.
pub fn open(
    key: &Key,
    authentication_key: &Key,
    peer: SystemTitle,
    pinned: Protection,
    high_water: &mut HighWater,
    octets: &mut [u8],
) -> Result<Opened, ProtocolError> {
    let length = octets.len();
    let Some(&[control, a, b, c, d]) = octets.first_chunk::<5>() else {
        return refuse(length, "truncated-ciphering", format!("{length} octets of ciphered content, 5 or more wanted"));
    };
    if control != pinned.security_control() || pinned == Protection::None {
        return refuse(
            0,
            "weaker-security",
            format!("security control {control:02X}, but {:02X} is pinned for this meter", pinned.security_control()),
        );
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
            let expected = authenticate(key, &vector, &with_plain(control, authentication_key, content));
            expected[..].ct_eq(tag).into()
        }
        Protection::Both => {
            let aad = additional_data(control, authentication_key);
            let mut given = Tag::<U12>::default();
            given.copy_from_slice(tag);
            cipher(key).decrypt_inout_detached(&Nonce::from(vector), &aad, (&mut *content).into(), &given).is_ok()
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
    if proof[0] != Protection::Authenticated.security_control() {
        return refuse(0, "bad-proof", format!("a proof of HLS-GMAC starts with 10, this one with {:02X}", proof[0]));
    }
    let counter = u32::from_be_bytes([proof[1], proof[2], proof[3], proof[4]]);
    let expected = gmac(key, authentication_key, peer, counter, challenge);
    if !bool::from(expected[..].ct_eq(&proof[5..])) {
        return refuse(5, "bad-proof", "the proof of HLS-GMAC does not verify".into());
    }
    if floor.highest().is_some_and(|highest| counter <= highest) {
        return refuse(1, "replay", format!("the proof of HLS-GMAC repeats invocation counter {counter}"));
    }
    Ok(counter)
}

/// GMAC over SC || AK || text with security control 10.
fn gmac(key: &Key, authentication_key: &Key, title: SystemTitle, counter: u32, text: &[u8]) -> [u8; TAG] {
    let control = Protection::Authenticated.security_control();
    authenticate(key, &title.initialization_vector(counter), &with_plain(control, authentication_key, text))
}

fn refuse<T>(offset: usize, code: &'static str, message: String) -> Result<T, ProtocolError> {
    Err(ProtocolError::remote("ciphering", offset, code, message))
}

/// The cipher for a key. Set up per message: beyond some ten thousand meters that is faster than fetching a kept
/// context from memory, and it keeps key schedules out of the sessions.
#[inline]
fn cipher(key: &Key) -> Gcm {
    Gcm::new(&key.0.into())
}

/// The tag over `aad` and an empty plaintext.
fn authenticate(key: &Key, vector: &[u8; 12], aad: &[u8]) -> [u8; TAG] {
    let tag = cipher(key).encrypt_inout_detached(&Nonce::from(*vector), aad, (&mut [][..]).into());
    // The only error is a text over 64 GiB.
    tag.unwrap_or_default().into()
}

/// SC || AK: what is authenticated beside an encrypted APDU.
#[inline]
fn additional_data(control: u8, authentication_key: &Key) -> [u8; 17] {
    let mut aad = [0; 17];
    aad[0] = control;
    aad[1..].copy_from_slice(&authentication_key.0);
    aad
}

/// SC || AK || APDU: what is authenticated of an APDU in the clear.
fn with_plain(control: u8, authentication_key: &Key, plain: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(17 + plain.len());
    aad.extend_from_slice(&additional_data(control, authentication_key));
    aad.extend_from_slice(plain);
    aad
}

/// Encrypt or decrypt without authentication: GCM's own keystream, from block 2 (NIST SP 800-38D, section 7.1).
fn keystream(key: &Key, vector: &[u8; 12], octets: &mut [u8]) {
    let mut block = [0; 16];
    block[..12].copy_from_slice(vector);
    block[15] = 2;
    Ctr32BE::<Aes128>::new(&key.0.into(), &block.into()).apply_keystream(octets);
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
        let opened = open(&key, &authentication_key, title, protection, water, octets)?;
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

                assert!(["tag-invalid", "weaker-security"].contains(&error.code), "bit {bit}: {error}");
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
            verify_gmac_proof(&key, &authentication_key, title, challenge, floor, proof).map_err(|error| error.code)
        };

        assert_eq!(verify(b"sixteen octets!?", &proof, None), Err("bad-proof"));
        assert_eq!(verify(b"sixteen octets!!", &proof[..16], None), Err("bad-proof"));
        assert_eq!(verify(b"sixteen octets!!", &proof, None), Ok(1));
        assert_eq!(verify(b"sixteen octets!!", &proof, Some(0)), Ok(1));
        assert_eq!(verify(b"sixteen octets!!", &proof, Some(1)), Err("replay"));
        assert_eq!(sealer.counters().left(), 1);
    }
}
