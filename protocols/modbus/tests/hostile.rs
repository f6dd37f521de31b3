//! Devices and lines that lie, repeat, mix up and babble: no answer is given to another question, no write is done
//! twice, nothing panics or grows.

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use ipss_modbus::device::{DeviceControl, Fault};
use ipss_modbus::head_end::{HeadEnd, Item};
use ipss_modbus::pdu::RequestPdu;
use ipss_modbus::profile::{Framing, Profile, SerialTiming};
use ipss_modbus::quirks::{MbapLength, Quirks};
use ipss_session::rig::{Line, SeededRandom};
use ipss_session::{Batch, Cell, Context, EventKind, Input, Instant, Now, Outcome, Session, WallTime};

fn with_fault(profile: Profile, fault: Fault) -> Pair {
    let mut rig = pair(profile, memory());
    rig.tell_far(Input::Control(DeviceControl::Fault(fault)));
    rig
}

/// Every line of every request holds what its own question asked for.
fn assert_own_answers(rig: &Pair, wanted: impl Fn(u64) -> i64) {
    for (index, line) in rig.near.batch.lines.iter().enumerate() {
        assert_eq!(integers(rig, index), [Some(wanted(line.request))], "request {}", line.request);
    }
}

/// What every answer of a device that lies so comes to: never a value, never a second write.
#[test]
fn lies_never_become_values_and_writes_are_sent_once() {
    let tagged = [Profile::tcp(), Profile::udp()];
    let serial = [Profile::rtu(9_600), Profile::rtu_over_tcp(), Profile::ascii()];
    for (faults, profiles) in [
        (
            &[Fault::WrongUnit, Fault::WrongFunction, Fault::Echo, Fault::WrongTransaction, Fault::Silent][..],
            &tagged[..],
        ),
        (&[Fault::LengthLie(1), Fault::LengthLie(-1), Fault::LengthLie(100)], &tagged),
        (&[Fault::WrongUnit, Fault::WrongFunction, Fault::Echo, Fault::WrongCheck, Fault::Silent], &serial),
    ] {
        for fault in faults {
            for profile in profiles {
                let mut rig = with_fault(profile.clone(), *fault);
                ask(&mut rig, 1, 1, [holding(1, [7, 8, 9])]);
                run(&mut rig, 60);
                let ended = outcome(&rig, 1);
                assert!(
                    matches!(ended, Some(Outcome::TimedOut | Outcome::Violation | Outcome::Interrupted)),
                    "{fault:?} over {:?}: {ended:?}",
                    profile.framing
                );
                assert!(rig.near.batch.lines.is_empty(), "{fault:?} over {:?}", profile.framing);

                let mut rig = with_fault(profile.clone(), *fault);
                // An echo confirms a single write; one of several registers it does not.
                let values = ipss_modbus::pdu::Registers::new(&[0, 1, 0, 2]);
                let write = Item::ask(&RequestPdu::WriteMultipleRegisters { address: 1, values }).unwrap();
                ask(&mut rig, 1, 1, [write]);
                run(&mut rig, 60);
                assert_eq!(outcome(&rig, 1), Some(Outcome::Unknown), "{fault:?} over {:?}", profile.framing);
                assert_eq!(rig.near.written.len(), 1, "a write is sent once");
            }
        }
    }
}

#[test]
fn garbage_slow_octets_and_second_answers_cost_nothing() {
    for profile in [Profile::rtu_over_tcp(), Profile::rtu(9_600), Profile::ascii()] {
        for fault in [Fault::Garbage(9), Fault::Slow(Duration::from_millis(3)), Fault::Twice] {
            let mut rig = with_fault(profile.clone(), fault);
            for id in 0..20 {
                // Other lengths, so that on a line without transaction ids a second answer can be told.
                ask(&mut rig, id, 1, [holding(1, (0..1 + id as u16 % 5).map(|offset| id as u16 * 20 + offset))]);
                run(&mut rig, 5);
            }
            for id in 0..20 {
                assert_eq!(outcome(&rig, id), Some(Outcome::Done), "{fault:?} over {:?}", profile.framing);
            }
            for (index, line) in rig.near.batch.lines.iter().enumerate() {
                assert_eq!(integers(&rig, index)[0], Some(line.request as i64 * 20));
            }
        }
    }
}

#[test]
fn second_answers_over_tcp_are_dropped_and_counted() {
    let mut rig = with_fault(Profile::tcp(), Fault::Twice);
    for id in 0..100 {
        ask(&mut rig, id, 1, [holding(1, [id as u16])]);
        run(&mut rig, 1);
    }
    assert_own_answers(&rig, |id| id as i64);
    assert_eq!((rig.near.batch.lines.len(), rig.near.session.counters().unexpected), (100, 100));
    let events = rig.near.batch.events.iter().filter(|event| event.kind == EventKind::UnexpectedAnswer).count();
    assert!((1..=11).contains(&events), "{events} events in 100 s: told, not flooded");
}

#[test]
fn late_answers_find_no_question_over_any_framing() {
    for profile in [Profile::tcp(), Profile::udp(), Profile::rtu(19_200), Profile::rtu_over_tcp(), Profile::ascii()] {
        let late = profile.answer + profile.answer / 2;
        let mut rig = with_fault(Profile { retries: 0, failures: 200, ..profile }, Fault::Late(late));
        for id in 0..50 {
            ask(&mut rig, id, 1, [holding(1, [id as u16])]);
            rig.run(Duration::from_secs(2), 100_000);
        }
        run(&mut rig, 120);
        assert_own_answers(&rig, |id| id as i64);
        assert!(rig.near.session.counters().late >= 5, "{:?}", rig.near.session.counters());
    }
}

#[test]
fn stream_that_cannot_be_followed_is_closed() {
    for octets in [&[0, 1, 0, 9, 0, 5][..], &[0, 1, 0, 0, 0, 0], &[0, 1, 0, 0, 0xFF, 0xFF]] {
        let mut rig = with_fault(Profile::tcp(), Fault::Silent);
        ask(&mut rig, 1, 1, [holding(1, [1])]);
        rig.inject_near(octets);
        assert!(!rig.open);
        assert_eq!(outcome(&rig, 1), Some(Outcome::Violation));
        assert_eq!(rig.near.batch.events[0].kind, EventKind::ProtocolViolation);
    }
}

#[test]
fn lossy_lines_lose_answers_and_mix_up_none() {
    let bad = Line {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(400),
        loss: 50,
        duplication: 100,
        reordering: 300,
        ..Line::default()
    };
    let mut done = 0;
    for seed in 0..40 {
        let mut rig = pair(Profile { in_flight: 4, in_flight_per_unit: 4, failures: 250, ..Profile::udp() }, memory());
        rig.line = bad;
        for id in 0..50 {
            ask(&mut rig, id, 1, [holding(1, [(seed * 31 + id) as u16 % 1_500])]);
            rig.run(Duration::from_millis(300), 10_000);
        }
        run(&mut rig, 60);
        assert_own_answers(&rig, |id| (seed * 31 + id) as i64 % 1_500);
        done += rig.near.finished.iter().filter(|(_, outcome)| *outcome == Outcome::Done).count();
    }
    assert!(done > 1_900, "{done} of 2,000 in spite of all");
}

/// A head-end driven by hand, so that answers can be kept, swapped and sent again at will.
struct Bench {
    session: HeadEnd,
    batch: Batch,
    now: Now,
    random: SeededRandom,
    ended: Vec<(u64, Outcome)>,
}

impl Bench {
    fn step(&mut self, input: Input<'_, ipss_modbus::head_end::Work, ()>) -> (Vec<u8>, usize, Option<Instant>) {
        let mut to_send = Vec::new();
        let (now, batch, random) = (self.now, &mut self.batch, &mut self.random);
        let step = self.session.step(input, &mut Context { now, random, to_send: &mut to_send, batch });
        self.ended.extend(step.finished.map(|(request, outcome)| (request.id, outcome)));
        (to_send, step.consumed, step.deadline)
    }
}

/// R31, R44: 100,000 late, second, swapped and foreign answers, beside those that are right, to 16 questions at a time
/// over TCP.
#[test]
fn of_100_000_mixed_up_answers_none_is_given_to_another_question() {
    let profile = Profile {
        in_flight: 16,
        in_flight_per_unit: 16,
        requests: 32,
        answer: Duration::from_millis(60),
        retries: 0,
        failures: 255,
        ..Profile::tcp()
    };
    let mut bench = Bench {
        session: HeadEnd::new(1, Arc::new(profile)),
        batch: Batch::default(),
        now: Now { monotonic: Instant(1), wall: WallTime(0) },
        random: SeededRandom::new(3),
        ended: Vec::new(),
    };
    let mut dice = SeededRandom::new(44);
    bench.step(Input::Opened);
    let (mut asked, mut lines) = (0_u64, 0_u64);
    let mut pool: Vec<Vec<u8>> = Vec::new();
    let wrong = |bench: &Bench| bench.session.counters().late + bench.session.counters().unexpected;
    while wrong(&bench) < 100_000 {
        bench.now.monotonic = bench.now.monotonic + Duration::from_millis(dice.below(40));
        let mut written = Vec::new();
        while bench.session.ready() && dice.chance(900) {
            asked += 1;
            // The value that is asked for tells whose it is.
            let plan = plan([holding(1, [(asked % 60_000) as u16])]);
            let request = request(asked, 1 + (asked % 3) as u8, plan, bench.now.monotonic, 20);
            written.extend(bench.step(Input::Request(request)).0);
        }
        written.extend(bench.step(Input::Deadline).0);
        for question in written.chunks_exact(12) {
            let mut answer = vec![question[0], question[1], 0, 0, 0, 5, question[6], 3, 2];
            answer.extend_from_slice(&question[8..10]);
            pool.push(answer);
        }
        for _ in 0..dice.below(24) {
            if pool.is_empty() {
                break;
            }
            let place = dice.below(pool.len() as u64) as usize;
            let mut answer = if dice.chance(600) { pool.swap_remove(place) } else { pool[place].clone() };
            if dice.chance(50) {
                answer[6] = answer[6] % 3 + 1; // another unit
            }
            if dice.chance(30) {
                answer[0] ^= 0x40; // another transaction
            }
            if dice.chance(30) {
                answer[7] = 4; // another function
            }
            let (sent, consumed, _) = bench.step(Input::Bytes(&mut answer));
            assert_eq!(consumed, answer.len());
            for question in sent.chunks_exact(12) {
                let mut answer = vec![question[0], question[1], 0, 0, 0, 5, question[6], 3, 2];
                answer.extend_from_slice(&question[8..10]);
                pool.push(answer);
            }
        }
        while pool.len() > 200 {
            pool.swap_remove(dice.below(200) as usize);
        }
        for (index, line) in bench.batch.lines.iter().enumerate() {
            assert_eq!(bench.batch.cells(index), [Cell::Integer((line.request % 60_000) as i64)]);
            assert_eq!(u64::from(line.meter), 101 + line.request % 3);
            lines += 1;
        }
        bench.batch = Batch::default();
    }
    let once: HashSet<u64> = bench.ended.iter().map(|(id, _)| *id).collect();
    assert_eq!(once.len(), bench.ended.len(), "each request ends once");
    assert!(lines > 20_000, "{lines} of {asked} questions were answered");
    let counters = bench.session.counters();
    assert!(counters.late > 100 && counters.unexpected > 10_000, "{counters:?}");
}

/// Row 56.
#[test]
fn row_56_wrong_lengths_are_repaired_where_the_switch_says_so() {
    for (lie, mbap_length) in
        [(3, MbapLength::FromPdu), (-1, MbapLength::FromPdu), (-3, MbapLength::FromPdu), (1, MbapLength::FromPdu)]
    {
        let quirks = Quirks { mbap_length, ..Quirks::default() };
        let mut rig = with_fault(Profile { quirks, ..Profile::tcp() }, Fault::LengthLie(lie));
        for id in 0..5 {
            ask(&mut rig, id, 1, [holding(1, [id as u16])]);
        }
        run(&mut rig, 5);
        assert_eq!(rig.near.batch.lines.len(), 5, "off by {lie}");
        assert_own_answers(&rig, |id| id as i64);
    }
}

/// Row 57.
#[test]
fn row_57_other_transaction_ids_are_lived_with_where_the_switch_says_so() {
    let quirks = Quirks { transaction_id_not_echoed: true, ..Quirks::default() };
    let mut rig = with_fault(Profile { quirks, in_flight: 8, ..Profile::tcp() }, Fault::WrongTransaction);
    for id in 0..8 {
        ask(&mut rig, id, 1, [holding(1, [id as u16])]);
    }
    run(&mut rig, 5);
    assert_eq!(rig.near.batch.lines.len(), 8);
    assert_own_answers(&rig, |id| id as i64);
}

/// Row 58.
#[test]
fn row_58_other_unit_ids_are_lived_with_where_the_switch_says_so() {
    let quirks = Quirks { unit_id_not_echoed: true, ..Quirks::default() };
    for profile in [Profile::tcp(), Profile::rtu(9_600)] {
        let mut rig = with_fault(Profile { quirks, ..profile }, Fault::WrongUnit);
        for id in 0..8 {
            ask(&mut rig, id, 1, [holding(1, [id as u16])]);
        }
        run(&mut rig, 10);
        assert_eq!(rig.near.batch.lines.len(), 8);
        assert_own_answers(&rig, |id| id as i64);
    }
}

/// Row 59.
#[test]
fn row_59_answers_split_and_joined_in_any_way_are_taken_apart() {
    for profile in [Profile::tcp(), Profile::rtu_over_tcp(), Profile::ascii()] {
        let mut rig = pair(Profile { in_flight: 8, in_flight_per_unit: 8, ..profile }, memory());
        rig.line.split = 900;
        for id in 0..8 {
            ask(&mut rig, id, 1, [holding(1, [id as u16])]);
        }
        run(&mut rig, 5);
        assert_eq!(rig.near.batch.lines.len(), 8);
        assert_own_answers(&rig, |id| id as i64);
    }
}

fn answered(profile: Profile, item: Item, answer: &[u8]) -> Pair {
    let mut rig = with_fault(profile, Fault::Silent);
    ask(&mut rig, 1, 1, [item]);
    rig.inject_near(answer);
    rig
}

/// Row 62: the answer of the report, byte count in 16 bits.
#[test]
fn row_62_wide_byte_counts_are_read_where_the_switch_says_so() {
    let quirks = Quirks { wide_byte_count: true, ..Quirks::default() };
    let answer = [0x01, 0x03, 0x00, 0x02, 0x17, 0x81, 0x2B, 0x9A];
    let rig = answered(Profile { quirks, ..Profile::rtu_over_tcp() }, holding(1, [0x7002]), &answer);
    assert_eq!(integers(&rig, 0), [Some(0x1781)]);
    let rig = answered(Profile::rtu_over_tcp(), holding(1, [0x7002]), &answer);
    assert!(rig.near.batch.lines.is_empty());
}

/// Row 62: twice the octets that were asked for, since a register has 32 bits; others of the device have 16.
#[test]
fn row_62_registers_of_32_bits_are_read_where_the_switch_says_so() {
    let quirks = Quirks { wide_registers: true, ..Quirks::default() };
    let profile = Profile { quirks, ..Profile::rtu_over_tcp() };
    let framed = |pdu: &[u8]| {
        let mut frame = Vec::new();
        let mark = ipss_modbus::adu::rtu::begin(&mut frame, 1);
        frame.extend_from_slice(pdu);
        ipss_modbus::adu::rtu::finish(&mut frame, mark);
        frame
    };
    let rig = answered(profile.clone(), holding(1, [0x26]), &framed(&[3, 4, 0, 1, 0, 2]));
    assert_eq!(integers(&rig, 0), [Some(65_538)]);
    let rig = answered(profile, holding(1, [0x6C]), &framed(&[3, 2, 0x08, 0xE5]));
    assert_eq!(integers(&rig, 0), [Some(2_277)]);
}

/// Row 66.
#[test]
fn row_66_private_functions_are_asked_and_answered_as_they_are() {
    let item = || Item::ask(&RequestPdu::Other { function: 0x41, data: &[1, 2] }).unwrap();
    let mut rig = with_fault(Profile::tcp(), Fault::Silent);
    ask(&mut rig, 1, 1, [item()]);
    let sent = rig.near.written[0].clone();
    rig.inject_near(&[sent[0], sent[1], 0, 0, 0, 5, 1, 0x41, 7, 8, 9]);
    assert_eq!(outcome(&rig, 1), Some(Outcome::Done));
    assert_eq!(rig.near.batch.cells(0), [Cell::Raw(&[7, 8, 9])]);

    let mut frame = Vec::new();
    let mark = ipss_modbus::adu::rtu::begin(&mut frame, 1);
    frame.extend_from_slice(&[0x41, 7, 8, 9]);
    ipss_modbus::adu::rtu::finish(&mut frame, mark);
    let rig = answered(Profile::rtu(9_600), item(), &frame);
    assert_eq!(outcome(&rig, 1), Some(Outcome::Done), "over RTU, where nothing tells its length");
    assert_eq!(rig.near.batch.cells(0), [Cell::Raw(&[7, 8, 9])]);
}

/// A serial line's pauses: what has begun is over after 3.5 characters, and within a frame 1.5 are too many where the
/// driver tells when octets really came.
#[test]
fn silence_ends_what_has_begun_and_a_pause_breaks_a_frame_where_it_is_told() {
    let beginning = [1, 3, 2, 0];
    let question = |strict: bool| {
        let timing = SerialTiming { strict, slack: Duration::ZERO, ..SerialTiming::new(9_600) };
        let mut rig = with_fault(Profile { framing: Framing::Rtu(timing), ..Profile::rtu(9_600) }, Fault::Silent);
        ask(&mut rig, 1, 1, [holding(1, [7])]);
        rig
    };
    let mut frame = Vec::new();
    let mark = ipss_modbus::adu::rtu::begin(&mut frame, 1);
    frame.extend_from_slice(&[3, 2, 0, 7]);
    ipss_modbus::adu::rtu::finish(&mut frame, mark);

    let mut rig = question(false);
    rig.inject_near(&beginning);
    rig.run(Duration::from_millis(5), 100);
    assert_eq!(rig.near.session.counters().garbage, 4, "silence of 3.5 characters: 4.01 ms");
    rig.inject_near(&frame);
    assert_eq!(outcome(&rig, 1), Some(Outcome::Done));

    for (strict, ended) in [(false, Some(Outcome::Done)), (true, None)] {
        let mut rig = question(strict);
        rig.inject_near(&frame[..4]);
        rig.run(Duration::from_millis(3), 100);
        rig.inject_near(&frame[4..]);
        assert_eq!(outcome(&rig, 1), ended, "a pause of 3 ms, 1.7 are allowed; strict: {strict}");
        if strict {
            rig.inject_near(&frame);
            assert_eq!(outcome(&rig, 1), Some(Outcome::Done), "the next frame is whole");
        }
    }
}
