//! Virtual meters: a fleet that can be read like a real one, in little memory and the same on every run.
//!
//! Whatever a virtual meter says is a function of the fleet's seed, the meter's number and the moment, and of the few
//! things that somebody did to it (switched it, set its clock, wrote a threshold). Nothing is recorded while time
//! passes: a load profile of a year is computed when it is asked for. So an untouched meter takes about 100 octets, and
//! registers, profiles and maximum demand agree with each other to the watt-hour.
//!
//! ```
//! use ipss_core::virtual_meter::{Fleet, FleetSpec};
//! use ipss_session::{Now, WallTime};
//!
//! let fleet = Fleet::new(FleetSpec { seed: 7, count: 100, ..FleetSpec::default() })?;
//! let meter = fleet.meter(42);
//! let at = |day: i64| WallTime(fleet.spec().start.0 + day * 86_400 * WallTime::SECOND);
//!
//! assert!(meter.energy(at(2)).import() > meter.energy(at(1)).import());
//! # Ok::<(), ipss_core::virtual_meter::SpecError>(())
//! ```
//!
//! A [`VirtualMeter`] is the [`Objects`](ipss_dlms::meter::Objects) behind a meter-role session;
//! [`Fleet::session`] puts both together, with the keys and the faults that the session commits.

mod behind;
mod calendar;
pub(crate) mod consumption;
mod directory;
mod encode;
mod fault;
mod fleet;
mod image;
mod objects;
mod profile;
pub(crate) mod random;
pub(crate) mod season;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod timebase;

use std::sync::Arc;

use ipss_session::WallTime;

pub use behind::VirtualSession;
pub use calendar::Zone;
use consumption::Consumption;
pub use consumption::{Energy, Kind};
pub use fault::{Fault, Faults};
pub use fleet::{CSV_HEADER, Fleet, FleetSpec, Identity, Mix, Security, SpecError};
use random::{between, noise};
pub use state::Supply;
use state::{Changes, Event, Switching, event};
use timebase::Stretch;

/// One meter of a fleet.
#[derive(Debug)]
pub struct VirtualMeter {
    fleet: Arc<Fleet>,
    index: u32,
    seed: u64,
    consumption: Consumption,
    invocation_counter: u32,
    push_due: bool,
    changes: Option<Box<Changes>>,
}

/// The stretches of a meter's clock: the first is computed as long as there is no other.
enum Stretches<'a> {
    One([Stretch; 1]),
    Many(&'a [Stretch]),
}

impl Stretches<'_> {
    fn as_slice(&self) -> &[Stretch] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }

    /// The stretch that holds a true moment, the first for moments before it.
    fn at(&self, true_us: i64) -> &Stretch {
        let all = self.as_slice();
        let later = all.partition_point(|stretch| stretch.true_us <= true_us);
        // There is always a first stretch.
        &all[later.saturating_sub(1)]
    }
}

impl VirtualMeter {
    fn new(fleet: Arc<Fleet>, index: u32) -> Self {
        let spec = fleet.spec();
        let seed = noise(spec.seed, 9_000, i64::from(index));
        let start_s = spec.start.0.div_euclid(WallTime::SECOND);
        let consumption = Consumption::new(seed, fleet.kind(index), spec.latitude_deg, spec.zone, start_s);
        Self { fleet, index, seed, consumption, invocation_counter: 0, push_due: false, changes: None }
    }

    /// Its number in the fleet, from 0.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its fleet.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Who it is and what opens it.
    pub fn identity(&self) -> Identity {
        self.fleet.identity(self.index)
    }

    /// What stands behind it.
    pub fn kind(&self) -> Kind {
        self.consumption.kind
    }

    /// What is wrong with it.
    pub fn fault(&self) -> Option<Fault> {
        self.fleet.fault(self.index)
    }

    /// What the energy registers show.
    pub fn energy(&self, now: WallTime) -> Energy {
        let at_s = now.0.div_euclid(WallTime::SECOND);
        self.counted(self.consumption.energy(at_s), at_s)
    }

    /// What the meter's clock shows, as UTC.
    pub fn clock(&self, now: WallTime) -> WallTime {
        WallTime(self.clock_us(now))
    }

    /// Whether somebody has invoked the push setup's push since the last call. Then [`VirtualMeter::push_body`] is
    /// what the meter has to send.
    pub fn take_push_due(&mut self) -> bool {
        std::mem::take(&mut self.push_due)
    }

    /// Octets that the meter takes, what it shares with its fleet not counted.
    pub fn memory(&self) -> usize {
        let changes = self.changes.as_ref().map_or(0, |changes| {
            size_of::<Changes>()
                + changes.stretches.capacity() * size_of::<Stretch>()
                + changes.switchings.capacity() * size_of::<Switching>()
                + changes.events.capacity() * size_of::<(i64, Event)>()
        });
        size_of::<Self>() + changes
    }

    /// What the registers show when `consumed` has been consumed until `at_s`: while supply is off they stand still.
    fn counted(&self, consumed: Energy, at_s: i64) -> Energy {
        match self.changes.as_ref().and_then(|changes| changes.switching_at(at_s)) {
            None => consumed,
            Some(Switching { on: true, energy, .. }) => consumed.minus(*energy),
            Some(Switching { energy, .. }) => *energy,
        }
    }

    /// Switch supply, now or at the last switching if that is later.
    fn switch(&mut self, supply: Supply, code: u8, at_s: i64) {
        let last_s = self.changes.as_ref().and_then(|changes| changes.switchings.last()).map_or(i64::MIN, |s| s.at_s);
        let at_s = at_s.max(last_s);
        let was_on = self.supply() == Supply::Connected;
        let on = supply == Supply::Connected;
        let consumed = self.consumption.energy(at_s);
        let shown = self.counted(consumed, at_s);
        let true_us = at_s * WallTime::SECOND;
        let clock_us = self.clock_us(WallTime(true_us));
        let changes = self.changes_mut();
        changes.supply = supply;
        if on != was_on {
            changes.push_switching(Switching { at_s, on, energy: if on { consumed.minus(shown) } else { shown } });
        }
        changes.push_event(true_us, Event { clock_us, code });
    }

    /// Switch because somebody asked for it, as the disconnector's fault lets it.
    fn obey(&mut self, supply: Supply, code: u8, at_s: i64) {
        match self.fault() {
            Some(Fault::Lies) => {}
            Some(Fault::Lags) => {
                let later_s = at_s + between(noise(self.seed, 9_031, at_s), 2, 8);
                self.changes_mut().lagging = Some((later_s, supply, code));
            }
            _ => self.switch(supply, code, at_s),
        }
    }

    /// Let happen what the customer has done until now: the button that reconnects.
    fn settle(&mut self, now: WallTime) {
        let now_s = now.0.div_euclid(WallTime::SECOND);
        if let Some(changes) = &mut self.changes {
            let running = changes.image.as_mut().and_then(|image| image.settle(now_s));
            changes.firmware = running.or(changes.firmware.take());
        }
        let lagging = self.changes.as_ref().and_then(|changes| changes.lagging);
        if let Some((at_s, supply, code)) = lagging.filter(|(at_s, ..)| *at_s <= now_s) {
            self.changes_mut().lagging = None;
            self.switch(supply, code, at_s);
        }
        let due = self.changes.as_ref().filter(|changes| changes.supply == Supply::ReadyForReconnection);
        if let Some(button_s) = due.map(|changes| changes.button_s).filter(|button_s| *button_s <= now_s) {
            self.switch(Supply::Connected, event::MANUAL_RECONNECTION, button_s);
        }
    }

    fn supply(&self) -> Supply {
        self.changes.as_ref().map_or(Supply::Connected, |changes| changes.supply)
    }

    /// What the meter's clock shows, in microseconds of UTC.
    fn clock_us(&self, now: WallTime) -> i64 {
        self.stretches().at(now.0).clock_at(now.0)
    }

    /// Set the meter's clock.
    fn set_clock(&mut self, clock_us: i64, now: WallTime) {
        let before_us = self.clock_us(now);
        let last = *self.stretches().at(i64::MAX);
        let true_us = now.0.max(last.true_us);
        let changes = self.changes_mut();
        changes.clock_set = true;
        changes.push_stretch(Stretch { true_us, clock_us, drift: last.drift });
        changes.push_event(true_us, Event { clock_us: before_us, code: event::CLOCK_BEFORE });
        changes.push_event(true_us, Event { clock_us, code: event::CLOCK_AFTER });
    }

    /// Whether the meter itself knows that its clock is wrong: every other bad clock, until it is set.
    fn clock_invalid(&self) -> bool {
        self.seed & 1 == 1
            && self.fault() == Some(Fault::BadClock)
            && !self.changes.as_ref().is_some_and(|changes| changes.clock_set)
    }

    /// The octets of a date-time for a reading of the meter's clock.
    fn date_time_octets(&self, clock_us: i64) -> [u8; 12] {
        let zone = self.fleet.spec().zone;
        let clock_s = clock_us.div_euclid(WallTime::SECOND);
        let status = profile::clock_status(zone.summer_at(clock_s), self.clock_invalid());
        encode::date_time_octets(clock_us, zone.offset_s(clock_s), status)
    }

    fn stretches(&self) -> Stretches<'_> {
        match &self.changes {
            Some(changes) => Stretches::Many(&changes.stretches),
            None => Stretches::One([self.first_stretch()]),
        }
    }

    fn first_stretch(&self) -> Stretch {
        let (offset_us, drift) = self.fleet.clock_error(self.index);
        let true_us = self.fleet.spec().start.0;
        Stretch { true_us, clock_us: true_us + offset_us, drift }
    }

    fn changes_mut(&mut self) -> &mut Changes {
        let first = self.first_stretch();
        self.changes.get_or_insert_with(|| Box::new(Changes::new(first)))
    }
}
