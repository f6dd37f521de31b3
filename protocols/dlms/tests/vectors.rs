//! Every vector in `vectors/` means what it says, and no beginning of it means anything else.

use ipss_dlms::security::{Key, SystemTitle};
use ipss_dlms::translate::{Keys, Outcome, TranslateRequest, Transmission, parse_hex, translate};
use serde_json::Value;

struct Vector {
    name: String,
    layer: String,
    octets: Vec<u8>,
    /// Its key is not public.
    protected: bool,
    keys: Vec<Keys>,
    expected: [(&'static str, Value); 4],
}

/// The keys of the Green Book's examples.
fn green_book_keys() -> Keys {
    let key = |text| Some(Key::from_slice(&parse_hex(text).unwrap()).unwrap());
    Keys {
        encryption_key: key("000102030405060708090A0B0C0D0E0F"),
        dedicated_key: key("000102030405060708090A0B0C0D0E0F"),
        authentication_key: key("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"),
        client_system_title: Some(SystemTitle::from_slice(&parse_hex("4D4D4D0000BC614E").unwrap()).unwrap()),
        server_system_title: None,
    }
}

/// The key that a distributor published with the description of its customers' port.
fn netz_noe_keys() -> Keys {
    let key = Key::from_slice(&parse_hex("36C66639E48A8CA4D6BC8B282A793BBB").unwrap()).unwrap();
    Keys { encryption_key: Some(key), ..Keys::default() }
}

fn vectors() -> Vec<Vector> {
    let files = [
        include_str!("../vectors/acse.toml"),
        include_str!("../vectors/xdlms.toml"),
        include_str!("../vectors/data.toml"),
        include_str!("../vectors/framing.toml"),
        include_str!("../vectors/mbus.toml"),
    ];
    let tables =
        files.iter().flat_map(|file| file.parse::<toml::Table>().unwrap()["vector"].as_array().unwrap().clone());
    tables
        .map(|table| {
            let text = |key: &str| table.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
            let list = |key| serde_json::from_str(&text(key)).unwrap_or(Value::Array(vec![]));
            let means = serde_json::from_str(&text("means")).map_or(vec![], |means| vec![means]);
            assert!(!text("source").is_empty(), "{} has no source", text("name"));
            Vector {
                octets: parse_hex(&text("bytes")).unwrap(),
                keys: match text("keys").as_str() {
                    "green-book" => vec![green_book_keys()],
                    "netz-noe" => vec![netz_noe_keys()],
                    _ => vec![],
                },
                expected: [
                    ("frames", list("frames")),
                    ("apdus", Value::Array(means)),
                    ("readings", list("readings")),
                    ("warnings", list("warnings")),
                ],
                name: text("name"),
                layer: text("layer"),
                protected: text("outcome") == "protected",
            }
        })
        .collect()
}

fn answer(layer: &str, octets: &[u8], keys: &[Keys]) -> (Outcome, Value) {
    let transmissions = [Transmission { from: None, octets }];
    let mut text = String::new();
    let request = TranslateRequest { id: None, layer, transmissions: &transmissions, keys, companion: None };
    let outcome = translate(&request, &mut |piece| text.push_str(piece));
    (outcome, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[test]
fn every_vector_means_what_it_says() {
    let vectors = vectors();
    assert!(vectors.len() > 70);
    for vector in vectors {
        let (outcome, answer) = answer(&vector.layer, &vector.octets, &vector.keys);

        let wanted = if vector.protected { Outcome::Protected } else { Outcome::Decoded };
        assert_eq!(outcome, wanted, "{}: {answer}", vector.name);
        for (key, expected) in vector.expected {
            assert_eq!(answer[key], expected, "{}: {key}", vector.name);
        }
    }
}

#[test]
fn every_vector_is_recognised_without_its_layer() {
    for vector in vectors() {
        let (outcome, answer) = answer("auto", &vector.octets, &vector.keys);

        let wanted = if vector.protected { Outcome::Protected } else { Outcome::Decoded };
        assert_eq!(outcome, wanted, "{}: {answer}", vector.name);
    }
}

#[test]
fn vector_truncated_at_every_octet_is_incomplete_or_wrong_never_understood() {
    for vector in vectors() {
        for end in 0..vector.octets.len() {
            let (outcome, answer) = answer(&vector.layer, &vector.octets[..end], &vector.keys);

            // The counter of this one is left out by some meters.
            let shorter = vector.name == "exception-response-invocation-counter" && end == 3;
            assert_eq!(outcome == Outcome::Decoded, shorter, "{} at {end}: {answer}", vector.name);
        }
    }
}

#[test]
fn every_flipped_bit_gives_an_answer() {
    for vector in vectors() {
        for bit in 0..vector.octets.len() * 8 {
            let mut octets = vector.octets.clone();
            octets[bit / 8] ^= 1 << (bit % 8);
            answer(&vector.layer, &octets, &vector.keys);
        }
    }
}

#[test]
fn octets_after_the_end_are_not_passed_over() {
    for vector in vectors() {
        if vector.layer == "hdlc" || vector.layer == "wrapper" {
            continue; // streams go on
        }
        let mut octets = vector.octets.clone();
        octets.push(0);

        let (outcome, answer) = answer(&vector.layer, &octets, &vector.keys);

        assert_ne!(outcome, Outcome::Decoded, "{}: {answer}", vector.name);
    }
}
