//! Keys that are made from other secrets, and keys on their way: the key derivation of key agreement (Green Book, "Key
//! derivation function"; NIST SP 800-56A, single-step) and AES key wrap (Green Book, "Key wrapping"; RFC 3394).

use ipss_session::ProtocolError;
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroizing;

use super::keys::Key;
use super::suite::Suite;

/// What an agreed key is for: the AlgorithmID of its derivation (Green Book, "Cryptographic algorithm ID-s").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Ciphering with AES-GCM.
    Cipher,
    /// Wrapping other keys.
    Wrap,
}

/// The key of `suite` that follows from the shared secret `z` and the parties' information.
///
/// # Errors
/// Local, `bad-key`: suite 0 agrees on no keys.
pub fn derive(suite: Suite, purpose: Purpose, z: &[u8], party_u: &[u8], party_v: &[u8]) -> Result<Key, ProtocolError> {
    let number = match (purpose, suite) {
        (Purpose::Cipher, Suite::One) => 0,
        (Purpose::Cipher, Suite::Two) => 1,
        (Purpose::Wrap, Suite::One) => 2,
        (Purpose::Wrap, Suite::Two) => 3,
        (_, Suite::Zero) => return Err(ProtocolError::local("ciphering", "bad-key", "suite 0 agrees on no keys")),
    };
    let algorithm = [0x60, 0x85, 0x74, 0x05, 0x08, 0x03, number];
    // One round gives as many octets as the hash has, which is as many as the key has, or more.
    let parts: [&[u8]; 5] = [&[0, 0, 0, 1], z, &algorithm, party_u, party_v];
    let octets = Zeroizing::new(match suite {
        Suite::Two => parts.iter().fold(Sha384::new(), Digest::chain_update).finalize().to_vec(),
        _ => parts.iter().fold(Sha256::new(), Digest::chain_update).finalize().to_vec(),
    });
    Key::from_slice(&octets[..suite.key_octets()])
}

/// `key` wrapped under `master`: eight octets longer.
pub fn wrap(master: &Key, key: &Key) -> Vec<u8> {
    use aes_kw::KeyInit;

    let mut out = vec![0; key.octets().len() + 8];
    let done = match master {
        Key::Aes128(octets) => aes_kw::KwAes128::new(octets.into()).wrap_key(key.octets(), &mut out).is_ok(),
        Key::Aes256(octets) => aes_kw::KwAes256::new(octets.into()).wrap_key(key.octets(), &mut out).is_ok(),
    };
    debug_assert!(done, "a key has two or four blocks");
    out
}

/// The key that was wrapped under `master`.
///
/// # Errors
/// Remote, `bad-wrapped-key`: of no key's length, changed, or wrapped under another key.
pub fn unwrap(master: &Key, wrapped: &[u8]) -> Result<Key, ProtocolError> {
    use aes_kw::KeyInit;

    let wrong = |what: &str| ProtocolError::remote("ciphering", 0, "bad-wrapped-key", format!("a wrapped key {what}"));
    let length = match wrapped.len() {
        24 => 16,
        40 => 32,
        other => return Err(wrong(&format!("of {other} octets; 24 or 40 expected"))),
    };
    let mut octets = Zeroizing::new([0; 32]);
    let key = &mut octets[..length];
    let done = match master {
        Key::Aes128(master) => aes_kw::KwAes128::new(master.into()).unwrap_key(wrapped, key).is_ok(),
        Key::Aes256(master) => aes_kw::KwAes256::new(master.into()).unwrap_key(wrapped, key).is_ok(),
    };
    if !done {
        return Err(wrong("that does not open under the master key"));
    }
    Key::from_slice(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_green_books_example_of_key_agreement_comes_out() {
        // Green Book, "ACCESS service with general-ciphering, One-Pass Diffie-Hellman": the client's and the server's Z.
        let (client, server) = (hex("4D4D4D0000BC614E"), hex("4D4D4D0000000001"));
        let from_client = hex("0D4385BA0DD756CBCAB9887EB538396EE8F090A14C1079B4359F115B977F4615");
        let from_server = hex("2B4302DC49790E2E78D990CFB52ED6E2F273DECE441A2D95E4301B93812A9FAC");
        let key = |z: &[u8], u: &[u8], v: &[u8]| derive(Suite::One, Purpose::Cipher, z, u, v).unwrap();

        assert_eq!(key(&from_client, &client, &server).octets(), hex("59A71FD81C929A86A99438DA17A66C05"));
        assert_eq!(key(&from_server, &server, &client).octets(), hex("F0184BDA9466BFA4601A64A7EF46504A"));
    }

    #[test]
    fn rfc_3394s_examples_come_out_and_open() {
        for (master, key, wrapped) in [
            (
                "000102030405060708090A0B0C0D0E0F",
                "00112233445566778899AABBCCDDEEFF",
                "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5",
            ),
            (
                "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
                "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
                "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21",
            ),
        ] {
            let (master, key) = (Key::from_slice(&hex(master)).unwrap(), Key::from_slice(&hex(key)).unwrap());

            assert_eq!(wrap(&master, &key), hex(wrapped));
            assert_eq!(unwrap(&master, &hex(wrapped)).unwrap(), key);
            for bit in 0..wrapped.len() * 4 {
                let mut mutant = hex(wrapped);
                mutant[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(unwrap(&master, &mutant).unwrap_err().code, "bad-wrapped-key");
            }
        }
    }
}
