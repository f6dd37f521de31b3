//! Transfers that are cut, and answers that come late, twice or out of order: nothing truncated is given out, nothing
//! is attributed to a question that did not ask for it.

mod common;
#[path = "services/model.rs"]
mod model;

use std::time::Duration;

use common::{ENERGY, attribute, energy, load_profile, read, request, secured};
use ipss_dlms::apdu::initiate::Conformance;
use ipss_dlms::apdu::{InvokeIdAndPriority, set};
use ipss_dlms::link::wrapper;
use ipss_dlms::meter::{Fault, MeterControl};
use ipss_dlms::profile::Profile;
use ipss_session::{Cell, EventKind, Input, Outcome, Session};
use model::{RichRig, ask, rig, thing, value};

/// The ways in which a long answer travels.
fn ways() -> Vec<Profile> {
    let open = Profile { client: 1, ..Profile::public() };
    let mut general = secured();
    general.conformance = general.conformance.without(Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ);
    vec![open.clone(), secured(), general, open.with_short_names()]
}

fn ready(profile: &Profile, pdu: u16) -> RichRig {
    let mut rig = rig(profile, pdu);
    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));
    rig
}

/// R34: whatever part of the transfer came, nothing of it is a line unless all of it came.
#[test]
fn a_transfer_cut_at_any_block_gives_no_line() {
    let (mut transfers, mut cuts) = (0, 0);
    for profile in ways() {
        for pdu in (120..=640).step_by(10) {
            transfers += 1;
            let mut whole = ready(&profile, pdu);
            whole.tell_near(Input::Request(request(2, vec![load_profile()])));
            let events = whole.run(Duration::from_secs(100), 10_000);
            assert_eq!(whole.near.batch.lines.len(), 1 + 96);

            for (cut, manner) in (1..events).flat_map(|cut| (0..3).map(move |manner| (cut, manner))) {
                let mut rig = ready(&profile, pdu);
                rig.tell_near(Input::Request(request(2, vec![load_profile()])));
                rig.run(Duration::from_secs(100), cut);
                match manner {
                    0 => rig.disconnect(),
                    // The meter restarts: it knows of no association and no transfer.
                    1 => {
                        let _ = rig.far.session.step(
                            Input::Opened,
                            &mut ipss_session::Context {
                                now: rig.now,
                                random: &mut ipss_session::rig::SeededRandom::new(1),
                                to_send: &mut Vec::new(),
                                batch: &mut ipss_session::Batch::default(),
                            },
                        );
                        rig.run(Duration::from_secs(300), 1_000);
                    }
                    // Blocks without content and without end.
                    _ => {
                        rig.tell_far(Input::Control(MeterControl::Fault(Fault::TruncatedBlocks)));
                        rig.run(Duration::from_secs(300), 1_000);
                    }
                }
                let lines = rig.near.batch.lines.len() - 1;
                let outcome = rig.near.finished.last().map(|(_, outcome)| *outcome);
                let done = outcome == Some(Outcome::Done) && rig.near.finished.len() == 2;
                assert_eq!(lines, if done { 96 } else { 0 }, "cut {cut} of {events}: {outcome:?}");
                cuts += 1;
            }
        }
    }
    assert!(transfers >= 200 && cuts >= 10_000, "{transfers} transfers, {cuts} cuts");
}

#[test]
fn a_write_cut_at_any_block_is_unknown_and_never_done_in_part() {
    for profile in ways() {
        let item = || ipss_dlms::head_end::Item::Set([(thing(1), value(1, 1_500))].into());
        let mut whole = ready(&profile, 200);
        whole.tell_near(Input::Request(request(2, vec![item()])));
        let events = whole.run(Duration::from_secs(100), 10_000);
        for cut in 0..events {
            let mut rig = ready(&profile, 200);
            rig.tell_near(Input::Request(request(2, vec![item()])));
            rig.run(Duration::from_secs(100), cut);
            rig.disconnect();

            let outcome = rig.near.finished.last().map(|(_, outcome)| *outcome);
            let written = rig.far.session.objects.values.get(&thing(1).logical_name.0);
            assert!(written.is_none_or(|written| written[..] == value(1, 1_500)[..]), "cut {cut}");
            // Short names are looked up first: before the write there is nothing that could have been done.
            assert!(matches!(outcome, Some(Outcome::Unknown | Outcome::Done)), "cut {cut}: {outcome:?}");
        }
    }
}

/// R31: late, repeated and swapped answers, and answers of other services, change nothing.
#[test]
fn of_a_hundred_thousand_stray_answers_none_is_attributed() {
    let profile = Profile { client: 1, with_list: 1, ..Profile::public() };
    let mut rig = ready(&profile, 400);
    for number in 0..100 {
        rig.far.session.objects.values.insert(thing(number).logical_name.0, vec![17, number]);
    }
    rig.line.delay = Duration::from_millis(10);
    rig.line.jitter = Duration::from_millis(30);
    rig.line.duplication = 700;
    rig.line.reordering = 700;
    let (mut strays, mut number) = (0, 2);
    while strays < 100_000 {
        let items: Vec<_> = (0..100).map(|number| read(&[thing(number)])).collect();
        rig.near.batch = ipss_session::Batch::default();
        rig.tell_near(Input::Request(request(number, items)));
        while rig.near.finished.last().is_none_or(|(request, _)| request.id != number) {
            rig.run(Duration::from_millis(5), 50);
            // A SET's answer and a stale GET's, under the invoke-id of the question on the wire and of all others.
            for id in 0..16 {
                let mut frame = Vec::new();
                let mark = wrapper::begin(&mut frame, 1, 1);
                set::encode_response_normal(&mut frame, InvokeIdAndPriority(0x40 | id), 0);
                wrapper::finish(&mut frame, mark).unwrap();
                rig.inject_near(&frame);
            }
            assert!(rig.open, "{:?}", rig.near.batch.events.last());
        }
        assert_eq!(rig.near.finished.last().map(|(_, outcome)| *outcome), Some(Outcome::Done));
        for place in 0..100 {
            assert_eq!(rig.near.batch.lines[place].item, place as u16);
            assert_eq!(rig.near.batch.cells(place), [Cell::Integer(place as i64)]);
        }
        number += 1;
        strays += rig.near.batch.events.iter().filter(|event| event.kind == EventKind::UnexpectedAnswer).count();
    }
    assert_eq!(ask(&mut rig, vec![read(&[attribute(3, ENERGY, 2)])]), Some(Outcome::Done));
}
