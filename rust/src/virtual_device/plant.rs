//! What stands behind a device: modules, a battery, a house; and the grid that it hangs on.

use ipss_modbus::sunspec::BlockImage;
use ipss_session::WallTime;

use super::control::integer;
use super::{DeviceSpec, Kind};
use crate::virtual_meter::Zone;
use crate::virtual_meter::consumption::{Consumption, Kind as Consumer};
use crate::virtual_meter::random::{between, noise};
use crate::virtual_meter::season::{ONE, SunDay};

/// A grid that somebody chose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Volts between phase and neutral.
    pub voltage_v: f64,
    /// Hertz.
    pub frequency_hz: f64,
}

/// One moment of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Operation {
    /// Watts that flow into the grid; negative while charging or consuming.
    pub(super) power_w: f64,
    /// Vars into the grid.
    pub(super) reactive_var: f64,
    /// Watts that could flow.
    pub(super) available_w: f64,
    /// Volts of each phase.
    pub(super) voltage_v: [f64; 3],
    /// Hertz.
    pub(super) frequency_hz: f64,
    /// Whether it is on the grid.
    pub(super) connected: bool,
    /// Whether a control holds it below what could flow.
    pub(super) throttled: bool,
    /// Watt-hours that a sub-meter counted: import and export.
    pub(super) counted_wh: [i64; 2],
}

/// What stands behind a device, and the energy that has flowed.
#[derive(Clone, Debug)]
pub(super) struct Plant {
    pub(super) kind: Kind,
    seed: u64,
    latitude_deg: i8,
    longitude_deg: i16,
    /// Watts: its rating.
    pub(super) rated_w: i64,
    /// Watt-hours: its battery.
    pub(super) capacity_wh: i64,
    /// Watt-seconds in the battery.
    stored_ws: i64,
    /// Watt-seconds that have flowed into the grid and out of it.
    pub(super) injected_ws: i64,
    pub(super) absorbed_ws: i64,
    /// Until when all of this is reckoned.
    reckoned_s: i64,
    pub(super) grid: Option<Grid>,
    consumer: Consumption,
}

impl Plant {
    pub(super) fn new(seed: u64, kind: Kind, spec: &DeviceSpec, now: WallTime) -> Self {
        let start_s = spec.start.0.div_euclid(WallTime::SECOND);
        let now_s = now.0.div_euclid(WallTime::SECOND);
        let rated_w = between(noise(seed, 1, 0), 10, 50) * 500;
        let capacity_wh = rated_w * 2;
        let age_days = (now_s - start_s).max(0) / 86_400;
        // A panel of 1 kW yields about 2.7 kWh on the mean day; a battery turns over half its capacity.
        let (injected_wh, absorbed_wh) = match kind {
            Kind::Inverter => (rated_w * 27 / 10 * age_days, 0),
            Kind::Storage => (capacity_wh * 45 / 100 * age_days, capacity_wh / 2 * age_days),
            Kind::SubMeter => (0, 0),
        };
        Self {
            kind,
            seed,
            latitude_deg: spec.latitude_deg,
            longitude_deg: spec.longitude_deg,
            rated_w,
            capacity_wh,
            stored_ws: capacity_wh * 3_600 * between(noise(seed, 2, 0), 30, 70) / 100,
            injected_ws: injected_wh * 3_600,
            absorbed_ws: absorbed_wh * 3_600,
            reckoned_s: now_s,
            grid: None,
            consumer: Consumption::new(seed, Consumer::Household, spec.latitude_deg, ZONE, start_s),
        }
    }

    /// Share of the battery that is full.
    pub(super) fn state_of_charge(&self) -> f64 {
        self.stored_ws as f64 / (self.capacity_wh * 3_600) as f64
    }

    /// Energy of a sub-meter's registers, in watt-hours: import and export.
    fn consumed_wh(&self, at_s: i64) -> [i64; 2] {
        let energy = self.consumer.energy(at_s);
        [energy.import(), energy.export]
    }

    /// Let energy flow until a moment, under the controls of `blocks`.
    pub(super) fn run_until(&mut self, now_us: i64, blocks: &[BlockImage]) {
        let now_s = now_us.div_euclid(WallTime::SECOND);
        if self.kind == Kind::SubMeter || now_s <= self.reckoned_s {
            self.reckoned_s = self.reckoned_s.max(now_s);
            return;
        }
        // A long silence is made up for in coarser steps: the work of one question stays bounded.
        let step_s = ((now_s - self.reckoned_s) / STEPS).max(STEP_S);
        while self.reckoned_s < now_s {
            let passed_s = step_s.min(now_s - self.reckoned_s);
            let power_w = self.operation(self.reckoned_s + passed_s / 2, blocks).power_w.round() as i64;
            let energy_ws = power_w * passed_s;
            self.injected_ws += energy_ws.max(0);
            self.absorbed_ws -= energy_ws.min(0);
            if self.kind == Kind::Storage {
                // What goes in loses a twentieth, what comes out another.
                let change_ws = if energy_ws > 0 { energy_ws * 20 / 19 } else { energy_ws * 19 / 20 };
                self.stored_ws = (self.stored_ws - change_ws).clamp(0, self.capacity_wh * 3_600);
            }
            self.reckoned_s += passed_s;
        }
    }

    /// What it does at a moment, under the controls of `blocks`.
    pub(super) fn operation(&self, at_s: i64, blocks: &[BlockImage]) -> Operation {
        let sun = self.sun(at_s);
        let rated_w = self.rated_w as f64;
        let (voltage_v, frequency_hz) = self.grid_at(at_s, sun);
        let still = Operation {
            power_w: 0.0,
            reactive_var: 0.0,
            available_w: 0.0,
            voltage_v,
            frequency_hz,
            connected: true,
            throttled: false,
            counted_wh: [0; 2],
        };
        if self.kind == Kind::SubMeter {
            let [import_w, export_w] = self.consumer.curve(at_s).power_w(at_s);
            let power_w = (export_w - import_w) as f64;
            return Operation {
                power_w,
                reactive_var: power_w * 0.2,
                available_w: power_w,
                counted_wh: self.consumed_wh(at_s),
                ..still
            };
        }
        let controls = Controls(blocks);
        if !controls.connected() {
            return Operation { connected: false, ..still };
        }
        let mean_v = voltage_v.iter().sum::<f64>() / 3.0;
        let available_w = match self.kind {
            Kind::Inverter => (rated_w * 1.05 * sun).min(rated_w),
            _ => rated_w,
        };
        let cap_w = controls
            .limit()
            .min(controls.volt_watt(mean_v / NOMINAL_V * 100.0).unwrap_or(1.0))
            .min(1.0 + controls.droop(frequency_hz).min(0.0))
            .max(0.0)
            * rated_w;
        let wanted_w = controls.set_power(rated_w);
        let power_w = match self.kind {
            Kind::Inverter => available_w.min(cap_w).min(wanted_w.unwrap_or(f64::INFINITY)).max(0.0),
            _ => {
                let full = self.state_of_charge();
                let low = if full < 1.0 { -rated_w } else { 0.0 };
                let high = if full > 0.0 { rated_w } else { 0.0 };
                // A battery that nobody tells anything helps at low frequency and rests otherwise.
                let idle_w = controls.droop(frequency_hz).max(0.0) * rated_w;
                wanted_w.unwrap_or(idle_w).clamp(low, high).min(cap_w)
            }
        };
        let room_var = ((rated_w * 1.1).powi(2) - power_w * power_w).max(0.0).sqrt();
        let reactive_var = controls.reactive(power_w, rated_w * MAX_VAR, mean_v / NOMINAL_V * 100.0);
        Operation {
            power_w,
            reactive_var: reactive_var.clamp(-room_var, room_var),
            available_w,
            throttled: self.kind == Kind::Inverter && power_w + 1.0 < available_w,
            ..still
        }
    }

    /// Irradiance as a share of the brightest, clouds included.
    fn sun(&self, at_s: i64) -> f64 {
        // Mean solar time: the earth turns a degree in four minutes.
        let solar_s = at_s + i64::from(self.longitude_deg) * 240;
        let (day, second) = (solar_s.div_euclid(86_400), solar_s.rem_euclid(86_400));
        let sky = SunDay::new(day, self.latitude_deg);
        let between_of = |seconds: i64, length: i64, value: &dyn Fn(i64) -> f64| {
            let place = seconds.div_euclid(length);
            let share = seconds.rem_euclid(length) as f64 / length as f64;
            value(place) * (1.0 - share) + value(place + 1) * share
        };
        // Heights are those of the middle of each quarter of an hour.
        let height =
            between_of(second - 450, 900, &|quarter| sky.height(quarter.rem_euclid(96) as usize) as f64 / ONE as f64);
        let clouds = between_of(at_s, 300, &|place| {
            let weather = between(noise(self.seed, 3, day), 0, 60);
            1.0 - (between(noise(self.seed, 4, place), 0, 100) * weather) as f64 / 10_000.0
        });
        (height * 1.15 * clouds).clamp(0.0, 1.0)
    }

    fn grid_at(&self, at_s: i64, sun: f64) -> ([f64; 3], f64) {
        if let Some(grid) = self.grid {
            return ([grid.voltage_v; 3], grid.frequency_hz);
        }
        let phase = |phase: u32| {
            let noise = between(noise(self.seed, 5 + phase, at_s.div_euclid(60)), -20, 20);
            NOMINAL_V + noise as f64 / 10.0 + sun * 5.0
        };
        // The frequency is the same for everybody.
        let frequency_hz = NOMINAL_HZ + between(noise(0, 8, at_s.div_euclid(4)), -30, 30) as f64 / 1_000.0;
        ([phase(0), phase(1), phase(2)], frequency_hz)
    }
}

/// The controls as their registers stand.
struct Controls<'a>(&'a [BlockImage]);

impl Controls<'_> {
    fn block(&self, model: u16) -> Option<&BlockImage> {
        self.0.iter().find(|block| block.model().id == model)
    }

    fn is_on(&self, model: u16, name: &str) -> bool {
        self.block(model).and_then(|block| integer(block, name)) == Some(1)
    }

    /// A scaled value.
    fn value(&self, model: u16, name: &str) -> Option<f64> {
        let number = self.block(model)?.number(name).ok()??;
        Some(number.mantissa as f64 * 10_f64.powi(number.scaler.into()))
    }

    fn connected(&self) -> bool {
        self.block(123).and_then(|block| integer(block, "Conn")) != Some(0)
    }

    /// The lower of both limits, as a share of the rating.
    fn limit(&self) -> f64 {
        let limit = |model, enabled: &str| {
            let percent = self.value(model, "WMaxLimPct").filter(|_| self.is_on(model, enabled));
            percent.map_or(1.0, |percent| percent / 100.0)
        };
        limit(123, "WMaxLim_Ena").min(limit(704, "WMaxLimPctEna"))
    }

    /// The set point of power in watts, charging negative.
    fn set_power(&self, rated_w: f64) -> Option<f64> {
        if !self.is_on(704, "WSetEna") {
            return None;
        }
        match self.is_on(704, "WSetMod") {
            true => self.value(704, "WSet"),
            false => self.value(704, "WSetPct").map(|percent| percent / 100.0 * rated_w),
        }
    }

    /// The most that Volt-Watt leaves, as a share of the rating, at a voltage in percent.
    fn volt_watt(&self, voltage_percent: f64) -> Option<f64> {
        self.curve(706, "W", voltage_percent).map(|percent| percent / 100.0)
    }

    /// The change of power for the frequency, as a share of the rating (IEEE 1547-2018, 6.5.2.7): over-frequency gives
    /// a negative one.
    fn droop(&self, frequency_hz: f64) -> f64 {
        if !self.is_on(711, "Ena") {
            return 0.0;
        }
        let value = |name| self.value(711, name).unwrap_or(0.0);
        let part =
            |beyond_hz: f64, ratio: f64| if ratio > 0.0 { beyond_hz.max(0.0) / (NOMINAL_HZ * ratio) } else { 0.0 };
        part(NOMINAL_HZ - value("Ctl[1].DbUf") - frequency_hz, value("Ctl[1].KUf"))
            - part(frequency_hz - NOMINAL_HZ - value("Ctl[1].DbOf"), value("Ctl[1].KOf"))
    }

    /// Vars into the grid: by power factor, by set point, or by Volt-VAr, in this order.
    fn reactive(&self, power_w: f64, most_var: f64, voltage_percent: f64) -> f64 {
        let by_factor = |factor: f64| {
            let factor = factor.clamp(-1.0, 1.0);
            // A negative power factor absorbs (SunSpec 123, OutPFSet).
            factor.signum() * power_w * (1.0 / (factor * factor).max(0.01) - 1.0).max(0.0).sqrt()
        };
        if self.is_on(123, "OutPFSet_Ena") {
            return self.value(123, "OutPFSet").map_or(0.0, by_factor);
        }
        if self.is_on(704, "PFWInjEna") {
            // 704 says over-excited (injecting vars) by 0.
            let over = self.block(704).and_then(|block| integer(block, "PFWInj.Ext")) != Some(1);
            return self.value(704, "PFWInj.PF").map_or(0.0, |factor| by_factor(if over { factor } else { -factor }));
        }
        if self.is_on(704, "VarSetEna") {
            return self.value(704, "VarSetPct").unwrap_or(0.0) / 100.0 * most_var;
        }
        self.curve(705, "Var", voltage_percent).map_or(0.0, |percent| percent / 100.0 * most_var)
    }

    /// The curve in use at a voltage, both in percent; `None` if it is off.
    fn curve(&self, model: u16, name: &str, voltage_percent: f64) -> Option<f64> {
        if !self.is_on(model, "Ena") {
            return None;
        }
        let used = self.block(model).and_then(|block| integer(block, "Crv[1].ActPt"))?;
        let mut before: Option<(f64, f64)> = None;
        for index in 1..=used {
            let voltage = self.value(model, &format!("Crv[1].Pt[{index}].V"))?;
            let value = self.value(model, &format!("Crv[1].Pt[{index}].{name}"))?;
            if voltage_percent <= voltage {
                return Some(before.map_or(value, |(low, from)| {
                    let share = if voltage > low { (voltage_percent - low) / (voltage - low) } else { 1.0 };
                    from + (value - from) * share
                }));
            }
            before = Some((voltage, value));
        }
        before.map(|(_, value)| value)
    }
}

/// Where the houses behind sub-meters keep their hours: Central Europe.
const ZONE: Zone = Zone { deviation_min: -60, daylight_saving: true };
/// Volts between phase and neutral.
pub(super) const NOMINAL_V: f64 = 230.0;
/// Hertz.
pub(super) const NOMINAL_HZ: f64 = 50.0;
/// Vars per watt of rating (IEEE 1547-2018 category B: 44 %).
pub(super) const MAX_VAR: f64 = 0.44;
/// Seconds of a step of reckoning, and how many steps at most.
const STEP_S: i64 = 60;
const STEPS: i64 = 500;
