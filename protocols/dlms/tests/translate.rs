//! What `decode` answers beyond single APDUs: reassembly, readings, keys, broken input.

use ipss_dlms::axdr::{Data, DateTime};
use ipss_dlms::hdlc;
use ipss_dlms::security::{CounterBlock, Key, Protection, Sealer, SystemTitle};
use ipss_dlms::translate::{Keys, Outcome, Sender, TranslateRequest, Transmission, parse_hex, refuse, translate};
use ipss_session::WallTime;
use serde_json::{Value, json};

fn hex(text: &str) -> Vec<u8> {
    parse_hex(text).unwrap()
}

fn ask(layer: &str, items: &[(Option<Sender>, Vec<u8>)], keys: &[Keys]) -> Value {
    let transmissions: Vec<_> = items.iter().map(|(from, octets)| Transmission { from: *from, octets }).collect();
    let mut text = String::new();
    let request = TranslateRequest { id: Some("7"), layer, transmissions: &transmissions, keys, companion: None };
    let outcome = translate(&request, &mut |piece| text.push_str(piece));
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(answer["outcome"], outcome.name());
    assert_eq!(answer["id"], 7);
    assert_eq!(answer.get("error").is_some(), outcome == Outcome::Error);
    answer
}

fn one(layer: &str, octets: &[u8]) -> Value {
    ask(layer, &[(None, octets.to_vec())], &[])
}

fn frame(control: u8, information: &[u8], segmented: bool) -> Vec<u8> {
    let length = 10 + information.len();
    let mut octets =
        vec![0xA0 | u8::from(segmented) << 3 | (length >> 8) as u8, length as u8, 0x01, 0x02, 0x01, control];
    octets.extend(hdlc::check_sequence(&octets).to_le_bytes());
    octets.extend(information);
    octets.extend(hdlc::check_sequence(&octets).to_le_bytes());
    octets.insert(0, 0x7E);
    octets.push(0x7E);
    octets
}

/// A notification as a Kaifa meter sends it: its time is tagged.
const TAGGED: &str = "0F 40000000 090C 07E60102070E2512FF800000 0201 0600001015";

#[test]
fn hdlc_push_is_framed_as_the_command_line_documents() {
    let information = [hex("E6E700"), hex(TAGGED)].concat();

    let answer = one("hdlc", &frame(0x10, &information, false));

    assert_eq!(answer["outcome"], "decoded");
    assert_eq!(
        answer["frames"],
        json!([{"layer": "hdlc", "length": 39, "segmented": false, "destination": "01", "source": "0201",
                "control": "10", "type": "i", "hcs_ok": true, "fcs_ok": true}])
    );
    assert_eq!(answer["apdus"][0]["long_invoke_id_and_priority"], "40000000");
    assert_eq!(answer["apdus"][0]["date_time"]["hundredths"], Value::Null);
    assert_eq!(answer["apdus"][0]["data"], json!(["structure", [["double-long-unsigned", 4117]]]));
    assert_eq!(answer["warnings"], json!(["date-time of the notification is tagged as an octet string"]));
}

#[test]
fn segments_are_put_together_across_transmissions_split_anywhere() {
    let whole = [hex("E6E700"), hex(TAGGED)].concat();
    let stream: Vec<u8> = [frame(0x10, &whole[..20], true), frame(0x12, &whole[20..], false)].concat();
    let expected = one("hdlc", &stream);
    assert_eq!(expected["outcome"], "decoded");
    assert_eq!(expected["apdus"].as_array().unwrap().len(), 1);

    for split in 0..stream.len() {
        let items = [(None, stream[..split].to_vec()), (None, stream[split..].to_vec())];
        assert_eq!(ask("hdlc", &items, &[]), expected, "at {split}");
        let beginning = one("hdlc", &stream[..split]);
        assert_eq!(beginning["outcome"], "incomplete", "at {split}: {beginning}");
    }
}

#[test]
fn three_apdus_in_one_frame_are_three() {
    let one_push = [hex("E6E700"), hex("0F 00000001 00 0600000001")].concat();

    let answer = one("hdlc", &frame(0x13, &one_push.repeat(3), false));

    assert_eq!(answer["outcome"], "decoded");
    assert_eq!(answer["apdus"].as_array().unwrap().len(), 3);
}

#[test]
fn wrong_check_sequence_keeps_what_came_before() {
    let good = frame(0x10, &[hex("E6E700"), hex(TAGGED)].concat(), false);
    let mut bad = good.clone();
    bad[20] ^= 1;

    let answer = one("hdlc", &[good.clone(), bad].concat());

    assert_eq!(answer["outcome"], "error");
    assert_eq!(answer["error"]["code"], "bad-fcs");
    assert_eq!(answer["error"]["fault"], "remote");
    assert_eq!(answer["error"]["offset"], good.len() + 1 + 39 - 2);
    assert_eq!(answer["frames"].as_array().unwrap().len(), 2);
    assert_eq!(answer["frames"][1]["fcs_ok"], false);
    assert_eq!(answer["apdus"].as_array().unwrap().len(), 1);
}

#[test]
fn both_directions_of_a_wrapper_stream_keep_their_own_rest() {
    let request = hex("0001 0010 0001 000D C001C100030100010800FF0200");
    let response = hex("0001 0001 0010 0009 C401C1000600003039");
    let items = [
        (Some(Sender::HeadEnd), request[..9].to_vec()),
        (Some(Sender::Meter), vec![]),
        (Some(Sender::HeadEnd), request[9..].to_vec()),
        (Some(Sender::Meter), response[..3].to_vec()),
        (Some(Sender::Meter), response[3..].to_vec()),
    ];

    let answer = ask("wrapper", &items, &[]);

    assert_eq!(answer["outcome"], "decoded");
    assert_eq!(answer["frames"][1], json!({"layer": "wrapper", "length": 9, "source": 1, "destination": 16}));
    assert_eq!(
        answer["readings"],
        json!([{"logical_name": "1.0.1.8.0.255", "class_id": 3, "attribute": 2, "value": "12345",
                "scaler": null, "unit": "Wh", "capture_time": null}])
    );
}

#[test]
fn blocks_are_put_together_and_belong_to_the_question() {
    let value = Data::Structure(vec![Data::DoubleLongUnsigned(7), Data::VisibleString(b"abc".to_vec())]).to_octets();
    let block = |last: u8, number: u8, raw: &[u8]| {
        (None, [&[0xC4, 2, 0xC1, last, 0, 0, 0, number, 0, raw.len() as u8], raw].concat())
    };
    let items = [block(0, 1, &value[..4]), block(0, 2, &value[4..5]), block(1, 3, &value[5..])];

    let answer = ask("apdu", &items, &[]);

    assert_eq!(answer["outcome"], "decoded");
    assert_eq!(
        answer["apdus"][2]["data"],
        json!(["structure", [["double-long-unsigned", 7], ["visible-string", "abc"]]])
    );
    assert!(ask("apdu", &items[..2], &[])["warnings"][0].as_str().unwrap().contains("further blocks"));
    assert!(ask("apdu", &items[1..], &[])["warnings"][0].as_str().unwrap().contains("without those before"));
}

#[test]
fn general_blocks_are_put_together_and_a_repeated_one_is_left_out() {
    let apdu = hex("0F 00000001 00 0202 0906 0100010800FF 0600003039");
    let block = |control: u8, number: u8, raw: &[u8]| {
        (None, [&[0xE0, control, 0, number, 0, 0, raw.len() as u8], raw].concat())
    };
    let items = [block(0x40, 1, &apdu[..9]), block(0x40, 1, &apdu[..9]), block(0xC0, 2, &apdu[9..])];

    let answer = ask("apdu", &items, &[]);

    assert_eq!(answer["outcome"], "decoded");
    assert_eq!(answer["apdus"][2]["plain"]["apdu"], "data-notification");
    assert_eq!(answer["readings"][0]["value"], "12345");
}

#[test]
fn values_beside_their_names_are_readings_with_scaler_and_unit() {
    let name = |text: &str| Data::OctetString(text.split('.').map(|part| part.parse().unwrap()).collect());
    let scaler_unit = |scaler, unit| Data::Structure(vec![Data::Integer(scaler), Data::Enum(unit)]);
    let list = Data::Array(vec![
        Data::Structure(vec![name("1.1.0.2.129.255"), Data::VisibleString(b"AIDON_V0001".to_vec())]),
        Data::Structure(vec![name("1.0.1.7.0.255"), Data::DoubleLongUnsigned(1_122), scaler_unit(0, 27)]),
        Data::Structure(vec![name("1.0.32.7.0.255"), Data::LongUnsigned(2_305), scaler_unit(-1, 35)]),
    ]);
    let time = DateTime::from_wall(WallTime(1_641_130_638 * WallTime::SECOND), -60);
    let mut apdu = hex("0F 40000000 0C");
    apdu.extend(time.0);
    list.encode(&mut apdu);

    let answer = one("apdu", &apdu);

    let readings = &answer["readings"];
    assert_eq!(readings.as_array().unwrap().len(), 3);
    assert_eq!(readings[0]["value"], "AIDON_V0001");
    assert_eq!(
        readings[2],
        json!({"logical_name": "1.0.32.7.0.255", "class_id": 3, "attribute": 2, "value": "230.5", "scaler": -1,
               "unit": "V", "capture_time": "2022-01-02T14:37:18+01:00"})
    );
}

#[test]
fn flat_list_of_names_and_values_is_read_in_pairs() {
    let name = |d| Data::OctetString(vec![1, 1, 1, d, 0, 255]);
    let list = Data::Structure(vec![
        Data::VisibleString(b"Kamstrup_V0001".to_vec()),
        name(7),
        Data::DoubleLongUnsigned(5),
        name(8),
        Data::DoubleLongUnsigned(6),
    ]);
    let mut apdu = hex("0F 00000000 00");
    list.encode(&mut apdu);

    let readings = one("apdu", &apdu)["readings"].clone();

    assert_eq!(readings.as_array().unwrap().len(), 2);
    assert_eq!((&readings[1]["logical_name"], &readings[1]["value"]), (&json!("1.1.1.8.0.255"), &json!("6")));
}

#[test]
fn push_object_list_in_front_names_its_values() {
    let object = |class_id, name: [u8; 6], attribute| {
        Data::Structure(vec![
            Data::LongUnsigned(class_id),
            Data::OctetString(name.to_vec()),
            Data::Integer(attribute),
            Data::LongUnsigned(0),
        ])
    };
    let list = Data::Structure(vec![
        Data::Array(vec![
            object(40, [0, 0, 25, 9, 0, 255], 2),
            object(3, [1, 0, 1, 8, 0, 255], 2),
            object(3, [1, 0, 2, 8, 0, 255], 2),
        ]),
        Data::DoubleLongUnsigned(11),
        Data::DoubleLongUnsigned(22),
    ]);
    let mut apdu = hex("0F 00000000 00");
    list.encode(&mut apdu);

    let readings = one("apdu", &apdu)["readings"].clone();

    let pairs: Vec<_> = readings
        .as_array()
        .unwrap()
        .iter()
        .map(|reading| (reading["logical_name"].clone(), reading["value"].clone()))
        .collect();
    assert_eq!(pairs, [(json!("1.0.1.8.0.255"), json!("11")), (json!("1.0.2.8.0.255"), json!("22"))]);
}

fn sealed(protection: Protection) -> (Vec<u8>, Keys) {
    let title = SystemTitle(*b"IPS00001");
    let (key, authentication_key) = (Key::from([1; 16]), Key::from([2; 16]));
    let mut apdu = hex("C401C1000600003039");
    let mut sealer = Sealer::new(title, key.clone(), CounterBlock::new(9, 10));
    sealer.seal(protection, &authentication_key, &mut apdu, 0).unwrap();
    ipss_dlms::apdu::ciphered::wrap_general(&mut apdu, 0, ipss_dlms::apdu::tags::KeyKind::Global, &title.0);
    let keys = Keys {
        encryption_key: Some(key),
        authentication_key: Some(authentication_key),
        server_system_title: Some(title),
        ..Keys::default()
    };
    (apdu, keys)
}

#[test]
fn keys_open_every_kind_of_protection() {
    for protection in [Protection::Authenticated, Protection::Encrypted, Protection::Both] {
        let (apdu, keys) = sealed(protection);

        let answer = ask("apdu", &[(None, apdu)], &[keys]);

        assert_eq!(answer["outcome"], "decoded");
        assert_eq!(answer["apdus"][0]["plain"]["data"], json!(["double-long-unsigned", 12_345]));
        assert_eq!(answer["apdus"][0]["invocation_counter"], 9);
        assert_eq!(answer["warnings"], json!([]));
    }
}

#[test]
fn without_the_authentication_key_it_opens_with_a_warning() {
    for protection in [Protection::Authenticated, Protection::Both] {
        let (apdu, keys) = sealed(protection);
        let keys = Keys { authentication_key: None, ..keys };

        let answer = ask("apdu", &[(None, apdu)], &[keys]);

        assert_eq!(answer["apdus"][0]["plain"]["data"], json!(["double-long-unsigned", 12_345]));
        assert!(answer["warnings"][0].as_str().unwrap().contains("not verified"));
    }
}

#[test]
fn wrong_key_is_an_error_and_no_key_is_protected() {
    let (apdu, keys) = sealed(Protection::Both);
    let wrong = Keys { encryption_key: Some(Key::from([9; 16])), ..keys };

    let answer = ask("apdu", &[(None, apdu.clone())], &[wrong]);
    assert_eq!((&answer["outcome"], &answer["error"]["code"]), (&json!("error"), &json!("tag-invalid")));
    assert_eq!(answer["apdus"][0]["security_control"], "30");

    let answer = ask("apdu", &[(None, apdu)], &[]);
    assert_eq!(answer["outcome"], "protected");
    assert_eq!(answer["apdus"][0]["system_title"], "4950533030303031");
}

#[test]
fn dedicated_key_is_learnt_from_the_aarq_and_never_shown() {
    let book = Keys {
        encryption_key: Some(Key::from_slice(&hex("000102030405060708090A0B0C0D0E0F")).unwrap()),
        authentication_key: Some(Key::from_slice(&hex("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF")).unwrap()),
        ..Keys::default()
    };
    // The Green Book's AARQ, whose initiate-request holds a dedicated key.
    let aarq = hex(
        "6066A109060760857405080103A60A04084D4D4D0000BC614E8A0207808B0760857405080205AC0A80084B35366956616759BE34043221
         303001234567801302FF8A7874133D414CED25B42534D28DB0047720606B175BD52211BE6841DB204D39EE6FDB8E356855",
    );
    let dedicated = Key::from_slice(&hex("00112233445566778899AABBCCDDEEFF")).unwrap();
    let mut request = hex("C001C100080000010000FF0200");
    let title = SystemTitle::from_slice(&hex("4D4D4D0000BC614E")).unwrap();
    let mut sealer = Sealer::new(title, dedicated, CounterBlock::new(1, 2));
    sealer.seal(Protection::Both, book.authentication_key.as_ref().unwrap(), &mut request, 0).unwrap();
    ipss_dlms::apdu::ciphered::wrap_service(&mut request, 0, 0xD0);

    let answer = ask("apdu", &[(None, aarq), (None, request)], &[book]);

    assert_eq!(answer["outcome"], "decoded", "{answer}");
    assert_eq!(answer["apdus"][1]["plain"]["apdu"], "get-request-normal");
    assert!(!answer.to_string().to_lowercase().contains("00112233445566778899aabbccddeeff"));
}

#[test]
fn broken_value_shows_what_came_before_it() {
    let answer = one("apdu", &hex("C401C100 0203 1101 0802 1103"));

    assert_eq!(answer["outcome"], "error");
    assert_eq!(answer["error"]["code"], "unknown-type");
    assert_eq!(answer["error"]["layer"], "data");
    assert_eq!(answer["apdus"][0]["data"], json!(["structure", [["unsigned", 1]]]));
}

#[test]
fn layers_that_others_explain_are_named_as_such() {
    for layer in ["modbus-tcp", "modbus-rtu", "modbus-ascii", "sunspec", "\"x"] {
        let answer = one(layer, &[0x68, 1, 1, 0x68]);

        assert_eq!(answer["error"]["code"], "layer-not-supported");
        assert_eq!(answer["error"]["fault"], "local");
    }
}

#[test]
fn llc_and_apdu_are_told_apart() {
    assert_eq!(one("llc", &hex("E6E700 C401C1000600003039"))["outcome"], "decoded");
    assert_eq!(one("auto", &hex("E6E700 C401C1000600003039"))["outcome"], "decoded");
    assert_eq!(one("llc", &hex("E6E7"))["outcome"], "incomplete");
    assert_eq!(one("llc", &hex("C401C1"))["error"]["code"], "bad-llc");
}

#[test]
fn hexadecimal_digits_are_read_with_their_comments() {
    assert_eq!(parse_hex("# a frame\n7e A0\t# its flag\n 0").unwrap_err().code, "bad-hex");
    assert_eq!(parse_hex("# a frame\n7e A0\t# its flag\n 07").unwrap(), [0x7E, 0xA0, 7]);
    let error = parse_hex("00 0x").unwrap_err();
    assert_eq!((error.code, error.offset), ("bad-hex", 4));
    let mut text = String::new();
    refuse(Some("\"a\""), error.code, &error.message, &mut |piece| text.push_str(piece));
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&answer["outcome"], &answer["id"], &answer["error"]["fault"]),
        (&json!("error"), &json!("a"), &json!("local"))
    );
}

#[test]
fn an_attributes_parts_have_the_names_of_its_class() {
    let items =
        [(Some(Sender::HeadEnd), hex("C001C1 0046 000060030AFF 03 00")), (Some(Sender::Meter), hex("C401C1 00 1602"))];

    let answer = ask("apdu", &items, &[]);

    assert_eq!(
        answer["attributes"],
        json!([{"class_id": 70, "class": "Disconnect control", "logical_name": "0.0.96.3.10.255", "attribute": 3,
                "name": "control_state", "value": "ready_for_reconnection"}])
    );
    assert_eq!(one("apdu", &hex("C401C1 00 1602")).get("attributes"), None);
}
