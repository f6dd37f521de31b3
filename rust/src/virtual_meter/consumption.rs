//! What flows through a meter: energy as a function of the seed and the moment, exact to the watt-hour.
//!
//! Nothing is stored and nothing is summed up from the beginning of time. Each energy register is a *flow* whose
//! count at local midnight has a closed form: a trend (per day, per weekday, by season) plus jitter that never
//! reaches the neighbouring days, so counts only grow. What lies between two midnights is shared out over the day's
//! quarter-hours by weights (the load curve), as `total * weight so far / weight of the day`, rounded down. The
//! count at any second is therefore one number, whoever asks and in whatever order, and the energies of intervals
//! add up to the differences of the registers by construction.

use super::calendar::{DAY_S, LocalDay, SLOT_S, Zone};
use super::random::{below, between, noise};
use super::season::{ONE, SunDay, season_until};

/// The longest day, in slots.
const MOST_SLOTS: usize = 100;

/// What stands behind a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A flat or a house: morning and evening peaks, week-ends, appliances.
    Household,
    /// A shop or an office: business hours, closed on Sunday.
    Business,
    /// A house with solar panels: exports by day, imports what the sun leaves over.
    Photovoltaic,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Household, Self::Business, Self::Photovoltaic];

    /// Name in specifications and fleet files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Household => "household",
            Self::Business => "business",
            Self::Photovoltaic => "pv",
        }
    }

    /// Thousandths of the mean day's energy, Monday to Sunday.
    fn week(self) -> &'static [i64; 7] {
        match self {
            Self::Household | Self::Photovoltaic => &[960, 950, 950, 960, 980, 1_090, 1_110],
            Self::Business => &[1_150, 1_180, 1_180, 1_180, 1_210, 800, 300],
        }
    }

    /// The load curve's shape by the hour: working day, Saturday, Sunday.
    fn shape(self, weekday: usize) -> &'static [u8; 24] {
        match (self, weekday) {
            (Self::Business, 6) => &BUSINESS_CLOSED,
            (Self::Business, 5) => &BUSINESS_SATURDAY,
            (Self::Business, _) => &BUSINESS_OPEN,
            (_, 5 | 6) => &HOUSEHOLD_WEEKEND,
            _ => &HOUSEHOLD_WORKDAY,
        }
    }
}

const HOUSEHOLD_WORKDAY: [u8; 24] =
    [22, 18, 16, 16, 17, 24, 58, 84, 70, 50, 44, 46, 54, 48, 42, 44, 56, 80, 108, 120, 112, 92, 62, 36];
const HOUSEHOLD_WEEKEND: [u8; 24] =
    [28, 22, 18, 17, 17, 18, 26, 44, 68, 84, 88, 92, 98, 86, 72, 66, 70, 84, 104, 112, 104, 90, 68, 44];
const BUSINESS_OPEN: [u8; 24] =
    [14, 14, 14, 14, 14, 16, 26, 58, 96, 112, 118, 120, 112, 114, 116, 114, 108, 98, 76, 48, 26, 18, 16, 14];
const BUSINESS_SATURDAY: [u8; 24] =
    [14, 14, 14, 14, 14, 14, 18, 36, 78, 104, 116, 118, 112, 96, 62, 34, 22, 18, 16, 16, 14, 14, 14, 14];
const BUSINESS_CLOSED: [u8; 24] = [14; 24];

/// Purposes of the noise, so that no two draws coincide.
mod tag {
    pub(super) const SIZE: u32 = 1;
    pub(super) const APPLIANCES: u32 = 2;
    pub(super) const CURVE: u32 = 3;
    pub(super) const CLOUDS: u32 = 4;
    pub(super) const INITIAL: u32 = 5;
    pub(super) const REACTIVE: u32 = 6;
    pub(super) const FRIDGE: u32 = 7;
    pub(super) const DAY: u32 = 16;
    pub(super) const NIGHT: u32 = 17;
    pub(super) const EXPORT: u32 = 18;
}

/// The registers' contents at one moment, in watt-hours and var-hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Energy {
    /// Active import in the day tariff (06:00 to 22:00 local time).
    pub import_day: i64,
    /// Active import in the night tariff.
    pub import_night: i64,
    /// Active export.
    pub export: i64,
    /// Reactive import.
    pub reactive_import: i64,
    /// Reactive export.
    pub reactive_export: i64,
}

impl Energy {
    /// Active import in all tariffs.
    pub fn import(&self) -> i64 {
        self.import_day + self.import_night
    }

    /// Component by component.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            import_day: self.import_day - other.import_day,
            import_night: self.import_night - other.import_night,
            export: self.export - other.export,
            reactive_import: self.reactive_import - other.reactive_import,
            reactive_export: self.reactive_export - other.reactive_export,
        }
    }
}

/// One register's trend over the days.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// Watt-hours of the mean day.
    mean: u32,
    /// Watt-hours that the season adds at its height and takes away at its low.
    season: i32,
    /// How much days differ from the trend, in 256ths of a day's energy, at most 256.
    jitter: u16,
}

impl Flow {
    /// The trend's count at the beginning of day `number`.
    fn trend(&self, week: &[i64; 7], number: i64) -> i64 {
        // 1970-01-01 was a Thursday.
        let (weeks, weekday) = ((number + 3).div_euclid(7), (number + 3).rem_euclid(7) as usize);
        let thousandths = weeks * week.iter().sum::<i64>() + week[..weekday].iter().sum::<i64>();
        (i64::from(self.mean) * thousandths).div_euclid(1_000)
            + (i64::from(self.season) * season_until(number)).div_euclid(ONE)
    }

    /// The counts at the beginning and the end of day `number`.
    ///
    /// The jitter at a midnight is at most half of the smaller neighbouring day, so a day's energy is never negative.
    fn day(&self, week: &[i64; 7], noise_at: impl Fn(i64) -> u64, number: i64) -> [i64; 2] {
        let trend = [-1, 0, 1, 2].map(|step| self.trend(week, number + step));
        let midnight = |index: usize| {
            let room = (trend[index] - trend[index - 1]).min(trend[index + 1] - trend[index]).max(0);
            let jitter = between(noise_at(number - 1 + index as i64), -i64::from(self.jitter), i64::from(self.jitter));
            trend[index] + room * jitter / 512
        };
        [midnight(1), midnight(2)]
    }
}

/// The consumption behind one meter: parameters drawn from its seed, no state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consumption {
    seed: u64,
    start_s: i64,
    zone: Zone,
    pub(super) kind: Kind,
    pub(super) three_phase: bool,
    latitude_deg: i8,
    day: Flow,
    night: Flow,
    export: Flow,
}

impl Consumption {
    /// The consumption of the meter with this seed, from `start_s` on.
    pub(crate) fn new(seed: u64, kind: Kind, latitude_deg: i8, zone: Zone, start_s: i64) -> Self {
        let size = noise(seed, tag::SIZE, 0);
        // Skewed towards small customers: the product of two uniform draws.
        let skew = u64::from(below(size, 1_000)) * u64::from(below(size << 13, 1_000)) / 1_000;
        let mean = match kind {
            Kind::Household => 3_000 + skew * 18,
            Kind::Business => 9_000 + skew * 150,
            Kind::Photovoltaic => 5_000 + skew * 14,
        } as u32;
        let night_share = match kind {
            Kind::Household => 20,
            Kind::Business => 14,
            Kind::Photovoltaic => 38,
        };
        let peak_kw = 2_400 + below(size << 27, 9_600);
        let winter: i32 = if latitude_deg < 0 { -1 } else { 1 };
        let flow = |mean: u32, season_percent: i32, jitter| Flow {
            mean,
            season: winter * (i64::from(mean) * i64::from(season_percent) / 100) as i32,
            jitter,
        };
        let season_percent = if kind == Kind::Business { 8 } else { 20 };
        // A panel of 1 kW yields about 2.7 kWh on the mean day.
        let yield_wh = if kind == Kind::Photovoltaic { peak_kw * 27 / 10 } else { 0 };
        Self {
            seed,
            start_s,
            zone,
            kind,
            three_phase: kind == Kind::Business || (kind == Kind::Photovoltaic && peak_kw > 4_600) || skew > 500,
            latitude_deg,
            day: flow(mean * (100 - night_share) / 100, season_percent, 110),
            night: flow(mean * night_share / 100, season_percent, 90),
            export: flow(yield_wh, -(i32::from(latitude_deg.unsigned_abs()) * 3 / 2).min(85), 256),
        }
    }

    /// The registers at the end of second `at_s` of UTC; before the meter's first moment they stand still.
    pub(crate) fn energy(&self, at_s: i64) -> Energy {
        self.curve(at_s).energy(at_s)
    }

    /// The load curve of the local day that holds a moment.
    pub(crate) fn curve(&self, at_s: i64) -> DayCurve {
        let at_s = at_s.max(self.start_s);
        DayCurve::new(self, self.zone.day(self.zone.day_number(at_s)))
    }

    /// Mean voltage of phase `phase` (0 to 2) over the quarter-hour that ends at or after a moment, in tenths of a volt.
    pub(crate) fn voltage_dv(&self, phase: u8, at_s: i64) -> u16 {
        let quarter = at_s.div_euclid(SLOT_S);
        let slow = noise(self.seed, 32 + u32::from(phase), quarter.div_euclid(8));
        let fast = noise(self.seed, 48 + u32::from(phase), quarter);
        (2_310 + between(slow, -45, 45) + between(fast, -25, 25)) as u16
    }

    /// Cosine of phi, in thousandths.
    pub(super) fn power_factor_thousandths(&self) -> i64 {
        990 - i64::from(self.reactive_share()) / 5
    }

    /// Reactive energy per active energy, in 1024ths.
    fn reactive_share(&self) -> u32 {
        80 + below(noise(self.seed, tag::REACTIVE, 0), 260)
    }

    fn midnights(&self, flow: &Flow, tag: u32, number: i64) -> [i64; 2] {
        if flow.mean == 0 {
            return [0; 2];
        }
        // The sun knows no weekdays.
        let week = if tag == tag::EXPORT { &[1_000; 7] } else { self.kind.week() };
        flow.day(week, |day| noise(self.seed, tag, day), number)
    }
}

/// The counts at the beginning of a day, what the day adds, and the weights by which its slots share it.
#[derive(Clone, Debug)]
struct Share {
    base: i64,
    total: i64,
    until: [u32; MOST_SLOTS + 1],
}

impl Share {
    fn count(&self, slot: usize, into_s: i64, slots: usize) -> i64 {
        let all = i64::from(self.until[slots]).max(1) * SLOT_S;
        let (before, after) = (i64::from(self.until[slot]), i64::from(self.until[slot + 1]));
        self.base + self.total * (before * SLOT_S + (after - before) * into_s) / all
    }

    /// Mean power in a slot, in watts.
    fn power_w(&self, slot: usize, slots: usize) -> i64 {
        let all = i64::from(self.until[slots]).max(1);
        self.total * i64::from(self.until[slot + 1] - self.until[slot]) * (3_600 / SLOT_S) / all
    }
}

/// One local day's load curve. Made in about a microsecond, then asked for many moments.
#[derive(Clone, Debug)]
pub(crate) struct DayCurve {
    day: LocalDay,
    slots: usize,
    start_s: i64,
    origin: [i64; 3],
    initial: [i64; 3],
    reactive_share: i64,
    reactive_base_var: i64,
    day_tariff: Share,
    night_tariff: Share,
    export: Share,
}

impl DayCurve {
    fn new(of: &Consumption, day: LocalDay) -> Self {
        let slots = day.slots();
        let first = of.zone.day_number(of.start_s);
        let initial = noise(of.seed, tag::INITIAL, 0);
        let reactive = noise(of.seed, tag::REACTIVE, 1);
        let flows = [(&of.day, tag::DAY), (&of.night, tag::NIGHT), (&of.export, tag::EXPORT)];
        let shares = flows.map(|(flow, tag)| {
            let [base, end] = of.midnights(flow, tag, day.number);
            (base, end - base)
        });
        let mut curve = Self {
            day,
            slots,
            start_s: of.start_s,
            origin: flows.map(|(flow, tag)| of.midnights(flow, tag, first)[0]),
            initial: [
                i64::from(below(initial, 9_000_000)),
                i64::from(below(initial << 11, 3_000_000)),
                if of.export.mean == 0 { 0 } else { i64::from(below(initial << 22, 12_000_000)) },
            ],
            reactive_share: i64::from(of.reactive_share()),
            reactive_base_var: 4 + i64::from(below(reactive, 40)),
            day_tariff: Share { base: shares[0].0, total: shares[0].1, until: [0; MOST_SLOTS + 1] },
            night_tariff: Share { base: shares[1].0, total: shares[1].1, until: [0; MOST_SLOTS + 1] },
            export: Share { base: shares[2].0, total: shares[2].1, until: [0; MOST_SLOTS + 1] },
        };
        curve.weigh(of);
        curve
    }

    /// Fill in the weights.
    fn weigh(&mut self, of: &Consumption) {
        let mut loads = [0_u32; MOST_SLOTS];
        let seed = noise(of.seed, tag::CURVE, self.day.number);
        let shape = of.kind.shape((self.day.number + 3).rem_euclid(7) as usize);
        let fridge = below(noise(of.seed, tag::FRIDGE, 0), 3) as usize;
        let sun = (of.export.mean > 0).then(|| SunDay::new(self.day.number, of.latitude_deg));
        let clouds = noise(of.seed, tag::CLOUDS, self.day.number);
        // Overcast days flicker little, broken clouds flicker much.
        let cloud_depth = below(clouds, 200);
        self.appliances(of, &mut loads);
        for (slot, appliances) in loads.iter().enumerate().take(self.slots) {
            let start_s = self.day.start_s + slot as i64 * SLOT_S;
            let wall_slot = ((start_s + self.day.offset_s(start_s)).rem_euclid(DAY_S) / SLOT_S) as usize;
            let (hour, quarter) = (wall_slot / 4, (wall_slot % 4) as u32);
            let (this, next) = (u32::from(shape[hour]), u32::from(shape[(hour + 1) % 24]));
            let smooth = this * (4 - quarter) + next * quarter;
            let flutter = noise(seed, 0, slot as i64);
            let mut load = 40 + smooth * (96 + below(flutter, 64)) / 128 + appliances;
            if of.kind != Kind::Business && slot % 3 == fridge {
                load += 36;
            }
            let mut harvest = 0;
            if let Some(sun) = &sun {
                let solar_slot = ((start_s + of.zone.standard_offset_s()).rem_euclid(DAY_S) / SLOT_S) as usize;
                let height = sun.height(solar_slot) as u32;
                if height > 0 {
                    let hourly = below(noise(clouds, 1, (slot / 4) as i64), cloud_depth);
                    let flicker = below(flutter << 24, cloud_depth / 3 + 1);
                    harvest = (height / 8 * 255u32.saturating_sub(hourly + flicker).max(20) / 256).max(1);
                    load -= load * (height.min(26_000) / 32) / 1_024;
                }
            }
            let is_day = (24..88).contains(&wall_slot);
            self.day_tariff.until[slot + 1] = self.day_tariff.until[slot] + if is_day { load } else { 0 };
            self.night_tariff.until[slot + 1] = self.night_tariff.until[slot] + if is_day { 0 } else { load };
            self.export.until[slot + 1] = self.export.until[slot] + harvest;
        }
    }

    /// Washing, cooking, machines: a handful of blocks a day, at seeded times.
    fn appliances(&self, of: &Consumption, loads: &mut [u32; MOST_SLOTS]) {
        let draw = noise(of.seed, tag::APPLIANCES, self.day.number);
        let (count, earliest, latest) = match of.kind {
            Kind::Business => (below(draw, 3), 32, 64),
            _ => (1 + below(draw, 4), 26, 84),
        };
        for appliance in 0..i64::from(count) {
            let draw = noise(draw, 1, appliance);
            let first = between(draw, earliest, latest) as usize;
            let length = 1 + below(draw << 17, 6) as usize;
            let power = 150 + below(draw << 29, 900);
            for load in loads.iter_mut().take(self.slots).skip(first).take(length) {
                *load += power;
            }
        }
    }

    /// Whether the curve is of the day that holds a moment.
    pub(super) fn holds(&self, at_s: i64) -> bool {
        self.day.holds(at_s.max(self.start_s))
    }

    /// The registers at a moment of this day (see [`Consumption::energy`]).
    pub(crate) fn energy(&self, at_s: i64) -> Energy {
        let at_s = at_s.max(self.start_s);
        let (slot, into_s) = self.slot(at_s);
        let (day, night, export) = (
            self.day_tariff.count(slot, into_s, self.slots) - self.origin[0],
            self.night_tariff.count(slot, into_s, self.slots) - self.origin[1],
            self.export.count(slot, into_s, self.slots) - self.origin[2],
        );
        let base = self.reactive_base_var * (at_s - self.start_s) / 3_600;
        Energy {
            import_day: self.initial[0] + day,
            import_night: self.initial[1] + night,
            export: self.initial[2] + export,
            reactive_import: (((self.initial[0] + self.initial[1] + day + night) * self.reactive_share) >> 10) + base,
            reactive_export: ((self.initial[2] + export) * 52) >> 10,
        }
    }

    /// Mean power in the quarter-hour that holds a moment of this day, in watts: import and export.
    pub(crate) fn power_w(&self, at_s: i64) -> [i64; 2] {
        let (slot, _) = self.slot(at_s.max(self.start_s));
        let slots = self.slots;
        let import = self.day_tariff.power_w(slot, slots) + self.night_tariff.power_w(slot, slots);
        [import, self.export.power_w(slot, slots)]
    }

    fn slot(&self, at_s: i64) -> (usize, i64) {
        let into_s = (at_s - self.day.start_s).clamp(0, self.slots as i64 * SLOT_S - 1);
        ((into_s / SLOT_S) as usize, into_s % SLOT_S)
    }
}
