//! Both roles talking, under every profile.

mod common;

use std::time::Duration;

use common::*;
use ipss_dlms::cosem::{AttributeDescriptor, LogicalName};
use ipss_dlms::head_end::{Attributes, Item};
use ipss_dlms::meter::{Fault, MeterControl};
use ipss_dlms::profile::{Authentication, Profile};
use ipss_dlms::push::Notification;
use ipss_session::{Cell, EventKind, Input, Line, Outcome, Session, WallTime};

fn kinds(rig: &TestRig) -> Vec<EventKind> {
    rig.near.batch.events.iter().map(|event| event.kind).collect()
}

#[test]
fn every_profile_associates_reads_writes_acts_and_releases() {
    for profile in all_profiles() {
        let mut rig = rig(&profile);
        let write = Item::Set([(attribute(3, ENERGY, 2), Box::from([6, 0, 0, 0, 77]))].into());

        let outcome = ask(&mut rig, vec![energy(), load_profile(), write, switch(1), energy()]);

        assert_eq!(outcome, Some(Outcome::Done), "{profile:?}: {:?}", rig.near.batch.events);
        let batch = &rig.near.batch;
        assert_eq!(batch.cells(0), [Cell::Integer(123_456)]);
        assert_eq!(batch.lines.len(), 1 + 96 + 2 + 1);
        assert_eq!(batch.cells(99), [Cell::Integer(77)]);
        assert!(!rig.far.session.objects.connected);
        let midnight: Vec<Cell<'_>> = (0..4).map(|channel| Cell::Integer(load(START, channel))).collect();
        assert_eq!((batch.cells(1), batch.lines[1].capture_time), (midnight, START));
        assert_eq!(batch.lines[1].deviation, -60);

        rig.tell_near(Input::Release);
        rig.run(Duration::from_secs(1), 100);
        assert!(!rig.open, "released in good order");
        assert!(kinds(&rig).contains(&EventKind::Released));
    }
}

#[test]
fn lists_are_asked_at_once_and_a_refused_attribute_is_a_null_cell() {
    let profile = secured();
    let mut rig = rig(&profile);
    let unknown = attribute(3, LogicalName([9, 9, 9, 9, 9, 9]), 2);
    let items = vec![read(&[attribute(3, ENERGY, 2), unknown, attribute(3, EXPORT, 2)])];

    assert_eq!(ask(&mut rig, items), Some(Outcome::Refused));

    assert_eq!(rig.near.batch.cells(0), [Cell::Integer(123_456), Cell::Null, Cell::Integer(9)]);
    let refusal = rig.near.batch.refusals[0];
    assert_eq!((refusal.item, refusal.code), (0, 4));
    assert_eq!(rig.near.finished[0].0.exchanges, 1);
}

#[test]
fn an_answer_without_a_layout_keeps_the_types_of_its_values() {
    let mut rig = rig(&secured());
    let one = attribute(3, ENERGY, 2);
    let of = |attributes: &[AttributeDescriptor]| {
        Item::Attributes(Attributes { layout: 0, attributes: attributes.into(), capture_time: None })
    };

    assert_eq!(ask(&mut rig, vec![of(&[one]), of(&[one, one])]), Some(Outcome::Done));

    let octets = Cell::Raw(&[6, 0, 1, 0xE2, 0x40]);
    assert_eq!(rig.near.batch.cells(0), [octets]);
    assert_eq!(rig.near.batch.cells(1), [octets, octets]);
}

#[test]
fn several_attributes_are_written_at_once_and_each_result_is_told() {
    let mut rig = rig(&secured());
    let value = |number: u8| -> Box<[u8]> { Box::from([6, 0, 0, 0, number]) };
    let energy = attribute(3, ENERGY, 2);
    let good = Item::Set([(energy, value(1)), (energy, value(2))].into());
    let mixed = Item::Set([(energy, value(3)), (attribute(3, EXPORT, 2), value(4)), (energy, [0].into())].into());

    assert_eq!(ask(&mut rig, vec![good]), Some(Outcome::Done));
    assert_eq!((rig.near.batch.cells(0), rig.far.session.objects.energy), (vec![], 2));

    assert_eq!(ask(&mut rig, vec![mixed]), Some(Outcome::Refused));
    assert_eq!(rig.near.batch.cells(1), [Cell::Integer(0), Cell::Integer(3), Cell::Integer(12)]);
    let codes: Vec<u8> = rig.near.batch.refusals.iter().map(|refusal| refusal.code).collect();
    assert_eq!((codes, rig.far.session.objects.energy), (vec![3, 12], 3));
}

#[test]
fn without_lists_attributes_are_asked_one_by_one() {
    let profile = Profile { with_list: 1, ..secured() };
    let mut rig = rig(&profile);
    let items = vec![read(&[attribute(3, ENERGY, 2), attribute(3, EXPORT, 2)])];

    assert_eq!(ask(&mut rig, items), Some(Outcome::Done));

    assert_eq!(rig.near.batch.cells(0), [Cell::Integer(123_456), Cell::Integer(9)]);
    assert_eq!(rig.near.finished[0].0.exchanges, 2);
}

#[test]
fn long_lists_come_in_blocks() {
    let profile = Profile { with_list: 100, ..secured() };
    let mut rig = rig(&profile);
    let attributes = vec![attribute(3, ENERGY, 2); 90];

    assert_eq!(ask(&mut rig, vec![read(&attributes)]), Some(Outcome::Done));

    assert_eq!(rig.near.batch.cells(0), vec![Cell::Integer(123_456); 90]);
}

#[test]
fn split_at_every_octet_both_ways_gives_the_same_rows() {
    let profile = secured();
    let mut whole = rig(&profile);
    let mut pieces = rig(&profile);
    pieces.line.split = 1_000;

    assert_eq!(ask(&mut whole, vec![energy(), load_profile()]), Some(Outcome::Done));
    assert_eq!(ask(&mut pieces, vec![energy(), load_profile()]), Some(Outcome::Done));

    assert_eq!(whole.near.batch.lines, pieces.near.batch.lines);
    assert_eq!(whole.near.batch.integers, pieces.near.batch.integers);
}

#[test]
fn a_transfer_that_never_ends_leaves_no_line() {
    let profile = secured();
    let mut rig = rig(&profile);
    rig.far.session = meter(&profile).with_fault(Fault::TruncatedBlocks);

    assert_eq!(ask(&mut rig, vec![load_profile()]), Some(Outcome::Violation));

    assert_eq!(rig.near.batch.lines, []);
}

#[test]
fn silence_ends_in_an_interrupted_request_and_a_closed_connection() {
    let profile = secured();
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.tell_far(Input::Control(MeterControl::Fault(Fault::Silent)));

    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Interrupted));

    assert!(!rig.open);
}

#[test]
fn an_action_whose_answer_is_lost_is_unknown_and_never_repeated() {
    let profile = secured();
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.tell_far(Input::Control(MeterControl::Fault(Fault::Resets(1))));

    assert_eq!(ask(&mut rig, vec![switch(1)]), Some(Outcome::Unknown));

    assert_eq!(rig.far.session.objects.switched, 1);
}

#[test]
fn a_cancelled_question_leaves_the_association_and_its_late_answer_is_dropped() {
    let profile = secured();
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.tell_far(Input::Control(MeterControl::Fault(Fault::Slow(Duration::from_secs(3)))));

    rig.tell_near(Input::Request(request(2, vec![energy()])));
    rig.tell_near(Input::Cancel(2));
    assert_eq!(rig.near.finished[1].1, Outcome::Cancelled);
    assert!(!rig.near.session.ready(), "the old answer is still on its way");
    rig.run(Duration::from_secs(5), 100);

    assert!(rig.open && rig.near.session.ready());
    assert_eq!(rig.near.batch.lines.len(), 1, "nobody's answer is no reading");
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
}

#[test]
fn a_deadline_ends_the_request_and_not_the_association() {
    let profile = secured();
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.tell_far(Input::Control(MeterControl::Fault(Fault::Slow(Duration::from_secs(3)))));

    let mut late = request(2, vec![energy()]);
    late.deadline = rig.now.monotonic + Duration::from_secs(1);
    rig.tell_near(Input::Request(late));
    rig.run(Duration::from_secs(10), 100);

    assert_eq!(rig.near.finished[1].1, Outcome::TimedOut);
    assert!(rig.open && rig.near.session.associated());
}

#[test]
fn an_idle_association_shows_life_before_networks_forget_it() {
    let profile = secured();
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    let before = rig.near.written.len();

    rig.run(Duration::from_secs(1_000), 100);
    assert_eq!(rig.near.written.len(), before + 2);
    rig.tell_far(Input::Control(MeterControl::Fault(Fault::Silent)));
    rig.run(Duration::from_secs(1_000), 100);

    assert!(!rig.open, "half-open connections are found");
}

#[test]
fn a_notification_is_a_line_that_nobody_asked_for() {
    let profile = secured();
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));

    rig.tell_far(Input::Control(MeterControl::Notify(vec![6, 0, 0, 0, 5])));
    rig.run(Duration::from_secs(1), 10);

    let batch = &rig.near.batch;
    assert_eq!((batch.lines[1].request, batch.lines[1].layout), (0, 0));
    let [Cell::Raw(apdu)] = batch.cells(1)[..] else { panic!("{:?}", batch.cells(1)) };
    let Ok(Notification::Data(notification)) = Notification::decode(apdu) else { panic!("{apdu:02x?}") };
    assert_eq!(notification.body, [6, 0, 0, 0, 5]);
    assert_ne!(batch.lines[1].capture_time, WallTime::UNKNOWN);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
}

#[test]
fn without_counters_nothing_is_sealed_until_a_block_is_granted() {
    let profile = secured();
    let channel = head_end_channel(1, ipss_dlms::security::CounterBlock::new(5, 8), None);
    let mut rig = rig(&profile);
    rig.near.session = ipss_dlms::head_end::HeadEnd::new(7, profile.into(), Some(channel), b"").unwrap();

    // The association takes three: the initiate request, the proof, and the APDU that carries it.
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::CountersExhausted));
    assert!(rig.open && rig.near.session.associated());
    assert!(kinds(&rig).contains(&EventKind::CountersLow));
    rig.tell_near(Input::Control(ipss_dlms::head_end::Control::Grant { next: 6, end: 20 }));
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::CountersExhausted), "a block that reaches back is refused");
    rig.tell_near(Input::Control(ipss_dlms::head_end::Control::Grant { next: 8, end: 20 }));

    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
}

#[test]
fn no_invocation_counter_is_ever_seen_twice_whatever_the_line_does() {
    for seed in 0..200 {
        let profile = Profile { dedicated: seed % 2 == 0, ..secured() };
        let mut rig = ipss_session::rig::Rig::new(head_end(&profile), meter(&profile), seed, START);
        rig.line = ipss_session::rig::Line {
            delay: Duration::from_millis(30),
            jitter: Duration::from_millis(200),
            loss: 20,
            reordering: 100,
            split: 100,
            reset: 10,
            ..Default::default()
        };
        for _ in 0..20 {
            ask(&mut rig, vec![energy(), load_profile()]);
        }

        let mut seen: Vec<(i64, &str)> = Vec::new();
        let events = rig.far.batch.events.iter().filter(|event| event.kind == EventKind::NonceSeen);
        seen.extend(events.map(|event| (event.number, event.detail.as_str())).filter(|(_, key)| *key == "global"));
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "seed {seed}: a counter of the lasting key came twice");
    }
}

#[test]
fn whatever_the_line_does_every_line_is_one_that_the_meter_measured() {
    let mut done = 0;
    for seed in 0..300 {
        let profile = Profile { dedicated: seed % 3 == 0, ..secured() };
        let mut rig = ipss_session::rig::Rig::new(head_end(&profile), meter(&profile), seed, START);
        rig.line = ipss_session::rig::Line {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(50),
            loss: 10,
            duplication: 20,
            reordering: 50,
            split: 200,
            reset: 5,
            corruption: 5,
        };
        for _ in 0..10 {
            done += usize::from(ask(&mut rig, vec![energy(), load_profile()]) == Some(Outcome::Done));
        }

        let batch = &rig.near.batch;
        for (index, line) in batch.lines.iter().enumerate() {
            let Line { layout, capture_time, .. } = *line;
            match layout {
                1 => assert_eq!(batch.cells(index), [Cell::Integer(123_456)], "seed {seed}"),
                _ => {
                    let cells: Vec<Cell<'_>> =
                        (0..4).map(|channel| Cell::Integer(load(capture_time, channel))).collect();
                    assert_eq!(batch.cells(index), cells, "seed {seed}");
                }
            }
        }
    }
    assert!(done > 500, "only {done} of 3,000 requests got through: the test would prove nothing");
}

#[test]
fn the_public_client_reads_what_it_may_and_no_more() {
    let mut rig = rig(&Profile { client: 1, ..Profile::public() });
    let public = Profile::public();
    rig.near.session = head_end(&public);
    let name = read(&[attribute(1, LogicalName::LOGICAL_DEVICE_NAME, 2)]);

    assert_eq!(ask(&mut rig, vec![name, energy()]), Some(Outcome::Refused));

    assert_eq!(rig.near.batch.cells(0), [Cell::Raw(b"\x09\x04TST1")]);
    assert_eq!(rig.near.batch.refusals[0].code, 3);
}

#[test]
fn a_wrong_password_is_told_from_a_dead_line() {
    let profile = Profile { client: 1, authentication: Authentication::Low, ..Profile::public() };
    let mut rig = rig(&profile);
    rig.near.session = ipss_dlms::head_end::HeadEnd::new(7, profile.into(), None, b"wrong").unwrap();

    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::AuthenticationFailed));

    assert!(kinds(&rig).contains(&EventKind::AssociationRejected));
}

#[test]
fn the_greeter_learns_who_dialled_in_and_says_nothing_else() {
    let profile = secured();
    let mut rig = ipss_session::rig::Rig::new(ipss_dlms::head_end::Greeter::default(), meter(&profile), 1, START);
    rig.connect();
    rig.run(Duration::from_secs(1), 100);

    assert_eq!(rig.near.identified, [b"TST1".to_vec()]);
    assert!(rig.near.batch.is_empty());
}

#[test]
fn a_request_that_is_none_is_answered_by_nothing_and_the_connection_closes() {
    let profile = Profile { client: 1, ..Profile::public() };
    // A SET with list that goes on like the first block of one, as some head-ends cut it.
    let mut apdu = vec![0xC1, 4, 0xC1, 1, 0, 3];
    apdu.extend_from_slice(&ENERGY.0);
    apdu.extend_from_slice(&[2, 0, 0, 0, 0, 0, 1, 4, 1, 6, 0, 0]);
    let mut rig = rig(&profile);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    let written = rig.far.written.len();

    rig.inject_far(&[&[0, 1, 0, 1, 0, 1, 0, apdu.len() as u8][..], &apdu].concat());

    assert_eq!(rig.far.written.len(), written, "not even the head of a frame");
    assert!(!rig.open);
}
