use ipss_modbus::decimal::Decimal;
use ipss_modbus::sunspec::{Chain, End, Value, Write, first_header};

use super::*;

/// 2026-06-21T10:30Z and around: the sun is high at 50 degrees north.
const NOON: WallTime = WallTime(1_782_037_800 * WallTime::SECOND);

fn after(seconds: i64) -> WallTime {
    WallTime(NOON.0 + seconds * WallTime::SECOND)
}

fn device(kind: Kind) -> VirtualDevice {
    spec(kind).device(0, NOON)
}

fn spec(kind: Kind) -> DeviceSpec {
    let [inverters, storage, submeters] = match kind {
        Kind::Inverter => [1, 0, 0],
        Kind::Storage => [0, 1, 0],
        Kind::SubMeter => [0, 0, 1],
    };
    let start = WallTime(NOON.0 - 100 * 86_400 * WallTime::SECOND);
    DeviceSpec { seed: 7, inverters, storage, submeters, latitude_deg: 50, longitude_deg: 0, start }
}

/// Where a point stands, as an address.
fn address(device: &VirtualDevice, model: u16, offset: usize) -> u16 {
    let before: usize =
        device.blocks.iter().take_while(|block| block.model().id != model).map(|b| b.registers().len()).sum();
    BASE + (MARKER.len() + before + offset) as u16
}

fn put(device: &mut VirtualDevice, model: u16, name: &str, value: &str, now: WallTime) -> Result<(), Exception> {
    let number = Decimal::parse(value).expect("a number");
    let Write { offset, registers } = device.block(model).expect("there").write_of(name, number).expect("fits");
    device.write(address(device, model, offset), &registers, now)
}

fn value(device: &mut VirtualDevice, model: u16, name: &str, now: WallTime) -> f64 {
    device.read(BASE, 2, now).expect("there");
    let number = device.block(model).expect("there").number(name).expect("a point").expect("implemented");
    number.to_string().parse().expect("a number")
}

fn limit(device: &mut VirtualDevice, percent: &str, seconds: &str, now: WallTime) {
    put(device, 704, "WMaxLimPctRvrtTms", seconds, now).expect("taken");
    put(device, 704, "WMaxLimPct", percent, now).expect("taken");
    put(device, 704, "WMaxLimPctEna", "1", now).expect("taken");
}

#[test]
fn every_device_shows_a_proper_chain_of_models() {
    for (kind, expected) in [
        (Kind::Inverter, &[1, 103, 120, 121, 123, 701, 704, 705, 706, 711][..]),
        (Kind::Storage, &[1, 103, 120, 121, 123, 701, 704, 705, 706, 711, 713]),
        (Kind::SubMeter, &[1, 203]),
    ] {
        let mut device = device(kind);
        let mut image = Vec::new();
        while let Some(registers) = device.read(BASE + image.len() as u16, 1, NOON) {
            image.extend(registers);
        }

        let mut chain = Chain::new(&image, first_header(&image, BASE).expect("SunS").0);
        let ids: Vec<u16> =
            chain.by_ref().inspect(|block| assert_eq!(block.oddity, None)).map(|block| block.id).collect();
        assert_eq!((&ids[..], chain.end()), (expected, Some(End::Proper)));
        assert_eq!(device.block(1).expect("there").get("Mn"), Ok(Value::Text("ipss-headend".into())));
    }
}

#[test]
fn an_inverter_follows_the_sun_and_its_energy_is_what_flowed() {
    let mut device = device(Kind::Inverter);
    let noon = value(&mut device, 701, "W", NOON);
    let before = value(&mut device, 701, "TotWhInj", NOON);
    let later = value(&mut device, 701, "TotWhInj", after(3_600));
    let night = value(&mut device, 701, "W", after(13 * 3_600));

    assert!(noon > 0.5 * device.plant.rated_w as f64, "{noon}");
    assert!((later - before - noon).abs() < 0.3 * noon, "{noon} W for an hour gave {} Wh", later - before);
    assert_eq!(night, 0.0);
    assert_eq!(value(&mut device, 103, "St", after(13 * 3_600)), 2.0);
}

#[test]
fn the_sun_is_high_at_noon_of_the_longitude_at_every_hour_of_utc() {
    for hour in 0..24 {
        let now = WallTime(NOON.0.div_euclid(86_400_000_000) * 86_400_000_000 + hour * 3_600 * WallTime::SECOND);
        let longitude_deg = (12 - hour as i16) * 15;
        let spec = DeviceSpec { latitude_deg: 0, longitude_deg, ..spec(Kind::Inverter) };
        let mut device = spec.device(0, now);
        let opposite = if longitude_deg > 0 { longitude_deg - 180 } else { longitude_deg + 180 };
        let mut dark = DeviceSpec { longitude_deg: opposite, ..spec }.device(0, now);

        let power = value(&mut device, 701, "W", now);
        assert!(power > 0.35 * device.plant.rated_w as f64, "{hour} h UTC, {longitude_deg} degrees: {power} W");
        assert_eq!(value(&mut dark, 701, "W", now), 0.0, "{hour} h UTC, {opposite} degrees");
    }
}

#[test]
fn a_device_is_one_whichever_connection_asks_and_has_no_more_than_its_bound() {
    let shared = SharedDevice::new(device(Kind::Inverter), 2);
    let mut one = shared.connection().expect("room for two");
    let mut other = shared.connection().expect("room for two");
    assert!(shared.connection().is_none(), "a third");

    let place = device(Kind::Inverter).block(704).expect("there").with("WMaxLimPct", |place| place.offset);
    let at = address(&device(Kind::Inverter), 704, place.expect("a point"));
    let now = Now { monotonic: ipss_session::Instant::ORIGIN, wall: NOON };
    let access = Access { unit: UNIT, role: ipss_modbus::device::Role::Anybody };
    one.write_registers(access, at, Registers::new(&[0, 250]), now).expect("taken");
    let mut said = Vec::new();
    other.read(access, Table::Holding, at, 1, now, &mut said).expect("there");
    assert_eq!(said, [0, 250]);
    assert_eq!(other.identification(UNIT, 1), one.identification(UNIT, 1));

    drop(one);
    let third = shared.connection();
    assert!(third.is_some() && shared.connection().is_none(), "the place of the first is free again, once");
}

#[test]
fn a_limit_is_obeyed_and_falls_back_when_nobody_renews_it() {
    let mut device = device(Kind::Inverter);
    let free = value(&mut device, 701, "W", NOON);
    let rated = device.plant.rated_w as f64;

    limit(&mut device, "30", "60", NOON);

    assert!((value(&mut device, 701, "W", after(1)) - 0.3 * rated).abs() <= 1.0);
    assert_eq!(value(&mut device, 701, "InvSt", after(1)), 4.0);
    assert_eq!(value(&mut device, 704, "WMaxLimPctRvrtRem", after(20)), 40.0);

    limit(&mut device, "30", "60", after(50));
    assert!(value(&mut device, 701, "W", after(109)) <= 0.3 * rated + 1.0);
    assert!(value(&mut device, 701, "W", after(110)) > 0.8 * free);
    assert_eq!(value(&mut device, 704, "WMaxLimPctEna", after(111)), 0.0);
}

#[test]
fn energy_knows_when_a_timer_ran_out_though_nobody_asked_meanwhile() {
    let (mut limited, mut free) = (device(Kind::Inverter), device(Kind::Inverter));
    limit(&mut limited, "0", "600", NOON);

    let before = value(&mut free, 701, "TotWhInj", NOON);
    let gain = |device: &mut VirtualDevice| value(device, 701, "TotWhInj", after(3_600)) - before;
    let share = gain(&mut limited) / gain(&mut free);

    assert!((0.78..0.88).contains(&share), "10 of 60 minutes are lost: {share}");
}

#[test]
fn a_fall_back_of_its_own_is_taken() {
    let mut device = device(Kind::Inverter);
    put(&mut device, 704, "WMaxLimPctEnaRvrt", "1", NOON).expect("taken");
    put(&mut device, 704, "WMaxLimPctRvrt", "60", NOON).expect("taken");
    limit(&mut device, "10", "5", NOON);

    assert_eq!(value(&mut device, 704, "WMaxLimPct", after(4)), 10.0);
    assert_eq!(value(&mut device, 704, "WMaxLimPct", after(5)), 60.0);
    assert_eq!(value(&mut device, 704, "WMaxLimPctEna", after(5)), 1.0);
}

#[test]
fn the_older_controls_work_and_fall_back_too() {
    let mut device = device(Kind::Inverter);
    put(&mut device, 123, "Conn_RvrtTms", "30", NOON).expect("taken");
    put(&mut device, 123, "Conn", "0", NOON).expect("taken");

    assert_eq!(value(&mut device, 103, "W", after(1)), 0.0);
    assert_eq!(value(&mut device, 701, "ConnSt", after(1)), 0.0);
    assert!(value(&mut device, 103, "W", after(30)) > 0.0);

    put(&mut device, 123, "OutPFSet", "-0.9", after(40)).expect("taken");
    put(&mut device, 123, "OutPFSet_Ena", "1", after(40)).expect("taken");
    assert!(value(&mut device, 701, "Var", after(41)) < 0.0);
    assert!((value(&mut device, 701, "PF", after(41)) - 0.9).abs() < 0.011);
}

#[test]
fn curves_are_adopted_and_bend_power_by_voltage_and_frequency() {
    let mut device = device(Kind::Inverter);
    let rated = device.plant.rated_w as f64;
    device.on_grid(Some(Grid { voltage_v: 248.4, frequency_hz: 50.0 }));
    put(&mut device, 705, "Ena", "1", NOON).expect("taken");
    // 108 % of nominal: the default curve absorbs all that it may.
    assert!((value(&mut device, 701, "Var", after(1)) + 0.44 * rated).abs() < 0.02 * rated);

    put(&mut device, 705, "Crv[2].Pt[4].Var", "-50", after(2)).expect("taken");
    assert_eq!(value(&mut device, 705, "Crv[1].Pt[4].Var", after(2)), -100.0);
    put(&mut device, 705, "AdptCrvReq", "2", after(3)).expect("taken");
    assert_eq!(value(&mut device, 705, "AdptCrvRslt", after(3)), 1.0);
    assert!((value(&mut device, 701, "Var", after(3)) + 0.22 * rated).abs() < 0.02 * rated);
    assert_eq!(put(&mut device, 705, "Crv[1].Pt[4].Var", "0", after(3)), Err(Exception::ILLEGAL_DATA_ADDRESS));

    put(&mut device, 706, "Ena", "1", after(4)).expect("taken");
    assert!((value(&mut device, 701, "W", after(5)) - 0.5 * rated).abs() < 0.02 * rated, "halfway down the curve");

    device.on_grid(Some(Grid { voltage_v: 230.0, frequency_hz: 52.0 }));
    put(&mut device, 711, "Ena", "1", after(6)).expect("taken");
    assert!(value(&mut device, 701, "W", after(7)) < 0.25 * rated);
}

#[test]
fn storage_charges_discharges_and_stops_when_it_is_full_or_empty() {
    let mut device = device(Kind::Storage);
    let before = value(&mut device, 713, "SoC", NOON);
    assert_eq!(value(&mut device, 701, "W", NOON), 0.0);

    put(&mut device, 704, "WSetPct", "-50", NOON).expect("taken");
    put(&mut device, 704, "WSetEna", "1", NOON).expect("taken");
    assert!(value(&mut device, 701, "W", after(1)) < 0.0);
    assert!(value(&mut device, 713, "SoC", after(1_800)) > before + 5.0);
    assert_eq!(value(&mut device, 713, "SoC", after(10 * 3_600)), 100.0);
    assert_eq!(value(&mut device, 701, "W", after(10 * 3_600)), 0.0);

    put(&mut device, 704, "WSetPct", "100", after(10 * 3_600)).expect("taken");
    assert!(value(&mut device, 701, "W", after(10 * 3_600 + 1)) > 0.0);
    assert_eq!(value(&mut device, 713, "SoC", after(20 * 3_600)), 0.0);
}

#[test]
fn what_may_not_be_written_is_refused_and_changes_nothing() {
    let mut device = device(Kind::Inverter);
    let power = device.block(701).expect("there").with("W", |place| place.offset).expect("a point");
    let at = address(&device, 701, power);
    let limit = device.block(704).expect("there").with("WMaxLimPct", |place| place.offset).expect("a point");
    let image = device.read(BASE, 100, NOON);

    assert_eq!(device.write(at, &[0], NOON), Err(Exception::ILLEGAL_DATA_ADDRESS));
    assert_eq!(device.write(address(&device, 704, limit), &[1_001], NOON), Err(Exception::ILLEGAL_DATA_VALUE));
    assert_eq!(device.write(BASE, &[0], NOON), Err(Exception::ILLEGAL_DATA_ADDRESS));
    assert_eq!(device.write(0, &[0], NOON), Err(Exception::ILLEGAL_DATA_ADDRESS));
    assert_eq!(device.write(65_535, &[0, 0], NOON), Err(Exception::ILLEGAL_DATA_ADDRESS));
    // Half of a value of two registers is no value.
    let timer = device.block(704).expect("there").with("WSetRvrtTms", |place| place.offset).expect("a point");
    assert_eq!(device.write(address(&device, 704, timer), &[0], NOON), Err(Exception::ILLEGAL_DATA_ADDRESS));
    assert_eq!(device.read(BASE, 100, NOON), image);
    assert_eq!(device.read(BASE - 1, 2, NOON), None);
    assert_eq!(device.read(65_535, 2, NOON), None);
}

#[test]
fn the_same_seed_does_the_same() {
    let (mut one, mut other) = (device(Kind::Inverter), device(Kind::Inverter));
    for seconds in [1, 500, 4_000, 90_000] {
        assert_eq!(one.read(BASE, 125, after(seconds)), other.read(BASE, 125, after(seconds)));
    }
}

#[test]
fn a_sub_meter_counts_what_its_house_consumes() {
    let mut device = device(Kind::SubMeter);
    let before = value(&mut device, 203, "TotWhImp", NOON);
    let after = value(&mut device, 203, "TotWhImp", after(86_400));

    assert!((500.0..100_000.0).contains(&(after - before)), "{}", after - before);
}
