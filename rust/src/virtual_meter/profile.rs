//! Profile buffers: which lines a meter holds, which of them are asked for, and their octets.
//!
//! A buffer is not stored. Its lines are numbered capture moments of the meter's clock, and what a line shows is
//! computed when it is asked for.

use ipss_dlms::cosem::descriptor::CaptureObject;
use ipss_dlms::cosem::{AttributeDescriptor, DataAccessResult, LogicalName, Selection};
use ipss_session::WallTime;

use super::VirtualMeter;
use super::calendar::LocalDay;
use super::consumption::{DayCurve, Energy};
use super::random::{below, noise};
use super::state::{EVENT_ENTRIES, Event, event};
use super::timebase::{Schedule, Stretch};
use super::{directory, encode};

/// A column of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Clock,
    Status,
    Import,
    ImportDay,
    ImportNight,
    Export,
    ReactiveImport,
    Voltage,
    EventCode,
}

impl Column {
    /// Class and name of what is captured; the attribute is always 2.
    pub fn object(self) -> (u16, LogicalName) {
        match self {
            Self::Clock => (8, LogicalName::CLOCK),
            Self::Status => (1, directory::PROFILE_STATUS),
            Self::Import => (3, directory::IMPORT),
            Self::ImportDay => (3, directory::IMPORT_DAY),
            Self::ImportNight => (3, directory::IMPORT_NIGHT),
            Self::Export => (3, directory::EXPORT),
            Self::ReactiveImport => (3, directory::REACTIVE_IMPORT),
            Self::Voltage => (3, directory::VOLTAGE),
            Self::EventCode => (1, directory::EVENT_CODE),
        }
    }

    fn is(self, object: &CaptureObject) -> bool {
        let (class_id, logical_name) = self.object();
        object.descriptor == AttributeDescriptor { class_id, logical_name, attribute: 2 } && object.data_index == 0
    }
}

/// The profiles of a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    Load,
    Daily,
    Events,
}

impl Profile {
    pub fn columns(self) -> &'static [Column] {
        use Column::*;
        match self {
            Self::Load => &[Clock, Status, Import, Export, ReactiveImport, Voltage],
            Self::Daily => &[Clock, Status, Import, ImportDay, ImportNight, Export],
            Self::Events => &[Clock, EventCode],
        }
    }
}

/// Bits of the profile status, 0-0:96.10.1*255.
mod status {
    pub const CLOCK_INVALID: u8 = 0x02;
    pub const DAYLIGHT_SAVING: u8 = 0x08;
    pub const CLOCK_ADJUSTED: u8 = 0x20;
}

/// Days of billing values that a meter holds.
pub(super) const DAILY_ENTRIES: u32 = 400;

/// Consecutive lines of one stretch of the clock: capture moments `first` to `last`.
#[derive(Clone, Copy, Debug)]
struct Run {
    stretch: Stretch,
    end_us: i64,
    adjusted: bool,
    first: i64,
    last: i64,
}

impl Run {
    fn lines(&self) -> i64 {
        (self.last - self.first + 1).max(0)
    }
}

/// The columns wanted, in the order wanted.
struct Columns {
    columns: [Column; 6],
    count: usize,
}

impl Columns {
    fn all(profile: Profile) -> Self {
        Self::some(profile.columns().iter().copied())
    }

    fn some(wanted: impl Iterator<Item = Column>) -> Self {
        let mut columns = Self { columns: [Column::Clock; 6], count: 0 };
        for column in wanted.take(6) {
            columns.columns[columns.count] = column;
            columns.count += 1;
        }
        columns
    }

    fn as_slice(&self) -> &[Column] {
        &self.columns[..self.count]
    }

    /// The columns of a selection; a column that the profile does not have is a *no*.
    fn of(profile: Profile, selection: Option<&Selection>) -> Result<Self, DataAccessResult> {
        let all = profile.columns();
        match selection {
            None => Ok(Self::all(profile)),
            Some(Selection::Range(range)) if range.columns.is_empty() => Ok(Self::all(profile)),
            Some(Selection::Range(range)) => {
                if range.columns.len() > all.len() {
                    return Err(DataAccessResult::ScopeOfAccessViolated);
                }
                let mut wanted = Self::some([].into_iter());
                for object in &range.columns {
                    let column = all.iter().find(|column| column.is(object));
                    wanted.columns[wanted.count] = *column.ok_or(DataAccessResult::ObjectUndefined)?;
                    wanted.count += 1;
                }
                Ok(wanted)
            }
            Some(Selection::Entry(entry)) => {
                let first = usize::from(entry.from_column.max(1)) - 1;
                let last = if entry.to_column == 0 { all.len() } else { usize::from(entry.to_column).min(all.len()) };
                Ok(Self::some(all.get(first..last).unwrap_or_default().iter().copied()))
            }
        }
    }
}

/// The moments of a range selection in microseconds; an unknown end is open.
///
/// # Errors
/// The profile is not sorted by the restricting object.
fn range(selection: Option<&Selection>) -> Result<[i64; 2], DataAccessResult> {
    match selection {
        Some(Selection::Range(range)) if !Column::Clock.is(&range.restricting_object) => {
            Err(DataAccessResult::ScopeOfAccessViolated)
        }
        Some(Selection::Range(range)) => {
            let to = if range.to == WallTime::UNKNOWN { i64::MAX } else { range.to.0 };
            Ok([range.from.0, to])
        }
        _ => Ok([i64::MIN, i64::MAX]),
    }
}

/// The lines of an entry selection, counted from 0, as `first..end`.
fn entries(selection: Option<&Selection>, count: i64) -> [i64; 2] {
    match selection {
        Some(Selection::Entry(entry)) => {
            let first = i64::from(entry.from_entry.max(1)) - 1;
            let end = if entry.to_entry == 0 { count } else { i64::from(entry.to_entry).min(count) };
            [first, end.max(first)]
        }
        _ => [0, count],
    }
}

impl VirtualMeter {
    /// Append the buffer of a profile, or what a selection picks from it.
    pub(super) fn buffer(
        &self,
        profile: Profile,
        selection: Option<&Selection>,
        now: WallTime,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult> {
        let columns = Columns::of(profile, selection)?;
        let range = range(selection)?;
        if profile == Profile::Events {
            self.write_events(columns.as_slice(), selection, range, now, out);
            return Ok(());
        }
        let mut runs = self.runs(profile, now);
        for run in &mut runs {
            narrow(run, self.schedule(profile), range);
        }
        let [first, end] = entries(selection, runs.iter().map(Run::lines).sum());
        let mut passed = 0;
        for run in &mut runs {
            let lines = run.lines();
            run.last = run.last.min(run.first + end - passed - 1);
            run.first += (first - passed).clamp(0, lines);
            passed += lines;
        }
        let count: i64 = runs.iter().map(Run::lines).sum();
        if columns.count == 0 {
            encode::array(out, 0);
            return Ok(());
        }
        out.reserve(count as usize * (columns.count * 5 + 12) + 6);
        encode::array(out, count as usize);
        let mut writer = Writer::new(self, profile);
        for run in runs.iter().filter(|run| run.lines() > 0) {
            for number in run.first..=run.last {
                writer.write(columns.as_slice(), run, number, out);
            }
        }
        Ok(())
    }

    /// How many lines a profile holds.
    pub(super) fn entries_in_use(&self, profile: Profile, now: WallTime) -> u32 {
        match profile {
            Profile::Events => self.event_lines(now).len() as u32,
            _ => self.runs(profile, now).iter().map(Run::lines).sum::<i64>() as u32,
        }
    }

    /// How many lines a profile can hold.
    pub(super) fn profile_entries(&self, profile: Profile) -> u32 {
        match profile {
            Profile::Load => self.fleet.spec().profile_entries,
            Profile::Daily => DAILY_ENTRIES,
            Profile::Events => EVENT_ENTRIES as u32,
        }
    }

    pub(super) fn schedule(&self, profile: Profile) -> Schedule {
        match profile {
            Profile::Daily => Schedule::Midnight(self.fleet.spec().zone),
            _ => Schedule::Every(i64::from(self.fleet.spec().capture_period_s)),
        }
    }

    /// The lines that a profile holds, by stretches of the clock, oldest first.
    fn runs(&self, profile: Profile, now: WallTime) -> Vec<Run> {
        let schedule = self.schedule(profile);
        let stretches = self.stretches();
        let forgotten_us = self.changes.as_ref().map_or(i64::MIN, |changes| changes.forgotten_us);
        let mut runs: Vec<Run> = stretches
            .as_slice()
            .iter()
            .enumerate()
            .map(|(index, stretch)| {
                let next = stretches.as_slice().get(index + 1).map_or(i64::MAX, |next| next.true_us);
                let end_us = next.min(now.0).max(stretch.true_us);
                let begin_us = stretch.true_us.max(forgotten_us).min(end_us);
                Run {
                    stretch: *stretch,
                    end_us,
                    adjusted: index > 0,
                    first: schedule.last_until(stretch.clock_at(begin_us)) + 1,
                    last: schedule.last_until(stretch.clock_at(end_us)),
                }
            })
            .collect();
        let mut surplus = runs.iter().map(Run::lines).sum::<i64>() - i64::from(self.profile_entries(profile));
        for run in &mut runs {
            let dropped = surplus.clamp(0, run.lines());
            run.first += dropped;
            surplus -= dropped;
        }
        runs
    }

    /// The greatest mean power over a capture period in the running month, and when that period ended (clock, µs).
    pub(super) fn maximum_demand(&self, now: WallTime) -> (i64, i64) {
        let zone = self.fleet.spec().zone;
        let schedule = self.schedule(Profile::Load);
        let month_s = zone.month_start(self.clock_us(now).div_euclid(WallTime::SECOND));
        let mut runs = self.runs(Profile::Load, now);
        let mut best = (0, month_s * WallTime::SECOND);
        let mut reader = Reader::new(self);
        for run in &mut runs {
            narrow(run, schedule, [month_s * WallTime::SECOND, i64::MAX]);
            let mut before = None;
            for number in run.first..=run.last {
                let energy = reader.energy(true_second(run, schedule.clock_s(number))).import();
                if let Some(before) = before {
                    let power = (energy - before) * 3_600 / i64::from(self.fleet.spec().capture_period_s);
                    if power > best.0 {
                        best = (power, schedule.clock_s(number) * WallTime::SECOND);
                    }
                }
                before = Some(energy);
            }
        }
        best
    }

    /// The event log's lines: the grid's, drawn by the seed, and those that somebody caused.
    pub(super) fn event_lines(&self, now: WallTime) -> Vec<Event> {
        const WEEK_US: i64 = 7 * 86_400 * WallTime::SECOND;
        let stretches = self.stretches();
        let mut lines = Vec::new();
        let start = self.fleet.spec().start.0;
        let (first, last) = (start.div_euclid(WEEK_US), now.0.div_euclid(WEEK_US));
        for week in first.max(last - 500)..=last {
            let draw = noise(self.seed, 9_010, week);
            let (code, again, length_s) = match draw % 40 {
                0..=2 => (event::POWER_DOWN, event::POWER_UP, 1 + below(draw, 170)),
                3 => (event::COVER_REMOVED, event::COVER_CLOSED, 300 + below(draw, 3_000)),
                _ => continue,
            };
            let at_us = week * WEEK_US + i64::from(below(draw << 16, 600_000)) * WallTime::SECOND;
            for (code, true_us) in [(code, at_us), (again, at_us + i64::from(length_s) * WallTime::SECOND)] {
                if true_us >= start && true_us <= now.0 {
                    let stretch = stretches.at(true_us);
                    lines.push((true_us, Event { clock_us: stretch.clock_at(true_us), code }));
                }
            }
        }
        if let Some(changes) = &self.changes {
            lines.extend(changes.events.iter().copied());
        }
        lines.sort_by_key(|(true_us, _)| *true_us);
        let surplus = lines.len().saturating_sub(EVENT_ENTRIES);
        lines.drain(..surplus);
        lines.into_iter().map(|(_, event)| event).collect()
    }

    fn write_events(
        &self,
        columns: &[Column],
        selection: Option<&Selection>,
        [from, to]: [i64; 2],
        now: WallTime,
        out: &mut Vec<u8>,
    ) {
        let mut lines = self.event_lines(now);
        lines.retain(|event| event.clock_us >= from && event.clock_us <= to);
        let [first, end] = entries(selection, lines.len() as i64);
        let lines = lines.get(first as usize..end as usize).unwrap_or_default();
        encode::array(out, if columns.is_empty() { 0 } else { lines.len() });
        for event in lines.iter().filter(|_| !columns.is_empty()) {
            encode::structure(out, columns.len() as u8);
            for column in columns {
                match column {
                    Column::Clock => encode::date_time(out, self.date_time_octets(event.clock_us)),
                    _ => encode::unsigned(out, event.code),
                }
            }
        }
    }
}

/// Leave of a run the lines whose clock is within a range (microseconds, both included).
fn narrow(run: &mut Run, schedule: Schedule, [from, to]: [i64; 2]) {
    if from > i64::MIN {
        // The calendar is asked about moments near the run only, so any range is safe.
        let from = from.clamp(run.stretch.clock_us, run.stretch.clock_at(run.end_us).max(run.stretch.clock_us) + 1);
        let last_before = schedule.last_until(from - 1);
        run.first = run.first.max(last_before + 1);
    }
    if to < i64::MAX {
        let to = to.clamp(run.stretch.clock_us - 1, run.stretch.clock_at(run.end_us).max(run.stretch.clock_us));
        run.last = run.last.min(schedule.last_until(to));
    }
}

/// The true second at which a run's clock showed `clock_s`.
fn true_second(run: &Run, clock_s: i64) -> i64 {
    let true_us = run.stretch.moment_of(clock_s * WallTime::SECOND).clamp(run.stretch.true_us, run.end_us);
    true_us.div_euclid(WallTime::SECOND)
}

/// Reads the registers at many moments, in order, and keeps the day's curve between them.
struct Reader<'a> {
    meter: &'a VirtualMeter,
    curve: Option<DayCurve>,
}

impl<'a> Reader<'a> {
    fn new(meter: &'a VirtualMeter) -> Self {
        Self { meter, curve: None }
    }

    fn energy(&mut self, at_s: i64) -> Energy {
        if !self.curve.as_ref().is_some_and(|curve| curve.holds(at_s)) {
            self.curve = Some(self.meter.consumption.curve(at_s));
        }
        // The curve was put there two lines above if it was not there.
        let consumed = self.curve.as_ref().map_or_else(Energy::default, |curve| curve.energy(at_s));
        self.meter.counted(consumed, at_s)
    }
}

/// Writes lines in order.
struct Writer<'a> {
    reader: Reader<'a>,
    schedule: Schedule,
    day: LocalDay,
    clock_invalid: bool,
}

impl<'a> Writer<'a> {
    fn new(meter: &'a VirtualMeter, profile: Profile) -> Self {
        Self {
            reader: Reader::new(meter),
            schedule: meter.schedule(profile),
            day: meter.fleet.spec().zone.day(0),
            clock_invalid: meter.clock_invalid(),
        }
    }

    fn write(&mut self, columns: &[Column], run: &Run, number: i64, out: &mut Vec<u8>) {
        let meter = self.reader.meter;
        let zone = meter.fleet.spec().zone;
        let clock_s = self.schedule.clock_s(number);
        if !self.day.holds(clock_s) {
            self.day = zone.day(zone.day_number(clock_s));
        }
        let offset_s = self.day.offset_s(clock_s);
        let summer = offset_s != zone.standard_offset_s();
        let true_s = true_second(run, clock_s);
        let energy = self.reader.energy(true_s);
        encode::structure(out, columns.len() as u8);
        for column in columns {
            match column {
                Column::Clock => {
                    let status = clock_status(summer, self.clock_invalid);
                    let octets = encode::date_time_octets(clock_s * WallTime::SECOND, offset_s, status);
                    encode::date_time(out, octets);
                }
                Column::Status => {
                    let first = run.adjusted && number == self.schedule.last_until(run.stretch.clock_us) + 1;
                    let mut status = 0;
                    for (bit, set) in [
                        (status::CLOCK_INVALID, self.clock_invalid),
                        (status::DAYLIGHT_SAVING, summer),
                        (status::CLOCK_ADJUSTED, first),
                    ] {
                        status |= if set { bit } else { 0 };
                    }
                    encode::unsigned(out, status);
                }
                Column::Import => encode::double_long_unsigned(out, energy.import() as u32),
                Column::ImportDay => encode::double_long_unsigned(out, energy.import_day as u32),
                Column::ImportNight => encode::double_long_unsigned(out, energy.import_night as u32),
                Column::Export => encode::double_long_unsigned(out, energy.export as u32),
                Column::ReactiveImport => encode::double_long_unsigned(out, energy.reactive_import as u32),
                Column::Voltage => encode::long_unsigned(out, meter.consumption.voltage_dv(0, true_s - 1)),
                Column::EventCode => encode::unsigned(out, 0),
            }
        }
    }
}

/// The status octet of a date-time (Blue Book, "Date and time formats"): invalid value, daylight saving active.
pub(super) fn clock_status(summer: bool, invalid: bool) -> u8 {
    u8::from(invalid) | u8::from(summer) << 7
}
