use super::super::{Data, DateTime};
use super::*;

const SHAPE: BufferShape =
    BufferShape { columns: 3, clock_column: Some(0), status_column: Some(1), capture_period_s: 900 };
const HEAD: Line = Line {
    meter: 5,
    request: 9,
    item: 2,
    layout: 7,
    capture_time: WallTime::UNKNOWN,
    deviation: Line::NO_DEVIATION,
    clock_status: 0xFF,
};
const START: WallTime = WallTime(1_700_000_100 * WallTime::SECOND);

fn clock() -> Data {
    Data::OctetString(DateTime::from_wall(START, -60).0.to_vec())
}

fn buffer(entries: Vec<Vec<Data>>) -> Vec<u8> {
    Data::Array(entries.into_iter().map(Data::Structure).collect()).to_octets()
}

fn decode(octets: &[u8], shape: &BufferShape) -> Result<Batch, ProtocolError> {
    let mut batch = Batch::default();
    batch.push_line(HEAD, [Cell::Raw(b"before")]);
    let lines = decode_buffer(octets, shape, HEAD, &Limits::default(), &mut batch)?;
    assert_eq!(batch.lines.len(), lines as usize + 1);
    Ok(batch)
}

#[test]
fn null_clock_is_one_period_later_and_null_value_is_unchanged() {
    let octets = buffer(vec![
        vec![clock(), Data::Unsigned(8), Data::DoubleLongUnsigned(4_000_000_000)],
        vec![Data::Null, Data::Null, Data::DoubleLongUnsigned(5)],
        vec![Data::Null, Data::Unsigned(0), Data::Null],
    ]);

    let batch = decode(&octets, &SHAPE).unwrap();

    let times: Vec<i64> = batch.lines[1..].iter().map(|line| (line.capture_time.0 - START.0) / 1_000_000).collect();
    assert_eq!(times, [0, 900, 1_800]);
    assert_eq!(batch.cells(1), [Cell::Integer(8), Cell::Integer(4_000_000_000)]);
    assert_eq!(batch.cells(2), [Cell::Integer(8), Cell::Integer(5)]);
    assert_eq!(batch.cells(3), [Cell::Integer(0), Cell::Integer(5)]);
    assert!(batch.lines[1..].iter().all(|line| (line.meter, line.request, line.item, line.layout) == (5, 9, 2, 7)));
    assert!(batch.lines[1..].iter().all(|line| (line.deviation, line.clock_status) == (-60, 0)));
}

#[test]
fn first_nulls_have_nothing_to_repeat() {
    let batch = decode(&buffer(vec![vec![Data::Null, Data::Null, Data::Null]]), &SHAPE).unwrap();

    assert_eq!(batch.lines[1].capture_time, WallTime::UNKNOWN);
    assert_eq!(batch.cells(1), [Cell::Null, Cell::Null]);
}

#[test]
fn clock_may_stand_in_any_column_as_either_type() {
    let shape = BufferShape { clock_column: Some(2), status_column: None, ..SHAPE };
    let octets = buffer(vec![
        vec![Data::Integer(-1), Data::Long(-2), Data::DateTime(DateTime::from_wall(START, Line::NO_DEVIATION))],
        vec![Data::Null, Data::Long64(i64::MIN), clock()],
    ]);

    let batch = decode(&octets, &shape).unwrap();

    assert_eq!(batch.lines[1].capture_time, START);
    assert_eq!(batch.lines[1].deviation, Line::NO_DEVIATION);
    assert_eq!(batch.lines[2].capture_time, START);
    assert_eq!(batch.cells(2), [Cell::Integer(-1), Cell::Integer(i64::MIN)]);
}

#[test]
fn what_is_no_integer_keeps_its_octets_and_repeats_them() {
    let shape = BufferShape { clock_column: None, status_column: None, ..SHAPE };
    let octets = buffer(vec![
        vec![Data::Long64Unsigned(u64::MAX), Data::Float32(1.5), Data::Enum(3)],
        vec![Data::Null, Data::VisibleString(b"ab".to_vec()), Data::Boolean(true)],
        vec![Data::Null, Data::Null, Data::Null],
    ]);

    let batch = decode(&octets, &shape).unwrap();

    let large = [0x15, 255, 255, 255, 255, 255, 255, 255, 255];
    assert_eq!(batch.cells(1), [Cell::Raw(&large), Cell::Raw(&[0x17, 0x3F, 0xC0, 0, 0]), Cell::Integer(3)]);
    assert_eq!(batch.cells(3), [Cell::Raw(&large), Cell::Raw(&[0x0A, 2, b'a', b'b']), Cell::Raw(&[3, 1])]);
}

#[test]
fn status_of_any_type_is_a_number() {
    for (sent, status) in [
        (Data::Unsigned(0x42), 0x42),
        (Data::BitString(crate::axdr::BitString::from_octets(vec![0x01, 0x80])), 0x180),
        (Data::OctetString(vec![0, 0, 1, 2]), 0x102),
    ] {
        let batch = decode(&buffer(vec![vec![clock(), sent, Data::OctetString(vec![1])]]), &SHAPE).unwrap();

        assert_eq!(batch.cells(1), [Cell::Integer(status), Cell::Raw(&[9, 1, 1])]);
    }
}

#[test]
fn deltas_add_to_the_value_before() {
    let octets = buffer(vec![
        vec![clock(), Data::Unsigned(0), Data::DoubleLongUnsigned(1_000)],
        vec![Data::Null, Data::Null, Data::DeltaUnsigned(200)],
        vec![Data::Null, Data::Null, Data::DeltaInteger(-1)],
    ]);

    let batch = decode(&octets, &SHAPE).unwrap();

    assert_eq!(batch.cells(3), [Cell::Integer(0), Cell::Integer(1_199)]);
}

#[test]
fn compact_array_is_the_buffer_that_it_stands_for() {
    use crate::axdr::compact_array::{CompactArray, TypeDescription::*};
    let description = Structure(vec![Simple(tag::DATE_TIME), Simple(tag::UNSIGNED), Simple(tag::DOUBLE_LONG)]);
    let entry = |value| {
        Data::Structure(vec![Data::DateTime(DateTime::from_wall(START, 0)), Data::Unsigned(1), Data::DoubleLong(value)])
    };
    let array = CompactArray::new(description, vec![entry(-7), entry(9)]).unwrap();

    let batch = decode(&Data::CompactArray(array).to_octets(), &SHAPE).unwrap();

    assert_eq!(batch.cells(2), [Cell::Integer(1), Cell::Integer(9)]);
    assert_eq!(batch.lines[2].capture_time, START);
}

#[test]
fn empty_buffers_have_no_lines() {
    for octets in [&[1, 0][..], &[0], &[1, 0x82, 0, 0]] {
        assert_eq!(decode(octets, &SHAPE).unwrap().lines.len(), 1);
    }
}

#[test]
fn long_forms_of_lengths_are_understood() {
    let mut octets = vec![1, 0x82, 0, 1, 2, 0x81, 3, 9, 0x81, 12];
    octets.extend_from_slice(&DateTime::from_wall(START, 0).0);
    octets.extend_from_slice(&[0x11, 1, 0x12, 0, 2]);

    let batch = decode(&octets, &SHAPE).unwrap();

    assert_eq!(batch.lines[1].capture_time, START);
    assert_eq!(batch.cells(1), [Cell::Integer(1), Cell::Integer(2)]);
}

#[test]
fn impossible_dates_give_no_moment_but_keep_the_values() {
    for date in [[0; 12], [0xFF; 12], [0x07, 0xE6, 2, 30, 0xFF, 0, 0, 0, 0, 0, 0, 0]] {
        let octets = buffer(vec![vec![Data::OctetString(date.to_vec()), Data::Unsigned(1), Data::Unsigned(2)]]);

        let batch = decode(&octets, &SHAPE).unwrap();

        assert_eq!(batch.lines[1].capture_time, WallTime::UNKNOWN);
        assert_eq!(batch.cells(1), [Cell::Integer(1), Cell::Integer(2)]);
    }
}

#[test]
fn broken_buffers_leave_the_batch_as_it_was() {
    let good = buffer(vec![vec![clock(), Data::Unsigned(8), Data::OctetString(vec![1, 2])]; 3]);
    for end in 0..good.len() {
        let mut batch = Batch::default();
        batch.push_line(HEAD, [Cell::Raw(b"before")]);
        let before = batch.clone();

        let error = decode_buffer(&good[..end], &SHAPE, HEAD, &Limits::default(), &mut batch).unwrap_err();

        assert_eq!(error.code, "truncated", "at {end}");
        assert!(error.offset <= end);
        assert_eq!(batch, before);
    }
}

#[test]
fn what_is_no_such_buffer_says_what_is_wrong() {
    let other_columns = buffer(vec![vec![clock(), Data::Null]]);
    let no_clock = buffer(vec![vec![Data::Unsigned(1), Data::Null, Data::Null]]);
    let mut trailing = buffer(vec![]);
    trailing.push(0);
    for (octets, code) in [
        (&other_columns[..], "bad-columns"),
        (&no_clock, "bad-clock"),
        (&trailing, "trailing-octets"),
        (&[2, 1, 0], "bad-buffer"),
        (&[1, 1, 0x11, 5], "bad-buffer"),
        (&[1, 0x83, 1, 0, 1], "elements-over-limit"),
    ] {
        assert_eq!(decode(octets, &SHAPE).unwrap_err().code, code, "{octets:02X?}");
    }
}

#[test]
fn nulls_cannot_repeat_a_long_string_without_end() {
    let shape = BufferShape { columns: 1, clock_column: None, status_column: None, capture_period_s: 0 };
    let mut entries = vec![vec![Data::Null]; 20_000];
    entries[0] = vec![Data::OctetString(vec![7; 20_000])];

    let error = decode(&buffer(entries), &shape).unwrap_err();

    assert_eq!(error.code, "expansion-over-limit");
}

#[test]
fn single_values_are_cells() {
    let cell = |octets| decode_value(octets, &Limits::default());

    assert_eq!(cell(&[6, 0, 0, 0x30, 0x39]), Ok(Cell::Integer(12_345)));
    assert_eq!(cell(&[0]), Ok(Cell::Null));
    assert_eq!(cell(&[9, 1, 5]), Ok(Cell::Raw(&[9, 1, 5])));
    assert_eq!(cell(&[0x11, 5, 0]).unwrap_err().code, "trailing-octets");
    assert_eq!(cell(&[6, 0, 0]).unwrap_err().code, "truncated");
    assert_eq!(cell(&[]).unwrap_err().code, "truncated");
    assert_eq!(cell(&[8]).unwrap_err().code, "unknown-type");
}
