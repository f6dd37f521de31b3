//! Both roles talk: every framing, every function, what is refused, what is lost.

mod common;

use std::time::Duration;

use common::*;
use ipss_modbus::device::{DeviceControl, Fault};
use ipss_modbus::group::Span;
use ipss_modbus::head_end::{Item, Point, Read};
use ipss_modbus::pdu::{Bits, FileRead, FileReads, Registers, RequestPdu, ResponsePdu};
use ipss_modbus::profile::Profile;
use ipss_modbus::quirks::Quirks;
use ipss_modbus::{Decode, Table};
use ipss_session::{Cell, EventKind, Input, Outcome};

fn framings() -> [Profile; 5] {
    [Profile::tcp(), Profile::udp(), Profile::rtu(9_600), Profile::rtu_over_tcp(), Profile::ascii()]
}

fn raw(rig: &Pair, index: usize) -> Vec<u8> {
    match rig.near.batch.cells(index)[..] {
        [Cell::Raw(octets)] => octets.to_vec(),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn every_framing_reads_all_four_tables_as_one_line() {
    for profile in framings() {
        let mut rig = pair(profile.clone(), memory());
        let read = Read::points(
            9,
            &[
                (Table::Input, 4, 2, Decode::Unsigned),
                (Table::Holding, 107, 1, Decode::Signed),
                (Table::Coils, 3, 1, Decode::Unsigned),
                (Table::DiscreteInputs, 6, 1, Decode::Unsigned),
                (Table::Holding, 108, 3, Decode::Raw),
            ],
        );

        ask(&mut rig, 1, 1, [Item::Read(read.unwrap())]);
        run(&mut rig, 10);

        assert_eq!(outcome(&rig, 1), Some(Outcome::Done), "{:?}", profile.framing);
        let line = rig.near.batch.lines[0];
        assert_eq!((line.meter, line.request, line.item, line.layout), (101, 1, 0, 9));
        let cells = rig.near.batch.cells(0);
        let wide = Cell::Integer(10_004 << 16 | 10_005);
        assert_eq!(cells[..4], [wide, Cell::Integer(107), Cell::Integer(1), Cell::Integer(0)]);
        assert_eq!(cells[4], Cell::Raw(&[0, 108, 0, 109, 0, 110]));
        assert_eq!(rig.near.finished[0].0.exchanges, 4, "one question a table");
    }
}

#[test]
fn every_function_is_asked_and_answered_over_every_framing() {
    let registers = [0, 5, 0, 6];
    let mut groups = Vec::new();
    FileReads::pack(&[FileRead { file: 1, record: 2, length: 2 }], &mut groups);
    let file = [&[0x14, groups.len() as u8][..], &groups].concat();
    let RequestPdu::ReadFileRecord(groups) = RequestPdu::decode(&file).unwrap() else { panic!() };
    let write = [0x15, 9, 6, 0, 1, 0, 0, 0, 1, 7, 7];
    let RequestPdu::WriteFileRecord(written) = RequestPdu::decode(&write).unwrap() else { panic!() };
    // What is asked, and what comes back behind the function code; `None` for a write that was done.
    let asked: Vec<(RequestPdu<'_>, Option<&[u8]>)> = vec![
        (RequestPdu::Read { table: Table::Holding, address: 1, quantity: 1 }, Some(&[2, 0, 1])),
        (RequestPdu::Read { table: Table::Coils, address: 0, quantity: 9 }, Some(&[2, 0x49, 0])),
        (RequestPdu::WriteSingleCoil { address: 1, on: true }, None),
        (RequestPdu::WriteSingleRegister { address: 1, value: 99 }, None),
        (RequestPdu::ReadExceptionStatus, Some(&[0])),
        (RequestPdu::Diagnostics { sub_function: 0, data: &[0xA5, 0x37] }, Some(&[0, 0, 0xA5, 0x37])),
        (RequestPdu::CommEventCounter, Some(&[0, 0, 0, 2])),
        (RequestPdu::CommEventLog, Some(&[6, 0, 0, 0, 2, 0, 0])),
        (RequestPdu::WriteMultipleCoils { address: 3, values: Bits::new(&[5], 3) }, None),
        (RequestPdu::WriteMultipleRegisters { address: 2, values: Registers::new(&registers) }, None),
        (RequestPdu::ReportServerId, Some(b"\x05ipss\xFF")),
        (RequestPdu::ReadFileRecord(groups), Some(&[6, 5, 6, 0, 2, 0, 3])),
        (RequestPdu::WriteFileRecord(written), None),
        (RequestPdu::MaskWriteRegister { address: 2, and: 0xF2, or: 0x25 }, None),
        (
            RequestPdu::ReadWriteMultipleRegisters {
                read_address: 2,
                read_quantity: 2,
                write_address: 3,
                values: Registers::new(&registers[2..]),
            },
            Some(&[4, 0, 0x05, 0, 6]),
        ),
        (RequestPdu::ReadFifoQueue { address: 0 }, Some(&[0, 4, 0, 1, 0, 8])),
        (
            RequestPdu::ReadDeviceIdentification { code: 1, object: 0 },
            Some(b"\x0E\x01\x81\x00\x00\x03\x00\x01A\x01\x01B\x02\x01C"),
        ),
    ];
    for profile in framings() {
        let mut memory = memory();
        memory.file = (0..10).collect();
        memory.fifo = vec![8];
        memory.identification = vec![(0, b"A".to_vec()), (1, b"B".to_vec()), (2, b"C".to_vec())];
        let mut rig = pair(profile.clone(), memory);

        ask(&mut rig, 1, 1, asked.iter().map(|(request, _)| Item::ask(request).unwrap()));
        run(&mut rig, 30);

        assert_eq!(outcome(&rig, 1), Some(Outcome::Done), "{:?}: {:?}", profile.framing, rig.near.batch);
        for (index, (request, answer)) in asked.iter().enumerate() {
            match answer {
                None => assert!(rig.near.batch.cells(index).is_empty(), "{request:?}"),
                Some(answer) => assert_eq!(raw(&rig, index), *answer, "{request:?}"),
            }
        }
        let model = &rig.far.session.model;
        assert_eq!(model.holding[..4], [0, 99, 0x05, 6]);
        assert_eq!(model.coils[..6], [true, true, false, true, false, true]);
        assert_eq!((model.file[0], model.writes), (0x0707, 7));
    }
}

#[test]
fn identification_goes_on_where_it_was_cut() {
    let mut memory = memory();
    memory.identification = (0..7).map(|id| (id, vec![b'a' + id; 60])).collect();
    let mut rig = pair(Profile::tcp(), memory);
    ask(&mut rig, 1, 1, [Item::ask(&RequestPdu::ReadDeviceIdentification { code: 2, object: 0 }).unwrap()]);
    run(&mut rig, 5);
    let answer = [&[0x2B][..], &raw(&rig, 0)].concat();
    let ResponsePdu::DeviceIdentification(first) = ResponsePdu::decode(&answer).unwrap() else { panic!() };
    assert_eq!((first.more_follows, first.next_object, first.objects.iter().count()), (true, 3, 3));

    let rest = RequestPdu::ReadDeviceIdentification { code: 2, object: first.next_object };
    ask(&mut rig, 2, 1, [Item::ask(&rest).unwrap()]);
    run(&mut rig, 5);
    let answer = [&[0x2B][..], &raw(&rig, 1)].concat();
    let ResponsePdu::DeviceIdentification(second) = ResponsePdu::decode(&answer).unwrap() else { panic!() };
    assert_eq!(second.objects.iter().map(|(id, _)| id).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn exception_is_the_devices_own_no_and_the_rest_is_read() {
    let mut rig = pair(Profile::tcp(), memory());
    let missing = Read::points(1, &[(Table::Holding, 5_000, 1, Decode::Unsigned)]).unwrap();

    ask(&mut rig, 1, 1, [Item::Read(missing), holding(2, [7])]);
    run(&mut rig, 5);

    assert_eq!(outcome(&rig, 1), Some(Outcome::Refused));
    let refusals: Vec<_> = rig.near.batch.refusals.iter().map(|no| (no.meter, no.item, no.code)).collect();
    assert_eq!(refusals, [(101, 0, 2)]);
    assert_eq!(integers(&rig, 0), [None]);
    assert_eq!(integers(&rig, 1), [Some(7)]);
}

#[test]
fn refused_block_is_cut_until_the_missing_registers_stand_alone() {
    let mut memory = memory();
    memory.holding.truncate(100);
    let mut rig = pair(Profile::tcp(), memory);
    let addresses = [80, 82, 90, 98, 99, 100, 104, 110];

    ask(&mut rig, 1, 1, [holding(1, addresses)]);
    run(&mut rig, 5);

    assert_eq!(outcome(&rig, 1), Some(Outcome::Refused));
    let expected: Vec<_> = addresses.iter().map(|address| (*address < 100).then_some(i64::from(*address))).collect();
    assert_eq!(integers(&rig, 0), expected);
    let first = rig.near.finished[0].0.exchanges;

    ask(&mut rig, 2, 1, [holding(1, addresses)]);
    run(&mut rig, 5);

    assert_eq!(integers(&rig, 1), expected);
    let second = rig.near.finished[1].0.exchanges;
    assert!(second < first, "{second} questions after {first}: what was learnt is kept");
}

/// Row 64.
#[test]
fn row_64_block_size_adapts_to_the_gateway() {
    let mut rig = pair(Profile::tcp(), memory());
    rig.tell_far(Input::Control(DeviceControl::Fault(Fault::SmallBlocks(10))));
    let read = || {
        Read::new(
            1,
            &[Span { table: Table::Holding, address: 0, count: 100 }],
            &[Point { span: 0, offset: 0, count: 100, decode: Decode::Raw }],
        )
    };

    ask(&mut rig, 1, 1, [Item::Read(read().unwrap())]);
    run(&mut rig, 20);
    ask(&mut rig, 2, 1, [Item::Read(read().unwrap())]);
    run(&mut rig, 20);

    let all: Vec<u8> = (0..100_u16).flat_map(u16::to_be_bytes).collect();
    for (index, id) in [(0, 1), (1, 2)] {
        assert_eq!(outcome(&rig, id), Some(Outcome::Done));
        assert_eq!(raw(&rig, index), all);
    }
    assert_eq!(rig.near.finished[1].0.exchanges, 17, "six registers a question, at once");
}

/// Row 65: exception 06 means later, and there is a least time between questions.
#[test]
fn row_65_busy_device_is_asked_later_and_gaps_are_kept() {
    let gap = Duration::from_millis(350);
    let mut rig = pair(Profile { gap, ..Profile::tcp() }, memory());
    rig.tell_far(Input::Control(DeviceControl::Fault(Fault::Busy)));
    ask(&mut rig, 1, 1, [holding(1, [1])]);
    rig.run(Duration::from_millis(700), 1_000);
    rig.tell_far(Input::Control(DeviceControl::Fault(Fault::None)));
    run(&mut rig, 5);
    assert_eq!(outcome(&rig, 1), Some(Outcome::Done));
    assert_eq!(rig.near.finished[0].0.exchanges, 3);

    let start = rig.now.monotonic;
    ask(&mut rig, 2, 1, [holding(1, [1]), holding(1, [500]), holding(1, [900])]);
    let mut steps = 0;
    while outcome(&rig, 2).is_none() {
        rig.run(Duration::from_millis(10), 100);
        steps += 1;
        assert!(steps < 1_000);
    }
    assert!(rig.now.monotonic.since(start) >= gap * 2, "three questions, two gaps");
}

#[test]
fn busy_write_is_refused_and_not_repeated() {
    let mut rig = pair(Profile::tcp(), memory());
    rig.tell_far(Input::Control(DeviceControl::Fault(Fault::Busy)));
    ask(&mut rig, 1, 1, [Item::ask(&RequestPdu::WriteSingleRegister { address: 1, value: 5 }).unwrap()]);
    run(&mut rig, 30);
    assert_eq!(outcome(&rig, 1), Some(Outcome::Refused));
    assert_eq!(rig.near.written.len(), 1);
}

#[test]
fn broadcast_is_sent_once_and_nobody_is_waited_for() {
    let mut rig = pair(Profile::rtu(19_200), memory());
    let write = Item::ask(&RequestPdu::WriteSingleRegister { address: 1, value: 5 }).unwrap();

    ask(&mut rig, 1, 0, [write]);
    ask(&mut rig, 2, 1, [holding(1, [1])]);
    ask(&mut rig, 3, 0, [holding(1, [1])]);
    run(&mut rig, 10);

    assert_eq!(outcome(&rig, 1), Some(Outcome::Done));
    assert_eq!(outcome(&rig, 2), Some(Outcome::Done));
    assert_eq!(outcome(&rig, 3), Some(Outcome::Impossible), "nobody answers a read of all");
    let line = rig.near.batch.lines.iter().position(|line| line.request == 2).unwrap();
    assert_eq!(integers(&rig, line), [Some(5)]);
    assert_eq!(rig.far.session.model.writes, 1);
}

#[test]
fn unit_0_over_tcp_is_the_device_itself() {
    let mut rig = pair(Profile::tcp(), memory());
    ask(&mut rig, 1, 0, [holding(1, [3])]);
    run(&mut rig, 5);
    assert_eq!(outcome(&rig, 1), Some(Outcome::Done));
    assert_eq!(integers(&rig, 0), [Some(3)]);
}

#[test]
fn lost_answer_to_a_write_is_unknown_and_the_write_is_never_repeated() {
    for profile in framings() {
        let mut rig = pair(profile, memory());
        rig.tell_far(Input::Control(DeviceControl::Fault(Fault::Silent)));
        ask(&mut rig, 1, 1, [Item::ask(&RequestPdu::WriteSingleCoil { address: 1, on: true }).unwrap()]);
        run(&mut rig, 30);
        assert_eq!(outcome(&rig, 1), Some(Outcome::Unknown));
        assert_eq!(rig.near.written.len(), 1);
    }
}

#[test]
fn broken_line_gives_reads_back_and_leaves_writes_unknown() {
    let mut rig = pair(Profile { in_flight: 4, in_flight_per_unit: 4, ..Profile::tcp() }, memory());
    rig.tell_far(Input::Control(DeviceControl::Fault(Fault::Silent)));
    ask(&mut rig, 1, 1, [holding(1, [1])]);
    ask(&mut rig, 2, 1, [Item::ask(&RequestPdu::WriteSingleCoil { address: 1, on: true }).unwrap()]);
    rig.disconnect();
    run(&mut rig, 1);
    assert_eq!(outcome(&rig, 1), Some(Outcome::Interrupted));
    assert_eq!(outcome(&rig, 2), Some(Outcome::Unknown));
}

#[test]
fn plan_of_which_a_write_was_done_is_not_offered_for_another_try() {
    let mut rig = pair(Profile::tcp(), memory());
    let write = Item::ask(&RequestPdu::WriteSingleRegister { address: 1, value: 5 }).unwrap();
    ask(&mut rig, 1, 1, [write, holding(1, [1])]);
    rig.run(Duration::from_secs(1), 3);
    assert_eq!((outcome(&rig, 1), rig.far.session.model.writes), (None, 1), "the write is done, the read on its way");
    rig.disconnect();
    run(&mut rig, 1);
    assert_eq!(outcome(&rig, 1), Some(Outcome::Unknown));
}

#[test]
fn several_questions_are_on_the_wire_where_the_device_allows() {
    let mut rig = pair(Profile { in_flight: 4, in_flight_per_unit: 4, ..Profile::tcp() }, memory());
    rig.line.delay = Duration::from_millis(100);
    let start = rig.now.monotonic;
    for id in 0..8 {
        ask(&mut rig, id, 1, [holding(1, [id as u16 * 10])]);
    }
    while rig.near.finished.len() < 8 {
        rig.run(Duration::from_millis(50), 100);
    }
    assert!(rig.now.monotonic.since(start) < Duration::from_millis(600), "two rounds of 200 ms, not eight");
    for line in 0..8 {
        assert_eq!(integers(&rig, line), [Some(rig.near.batch.lines[line].request as i64 * 10)]);
    }
}

#[test]
fn silent_unit_does_not_stop_its_neighbours() {
    for profile in [Profile::tcp(), Profile::rtu(19_200), Profile::rtu_over_tcp()] {
        let mut rig = pair(profile, memory());
        rig.tell_far(Input::Control(DeviceControl::Fault(Fault::SilentUnit(3))));
        let mut id = 0;
        let mut good = 0;
        for _ in 0..200 {
            for unit in [1, 2, 3, 4] {
                id += 1;
                ask(&mut rig, id, unit, [holding(1, [u16::from(unit)])]);
            }
            rig.run(Duration::from_secs(5), 100_000);
        }
        run(&mut rig, 120);
        for (request, outcome) in &rig.near.finished {
            match request.work.unit {
                3 => assert_eq!(*outcome, Outcome::TimedOut),
                _ => good += usize::from(*outcome == Outcome::Done),
            }
        }
        assert_eq!(good, 600, "neighbours lose nothing");
        let asked = rig.near.session.counters().unanswered;
        assert!(asked < 30, "the silent one was asked {asked} times in 1,000 s");
        assert!(rig.near.batch.events.iter().any(|event| event.kind == EventKind::BackedOff && event.meter == 103));

        rig.tell_far(Input::Control(DeviceControl::Fault(Fault::None)));
        rig.run(Duration::from_secs(7 * 3_600), 100_000);
        ask(&mut rig, 9_999, 3, [holding(1, [3])]);
        run(&mut rig, 20);
        assert_eq!(outcome(&rig, 9_999), Some(Outcome::Done), "after its rest it is asked again");
    }
}

#[test]
fn line_without_a_sign_of_life_is_given_up() {
    let mut rig = pair(Profile::tcp(), memory());
    rig.tell_far(Input::Control(DeviceControl::Fault(Fault::Silent)));
    for id in 0..3 {
        ask(&mut rig, id, 1, [holding(1, [1])]);
    }
    run(&mut rig, 30);
    assert!(!rig.open);
    assert_eq!(rig.near.finished.len(), 3);
    assert!(rig.near.finished.iter().any(|(_, outcome)| *outcome == Outcome::Interrupted));
}

#[test]
fn shared_line_is_not_given_up_for_a_silent_unit() {
    let mut rig = pair(Profile { shared: true, ..Profile::tcp() }, memory());
    rig.tell_far(Input::Control(DeviceControl::Fault(Fault::Silent)));
    for id in 0..8 {
        ask(&mut rig, id, 1, [holding(1, [1])]);
    }
    run(&mut rig, 60);
    assert!(rig.open);
    assert_eq!(rig.near.finished.len(), 8);
    assert!(rig.near.finished.iter().all(|(_, outcome)| *outcome == Outcome::TimedOut));
    assert_eq!(rig.near.session.counters().unanswered, 3, "then it rests");
}

#[test]
fn cancelled_and_late_requests_end_at_once_and_their_answers_are_dropped() {
    let mut rig = pair(Profile::tcp(), memory());
    rig.line.delay = Duration::from_millis(500);
    let now = rig.now.monotonic;
    rig.tell_near(Input::Request(request(1, 1, plan([holding(1, [11])]), now, 60)));
    rig.tell_near(Input::Request(request(2, 1, plan([holding(1, [22])]), now, 1)));
    rig.tell_near(Input::Cancel(1));
    assert_eq!(outcome(&rig, 1), Some(Outcome::Cancelled));
    run(&mut rig, 10);
    assert_eq!(outcome(&rig, 2), Some(Outcome::TimedOut));
    assert!(rig.near.batch.lines.is_empty());
    assert_eq!(rig.near.session.counters().late, 2);
}

#[test]
fn echo_of_the_line_is_not_taken_for_the_answer() {
    let quirks = Quirks { echo: true, ..Quirks::default() };
    let mut rig = pair(Profile { quirks, ..Profile::rtu(9_600) }, memory());
    ask(&mut rig, 1, 1, [Item::ask(&RequestPdu::WriteSingleRegister { address: 1, value: 5 }).unwrap()]);
    let own = rig.near.written[0].clone();
    rig.inject_near(&own[..3]);
    rig.inject_near(&own[3..]);
    assert_eq!(outcome(&rig, 1), None, "only our own octets so far");
    run(&mut rig, 5);
    assert_eq!(outcome(&rig, 1), Some(Outcome::Done));
}
