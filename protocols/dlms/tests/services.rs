//! Every service, both roles talking: any size, every way in which a meter takes it.

mod common;
#[path = "services/model.rs"]
mod model;

use std::time::Duration;

use common::{ENERGY, EXPORT, START, attribute, energy, load, load_profile, read, secured};
use ipss_dlms::apdu::initiate::Conformance;
use ipss_dlms::axdr::{Data, tag};
use ipss_dlms::cosem::{LogicalName, MethodDescriptor};
use ipss_dlms::head_end::{Access, AccessList, CONFIRMED, Control, HeadEnd, Item};
use ipss_dlms::meter::{Fault, MeterControl};
use ipss_dlms::profile::{Ciphering, KeyForm, Profile, Referencing};
use ipss_dlms::quirks::QuirkValue;
use ipss_dlms::security::Suite;
use ipss_session::{Cell, EventKind, Input, Line, Outcome};
use model::{RichRig, ask, method, rig, rig_of, thing, value};

const BLOCKS: [Conformance; 3] = [
    Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ,
    Conformance::BLOCK_TRANSFER_WITH_SET_OR_WRITE,
    Conformance::BLOCK_TRANSFER_WITH_ACTION,
];

/// Profiles with what a meter may lack: lists, blocks of services, general blocks; protected or not.
fn negotiated() -> Vec<Profile> {
    let mut profiles = Vec::new();
    for base in [Profile { client: 1, ..Profile::public() }, secured()] {
        for lists in [true, false] {
            for (service, general) in [(true, true), (true, false), (false, true)] {
                let mut profile = base.clone();
                if !lists {
                    profile.conformance = profile.conformance.without(Conformance::MULTIPLE_REFERENCES);
                }
                if !service {
                    for bit in BLOCKS {
                        profile.conformance = profile.conformance.without(bit);
                    }
                }
                profile.quirks.general_block_transfer = general;
                profiles.push(profile);
            }
        }
    }
    profiles
}

fn kinds(rig: &RichRig) -> Vec<EventKind> {
    rig.near.batch.events.iter().map(|event| event.kind).collect()
}

fn raw(cells: Vec<Cell<'_>>) -> Vec<Vec<u8>> {
    cells.into_iter().map(|cell| if let Cell::Raw(octets) = cell { octets.to_vec() } else { vec![] }).collect()
}

#[test]
fn values_of_any_size_are_written_whole_and_read_back() {
    for profile in negotiated() {
        for (pdu, sizes) in [(128, vec![1, 60, 90, 500, 3_000]), (600, vec![1, 560, 9_000]), (65_535, vec![10, 70_000])]
        {
            let mut rig = rig(&profile, pdu);
            let values: Vec<_> =
                sizes.iter().enumerate().map(|(place, size)| (thing(place as u8), value(place as u8, *size))).collect();
            let alone = values.iter().map(|pair| Item::Set([pair.clone()].into())).collect();
            let together = Item::Set(values.clone().into());
            let back = values.iter().map(|(descriptor, _)| read(&[*descriptor])).collect();

            assert_eq!(ask(&mut rig, alone), Some(Outcome::Done), "{pdu} {:?}", rig.near.batch.events);
            assert_eq!(rig.far.session.objects.written, values.len());
            rig.far.session.objects.values.clear();
            assert_eq!(ask(&mut rig, vec![together]), Some(Outcome::Done), "{pdu} {:?}", rig.near.batch.events);

            for (descriptor, value) in &values {
                assert_eq!(rig.far.session.objects.values[&descriptor.logical_name.0], value[..]);
            }
            let lines = rig.near.batch.lines.len();
            assert_eq!(ask(&mut rig, back), Some(Outcome::Done), "{pdu} {:?}", rig.near.batch.events);
            for (place, (_, value)) in values.iter().enumerate() {
                assert_eq!(raw(rig.near.batch.cells(lines + place)), [value.to_vec()]);
            }
        }
    }
}

#[test]
fn each_result_of_a_list_is_told_however_it_travels() {
    for profile in negotiated() {
        let mut rig = rig(&profile, 128);
        let values = [(thing(1), value(1, 200)), (thing(99), value(2, 4)), (thing(2), value(3, 4))];

        assert_eq!(ask(&mut rig, vec![Item::Set(values.into())]), Some(Outcome::Refused));

        assert_eq!(rig.near.batch.cells(0), [Cell::Integer(0), Cell::Integer(3), Cell::Integer(0)]);
        assert_eq!(rig.far.session.objects.written, 2);
    }
}

#[test]
fn methods_take_and_give_back_any_size() {
    for profile in negotiated() {
        for size in [1, 80, 700, 9_000] {
            let mut rig = rig(&profile, 128);
            let parameters = value(5, size);
            let echo = (method(1), Some(parameters.clone()));
            let several =
                Item::Actions([echo.clone(), (method(3), None), (method(2), None), echo.clone(), echo.clone()].into());

            assert_eq!(ask(&mut rig, vec![Item::Action(echo.0, echo.1)]), Some(Outcome::Done));
            assert_eq!(raw(rig.near.batch.cells(0)), [parameters.to_vec()]);
            assert_eq!(ask(&mut rig, vec![several]), Some(Outcome::Refused), "{:?}", rig.near.batch.events);

            let given = parameters.to_vec();
            assert_eq!(raw(rig.near.batch.cells(1)), [given.clone(), vec![], vec![], given.clone(), given]);
            let codes: Vec<_> = rig.near.batch.refusals.iter().map(|refusal| refusal.code).collect();
            assert_eq!(codes, [3]);
            assert_eq!(rig.far.session.objects.invoked.len(), 6, "{size}: each method is invoked once");
        }
    }
}

#[test]
fn access_reads_writes_and_invokes_in_one_exchange() {
    for self_descriptive in [false, true] {
        for size in [3, 2_000] {
            let mut rig = rig(&secured(), 400);
            let list = AccessList {
                items: [
                    Access::Set(thing(1), value(1, size)),
                    Access::Get(thing(1), None),
                    Access::Get(thing(55), None),
                    Access::Action(method(1), Some(value(2, size))),
                    Access::Action(method(3), None),
                ]
                .into(),
                break_on_error: false,
                self_descriptive,
            };

            assert_eq!(ask(&mut rig, vec![Item::Access(list.into())]), Some(Outcome::Refused));

            let (one, two) = (value(1, size).to_vec(), value(2, size).to_vec());
            assert_eq!(raw(rig.near.batch.cells(0)), [vec![], one, vec![], two, vec![]]);
            assert_eq!(rig.near.finished[0].0.exchanges, 1);
            assert_eq!(rig.near.batch.refusals[0].code, 4);
        }
    }
}

#[test]
fn access_that_breaks_on_error_does_nothing_behind_it() {
    let mut rig = rig(&secured(), 400);
    let list = AccessList {
        items: [Access::Set(thing(99), value(1, 3)), Access::Set(thing(1), value(1, 3))].into(),
        break_on_error: true,
        self_descriptive: false,
    };

    assert_eq!(ask(&mut rig, vec![Item::Access(list.into())]), Some(Outcome::Refused));

    let codes: Vec<_> = rig.near.batch.refusals.iter().map(|refusal| refusal.code).collect();
    assert_eq!((codes, rig.far.session.objects.written), (vec![3, 250], 0));
}

#[test]
fn what_was_not_negotiated_is_not_asked() {
    let without = Profile { conformance: secured().conformance.without(Conformance::ACCESS), ..secured() };
    let mut access = rig(&without, 400);
    let list =
        AccessList { items: [Access::Get(thing(1), None)].into(), break_on_error: false, self_descriptive: false };
    assert_eq!(ask(&mut access, vec![Item::Access(list.into())]), Some(Outcome::Impossible));

    let mut profile = secured();
    for bit in BLOCKS {
        profile.conformance = profile.conformance.without(bit);
    }
    profile.quirks.general_block_transfer = false;
    let mut long = rig(&profile, 200);
    let item = Item::Set([(thing(1), value(1, 300))].into());
    assert_eq!(ask(&mut long, vec![item]), Some(Outcome::Impossible));
    assert_eq!(long.far.session.objects.written, 0);
}

#[test]
fn without_selective_access_the_whole_buffer_is_asked_for() {
    let without = Profile { conformance: secured().conformance.without(Conformance::SELECTIVE_ACCESS), ..secured() };
    let mut rig = rig(&without, 400);

    // This model has no whole buffer to give, and says so: that is the meter's own no.
    assert_eq!(ask(&mut rig, vec![load_profile()]), Some(Outcome::Refused));
    assert_eq!(rig.near.batch.refusals[0].code, 250);
}

#[test]
fn lists_are_cut_to_what_small_meters_take() {
    for pdu in [114, 125, 128] {
        let mut rig = rig(&Profile { with_list: 100, ..secured() }, pdu);
        let attributes: Vec<_> =
            (0..40).map(|place| attribute(3, if place % 2 == 0 { ENERGY } else { EXPORT }, 2)).collect();

        assert_eq!(ask(&mut rig, vec![read(&attributes)]), Some(Outcome::Done), "{pdu}: {:?}", rig.near.batch.events);

        let expected: Vec<_> = (0..40).map(|place| Cell::Integer(if place % 2 == 0 { 123_456 } else { 9 })).collect();
        assert_eq!(rig.near.batch.cells(0), expected);
        let longest = rig.near.written.iter().map(|chunk| chunk.len() - 8).skip(2).max().unwrap();
        assert!(longest <= usize::from(pdu), "{longest} octets for a meter that takes {pdu}");
    }
}

#[test]
fn a_list_answered_by_garbage_is_asked_one_by_one() {
    let mut broken = secured();
    broken.quirks.with_list_allowed = false;
    let mut rig = rig_of(&secured(), &broken, 400);
    let attributes = [attribute(3, ENERGY, 2), attribute(3, EXPORT, 2), attribute(3, LogicalName([9; 6]), 2)];

    assert_eq!(ask(&mut rig, vec![read(&attributes), read(&attributes)]), Some(Outcome::Refused));

    for line in 0..2 {
        assert_eq!(rig.near.batch.cells(line), [Cell::Integer(123_456), Cell::Integer(9), Cell::Null]);
    }
    assert_eq!(rig.near.batch.refusals.len(), 2);
    assert_eq!(kinds(&rig).iter().filter(|kind| **kind == EventKind::ProtocolViolation).count(), 1);
}

#[test]
fn block_numbers_that_go_on_need_the_quirk() {
    let mut going_on = secured();
    going_on.quirks.block_number_continues = true;
    for allowed in [true, false] {
        let mut profile = secured();
        profile.set_quirk("block_number_continues", QuirkValue::Flag(allowed)).unwrap();
        let mut rig = rig_of(&profile, &going_on, 400);

        assert_eq!(ask(&mut rig, vec![load_profile()]), Some(Outcome::Done));
        let second = ask(&mut rig, vec![load_profile()]);

        assert_eq!(second, Some(if allowed { Outcome::Done } else { Outcome::Violation }));
        assert_eq!(rig.near.batch.lines.len(), if allowed { 192 } else { 96 });
    }
}

#[test]
fn answers_in_the_clear_need_the_quirk() {
    for allowed in [true, false] {
        let mut profile = secured();
        profile.quirks.plain_response_allowed = allowed;
        let mut rig = rig(&profile, 400);
        assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
        rig.tell_far(Input::Control(MeterControl::Fault(Fault::Plaintext)));

        let outcome = ask(&mut rig, vec![energy()]);

        assert_eq!(outcome, Some(if allowed { Outcome::Done } else { Outcome::AuthenticationFailed }));
    }
}

#[test]
fn lost_blocks_of_general_block_transfer_are_recovered() {
    let mut profile = secured();
    for bit in BLOCKS {
        profile.conformance = profile.conformance.without(bit);
    }
    let mut done = 0;
    for seed in 0..60_u8 {
        let mut rig = rig(&profile, 200);
        assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
        rig.line.loss = 150;
        rig.line.delay = Duration::from_millis(20);
        let long = value(seed, 900 + usize::from(seed) * 40);
        let write = Item::Set([(thing(seed), long.clone())].into());

        let outcome = ask(&mut rig, vec![write, load_profile()]);

        if outcome == Some(Outcome::Done) {
            done += 1;
            assert_eq!(rig.far.session.objects.written, 1, "a request said twice is served once");
            assert_eq!(rig.far.session.objects.values[&thing(seed).logical_name.0], long[..]);
            assert_eq!(rig.near.batch.lines.len(), 2 + 96);
            let first: Vec<_> = (0..4).map(|channel| Cell::Integer(load(START, channel))).collect();
            assert_eq!(rig.near.batch.cells(2), first);
        } else {
            assert!(rig.near.batch.lines.len() <= 2, "no part of a profile is given out");
        }
    }
    assert!(done >= 40, "only {done} of 60 transfers came through a line that loses 15 % of its chunks");
}

#[test]
fn short_names_serve_the_same_questions_under_every_profile() {
    for profile in common::all_profiles() {
        let general = profile.signing || matches!(profile.ciphering, Ciphering::GeneralCiphering(_));
        // With a signature for each of hundreds of small APDUs it takes seconds: suite 1's one-pass agreement stands for all.
        let one_pass = Ciphering::GeneralCiphering(KeyForm::OnePass);
        let sizes = match profile.suite {
            _ if !general => vec![(400, 16), (128, 1)],
            Suite::Zero => vec![(700, 16), (400, 16), (128, 1)],
            Suite::One if profile.ciphering == one_pass => vec![(400, 16), (200, 1)],
            _ => vec![(400, 16)],
        };
        for (pdu, lists) in sizes {
            let profile = Profile { with_list: lists, ..profile.clone() }.with_short_names();
            let mut rig = rig(&profile, pdu);
            let several =
                read(&[attribute(3, ENERGY, 2), attribute(3, EXPORT, 2), attribute(3, LogicalName([9; 6]), 2)]);
            let write = Item::Set([(attribute(3, ENERGY, 2), Box::from([6, 0, 0, 0, 77]))].into());
            let list = Item::Set([(thing(1), value(1, 300)), (thing(99), value(2, 3)), (thing(2), value(3, 3))].into());
            // What has no answer has no blocks either: in the smallest PDUs with general-ciphering it is asked as a write.
            let alone = Item::Set([(thing(5), value(5, 5))].into());
            let unconfirmed =
                if profile.overhead() + 20 > usize::from(pdu) { alone } else { Item::Unconfirmed(alone.into()) };
            let echo = Item::Action(method(1), Some(value(4, 250)));
            let switch = common::switch(1);
            let object_list = read(&[attribute(12, LogicalName::CURRENT_ASSOCIATION, 2)]);

            let items = vec![several, load_profile(), write, energy(), list, unconfirmed, echo, switch, object_list];
            let outcome = ask(&mut rig, items);

            assert_eq!(outcome, Some(Outcome::Refused), "{profile:?}: {:?}", rig.near.batch.events);
            let batch = &rig.near.batch;
            assert_eq!(batch.cells(0), [Cell::Integer(123_456), Cell::Integer(9), Cell::Null]);
            assert_eq!((batch.lines[1].capture_time, batch.lines[96].item), (START, 1));
            assert_eq!(batch.cells(98), [Cell::Integer(77)]);
            assert_eq!(batch.cells(99), [Cell::Integer(0), Cell::Integer(3), Cell::Integer(0)]);
            assert_eq!(raw(batch.cells(101)), [value(4, 250).to_vec()]);
            let objects = &rig.far.session.objects;
            assert_eq!(objects.values[&thing(1).logical_name.0], value(1, 300)[..]);
            assert_eq!(objects.values[&thing(5).logical_name.0], value(5, 5)[..]);
            assert!(!objects.small.connected);
            let codes: Vec<_> = batch.refusals.iter().map(|refusal| refusal.code).collect();
            assert_eq!(codes, [4, 3]);

            rig.tell_near(Input::Release);
            rig.run(Duration::from_secs(10), 100);
            assert!(kinds(&rig).contains(&EventKind::Released));
        }
    }
}

#[test]
fn read_by_logical_name_works_without_the_object_list_saying_so() {
    let mut rig = rig(&secured().with_short_names(), 400);
    let wanted = Data::Array(vec![Data::Structure(vec![
        Data::LongUnsigned(3),
        Data::OctetString(EXPORT.0.to_vec()),
        Data::Integer(2),
    ])]);
    let by_name = MethodDescriptor { class_id: 12, logical_name: LogicalName::CURRENT_ASSOCIATION, method: 3 };

    let outcome = ask(&mut rig, vec![Item::Action(by_name, Some(wanted.to_octets().into()))]);

    assert_eq!(outcome, Some(Outcome::Done));
    assert_eq!(raw(rig.near.batch.cells(0)), [vec![tag::STRUCTURE, 1, 6, 0, 0, 0, 9]]);
}

#[test]
fn unconfirmed_writes_and_invocations_are_done_without_an_answer() {
    let mut rig = rig(&secured(), 400);
    let write = Item::Unconfirmed(Item::Set([(thing(1), value(1, 5))].into()).into());
    let act = Item::Unconfirmed(Item::Action(method(3), None).into());

    assert_eq!(ask(&mut rig, vec![write, act, energy()]), Some(Outcome::Done));

    assert_eq!((rig.far.session.objects.written, rig.far.session.objects.invoked.len()), (1, 1));
    assert_eq!(rig.near.finished[0].0.exchanges, 1);
    assert_eq!(rig.near.batch.cells(2), [Cell::Integer(123_456)]);
}

#[test]
fn pushes_events_and_reports_become_lines_and_confirmed_ones_wait_for_it() {
    for profile in [secured(), Profile { client: 1, ..Profile::public() }, secured().with_short_names()] {
        for size in [10, 4_000] {
            // A head-end that takes little gets long pushes in blocks.
            let mut rig = rig(&Profile { max_pdu: 300, ..profile.clone() }, 300);
            assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
            let body = value(1, size).to_vec();

            rig.tell_far(Input::Control(MeterControl::Notify(body.clone())));
            rig.tell_far(Input::Control(MeterControl::NotifyConfirmed(body.clone())));
            rig.tell_far(Input::Control(MeterControl::Event(thing(3), body.clone())));
            rig.tell_far(Input::Control(MeterControl::Report(vec![(0x1038, body.clone())])));
            rig.run(Duration::from_secs(1), 1_000);

            let batch = &rig.near.batch;
            for (line, tag) in (1..5).zip([0x0F, 0x0F, 0xC2, 0xC2]) {
                let apdu = raw(batch.cells(line)).remove(0);
                let unnamed = line == 4 && profile.referencing == Referencing::LogicalName;
                assert_eq!(apdu[0], if unnamed { 0x18 } else { tag });
                assert!(apdu.ends_with(&body));
            }
            assert!(batch.lines[1..].iter().all(|line| line.request == 0));
            let confirmed: Vec<_> = batch.events.iter().filter(|event| event.detail == CONFIRMED).collect();
            assert_eq!(confirmed.len(), 1);

            let number = u32::try_from(confirmed[0].number).unwrap();
            rig.tell_near(Input::Control(Control::Confirm(number)));
            rig.run(Duration::from_secs(1), 1_000);

            let heard = rig.far.batch.events.iter().find(|event| event.kind == EventKind::Notified).unwrap();
            assert_eq!(heard.number, i64::from(number));
            assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
        }
    }
}

#[test]
fn notification_leaves_the_question_on_the_wire_alone() {
    let mut rig = rig(&Profile { max_pdu: 300, ..secured() }, 300);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig.tell_near(Input::Request(common::request(2, vec![load_profile()])));
    for _ in 0..20 {
        rig.tell_far(Input::Control(MeterControl::Notify(value(1, 700).to_vec())));
        rig.run(Duration::ZERO, 1);
    }
    rig.run(Duration::from_secs(60), 1_000);

    assert_eq!(rig.near.finished.last().map(|(_, outcome)| *outcome), Some(Outcome::Done));
    let asked = rig.near.batch.lines.iter().filter(|line: &&Line| line.request == 2).count();
    assert_eq!((asked, rig.near.batch.lines.len()), (96, 1 + 96 + 20));
}

#[test]
fn release_is_protected_or_left_out_where_the_meter_wants_that() {
    for (quirk, value) in [("protected_release", true), ("no_release", true), ("no_release", false)] {
        let mut profile = secured();
        profile.set_quirk(quirk, QuirkValue::Flag(value)).unwrap();
        let mut rig = rig(&profile, 400);
        assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));

        rig.tell_near(Input::Release);
        rig.run(Duration::from_secs(5), 100);

        assert!(kinds(&rig).contains(&EventKind::Released), "{quirk}");
        assert!(!rig.open);
        assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done), "associates again");
    }
}

#[test]
fn an_idle_session_costs_less_than_a_kibibyte() {
    assert!(size_of::<HeadEnd>() <= 512, "{} octets", size_of::<HeadEnd>());
}
