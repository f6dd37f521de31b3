//! Quirks of real meters by their row; `QUIRKS.md` has the table.

use ipss_session::{Limits, WallTime};

use super::companion::Companion;
use super::finder::text;
use super::{PushedValue, companion, read};
use crate::axdr::{Data, DateTime};
use crate::cosem::classes::clock;
use crate::translate::parse_hex;

fn hex(text: &str) -> Vec<u8> {
    parse_hex(text).unwrap()
}

fn generic() -> &'static Companion {
    companion("generic").unwrap()
}

fn profile(lines: &str) -> Companion {
    let text = format!("inherits = 'generic'\nabout = 'test'\nsource = 'test'\n{lines}");
    Companion::parse("test", &text, &mut |parent| companion(parent).cloned()).unwrap()
}

fn values(apdu: &str, companion: &Companion) -> Vec<(String, Option<i64>)> {
    let pushed = read(&hex(apdu), companion, &Limits::default()).unwrap();
    pushed.values.iter().map(|PushedValue { column, integer, .. }| (column.text(), *integer)).collect()
}

#[test]
fn quirk_17_an_event_whose_time_is_marked_as_an_octet_string_is_read() {
    let event = hex("C2 09 0C 07E60102070E251200800000 0001 808080808000 02 09 05 3132333435");

    let pushed = read(&event, generic(), &Limits::default()).unwrap();

    assert_eq!(pushed.source.logical_name.to_string(), "128.128.128.128.128.0");
    assert_eq!(pushed.values[0].raw, hex("09 05 3132333435"));
    assert_ne!(pushed.capture_time, WallTime::UNKNOWN);
}

#[test]
fn quirk_18_alarms_that_are_no_apdu_are_an_error_that_keeps_them_whole() {
    for alarm in ["454C2D312C 2C 00000001", "0000000000000000 0F 00000001 00 0600000001"] {
        let error = read(&hex(alarm), companion("dsmr4").unwrap(), &Limits::default()).unwrap_err();
        assert_eq!(error.code, "unexpected-apdu");
    }
}

#[test]
fn quirk_19_untagged_descriptors_name_the_values_beside_them() {
    let found = values(
        "0F 00000001 00 0202 1601 0102 0202 00030100010800FF02 0600000008 0202 00460000600 30AFF03 1601",
        generic(),
    );

    assert_eq!(found, [("3/1.0.1.8.0.255:2".into(), Some(8)), ("70/0.0.96.3.10.255:3".into(), Some(1))]);
}

#[test]
fn quirk_23_an_id_in_the_content_is_a_value_and_nothing_else() {
    let push = hex("0F 00000001 00 0202 0906 0000600100FF 0904 3939393 9 0906 0100010800FF".replace(' ', "").as_str());
    let mut whole = push.clone();
    whole[7] = 4;
    whole.extend(hex("0600000005"));

    let pushed = read(&whole, generic(), &Limits::default()).unwrap();

    assert_eq!(pushed.values.len(), 2);
    assert_eq!(pushed.values[0].raw, hex("0904 39393939"));
}

#[test]
fn quirk_24_padding_and_what_is_behind_it_are_not_shown() {
    assert_eq!(text(b"EMR1234\0\0\0"), "EMR1234");
    assert_eq!(text(b"EMR1234\0\x17\xFE"), "EMR1234");
    assert_eq!(text(b"EMR1234   "), "EMR1234");
    assert_eq!(text(b"1\0\0"), "310000", "a number by chance");
    assert_eq!(text(&[]), "");
}

#[test]
fn quirk_26_the_width_of_an_integer_does_not_matter() {
    let narrow = values("0F 00000001 00 0202 0906 0100010800FF 0600000005", generic());
    let wide = values("0F 00000001 00 0202 0906 0100010800FF 150000000000000005", generic());

    assert_eq!(narrow, [("3/1.0.1.8.0.255:2".into(), Some(5))]);
    assert_eq!(narrow, wide);
}

#[test]
fn quirk_30_patterns_of_summer_time_keep_their_wildcards() {
    let begin = Data::OctetString(hex("FFFF 03 FE 07 02000000 8000 00"));

    let pattern = clock::time(&begin).unwrap();

    assert_eq!(
        (pattern.date().year(), pattern.date().day(), pattern.date().day_of_week()),
        (None, Some(0xFE), Some(7))
    );
    assert_eq!(pattern.to_wall(), None);
    assert_eq!(DateTime(hex("FFFF FE FE 07 02000000 8000 00").try_into().unwrap()).date().month(), Some(0xFE));
}

#[test]
fn quirk_52_a_scaler_that_the_meter_has_wrong_is_replaced() {
    let push = "0F 00000001 00 0203 0906 0100010800FF 0600000005 0202 0F03 161E";
    let rule = profile("[scalers]\n'1.0.1.8.0.255' = 'always 0 Wh'");

    assert_eq!(values(push, generic())[0].0, "3/1.0.1.8.0.255:2 3 Wh");
    assert_eq!(values(push, &rule)[0].0, "3/1.0.1.8.0.255:2 0 Wh");
}

#[test]
fn quirk_53_floats_the_wrong_way_round_are_turned() {
    let swapped = hex("0F 00000001 00 0202 0906 0100200700FF 17 00006643");

    let pushed = read(&swapped, &profile("[quirks]\nfloats_swapped = true"), &Limits::default()).unwrap();

    assert_eq!(pushed.values[0].raw, hex("17 43660000"), "230.0");
}

#[test]
fn quirk_54_a_compact_array_of_names_and_values_is_read_like_the_array() {
    let names = "0906 0100010800FF";
    let plain = format!("0F 00000001 00 0102 0202 {names} 0600000005 0202 0906 0100020800FF 0600000006");
    let compact = "0F 00000001 00 13 0202 09 06 16 06 0100010800FF 00000005 06 0100020800FF 00000006";

    assert_eq!(values(compact, generic()), values(&plain, generic()));
    assert_eq!(values(compact, generic()).len(), 2);
}

#[test]
fn quirk_55_values_of_unknown_classes_are_kept() {
    let list = "0204 12 04D2 0906 0000800001FF 0F02 120000 0204 12 8001 0906 0000800002FF 0F02 120000";

    let found = values(&format!("0F 00000001 00 0203 0102 {list} 0600000001 0203 1101 1102 1103"), generic());

    assert_eq!(found, [("1234/0.0.128.0.1.255:2".into(), Some(1)), ("32769/0.0.128.0.2.255:2".into(), None)]);
}
