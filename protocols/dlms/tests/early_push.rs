//! Pushes on connections whose meter has not associated: known by their system title, opened by the meter's session.

mod common;

use common::*;
use ipss_dlms::apdu::ciphered::wrap_general;
use ipss_dlms::apdu::tags::KeyKind;
use ipss_dlms::head_end::{Control, Greeter};
use ipss_dlms::meter::Fault;
use ipss_dlms::profile::Profile;
use ipss_dlms::security::{CounterBlock, Protection, Sealer};
use ipss_session::rig::Rig;
use ipss_session::{Cell, EventKind, Input, Session};

const PUSH: [u8; 11] = [0x0F, 0, 0, 0, 1, 0, 6, 0, 0, 0, 99];

fn frame(apdu: &[u8], client: u8) -> Vec<u8> {
    [&[0, 1, 0, 1, 0, client, 0, apdu.len() as u8][..], apdu].concat()
}

/// A plain APDU as the meter would cipher it, with this invocation counter.
fn ciphered(plain: &[u8], counter: u32, encryption: u8) -> Vec<u8> {
    let mut apdu = plain.to_vec();
    let counters = CounterBlock::new(counter, counter + 1);
    Sealer::new(METER_TITLE, key(encryption), counters).seal(Protection::Both, &key(2), &mut apdu, 0).unwrap();
    wrap_general(&mut apdu, 0, KeyKind::Global, &METER_TITLE.0);
    apdu
}

fn associating(profile: &Profile) -> TestRig {
    let mut rig = rig(profile);
    rig.far.session = meter(profile).with_fault(Fault::Silent);
    rig.connect();
    rig
}

fn kept(rig: &TestRig) -> Vec<Vec<u8>> {
    let lines = 0..rig.near.batch.lines.len();
    lines
        .flat_map(|line| rig.near.batch.cells(line).into_iter())
        .map(|cell| match cell {
            Cell::Raw(octets) => octets.to_vec(),
            _ => panic!("a push is kept as it came"),
        })
        .collect()
}

#[test]
fn the_greeter_knows_a_pushing_meter_by_its_title_and_leaves_the_push_to_its_session() {
    let octets = frame(&ciphered(&PUSH, 70_000, 1), 1);
    for cut in 0..=octets.len() {
        let mut rig = Rig::new(Greeter::default(), meter(&secured()).with_fault(Fault::Silent), 1, START);
        rig.connect();

        rig.inject_near(&octets[..cut]);

        let known = if cut == octets.len() { vec![METER_TITLE.0.to_vec()] } else { Vec::new() };
        assert_eq!(rig.near.identified, known, "{cut} octets");
        assert!(rig.open && rig.near.batch.is_empty());
    }
}

#[test]
fn a_push_before_the_association_is_a_line_once_and_the_association_goes_on() {
    let mut rig = associating(&secured());
    let octets = frame(&ciphered(&PUSH, 70_000, 1), 1);

    rig.inject_near(&octets);
    assert_eq!(kept(&rig), [PUSH.to_vec()]);
    assert_eq!(rig.near.batch.peer_counters.last().unwrap().1, 70_000);
    assert!(rig.open && !rig.near.session.associated());

    rig.inject_near(&octets);
    assert!(!rig.open, "the same push again is a replay");
    assert_eq!(kept(&rig).len(), 1);
    assert!(rig.near.batch.events.iter().any(|event| event.kind == EventKind::ReplayRefused));
}

#[test]
fn before_the_association_nothing_but_a_push_under_the_pinned_protection_is_taken() {
    let get_response = [0xC4, 1, 0x41, 0, 6, 0, 0, 0, 99];
    for (what, apdu) in [
        ("plain", PUSH.to_vec()),
        ("another key", ciphered(&PUSH, 70_000, 3)),
        ("an answer", ciphered(&get_response, 70_000, 1)),
    ] {
        let mut rig = associating(&secured());

        rig.inject_near(&frame(&apdu, 1));

        assert!(!rig.open && rig.near.batch.lines.is_empty(), "{what}");
    }
    let mut rig = associating(&Profile { client: 1, ..Profile::public() });
    rig.inject_near(&frame(&PUSH, 1));
    assert!(rig.open, "a meter without protection may push in the clear");
    assert_eq!(kept(&rig), [PUSH.to_vec()]);
}

#[test]
fn what_still_answers_the_greeter_is_passed_over_while_associating() {
    let mut rig = associating(&secured());

    rig.inject_near(&frame(&[0x61, 0], 16));
    assert!(rig.open);
    rig.inject_near(&frame(&[0x61, 0], 17));
    assert!(!rig.open);
}

fn hear(rig: &mut TestRig, number: i64, wpdu: Vec<u8>) -> String {
    rig.tell_near(Input::Control(Control::Hear { number, wpdu }));
    let mut told = rig.near.batch.events.iter().filter(|event| event.kind == EventKind::PushHeard);
    let last = told.next_back().unwrap();
    assert_eq!(last.number, number);
    last.detail.clone()
}

#[test]
fn a_push_of_another_connection_is_opened_once_whatever_the_association_does() {
    for connected in [false, true] {
        let mut rig = rig(&secured());
        if connected {
            rig.connect();
        }
        let associated = rig.near.session.associated();
        let octets = frame(&ciphered(&PUSH, 70_000, 1), 1);

        assert_eq!(hear(&mut rig, 7, octets.clone()), "");
        assert_eq!(kept(&rig), [PUSH.to_vec()]);
        assert_eq!(rig.near.batch.peer_counters.last().unwrap().1, 70_000);
        assert!(hear(&mut rig, 8, octets).starts_with("replay:"));
        assert_eq!(kept(&rig).len(), 1);
        assert_eq!((rig.open, rig.near.session.associated()), (connected, associated), "nothing else happens");
    }
}

#[test]
fn what_is_heard_is_taken_only_whole_and_under_the_meters_own_keys() {
    let good = frame(&ciphered(&PUSH, 70_000, 1), 1);
    let mut rig = rig(&secured());

    let detail = hear(&mut rig, 1, frame(&ciphered(&PUSH, 70_000, 3), 1));
    assert!(detail.starts_with("tag-invalid:"), "{detail}");
    assert!(hear(&mut rig, 2, frame(&PUSH, 1)).starts_with("weaker-security:"));
    for cut in 0..good.len() {
        assert!(!hear(&mut rig, 3, good[..cut].to_vec()).is_empty(), "{cut} octets");
    }
    assert!(!hear(&mut rig, 4, [&good[..], &[0]].concat()).is_empty());
    assert!(kept(&rig).is_empty() && rig.near.batch.peer_counters.is_empty());
    assert_eq!(hear(&mut rig, 5, good), "");
}
