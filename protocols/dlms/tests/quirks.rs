//! Quirks of real meters on the wire, by their row in `QUIRKS.md`, and that every test named there exists.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use ipss_dlms::head_end::Control;
use ipss_dlms::meter::Fault;
use ipss_dlms::profile::Profile;
use ipss_dlms::push::companion;
use ipss_dlms::quirks::QuirkValue;
use ipss_dlms::translate::parse_hex;
use ipss_session::{Cell, EventKind, Input, Outcome, Session};

fn hex(text: &str) -> Vec<u8> {
    parse_hex(text).unwrap()
}

/// A wrapper frame from the meter's management logical device.
fn frame(apdu: &str, client: u8) -> Vec<u8> {
    let apdu = hex(apdu);
    [&[0, 1, 0, 1, 0, client, 0, apdu.len() as u8][..], &apdu].concat()
}

/// A connection whose head-end has just sent its AARQ, with one question waiting, to a meter that says nothing.
fn associating(profile: &Profile) -> TestRig {
    let mut rig = rig(profile);
    rig.far.session = meter(profile).with_fault(Fault::Silent);
    rig.connect();
    rig.tell_near(Input::Request(request(1, vec![energy()])));
    rig
}

fn low() -> Profile {
    Profile { client: 1, ..Profile::public() }
}

#[test]
fn quirk_18_alarms_that_are_no_apdu_are_kept_whole_where_the_model_sends_them() {
    let dsmr4 = hex("454C2D31323334352C 00000001");
    let smr5 = hex("0000000000000000 0F 00000001 00 0600000001");
    for alarm in [dsmr4, smr5] {
        for (allowed, split) in [(true, alarm.len()), (true, 3), (true, 9), (false, alarm.len())] {
            let mut profile = low();
            companion("smr5").unwrap().apply(&mut profile).unwrap();
            profile.set_quirk("plain_alarms", QuirkValue::Flag(allowed)).unwrap();
            let mut rig = associating(&profile);

            rig.inject_near(&alarm[..split]);
            let early = rig.near.batch.lines.len();
            if split < alarm.len() {
                rig.inject_near(&alarm[split..]);
            }
            let kept: Vec<_> = (0..rig.near.batch.lines.len()).map(|line| rig.near.batch.cells(line)).collect();

            assert_eq!(rig.open, allowed, "{alarm:02x?}");
            assert_eq!(early, usize::from(allowed && split == alarm.len()));
            assert_eq!(kept.is_empty(), !allowed);
            assert!(kept.iter().flatten().all(|cell| matches!(cell, Cell::Raw(octets) if *octets == &alarm[..])));
            let noticed = rig.near.batch.events.iter().any(|event| event.kind == EventKind::Notified);
            assert_eq!(noticed, allowed);
        }
    }
}

#[test]
fn quirk_18_an_alarm_never_ends_an_exchange_nor_takes_more_than_its_bound() {
    let mut profile = low();
    profile.set_quirk("plain_alarms", QuirkValue::Flag(true)).unwrap();
    for flood in [vec![b'A'; 4_000], vec![0; 4_000]] {
        let mut rig = associating(&profile);

        rig.inject_near(&flood);

        assert!(!rig.open && rig.near.batch.lines.is_empty());
    }
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    let lines = rig.near.batch.lines.len();
    rig.inject_near(b"EL-12345,\0\0\0\x01");
    assert!(!rig.open && rig.near.batch.lines.len() == lines, "on an association it is a violation");
}

#[test]
fn quirk_34_and_35_an_accepted_aare_may_have_a_diagnostic_and_another_vaa_name() {
    for (diagnostic, vaa) in [("a1 03 02 01 01", "0007"), ("a1 03 02 01 00", "0080"), ("a2 03 02 01 00", "0007")] {
        let mut rig = associating(&low());

        let information = format!("be 10 04 0e 08 00 06 5f 1f 04 00 00 50 1f 01 f4 {vaa}");
        let aare = format!("61 29 a1 09 06 07 60 85 74 05 08 01 01 a2 03 02 01 00 a3 05 {diagnostic} {information}");
        rig.inject_near(&frame(&aare, 1));

        assert!(rig.near.session.associated(), "{diagnostic} {vaa}");
    }
}

#[test]
fn quirk_33_to_35_a_rejection_is_one_whatever_it_carries() {
    let head = "a1 09 06 07 60 85 74 05 08 01 01 a2 03 02 01 01 a3 05";
    let initiate = "be 10 04 0e 08 00 06 5f 1f 04 00 00 50 1f 01 f4 00 07";
    for (profile, aare) in [
        (low(), format!("61 17 {head} a1 03 02 01 0d")),
        (low(), format!("61 29 {head} a1 03 02 01 0d {initiate}")),
        // The context of a plain association, for one that was asked for with ciphering.
        (secured(), format!("61 17 {head} a2 03 02 01 02")),
    ] {
        let mut rig = associating(&profile);

        rig.inject_near(&frame(&aare, 1));

        assert_eq!(rig.near.finished[0].1, Outcome::AuthenticationFailed, "{aare}");
        assert!(rig.near.batch.events.iter().any(|event| event.kind == EventKind::AssociationRejected), "{aare}");
    }
}

#[test]
fn quirk_36_and_37_errors_in_place_of_an_aare_interrupt_and_may_be_tried_later() {
    for apdu in ["2E 0A 30 00000001 AABBCCDDEE", "D8 01 02", "0E 01 06 02"] {
        let mut rig = associating(&secured());

        rig.inject_near(&frame(apdu, 1));

        assert_eq!(rig.near.finished[0].1, Outcome::Interrupted, "{apdu}");
        assert!(rig.near.batch.events.iter().any(|event| event.kind == EventKind::ProtocolViolation), "{apdu}");
        assert!(!rig.open);
    }
}

#[test]
fn quirk_38_a_meter_that_closes_or_names_another_counter_is_spoken_to_under_higher_ones() {
    // The AARQ's ciphered InitiateRequest: 21 LENGTH 30 COUNTER.
    let counter_of = |aarq: &[u8]| {
        let at = aarq.windows(3).position(|part| part[0] == 0x21 && part[2] == 0x30).unwrap() + 3;
        u32::from_be_bytes(aarq[at..at + 4].try_into().unwrap())
    };
    let mut rig = associating(&secured());
    let first = counter_of(rig.near.written.last().unwrap());

    // It says nothing and closes.
    rig.disconnect();
    assert_eq!(rig.near.finished[0].1, Outcome::Interrupted, "not a failure of the meter's key");
    assert!(rig.near.batch.events.iter().all(|event| event.kind != EventKind::AuthenticationFailed));

    // It says which counter it expects: a hint for the owner, who grants others.
    rig.connect();
    let second = counter_of(rig.near.written.last().unwrap());
    assert!(second > first, "a counter is spent whether or not it was answered");
    rig.tell_near(Input::Request(request(2, vec![energy()])));
    rig.inject_near(&frame("D8 01 06 0001 86A0", 1));
    let told = rig.near.batch.events.iter().find(|event| event.kind == EventKind::CounterBehind).unwrap();
    assert_eq!((told.number, rig.near.finished[1].1, rig.open), (100_000, Outcome::Interrupted, false));

    rig.tell_near(Input::Control(Control::Grant { next: 100_000, end: 100_100 }));
    rig.connect();
    assert_eq!(counter_of(rig.near.written.last().unwrap()), 100_000);
}

#[test]
fn quirk_31_and_32_the_ends_of_a_range_are_written_as_the_model_wants_them() {
    for (quirk, word, there, absent) in [
        ("deviation_in_ranges", "set", "00 0000 00 090C", "8000 00 090C"),
        ("deviation_in_ranges", "unset", "8000 00 090C", "0000 00 090C"),
        ("range_date", "octet-string", "090C07EA", "1907EA"),
        ("range_date", "date-time", "1907EA", "090C07EA"),
    ] {
        let mut profile = low();
        profile.set_quirk(quirk, QuirkValue::Word(word)).unwrap();
        let mut rig = rig(&profile);

        ask(&mut rig, vec![load_profile()]);

        let has = |digits: &str| {
            let wanted = hex(digits);
            rig.near.written.iter().any(|sent| sent.windows(wanted.len()).any(|part| part == wanted))
        };
        assert!(has(there) && !has(absent), "{quirk} {word}: {:02x?}", rig.near.written);
    }
}

#[test]
fn quirk_13_and_45_a_late_answer_to_a_release_is_not_waited_for_long() {
    let mut rig = rig(&low());
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.far.session = meter(&low()).with_fault(Fault::Silent);

    rig.tell_near(Input::Release);
    rig.run(Duration::from_secs(120), 100);

    assert!(!rig.open);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// What the table names in backticks, with its row.
fn named() -> Vec<(u32, String)> {
    let table = fs::read_to_string(root().join("QUIRKS.md")).unwrap();
    let mut found = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let Some(row) = cells.next().and_then(|row| row.parse().ok()) else { continue };
        let tests: Vec<_> = cells.next_back().unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "row {row} names no test: {line}");
        found.extend(tests.into_iter().map(|test| (row, test.to_owned())));
    }
    found
}

#[test]
fn every_row_has_tests_and_every_test_named_exists() {
    let table = named();
    let mut names = String::new();
    for file in
        fs::read_dir(root().join("vectors")).unwrap().chain(fs::read_dir(root().join("vectors/pushes")).unwrap())
    {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    for (row, test) in &table {
        let there = match test.split_once("::") {
            Some(("vector" | "capture", name)) => names.contains(&format!("name = \"{name}\"\n")),
            Some((file, name)) => fs::read_to_string(root().join(file))
                .is_ok_and(|text| text.contains(&format!("fn {name}(")) || text.contains(&format!("def {name}("))),
            None => panic!("row {row}: {test} names no test"),
        };
        assert!(there, "row {row}: {test} does not exist");
    }
    let rows: BTreeSet<u32> = table.iter().map(|(row, _)| *row).collect();
    let missing: Vec<u32> = (1..=55).filter(|row| !rows.contains(row)).collect();
    assert!(missing.is_empty(), "rows without a test: {missing:?}");
}
