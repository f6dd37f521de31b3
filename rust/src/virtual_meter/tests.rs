//! What a virtual meter promises: it agrees with itself, answers alike every time, and takes little memory.

mod changes;

use std::sync::Arc;

use ipss_dlms::axdr::Data;
use ipss_dlms::cosem::descriptor::CaptureObject;
use ipss_dlms::cosem::{
    ActionResult, AttributeDescriptor, DataAccessResult, EntrySelection, LogicalName, MethodDescriptor, RangeSelection,
    Selection,
};
use ipss_dlms::meter::{Access, Objects};
use ipss_session::{CivilDateTime, Instant, Limits, Now, WallTime};

use super::directory;
use super::random::{below, noise};
use super::*;

const MANAGER: Access = Access { client: 1, authenticated: true };
const READER: Access = Access { client: 2, authenticated: true };
const PUBLIC: Access = Access { client: 16, authenticated: false };

const LOAD_PROFILE: LogicalName = LogicalName([1, 0, 99, 1, 0, 255]);
const DAILY_PROFILE: LogicalName = LogicalName([1, 0, 98, 1, 0, 255]);

fn utc(year: i32, month: u8, day: u8, hour: u8, minute: u8) -> WallTime {
    CivilDateTime { year, month, day, hour, minute, second: 0 }.to_wall()
}

fn now(wall: WallTime) -> Now {
    Now { monotonic: Instant::ORIGIN, wall }
}

fn later(wall: WallTime, seconds: i64) -> WallTime {
    WallTime(wall.0 + seconds * WallTime::SECOND)
}

/// Ten meters of each kind from 2026-01-01 on; clocks are right unless `drift_ppm` says otherwise.
fn fleet(drift_ppm: u16) -> Arc<Fleet> {
    let mix = "household=40%,business=30%,pv=30%".parse().unwrap();
    Fleet::new(FleetSpec { seed: 20, count: 100, mix, drift_ppm, ..FleetSpec::default() }).unwrap()
}

fn meter_of(kind: Kind) -> VirtualMeter {
    let fleet = fleet(0);
    let index = (0..100).find(|index| fleet.kind(*index) == kind).unwrap();
    fleet.meter(index)
}

fn attribute(class_id: u16, logical_name: LogicalName, attribute: i8) -> AttributeDescriptor {
    AttributeDescriptor { class_id, logical_name, attribute }
}

fn read(meter: &mut VirtualMeter, object: AttributeDescriptor, at: WallTime) -> Data {
    try_read(meter, MANAGER, object, None, at).unwrap_or_else(|no| panic!("{object:?}: {no:?}"))
}

fn try_read(
    meter: &mut VirtualMeter,
    access: Access,
    object: AttributeDescriptor,
    selection: Option<&Selection>,
    at: WallTime,
) -> Result<Data, DataAccessResult> {
    let mut out = vec![0xaa];
    let done = meter.get(access, object, selection, now(at), &mut out);
    assert_eq!(out[0], 0xaa);
    assert_eq!(done.is_err(), out.len() == 1, "{object:?}");
    done.map(|()| Data::from_octets(&out[1..], &Limits::default()).unwrap())
}

/// A profile's lines: the clock in UTC, then the other cells as integers.
fn lines(
    meter: &mut VirtualMeter,
    profile: LogicalName,
    selection: Option<&Selection>,
    at: WallTime,
) -> Vec<(WallTime, Vec<i64>)> {
    let buffer = try_read(meter, READER, attribute(7, profile, 2), selection, at).unwrap();
    let line = |line: &Data| {
        let cells = line.elements().unwrap();
        let clock = cells[0].as_date_time().unwrap().to_wall().unwrap();
        (clock, cells[1..].iter().map(|cell| cell.as_integer().unwrap() as i64).collect())
    };
    buffer.elements().unwrap().iter().map(line).collect()
}

fn range(from: WallTime, to: WallTime) -> Selection {
    let restricting_object = CaptureObject { descriptor: attribute(8, LogicalName::CLOCK, 2), data_index: 0 };
    Selection::Range(RangeSelection { restricting_object, from, to, columns: Vec::new() })
}

fn entry(from_entry: u32, to_entry: u32, from_column: u16, to_column: u16) -> Selection {
    Selection::Entry(EntrySelection { from_entry, to_entry, from_column, to_column })
}

fn invoke(
    meter: &mut VirtualMeter,
    class_id: u16,
    logical_name: LogicalName,
    method: i8,
    at: WallTime,
) -> ActionResult {
    let method = MethodDescriptor { class_id, logical_name, method };
    meter.act(MANAGER, method, Some(&[15, 0]), now(at), &mut Vec::new())
}

#[test]
fn registers_are_the_sums_of_the_intervals_in_random_windows() {
    let fleet = fleet(0);
    for draw in 0..60 {
        let draw = noise(99, 1, draw);
        let mut meter = fleet.meter(below(draw, 100));
        let from = later(utc(2026, 1, 2, 0, 0), i64::from(below(draw << 8, 30_000)) * 900);
        let to = later(from, i64::from(below(draw << 20, 3_000)) * 900);

        let captured = lines(&mut meter, LOAD_PROFILE, Some(&range(from, to)), to);

        let (first, last) = (meter.energy(from), meter.energy(to));
        assert_eq!(captured.len() as i64, (to.0 - from.0) / 900_000_000 + 1);
        for (column, [first, last]) in [
            (1, [first.import(), last.import()]),
            (2, [first.export, last.export]),
            (3, [first.reactive_import, last.reactive_import]),
        ] {
            let intervals: Vec<i64> = captured.windows(2).map(|pair| pair[1].1[column] - pair[0].1[column]).collect();
            assert!(intervals.iter().all(|energy| *energy >= 0), "{:?}", meter.kind());
            assert_eq!(first + intervals.iter().sum::<i64>(), last);
        }
    }
}

#[test]
fn registers_never_fall_from_second_to_second() {
    for kind in Kind::ALL {
        let meter = meter_of(kind);
        for start in [utc(2026, 3, 28, 22, 50), utc(2026, 10, 25, 0, 50), utc(2026, 6, 1, 21, 50)] {
            let mut before = meter.energy(start);
            for second in 1..9_000 {
                let energy = meter.energy(later(start, second));
                assert!(energy.import_day >= before.import_day && energy.import_night >= before.import_night);
                assert!(energy.export >= before.export && energy.reactive_import >= before.reactive_import);
                assert!(energy.reactive_export >= before.reactive_export);
                assert!(energy.import() - before.import() < 60, "{kind:?} jumps at {second}");
                before = energy;
            }
        }
    }
}

#[test]
fn tariffs_make_up_the_total_and_change_at_6_and_22_local_time() {
    let meter = meter_of(Kind::Household);
    for (day, six) in [(utc(2026, 1, 14, 0, 0), 5 * 3_600), (utc(2026, 7, 14, 0, 0), 4 * 3_600)] {
        let at = |second| meter.energy(later(day, second));

        assert_eq!(at(six - 7_200).import_day, at(six).import_day);
        assert!(at(six - 7_200).import_night < at(six).import_night);
        assert_eq!(at(six).import_night, at(six + 16 * 3_600).import_night);
        assert!(at(six).import_day < at(six + 16 * 3_600).import_day);
        assert!(at(six + 16 * 3_600).import_night < at(six + 17 * 3_600).import_night);
    }
}

#[test]
fn days_on_which_clocks_change_have_92_and_100_lines() {
    let mut meter = meter_of(Kind::Household);
    for (from, to, expected) in [
        (utc(2026, 3, 28, 23, 15), utc(2026, 3, 29, 22, 0), 92),
        (utc(2026, 10, 24, 22, 15), utc(2026, 10, 25, 23, 0), 100),
    ] {
        let captured = lines(&mut meter, LOAD_PROFILE, Some(&range(from, to)), utc(2026, 12, 1, 0, 0));

        assert_eq!(captured.len(), expected);
        assert!(captured.windows(2).all(|pair| pair[1].0.0 - pair[0].0.0 == 900_000_000));
        let daily = lines(&mut meter, DAILY_PROFILE, Some(&range(later(from, -900), to)), utc(2026, 12, 1, 0, 0));
        assert_eq!(daily.iter().map(|(clock, _)| *clock).collect::<Vec<_>>(), [later(from, -900), to]);
        assert_eq!(daily[1].1[1], captured.last().unwrap().1[1]);
        assert_eq!(daily[1].1[1], daily[1].1[2] + daily[1].1[3]);
        // Summer time shows in the status of the lines that have it.
        let summer = captured.iter().filter(|(_, cells)| cells[0] & 8 != 0).count();
        assert_eq!(summer, if expected == 92 { 85 } else { 11 });
    }
}

#[test]
fn same_seed_says_the_same_whatever_was_asked_before() {
    let at = utc(2026, 5, 5, 12, 34);
    let whole = |meter: &mut VirtualMeter| {
        directory::objects(true)
            .flat_map(|object| {
                (1..=object.attributes).map(move |number| attribute(object.class_id, object.name, number))
            })
            .map(|object| try_read(meter, MANAGER, object, None, at))
            .collect::<Vec<_>>()
    };
    let (mut one, mut other) = (fleet(5).meter(3), fleet(5).meter(3));
    lines(&mut other, LOAD_PROFILE, None, utc(2026, 9, 1, 0, 0));

    assert_eq!(whole(&mut one), whole(&mut other));
    assert_ne!(whole(&mut one), whole(&mut fleet(5).meter(4)));
}

#[test]
fn every_listed_attribute_is_readable_and_every_other_refused() {
    let at = utc(2026, 5, 5, 12, 34);
    for index in 0..8 {
        for access in [MANAGER, READER, PUBLIC] {
            let mut meter = fleet(5).meter(index);
            let association = attribute(15, LogicalName::CURRENT_ASSOCIATION, 2);
            let list = try_read(&mut meter, access, association, None, at).unwrap();
            let mut listed = Vec::new();
            for element in list.elements().unwrap() {
                let element = element.elements().unwrap();
                let class_id = element[0].as_integer().unwrap() as u16;
                let name = LogicalName(element[2].as_octets().unwrap().try_into().unwrap());
                listed.push(name);
                let rights = element[3].elements().unwrap();
                for right in rights[0].elements().unwrap() {
                    let right = right.elements().unwrap();
                    let (number, mode) = (right[0].as_integer().unwrap() as i8, right[1].as_integer().unwrap());
                    let object = attribute(class_id, name, number);
                    let answer = try_read(&mut meter, access, object, None, at);
                    assert_eq!(answer.is_ok(), mode & 1 == 1, "{object:?}: {answer:?}");
                    if mode & 2 == 0 {
                        assert_eq!(meter.set(access, object, &[0], now(at)), DataAccessResult::ReadWriteDenied);
                    } else {
                        assert_eq!(meter.set(access, object, &[0], now(at)), DataAccessResult::TypeUnmatched);
                    }
                }
                let beyond = attribute(class_id, name, rights[0].elements().unwrap().len() as i8 + 1);
                let other_class = attribute(class_id + 1, name, 1);
                for (object, no) in [
                    (beyond, DataAccessResult::ObjectUndefined),
                    (attribute(class_id, name, 0), DataAccessResult::ObjectUndefined),
                    (other_class, DataAccessResult::ObjectClassInconsistent),
                ] {
                    assert_eq!(try_read(&mut meter, access, object, None, at), Err(no));
                    assert_eq!(meter.set(access, object, &[0], now(at)), no);
                }
                for (number, right) in (1..).zip(rights[1].elements().unwrap()) {
                    let right = right.elements().unwrap();
                    assert_eq!(right[0].as_integer(), Some(number));
                    if right[1].as_integer() == Some(0) {
                        let method = MethodDescriptor { class_id, logical_name: name, method: number as i8 };
                        let done = meter.act(access, method, None, now(at), &mut Vec::new());
                        assert_eq!(done, ActionResult::ReadWriteDenied, "{method:?}");
                    }
                }
            }
            for object in directory::objects(true).filter(|object| !listed.contains(&object.name)) {
                let answer = try_read(&mut meter, access, attribute(object.class_id, object.name, 2), None, at);
                let hidden = [Err(DataAccessResult::ReadWriteDenied), Err(DataAccessResult::ObjectUndefined)];
                assert!(hidden.contains(&answer), "{:?}: {answer:?}", object.name);
            }
            let nothing = attribute(3, LogicalName([1, 0, 99, 99, 99, 255]), 2);
            assert_eq!(try_read(&mut meter, access, nothing, None, at), Err(DataAccessResult::ObjectUndefined));
        }
    }
}

#[test]
fn public_client_sees_who_the_meter_is_and_no_more() {
    let mut meter = meter_of(Kind::Household);
    let at = utc(2026, 5, 5, 12, 34);
    let association = attribute(15, LogicalName::CURRENT_ASSOCIATION, 2);

    let list = try_read(&mut meter, PUBLIC, association, None, at).unwrap();
    let consumption = try_read(&mut meter, PUBLIC, attribute(3, directory::IMPORT, 2), None, at);

    assert_eq!(list.elements().unwrap().len(), 5);
    assert_eq!(consumption, Err(DataAccessResult::ReadWriteDenied));
}

#[test]
fn invocation_counter_shows_the_highest_one_believed() {
    let mut meter = meter_of(Kind::Household);
    meter.counter_believed(77);
    meter.counter_believed(5);

    let counter = attribute(1, LogicalName([0, 0, 43, 1, 0, 255]), 2);
    let answer = try_read(&mut meter, PUBLIC, counter, None, utc(2026, 2, 1, 0, 0));

    assert_eq!(answer, Ok(Data::DoubleLongUnsigned(77)));
}

#[test]
fn range_selects_what_lies_in_it_and_an_empty_answer_is_an_empty_array() {
    let mut meter = meter_of(Kind::Business);
    let at = utc(2026, 2, 1, 12, 7);
    let mut clocks = |from, to| -> Vec<WallTime> {
        lines(&mut meter, LOAD_PROFILE, Some(&range(from, to)), at).into_iter().map(|(clock, _)| clock).collect()
    };
    let noon = utc(2026, 1, 20, 12, 0);

    assert_eq!(clocks(noon, later(noon, 1_800)), [noon, later(noon, 900), later(noon, 1_800)]);
    assert_eq!(clocks(later(noon, 1), later(noon, 900)), [later(noon, 900)]);
    assert_eq!(clocks(noon, noon), [noon]);
    assert_eq!(clocks(later(noon, 1), later(noon, 899)), []);
    assert_eq!(clocks(later(noon, 900), noon), []);
    assert_eq!(clocks(utc(2020, 1, 1, 0, 0), utc(2025, 12, 31, 0, 0)), []);
    assert_eq!(clocks(at, utc(2027, 1, 1, 0, 0)), []);
    assert_eq!(clocks(utc(2020, 1, 1, 0, 0), utc(2026, 1, 1, 0, 30)), [utc(2026, 1, 1, 0, 15), utc(2026, 1, 1, 0, 30)]);
    assert_eq!(clocks(utc(2026, 2, 1, 12, 0), utc(2030, 1, 1, 0, 0)), [utc(2026, 2, 1, 12, 0)]);
    assert_eq!(clocks(WallTime::UNKNOWN, utc(2026, 1, 1, 0, 15)), [utc(2026, 1, 1, 0, 15)]);
    assert_eq!(clocks(utc(2026, 2, 1, 12, 0), WallTime::UNKNOWN), [utc(2026, 2, 1, 12, 0)]);
    assert_eq!(clocks(WallTime(i64::MAX), WallTime(i64::MAX)), []);
    assert_eq!(clocks(WallTime(i64::MIN + 1), WallTime(i64::MIN + 2)), []);
}

#[test]
fn range_selects_columns_in_the_order_asked_for() {
    let mut meter = meter_of(Kind::Business);
    let at = utc(2026, 2, 1, 12, 7);
    let column = |class_id, name| CaptureObject { descriptor: attribute(class_id, name, 2), data_index: 0 };
    let mut ask = |restricting, columns: &[CaptureObject]| {
        let selection = Selection::Range(RangeSelection {
            restricting_object: restricting,
            from: utc(2026, 2, 1, 11, 0),
            to: at,
            columns: columns.to_vec(),
        });
        try_read(&mut meter, READER, attribute(7, LOAD_PROFILE, 2), Some(&selection), at)
    };
    let (clock, import, export) =
        (column(8, LogicalName::CLOCK), column(3, directory::IMPORT), column(3, directory::EXPORT));

    let swapped = ask(clock, &[export, import]).unwrap();

    let first = swapped.elements().unwrap()[0].elements().unwrap();
    assert_eq!((swapped.elements().unwrap().len(), first.len()), (5, 2));
    let energy = first[1].as_integer().unwrap() as i64;
    assert_eq!(energy, meter_of(Kind::Business).energy(utc(2026, 2, 1, 11, 0)).import());
    assert_eq!(ask(clock, &[column(3, LogicalName([1, 0, 9, 9, 9, 255]))]), Err(DataAccessResult::ObjectUndefined));
    assert_eq!(ask(clock, &[import; 7]), Err(DataAccessResult::ScopeOfAccessViolated));
    assert_eq!(ask(import, &[]), Err(DataAccessResult::ScopeOfAccessViolated));
}

#[test]
fn entries_are_counted_from_the_oldest() {
    let mut meter = meter_of(Kind::Household);
    let at = utc(2026, 1, 2, 0, 1);
    let all = lines(&mut meter, LOAD_PROFILE, None, at);
    assert_eq!(all.len(), 96);
    let in_use = read(&mut meter, attribute(7, LOAD_PROFILE, 7), at);
    assert_eq!(in_use, Data::DoubleLongUnsigned(96));

    for (from, to, expected) in [
        (1, 1, &all[..1]),
        (0, 2, &all[..2]),
        (95, 0, &all[94..]),
        (95, 200, &all[94..]),
        (5, 4, &[]),
        (97, 0, &[]),
        (u32::MAX, u32::MAX, &[]),
    ] {
        assert_eq!(lines(&mut meter, LOAD_PROFILE, Some(&entry(from, to, 1, 0)), at), expected, "{from} to {to}");
    }
    let two_columns = lines(&mut meter, LOAD_PROFILE, Some(&entry(1, 0, 1, 2)), at);
    assert!(two_columns.iter().zip(&all).all(|(some, all)| some.0 == all.0 && some.1[..] == all.1[..1]));
    for columns in [(7, 0), (4, 3)] {
        let selection = entry(1, 0, columns.0, columns.1);
        let nothing = try_read(&mut meter, READER, attribute(7, LOAD_PROFILE, 2), Some(&selection), at);
        assert_eq!(nothing, Ok(Data::Array(Vec::new())));
    }
    let selected = try_read(&mut meter, READER, attribute(3, directory::IMPORT, 2), Some(&entry(1, 0, 1, 0)), at);
    assert_eq!(selected, Err(DataAccessResult::ScopeOfAccessViolated));
}

#[test]
fn full_buffer_keeps_the_newest_lines() {
    let spec = FleetSpec { profile_entries: 100, drift_ppm: 0, count: 1, ..FleetSpec::default() };
    let mut meter = Fleet::new(spec).unwrap().meter(0);
    let at = utc(2026, 6, 1, 0, 0);

    let kept = lines(&mut meter, LOAD_PROFILE, None, at);

    assert_eq!(kept.len(), 100);
    assert_eq!(kept.last().unwrap().0, at);
    let older = range(utc(2026, 1, 1, 0, 0), later(at, -100 * 900));
    assert_eq!(lines(&mut meter, LOAD_PROFILE, Some(&older), at), []);
}

#[test]
fn year_of_load_profile_comes_in_one_answer() {
    let spec = FleetSpec { profile_entries: 400 * 96, drift_ppm: 0, count: 1, ..FleetSpec::default() };
    let mut meter = Fleet::new(spec).unwrap().meter(0);

    let year = lines(&mut meter, LOAD_PROFILE, None, utc(2027, 1, 1, 0, 0));

    assert_eq!(year.len(), 365 * 96);
    let consumed = year.last().unwrap().1[1] - year[0].1[1];
    assert!((500_000..15_000_000).contains(&consumed), "{consumed} Wh in a year");
}

#[test]
fn solar_panels_export_by_day_only_and_more_in_summer() {
    let meter = meter_of(Kind::Photovoltaic);
    let of_day = |month, day| {
        let midnight = utc(2026, month, day, 0, 0);
        let between = |from: i64, to: i64| {
            meter.energy(later(midnight, to * 3_600)).export - meter.energy(later(midnight, from * 3_600)).export
        };
        assert_eq!((between(-3, 3), between(20, 23)), (0, 0), "{month}-{day}");
        between(0, 24)
    };

    let (june, december): (i64, i64) =
        ((1..29).map(|day| of_day(6, day)).sum(), (1..29).map(|day| of_day(12, day)).sum());

    assert!(june > 2 * december && december > 0, "{june} {december}");
    for kind in [Kind::Household, Kind::Business] {
        assert_eq!(meter_of(kind).energy(utc(2026, 7, 1, 0, 0)).export, 0);
    }
}

#[test]
fn business_is_quiet_on_sunday_and_households_are_busy_in_the_evening() {
    let business = meter_of(Kind::Business);
    let of_day =
        |day| business.energy(utc(2026, 2, day + 1, 0, 0)).import() - business.energy(utc(2026, 2, day, 0, 0)).import();
    // 2026-02-02 is a Monday.
    for week in 0..3 {
        assert!(of_day(8 + 7 * week) * 2 < of_day(3 + 7 * week), "{} {}", of_day(8), of_day(3));
    }
    let household = meter_of(Kind::Household);
    let hour = |hour| {
        (1..28)
            .map(|day| {
                household.energy(utc(2026, 2, day, hour + 1, 0)).import()
                    - household.energy(utc(2026, 2, day, hour, 0)).import()
            })
            .sum::<i64>()
    };
    assert!(hour(18) > 3 * hour(2) / 2, "{} {}", hour(18), hour(2));
}

#[test]
fn meter_takes_little_memory_and_a_touched_one_a_bounded_amount() {
    let mut meter = fleet(5).meter(1);
    let at = utc(2026, 3, 1, 0, 0);
    lines(&mut meter, LOAD_PROFILE, None, at);

    assert!(meter.memory() < 300, "{}", meter.memory());

    for step in 0..1_000 {
        invoke(&mut meter, 70, directory::DISCONNECTOR, 1 + (step % 2) as i8, later(at, step));
        invoke(&mut meter, 8, LogicalName::CLOCK, 3, later(at, step));
    }
    assert!(meter.memory() < 16_384, "{}", meter.memory());
}
