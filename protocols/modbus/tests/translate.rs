//! `decode` of the Modbus layers: the exact shape of the answers.

use ipss_modbus::translate::{TranslateRequest, recognises, translate};
use ipss_session::explain::{Sender, Transmission, parse_hex};
use serde_json::{Value, json};

fn explain(layer: &str, sent: &[(Option<Sender>, &str)]) -> Value {
    let octets: Vec<_> = sent.iter().map(|(from, hex)| (*from, parse_hex(hex).unwrap())).collect();
    let transmissions: Vec<_> = octets.iter().map(|(from, octets)| Transmission { from: *from, octets }).collect();
    let mut text = String::new();
    let request = TranslateRequest { id: Some("7"), layer, transmissions: &transmissions };
    translate(&request, &mut |piece| text.push_str(piece));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

const METER: Option<Sender> = Some(Sender::Meter);
const HEAD_END: Option<Sender> = Some(Sender::HeadEnd);

#[test]
fn response_over_tcp_has_the_documented_shape() {
    let answer = explain("modbus-tcp", &[(METER, "0001 0000 0009 0A 03 06 022B 0000 0064")]);
    assert_eq!(
        answer,
        json!({
            "id": 7,
            "outcome": "decoded",
            "frames": [{"layer": "modbus-tcp", "length": 15, "transaction_id": 1, "unit_id": 10}],
            "apdus": [{
                "pdu": "response", "transaction_id": 1, "unit_id": 10, "function_code": 3,
                "function": "read-holding-registers", "registers": [555, 0, 100],
            }],
            "readings": [],
            "warnings": [],
        })
    );
}

#[test]
fn exception_has_its_number_and_name() {
    let answer = explain("modbus-tcp", &[(METER, "0001 0000 0003 0A 83 02")]);
    assert_eq!(
        answer["apdus"],
        json!([{
            "pdu": "response", "transaction_id": 1, "unit_id": 10, "function_code": 3,
            "function": "read-holding-registers", "exception_code": 2, "exception": "illegal-data-address",
        }])
    );
}

#[test]
fn coils_are_lists_of_0_and_1_and_padding_goes_where_the_request_is_known() {
    let response = "0102 0000 0006 11 01 03 CD6B05";
    let alone = explain("modbus-tcp", &[(METER, response)]);
    assert_eq!(alone["apdus"][0]["coils"].as_array().unwrap().len(), 24);
    let pair = explain("modbus-tcp", &[(HEAD_END, "0102 0000 0006 11 01 0013 0013"), (METER, response)]);
    assert_eq!(pair["apdus"][0]["quantity"], 19);
    assert_eq!(pair["apdus"][1]["coils"], json!([1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1]));
}

#[test]
fn every_layer_explains_the_same_request() {
    let request = json!({
        "pdu": "request", "unit_id": 17, "function_code": 3, "function": "read-holding-registers",
        "address": 107, "quantity": 3,
    });
    let rtu = explain("modbus-rtu", &[(None, "11 03 006B 0003 7687")]);
    assert_eq!(rtu["apdus"], json!([request]));
    assert_eq!(rtu["frames"], json!([{"layer": "modbus-rtu", "length": 8, "unit_id": 17, "crc_ok": true}]));
    let ascii: String = b":1103006B00037E\r\n".iter().map(|octet| format!("{octet:02x}")).collect();
    let ascii = explain("modbus-ascii", &[(None, &ascii)]);
    assert_eq!(ascii["apdus"], json!([request]));
    assert_eq!(ascii["frames"], json!([{"layer": "modbus-ascii", "length": 17, "unit_id": 17, "lrc_ok": true}]));
}

#[test]
fn beginning_is_incomplete_and_goes_on_with_the_same_sender() {
    for (layer, hex) in [
        ("modbus-tcp", "0001 0000 0009 0A 03 06 022B 0000 0064"),
        ("modbus-rtu", "0A 03 06 022B 0000 0064 764A"),
        ("modbus-ascii", "3A30413033303630323242303030303030363435430D0A"),
    ] {
        let whole = parse_hex(hex).unwrap();
        let hex: String = whole.iter().map(|octet| format!("{octet:02x}")).collect();
        let all = explain(layer, &[(METER, &hex)]);
        assert_eq!(all["outcome"], "decoded", "{layer}: {all}");
        for end in 1..whole.len() {
            let beginning = explain(layer, &[(METER, &hex[..end * 2])]);
            assert_eq!(beginning["outcome"], "incomplete", "{layer} cut at {end}: {beginning}");
            assert_eq!(beginning["apdus"], json!([]));
            let both = explain(layer, &[(METER, &hex[..end * 2]), (METER, &hex[end * 2..])]);
            assert_eq!(both["apdus"], all["apdus"], "{layer} in two at {end}");
        }
    }
}

#[test]
fn broken_bytes_are_errors_and_what_stood_before_stays() {
    let good = "0001 0000 0006 11 03 006B 0003";
    for (layer, hex, whose, offset, code) in [
        ("modbus-tcp", format!("{good} 0001 0001 0006"), "modbus-tcp", 14, "bad-protocol-id"),
        ("modbus-tcp", format!("{good} 0001 0000 FFFF"), "modbus-tcp", 16, "bad-length"),
        ("modbus-tcp", format!("{good} 0001 0000 0003 11 0300"), "modbus", 2, "truncated"),
        ("modbus-rtu", "11 03 006B 0003 7687 11 03 006B 0003 7688".into(), "modbus-rtu", 14, "bad-crc"),
    ] {
        let answer = explain(layer, &[(HEAD_END, &hex)]);
        assert_eq!(answer["outcome"], "error", "{hex}: {answer}");
        let error = &answer["error"];
        assert_eq!((&error["fault"], &error["layer"]), (&json!("remote"), &json!(whose)), "{hex}: {error}");
        assert_eq!((&error["offset"], &error["code"]), (&json!(offset), &json!(code)), "{hex}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert_eq!(answer["apdus"][0]["quantity"], 3, "{hex}");
    }
}

#[test]
fn sender_is_guessed_where_the_octets_tell_and_a_warning_says_where_not() {
    let response = explain("modbus-rtu", &[(None, "0A 03 06 022B 0000 0064 764A")]);
    assert_eq!((&response["apdus"][0]["pdu"], &response["warnings"]), (&json!("response"), &json!([])));
    let write = "0001 0000 0006 11 06 0001 0003";
    let either = explain("modbus-tcp", &[(None, write)]);
    assert_eq!(either["apdus"][0]["pdu"], "request");
    assert_eq!(either["warnings"].as_array().unwrap().len(), 1);
    let both = explain("modbus-tcp", &[(None, write), (None, write)]);
    assert_eq!(both["apdus"][1]["pdu"], "response", "the second one answers the first");
    assert_eq!(explain("modbus-tcp", &[(METER, write)])["warnings"], json!([]));
}

#[test]
fn stray_octets_of_a_serial_line_are_a_warning() {
    let answer = explain("modbus-rtu", &[(HEAD_END, "00 11 03 006B 0003 7687 0000 11 03 006B 0003 7687")]);
    assert_eq!((&answer["outcome"], answer["apdus"].as_array().unwrap().len()), (&json!("decoded"), 2));
    assert_eq!(answer["warnings"], json!(["1 stray octets at octet 0", "2 stray octets at octet 9"]));
}

#[test]
fn layer_is_recognised_by_whole_frames_alone() {
    let sees = |hex: &str| {
        let octets = parse_hex(hex).unwrap();
        recognises(&[Transmission { from: None, octets: &octets }])
    };
    assert!(sees("0001 0000 0006 11 03 006B 0003"));
    assert!(sees("3A"));
    assert!(!sees("0001 0000 0006 11 03 006B 00"));
    assert!(!sees("0001 0010 0001 0002 C4 01"), "a wrapper frame");
    assert!(!sees("7EA0"));
    assert!(!sees(""));
    let answer = explain("auto", &[(None, "0001 0000 0006 11 03 006B 0003")]);
    assert_eq!(answer["frames"][0]["layer"], "modbus-tcp");
}
