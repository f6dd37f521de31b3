//! What people do to a meter: switch it, set its clock, write to it.

use super::*;

const EVENT_LOG: LogicalName = LogicalName([0, 0, 99, 98, 0, 255]);
const LIMITER: LogicalName = LogicalName([0, 0, 17, 0, 0, 255]);
const PUSH_SETUP: LogicalName = LogicalName([0, 0, 25, 9, 0, 255]);

fn set(meter: &mut VirtualMeter, object: AttributeDescriptor, value: &Data, at: WallTime) -> DataAccessResult {
    meter.set(MANAGER, object, &value.to_octets(), now(at))
}

fn disconnect(meter: &mut VirtualMeter, at: WallTime) -> ActionResult {
    invoke(meter, 70, directory::DISCONNECTOR, 1, at)
}

fn reconnect(meter: &mut VirtualMeter, at: WallTime) -> ActionResult {
    invoke(meter, 70, directory::DISCONNECTOR, 2, at)
}

/// Output state and control state.
fn supply(meter: &mut VirtualMeter, at: WallTime) -> (Data, Data) {
    let state = |number| attribute(70, directory::DISCONNECTOR, number);
    (read(meter, state(2), at), read(meter, state(3), at))
}

#[test]
fn registers_stand_still_while_supply_is_off_and_lose_exactly_that() {
    for kind in Kind::ALL {
        let (untouched, mut meter) = (meter_of(kind), meter_of(kind));
        let begin = utc(2026, 3, 27, 9, 7);
        let mut lost = (0, 0);
        let mut at = begin;
        for step in 0..20 {
            let draw = noise(31, 1, step);
            let (off, on) =
                (later(at, i64::from(below(draw, 9_000))), later(at, 9_000 + i64::from(below(draw << 20, 9_000))));
            assert_eq!(disconnect(&mut meter, off), ActionResult::Success);
            assert_eq!(meter.energy(off), meter.energy(later(off, 500)));
            assert_eq!(reconnect(&mut meter, on), ActionResult::Success);
            let missed = (untouched.energy(off), untouched.energy(on));
            lost = (lost.0 + missed.1.import() - missed.0.import(), lost.1 + missed.1.export - missed.0.export);
            at = later(on, 60);
        }
        let end = utc(2026, 4, 2, 0, 0);
        let captured = lines(&mut meter, LOAD_PROFILE, Some(&range(utc(2026, 3, 27, 0, 0), end)), end);

        assert!(lost.0 > 0);
        assert_eq!(meter.energy(end).import(), untouched.energy(end).import() - lost.0);
        assert_eq!(meter.energy(end).export, untouched.energy(end).export - lost.1);
        assert!(captured.windows(2).all(|pair| pair[0].1[1] <= pair[1].1[1] && pair[0].1[2] <= pair[1].1[2]));
        assert_eq!(captured[0].1[1], untouched.energy(utc(2026, 3, 27, 0, 0)).import(), "history does not change");
        assert_eq!(captured.last().unwrap().1[1], meter.energy(end).import());
    }
}

#[test]
fn disconnector_follows_its_control_mode() {
    let mut meter = meter_of(Kind::Household);
    let at = utc(2026, 2, 1, 12, 0);
    let mode = attribute(70, directory::DISCONNECTOR, 4);
    let (off, on, waits) = (
        (Data::Boolean(false), Data::Enum(0)),
        (Data::Boolean(true), Data::Enum(1)),
        (Data::Boolean(false), Data::Enum(2)),
    );
    assert_eq!((supply(&mut meter, at), read(&mut meter, mode, at)), (on.clone(), Data::Enum(2)));

    disconnect(&mut meter, at);
    assert_eq!(supply(&mut meter, at), off);
    let power = attribute(3, LogicalName([1, 0, 1, 7, 0, 255]), 2);
    assert_eq!(read(&mut meter, power, later(at, 5)), Data::DoubleLongUnsigned(0));
    reconnect(&mut meter, later(at, 60));
    assert_eq!(supply(&mut meter, later(at, 60)), on);
    assert_ne!(read(&mut meter, power, later(at, 65)), Data::DoubleLongUnsigned(0));

    // Mode 1: the head-end allows, the customer presses the button.
    assert_eq!(set(&mut meter, mode, &Data::Enum(1), at), DataAccessResult::Success);
    disconnect(&mut meter, later(at, 120));
    reconnect(&mut meter, later(at, 180));
    assert_eq!(supply(&mut meter, later(at, 190)), waits);
    assert_eq!(supply(&mut meter, later(at, 500)), on);

    assert_eq!(set(&mut meter, mode, &Data::Enum(0), later(at, 600)), DataAccessResult::Success);
    assert_eq!(disconnect(&mut meter, later(at, 600)), ActionResult::OtherReason);
    assert_eq!(set(&mut meter, mode, &Data::Enum(7), later(at, 600)), DataAccessResult::OtherReason);
    assert_eq!(set(&mut meter, mode, &Data::Unsigned(1), later(at, 600)), DataAccessResult::TypeUnmatched);
}

#[test]
fn repeated_disconnect_changes_nothing() {
    let mut meter = meter_of(Kind::Household);
    let at = utc(2026, 2, 1, 12, 0);

    disconnect(&mut meter, at);
    let shown = meter.energy(later(at, 100));
    disconnect(&mut meter, later(at, 200));
    reconnect(&mut meter, later(at, 300));
    reconnect(&mut meter, later(at, 400));

    assert_eq!(meter.energy(later(at, 300)), shown);
    let codes: Vec<i64> = lines(&mut meter, EVENT_LOG, Some(&range(at, later(at, 900))), later(at, 900))
        .into_iter()
        .map(|(_, cells)| cells[0])
        .collect();
    assert_eq!(codes, [62, 63]);
}

#[test]
fn only_the_management_client_switches() {
    let mut meter = meter_of(Kind::Household);
    let method = MethodDescriptor { class_id: 70, logical_name: directory::DISCONNECTOR, method: 1 };
    let at = now(utc(2026, 2, 1, 12, 0));

    for access in [READER, PUBLIC, Access { client: 1, authenticated: false }] {
        assert_eq!(meter.act(access, method, None, at, &mut Vec::new()), ActionResult::ReadWriteDenied);
    }
    for (method, no) in [
        (MethodDescriptor { class_id: 71, ..method }, ActionResult::ObjectClassInconsistent),
        (MethodDescriptor { method: 3, ..method }, ActionResult::ObjectUndefined),
        (MethodDescriptor { logical_name: LogicalName([9; 6]), ..method }, ActionResult::ObjectUndefined),
    ] {
        assert_eq!(meter.act(MANAGER, method, None, at, &mut Vec::new()), no);
    }
    assert_eq!(meter.energy(at.wall), meter_of(Kind::Household).energy(at.wall));
}

#[test]
fn clocks_drift_apart_within_the_limit() {
    let fleet = fleet(20);
    let error_s = |index, days: i64| {
        let at = later(fleet.spec().start, days * 86_400);
        (fleet.meter(index).clock(at).0 - at.0) as f64 / 1e6
    };

    let gained: Vec<f64> = (0..100).map(|index| error_s(index, 100) - error_s(index, 0)).collect();

    // 20 ppm are 172.8 s in 100 days.
    assert!(gained.iter().all(|seconds| seconds.abs() <= 172.8));
    assert!(gained.iter().any(|seconds| *seconds > 100.0) && gained.iter().any(|seconds| *seconds < -100.0));
    assert!((0..100).all(|index| error_s(index, 0).abs() <= 1.5));
}

#[test]
fn lines_of_a_drifting_meter_stand_on_the_quarter_hours_of_its_own_clock() {
    let fleet = fleet(20);
    let at = utc(2026, 12, 1, 0, 0);
    for index in 0..10 {
        let mut meter = fleet.meter(index);
        let captured = lines(&mut meter, LOAD_PROFILE, Some(&range(utc(2026, 11, 30, 0, 0), later(at, 900))), at);

        assert!(captured.iter().all(|(clock, _)| clock.0 % 900_000_000 == 0));
        assert!(captured.windows(2).all(|pair| pair[1].0.0 - pair[0].0.0 == 900_000_000));
        let last = captured.last().unwrap();
        assert!(last.0 <= meter.clock(at) && meter.clock(at).0 - last.0.0 < 900_000_000);
        // The line shows the registers at the true moment at which the meter's clock stood there.
        let moment = later(last.0, (at.0 - meter.clock(at).0).div_euclid(WallTime::SECOND));
        let (low, high) = (meter.energy(later(moment, -2)).import(), meter.energy(later(moment, 2)).import());
        assert!((low..=high).contains(&last.1[1]));
    }
}

#[test]
fn clock_shows_local_time_with_its_deviation() {
    let mut meter = meter_of(Kind::Household);
    let clock = attribute(8, LogicalName::CLOCK, 2);

    let (winter, summer) =
        (read(&mut meter, clock, utc(2026, 1, 5, 11, 0)), read(&mut meter, clock, utc(2026, 7, 5, 11, 0)));

    assert_eq!(winter.as_octets().unwrap(), [0x07, 0xea, 1, 5, 1, 12, 0, 0, 0, 0xff, 0xc4, 0]);
    assert_eq!(summer.as_octets().unwrap(), [0x07, 0xea, 7, 5, 7, 13, 0, 0, 0, 0xff, 0x88, 0x80]);
    assert_eq!(read(&mut meter, attribute(8, LogicalName::CLOCK, 3), utc(2026, 7, 5, 11, 0)), Data::Long(-60));
    let fixed =
        FleetSpec { zone: Zone { deviation_min: -60, daylight_saving: false }, drift_ppm: 0, ..FleetSpec::default() };
    let mut fixed = Fleet::new(fixed).unwrap().meter(0);
    let summer = read(&mut fixed, clock, utc(2026, 7, 5, 11, 0));
    assert_eq!(summer.as_octets().unwrap(), [0x07, 0xea, 7, 5, 7, 12, 0, 0, 0, 0xff, 0xc4, 0]);
}

#[test]
fn clock_can_be_set_forward_and_back_and_says_so() {
    let mut meter = meter_of(Kind::Household);
    let clock = attribute(8, LogicalName::CLOCK, 2);
    let at = utc(2026, 2, 1, 12, 5);
    let before = meter.energy(at);
    // 2026-02-01 14:05:00 local without a deviation: one hour ahead.
    let wanted = Data::OctetString(vec![0x07, 0xea, 2, 1, 0xff, 14, 5, 0, 0, 0x80, 0, 0]);

    assert_eq!(set(&mut meter, clock, &wanted, at), DataAccessResult::Success);

    assert_eq!(meter.clock(at), utc(2026, 2, 1, 13, 5));
    assert_eq!(meter.energy(at), before, "setting the clock moves no energy");
    let later_on = later(at, 900);
    let captured =
        lines(&mut meter, LOAD_PROFILE, Some(&range(utc(2026, 2, 1, 11, 45), utc(2026, 2, 1, 14, 0))), later_on);
    let stood: Vec<_> = captured.iter().map(|(clock, cells)| (*clock, cells[0])).collect();
    assert_eq!(stood, [(utc(2026, 2, 1, 11, 45), 0), (utc(2026, 2, 1, 12, 0), 0), (utc(2026, 2, 1, 13, 15), 0x20)]);
    assert_eq!(captured[2].1[1], meter.energy(later(at, 600)).import());

    // And back again: the hour from 12:20 is captured a second time.
    let back = MethodDescriptor { class_id: 8, logical_name: LogicalName::CLOCK, method: 6 };
    for _ in 0..4 {
        let shift = Data::Long(-900).to_octets();
        assert_eq!(meter.act(MANAGER, back, Some(&shift), now(later_on), &mut Vec::new()), ActionResult::Success);
    }
    assert_eq!(meter.clock(later_on), later_on);
    let energies: Vec<i64> =
        lines(&mut meter, LOAD_PROFILE, None, utc(2026, 2, 1, 14, 0)).iter().map(|line| line.1[1]).collect();
    assert!(energies.windows(2).all(|pair| pair[0] <= pair[1]));
    let log = lines(&mut meter, EVENT_LOG, Some(&range(at, utc(2026, 2, 1, 13, 5))), later_on);
    assert_eq!(log[0], (at, vec![4]));
    assert!(log.contains(&(utc(2026, 2, 1, 13, 5), vec![5])));
}

#[test]
fn clock_refuses_what_is_no_moment() {
    let mut meter = meter_of(Kind::Household);
    let clock = attribute(8, LogicalName::CLOCK, 2);
    let at = utc(2026, 2, 1, 12, 5);

    for (octets, no) in [
        (vec![0x07, 0xea, 2, 30, 0xff, 14, 5, 0, 0, 0x80, 0, 0], DataAccessResult::OtherReason),
        (vec![0xff, 0xff, 2, 3, 0xff, 14, 5, 0, 0, 0x80, 0, 0], DataAccessResult::OtherReason),
        (vec![0x07, 0xea, 2, 3, 0xff, 24, 5, 0, 0, 0x80, 0, 0], DataAccessResult::OtherReason),
        (vec![0x07, 0xea, 2, 3, 0xff, 14, 5, 0, 0, 0x7f, 0xff, 0], DataAccessResult::OtherReason),
        (vec![0x10, 0, 2, 3, 0xff, 14, 5, 0, 0, 0x80, 0, 0], DataAccessResult::OtherReason),
        (vec![0x07, 0xea, 2, 3], DataAccessResult::TypeUnmatched),
    ] {
        assert_eq!(set(&mut meter, clock, &Data::OctetString(octets), at), no);
    }
    assert_eq!(meter.clock(at), at);
    assert_eq!(invoke(&mut meter, 8, LogicalName::CLOCK, 6, at), ActionResult::TypeUnmatched);
}

#[test]
fn clock_adjusts_to_the_nearest_minute_and_quarter() {
    for (method, second, expected) in [(3, 29, 0), (3, 31, 60), (1, 29, 0), (2, 449, 0), (2, 451, 900)] {
        let mut meter = meter_of(Kind::Household);
        let at = later(utc(2026, 2, 1, 12, 0), second);

        assert_eq!(invoke(&mut meter, 8, LogicalName::CLOCK, method, at), ActionResult::Success);

        assert_eq!(meter.clock(at), later(utc(2026, 2, 1, 12, 0), expected));
    }
}

#[test]
fn bad_clock_is_hours_off_until_it_is_set() {
    let faults = "clock-bad=100%".parse().unwrap();
    let fleet = Fleet::new(FleetSpec { count: 50, faults, ..FleetSpec::default() }).unwrap();
    let at = utc(2026, 2, 1, 12, 0);
    let status = attribute(8, LogicalName::CLOCK, 4);
    let mut invalid = 0;
    for index in 0..50 {
        let mut meter = fleet.meter(index);
        assert!((meter.clock(at).0 - at.0).abs() >= 3_590 * WallTime::SECOND);
        invalid += i32::from(read(&mut meter, status, at) == Data::Unsigned(1));
        let right = Data::OctetString(vec![0x07, 0xea, 2, 1, 7, 12, 0, 0, 0, 0, 0, 0]);
        assert_eq!(set(&mut meter, attribute(8, LogicalName::CLOCK, 2), &right, at), DataAccessResult::Success);
        assert_eq!((meter.clock(at), read(&mut meter, status, at)), (at, Data::Unsigned(0)));
    }
    assert!((10..40).contains(&invalid), "some of them know: {invalid}");
}

#[test]
fn maximum_demand_is_the_greatest_interval_of_the_month() {
    let mut meter = meter_of(Kind::Business);
    let at = utc(2026, 4, 20, 9, 3);
    let month = lines(&mut meter, LOAD_PROFILE, Some(&range(utc(2026, 3, 31, 22, 0), at)), at);
    let (power, when) = month.windows(2).fold((0, month[0].0), |best, pair| {
        let power = (pair[1].1[1] - pair[0].1[1]) * 4;
        if power > best.0 { (power, pair[1].0) } else { best }
    });
    let demand = |number| attribute(4, LogicalName([1, 0, 1, 6, 0, 255]), number);

    assert_eq!(read(&mut meter, demand(2), at).as_integer(), Some(i128::from(power)));
    assert_eq!(read(&mut meter, demand(5), at).as_date_time().unwrap().to_wall(), Some(when));
}

#[test]
fn demand_register_shows_the_last_and_the_running_interval() {
    let mut meter = meter_of(Kind::Business);
    let at = utc(2026, 4, 20, 9, 10);
    let energy = |minute: i64| meter_of(Kind::Business).energy(later(utc(2026, 4, 20, 9, 0), minute * 60)).import();
    let mut demand = |number| read(&mut meter, attribute(5, LogicalName([1, 0, 1, 4, 0, 255]), number), at);

    assert_eq!(demand(2).as_integer(), Some(i128::from((energy(10) - energy(0)) * 4)));
    assert_eq!(demand(3).as_integer(), Some(i128::from((energy(0) - energy(-15)) * 4)));
    assert_eq!(demand(6).as_date_time().unwrap().to_wall(), Some(utc(2026, 4, 20, 9, 0)));
}

#[test]
fn event_log_is_sorted_bounded_and_remembers_what_was_written() {
    let mut meter = meter_of(Kind::Household);
    let at = utc(2026, 6, 1, 0, 0);
    for step in 0..150 {
        invoke(&mut meter, 8, LogicalName::CLOCK, 3, later(at, step * 60));
    }
    let end = later(at, 86_400);

    let log = lines(&mut meter, EVENT_LOG, None, end);

    assert_eq!(log.len(), 100);
    assert!(log.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    let untouched = lines(&mut meter_of(Kind::Household), EVENT_LOG, None, utc(2027, 12, 1, 0, 0));
    assert!((4..=60).contains(&untouched.len()), "{}", untouched.len());
    assert_eq!(lines(&mut meter, EVENT_LOG, Some(&entry(99, 0, 1, 0)), end), log[98..]);
    assert_eq!(lines(&mut meter, EVENT_LOG, Some(&entry(101, 0, 1, 0)), end), []);
}

#[test]
fn limiter_keeps_the_thresholds_written_to_it() {
    let mut meter = meter_of(Kind::Household);
    let at = utc(2026, 6, 1, 0, 0);
    for number in 4..=7 {
        let value = Data::DoubleLongUnsigned(1_000 + number as u32);
        assert_eq!(set(&mut meter, attribute(71, LIMITER, number), &value, at), DataAccessResult::Success);
        assert_eq!(read(&mut meter, attribute(71, LIMITER, number), at), value);
    }
    assert_eq!(read(&mut meter, attribute(71, LIMITER, 3), at), Data::DoubleLongUnsigned(1_004));
}

#[test]
fn push_carries_what_its_object_list_names() {
    let mut meter = meter_of(Kind::Household);
    let at = utc(2026, 6, 1, 0, 0);
    assert!(!meter.take_push_due());
    assert_eq!(invoke(&mut meter, 40, PUSH_SETUP, 1, at), ActionResult::Success);
    assert!(meter.take_push_due() && !meter.take_push_due());

    let mut body = Vec::new();
    meter.push_body(now(at), &mut body);

    let body = Data::from_octets(&body, &Limits::default()).unwrap();
    let list = read(&mut meter, attribute(40, PUSH_SETUP, 2), at);
    for (pushed, listed) in body.elements().unwrap().iter().zip(list.elements().unwrap()) {
        let listed = listed.elements().unwrap();
        let name = LogicalName(listed[1].as_octets().unwrap().try_into().unwrap());
        let object = attribute(listed[0].as_integer().unwrap() as u16, name, listed[2].as_integer().unwrap() as i8);
        assert_eq!(read(&mut meter, object, at), *pushed);
    }
    assert_eq!(body.elements().unwrap().len(), list.elements().unwrap().len());
}

#[test]
fn whatever_is_asked_or_written_the_meter_answers() {
    let fleet = fleet(5);
    let mut meters: Vec<VirtualMeter> = (0..6).map(|index| fleet.meter(index)).collect();
    let extremes =
        [i64::MIN, i64::MIN + 1, -1, 0, 1_767_225_600_000_000, 1_790_000_000_000_000, i64::MAX - 1, i64::MAX];
    for step in 0..6_000 {
        let draw = |tag| noise(77, tag, step);
        let meter = &mut meters[below(draw(1), 6) as usize];
        let object = directory::objects(true).nth(below(draw(2), 36) as usize).unwrap();
        let object = attribute(object.class_id, object.name, draw(3) as i8 % 13);
        let at = later(utc(2026, 4, 1, 0, 0), step * 1_800);
        let moment = |tag| WallTime(extremes[below(draw(tag), 8) as usize]);
        let selection = match draw(4) % 3 {
            0 => range(moment(5), moment(6)),
            _ => entry(draw(5) as u32 % 9, draw(6) as u32 >> (draw(7) % 32), draw(7) as u16 % 9, draw(8) as u16 % 9),
        };
        let selection = (draw(9) % 2 == 0).then_some(selection);
        // A whole profile is long and asked for elsewhere.
        if object.class_id != 7 || selection.is_some() {
            let _ = try_read(meter, MANAGER, object, selection.as_ref(), at);
        }
        let octets: Vec<u8> = (0..draw(10) % 15).map(|place| draw(20 + place as u32) as u8).collect();
        let tagged = [&[[9, 12, 16, 22, 6, 15][below(draw(11), 6) as usize]][..], &octets].concat();
        meter.set(MANAGER, object, &tagged, now(at));
        let AttributeDescriptor { class_id, logical_name, attribute } = object;
        let method = MethodDescriptor { class_id, logical_name, method: attribute };
        meter.act(MANAGER, method, (draw(12) % 2 == 0).then_some(&tagged), now(at), &mut Vec::new());
    }
}
