//! The answers: every attribute and method of the objects in the directory.

use std::sync::Arc;

use ipss_dlms::axdr::DateTime;
use ipss_dlms::cosem::{
    ActionResult, AttributeDescriptor, DataAccessResult, LogicalName, MethodDescriptor, Selection, ShortNames,
};
use ipss_dlms::meter::{Access, Objects};
use ipss_dlms::security::setup::{Method, NewKeys};
use ipss_dlms::security::{Key, derive};
use ipss_session::{CivilDateTime, Now, ProtocolError, WallTime};

use super::directory::{self, Item, Object, Quantity, Role};
use super::encode;
use super::fault::Fault;
use super::image::{self, Calendar, Image};
use super::profile::{Column, Profile};
use super::random::{between, noise};
use super::state::{Limits, Supply, event};
use super::timebase::Schedule;
use super::{Energy, VirtualMeter};

/// Units of measure (Blue Book, "Register", enumeration of physical units).
mod unit {
    pub const WATT: u8 = 27;
    pub const WATT_HOUR: u8 = 30;
    pub const VAR_HOUR: u8 = 32;
    pub const AMPERE: u8 = 33;
    pub const VOLT: u8 = 35;
    pub const HERTZ: u8 = 44;
    pub const NONE: u8 = 255;
}

/// What the push setup sends: class, name, attribute.
const PUSHED: [(u16, LogicalName, i8); 4] = [
    (1, LogicalName::LOGICAL_DEVICE_NAME, 2),
    (8, LogicalName::CLOCK, 2),
    (3, directory::IMPORT, 2),
    (3, directory::EXPORT, 2),
];

impl Objects for VirtualMeter {
    fn get(
        &mut self,
        access: Access,
        descriptor: AttributeDescriptor,
        selection: Option<&Selection>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult> {
        self.settle(now.wall);
        let object = self.object(descriptor.logical_name, descriptor.class_id)?;
        let role = Role::of(access);
        if !object.has_attribute(descriptor.attribute) {
            return Err(DataAccessResult::ObjectUndefined);
        }
        if !object.readable(role, descriptor.attribute) {
            return Err(DataAccessResult::ReadWriteDenied);
        }
        if selection.is_some() && !(object.class_id == 7 && descriptor.attribute == 2) {
            return Err(DataAccessResult::ScopeOfAccessViolated);
        }
        let before = out.len();
        let done = self.answer(access, object, descriptor.attribute, selection, now.wall, out);
        if done.is_err() {
            out.truncate(before);
        }
        done
    }

    fn set(&mut self, access: Access, descriptor: AttributeDescriptor, value: &[u8], now: Now) -> DataAccessResult {
        self.settle(now.wall);
        let object = match self.object(descriptor.logical_name, descriptor.class_id) {
            Ok(object) => object,
            Err(no) => return no,
        };
        if !object.has_attribute(descriptor.attribute) {
            return DataAccessResult::ObjectUndefined;
        }
        if !object.writable_by(Role::of(access), descriptor.attribute) {
            return DataAccessResult::ReadWriteDenied;
        }
        match self.write(object.item, descriptor.attribute, value, now.wall) {
            Ok(()) => DataAccessResult::Success,
            Err(no) => no,
        }
    }

    fn act(
        &mut self,
        access: Access,
        method: MethodDescriptor,
        parameters: Option<&[u8]>,
        now: Now,
        _out: &mut Vec<u8>,
    ) -> ActionResult {
        self.settle(now.wall);
        let object = match self.object(method.logical_name, method.class_id) {
            Ok(object) => object,
            Err(DataAccessResult::ObjectClassInconsistent) => return ActionResult::ObjectClassInconsistent,
            Err(_) => return ActionResult::ObjectUndefined,
        };
        if !(1..=object.methods).contains(&method.method) {
            return ActionResult::ObjectUndefined;
        }
        if !object.callable_by(Role::of(access), method.method) {
            return ActionResult::ReadWriteDenied;
        }
        self.invoke(object.item, method.method, parameters, now.wall)
    }

    fn short_names(&mut self) -> Option<Arc<ShortNames>> {
        Some(directory::short_names(self.consumption.three_phase))
    }

    fn push_due(&mut self, now: Now) -> Option<Vec<u8>> {
        self.take_push_due().then(|| {
            let mut body = Vec::with_capacity(64);
            self.push_body(now, &mut body);
            body
        })
    }

    fn new_keys(&mut self) -> Option<NewKeys> {
        self.changes.as_mut()?.new_keys.take().map(|keys| *keys)
    }

    fn counter_believed(&mut self, counter: u32) {
        self.invocation_counter = self.invocation_counter.max(counter);
    }
}

impl VirtualMeter {
    /// Append what a push of this meter carries: a structure of the push object list's values.
    pub fn push_body(&self, now: Now, out: &mut Vec<u8>) {
        encode::structure(out, PUSHED.len() as u8);
        encode::octet_string(out, &self.identity().device_name);
        encode::date_time(out, self.date_time_octets(self.clock_us(now.wall)));
        let energy = self.energy(now.wall);
        encode::double_long_unsigned(out, energy.import() as u32);
        encode::double_long_unsigned(out, energy.export as u32);
    }

    fn object(&self, name: LogicalName, class_id: u16) -> Result<&'static Object, DataAccessResult> {
        let object = directory::find(name, self.consumption.three_phase).ok_or(DataAccessResult::ObjectUndefined)?;
        if object.class_id == class_id { Ok(object) } else { Err(DataAccessResult::ObjectClassInconsistent) }
    }

    fn answer(
        &self,
        access: Access,
        object: &Object,
        attribute: i8,
        selection: Option<&Selection>,
        now: WallTime,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult> {
        if attribute == 1 {
            encode::logical_name(out, object.name);
            return Ok(());
        }
        match object.item {
            Item::DeviceName => encode::octet_string(out, &self.identity().device_name),
            Item::Serial => encode::octet_string(out, &self.identity().serial),
            Item::Firmware => {
                let running = self.changes.as_ref().and_then(|changes| changes.firmware.as_deref());
                let delivered = concat!("virtual ", env!("CARGO_PKG_VERSION")).as_bytes();
                encode::octet_string(out, running.unwrap_or(delivered));
            }
            Item::InvocationCounter => encode::double_long_unsigned(out, self.invocation_counter),
            Item::ProfileStatus => encode::unsigned(out, u8::from(self.clock_invalid()) << 1),
            Item::LastEvent => encode::unsigned(out, self.event_lines(now).last().map_or(0, |event| event.code)),
            Item::Clock => self.clock_attribute(attribute, now, out),
            Item::Register(quantity) => match attribute {
                2 => self.measure(quantity, now, out),
                _ => scaler_unit(out, quantity),
            },
            Item::MaximumDemand => self.maximum_demand_attribute(attribute, now, out),
            Item::Demand => self.demand_attribute(attribute, now, out),
            Item::LoadProfile => return self.profile_attribute(Profile::Load, attribute, selection, now, out),
            Item::DailyProfile => return self.profile_attribute(Profile::Daily, attribute, selection, now, out),
            Item::EventLog => return self.profile_attribute(Profile::Events, attribute, selection, now, out),
            Item::Association => self.association_attribute(access, attribute, out),
            Item::ServiceAccessPoints => {
                encode::array(out, 1);
                encode::structure(out, 2);
                encode::long_unsigned(out, 1);
                encode::octet_string(out, &self.identity().device_name);
            }
            Item::SecuritySetup => match attribute {
                // Version 0: all messages authenticated and encrypted; suite 0; any client's system title.
                2 => encode::enumeration(out, 3),
                3 => encode::enumeration(out, 0),
                4 => encode::octet_string(out, &[]),
                _ => encode::octet_string(out, &self.identity().system_title),
            },
            Item::Disconnector => match attribute {
                2 => encode::boolean(out, self.supply() == Supply::Connected),
                3 => encode::enumeration(out, self.supply() as u8),
                _ => encode::enumeration(out, self.mode()),
            },
            Item::PushSetup => push_attribute(attribute, out),
            Item::Limiter => self.limiter_attribute(attribute, now, out),
            Item::ImageTransfer => {
                image::attribute(self.changes.as_ref().and_then(|changes| changes.image.as_deref()), attribute, out);
            }
            // The moment at which the passive calendar becomes the active one: none is set.
            Item::ActivityCalendar if attribute == 10 => encode::date_time(out, [0xFF; 12]),
            Item::ActivityCalendar => match self.changes.as_ref().and_then(|changes| changes.calendar.as_deref()) {
                Some(calendar) => calendar.attribute(attribute, out),
                None => Calendar::default().attribute(attribute, out),
            },
        }
        Ok(())
    }

    fn clock_attribute(&self, attribute: i8, now: WallTime, out: &mut Vec<u8>) {
        let zone = self.fleet.spec().zone;
        let clock_us = self.clock_us(now);
        // Last Sunday of March and October at 2 and 3 o'clock local time, in Central Europe.
        let change = |month: u8, summer_s: i64| {
            let hour = (3_600 + zone.standard_offset_s() + summer_s).rem_euclid(86_400) / 3_600;
            let deviation = (-(zone.standard_offset_s() + summer_s) / 60) as i16;
            let [high, low] = deviation.to_be_bytes();
            [0xff, 0xff, month, 0xfe, 7, hour as u8, 0, 0, 0, high, low, if summer_s > 0 { 0x80 } else { 0 }]
        };
        match attribute {
            2 => encode::date_time(out, self.date_time_octets(clock_us)),
            3 => encode::long(out, zone.deviation_min),
            4 => encode::unsigned(out, self.date_time_octets(clock_us)[11]),
            5 => encode::date_time(out, change(3, 0)),
            6 => encode::date_time(out, change(10, 3_600)),
            7 => encode::integer(out, 60),
            8 => encode::boolean(out, zone.daylight_saving),
            _ => encode::enumeration(out, 1),
        }
    }

    /// Append a register's value. Instantaneous values are the means of the running quarter-hour.
    fn measure(&self, quantity: Quantity, now: WallTime, out: &mut Vec<u8>) {
        let at_s = now.0.div_euclid(WallTime::SECOND);
        let count = |out: &mut Vec<u8>, pick: fn(Energy) -> i64| {
            encode::double_long_unsigned(out, pick(self.energy(now)) as u32);
        };
        match quantity {
            Quantity::Import => count(out, |energy| energy.import()),
            Quantity::ImportDay => count(out, |energy| energy.import_day),
            Quantity::ImportNight => count(out, |energy| energy.import_night),
            Quantity::Export => count(out, |energy| energy.export),
            Quantity::ReactiveImport => count(out, |energy| energy.reactive_import),
            Quantity::ReactiveExport => count(out, |energy| energy.reactive_export),
            Quantity::ImportPower => encode::double_long_unsigned(out, self.power_w(at_s)[0] as u32),
            Quantity::ExportPower => encode::double_long_unsigned(out, self.power_w(at_s)[1] as u32),
            Quantity::PowerFactor => encode::long_unsigned(out, self.consumption.power_factor_thousandths() as u16),
            Quantity::Frequency => {
                encode::long_unsigned(out, (5_000 + between(noise(9_020, 0, at_s), -4, 4)) as u16);
            }
            Quantity::Voltage(phase) => encode::long_unsigned(out, self.consumption.voltage_dv(phase, at_s)),
            Quantity::Current(phase) => {
                let [import, export] = self.power_w(at_s);
                // Per cent of the load on each phase.
                let share = if self.consumption.three_phase { [45, 33, 22][usize::from(phase % 3)] } else { 100 };
                let apparent_va = (import + export) * 1_000 / self.consumption.power_factor_thousandths();
                let voltage_dv = i64::from(self.consumption.voltage_dv(phase, at_s));
                encode::long_unsigned(out, (apparent_va * share * 10 / voltage_dv).min(65_535) as u16);
            }
        }
    }

    /// Import and export at a moment, in watts.
    fn power_w(&self, at_s: i64) -> [i64; 2] {
        let running = self.supply() == Supply::Connected && at_s * WallTime::SECOND >= self.fleet.spec().start.0;
        if running { self.consumption.curve(at_s).power_w(at_s) } else { [0; 2] }
    }

    fn maximum_demand_attribute(&self, attribute: i8, now: WallTime, out: &mut Vec<u8>) {
        match attribute {
            2 => encode::double_long_unsigned(out, self.maximum_demand(now).0 as u32),
            3 => unit(out, 0, unit::WATT),
            4 => encode::unsigned(out, 0),
            _ => encode::date_time(out, self.date_time_octets(self.maximum_demand(now).1)),
        }
    }

    fn demand_attribute(&self, attribute: i8, now: WallTime, out: &mut Vec<u8>) {
        let schedule = self.schedule(Profile::Load);
        let period_s = self.fleet.spec().capture_period_s;
        let number = schedule.last_until(self.clock_us(now));
        let begun_us = schedule.clock_s(number) * WallTime::SECOND;
        let import_at = |number: i64| {
            let last = *self.stretches().at(now.0);
            let moment = last
                .moment_of(schedule.clock_s(number) * WallTime::SECOND)
                .clamp(last.true_us, now.0.max(last.true_us));
            self.energy(WallTime(moment)).import()
        };
        let average = |energy: i64| (energy * 3_600 / i64::from(period_s)) as u32;
        match attribute {
            2 => encode::double_long_unsigned(out, average(self.energy(now).import() - import_at(number))),
            3 => encode::double_long_unsigned(out, average(import_at(number) - import_at(number - 1))),
            4 => unit(out, 0, unit::WATT),
            5 => encode::unsigned(out, 0),
            6 | 7 => encode::date_time(out, self.date_time_octets(begun_us)),
            8 => encode::double_long_unsigned(out, period_s),
            _ => encode::long_unsigned(out, 1),
        }
    }

    fn profile_attribute(
        &self,
        profile: Profile,
        attribute: i8,
        selection: Option<&Selection>,
        now: WallTime,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult> {
        match attribute {
            2 => return self.buffer(profile, selection, now, out),
            3 => {
                encode::array(out, profile.columns().len());
                profile.columns().iter().for_each(|column| capture_object(out, *column));
            }
            4 => {
                let period_s = match (profile, self.schedule(profile)) {
                    (Profile::Events, _) => 0,
                    (_, Schedule::Every(period_s)) => period_s,
                    (_, Schedule::Midnight(_)) => 86_400,
                };
                encode::double_long_unsigned(out, period_s as u32);
            }
            // First in, first out; sorted by the clock by nature.
            5 => encode::enumeration(out, 1),
            6 => capture_object(out, Column::Clock),
            7 => encode::double_long_unsigned(out, self.entries_in_use(profile, now)),
            _ => encode::double_long_unsigned(out, self.profile_entries(profile)),
        }
        Ok(())
    }

    fn association_attribute(&self, access: Access, attribute: i8, out: &mut Vec<u8>) {
        let role = Role::of(access);
        let public = role == Role::Public;
        match attribute {
            2 => directory::list(role, self.consumption.three_phase, out),
            3 => {
                encode::structure(out, 2);
                encode::integer(out, access.client as i8);
                encode::long_unsigned(out, 1);
            }
            // joint-iso-ccitt(2) country(16) country-name(756) identified-organisation(5) DLMS-UA(8):
            // application context 1 is LN referencing, 3 with ciphering; mechanism 0 is none, 5 HLS with GMAC.
            4 => encode::octet_string(out, &[0x60, 0x85, 0x74, 5, 8, 1, if public { 1 } else { 3 }]),
            5 => {
                encode::structure(out, 6);
                // General protection, priorities, blocks with GET, multiple references, GET, SET, selective access,
                // ACTION.
                out.extend_from_slice(&[4, 24, 0x40, 0x52, 0x1d]);
                encode::long_unsigned(out, 0xffff);
                encode::long_unsigned(out, 0xffff);
                encode::unsigned(out, 6);
                encode::integer(out, 0);
                encode::octet_string(out, &[]);
            }
            6 => encode::octet_string(out, &[0x60, 0x85, 0x74, 5, 8, 2, if public { 0 } else { 5 }]),
            8 => encode::enumeration(out, 2),
            _ => encode::logical_name(out, directory::SECURITY_SETUP),
        }
    }

    fn limits(&self) -> Limits {
        self.changes.as_ref().map_or_else(Limits::default, |changes| changes.limits)
    }

    fn mode(&self) -> u8 {
        self.changes.as_ref().map_or(super::state::DELIVERED_MODE, |changes| changes.mode)
    }

    fn limiter_attribute(&self, attribute: i8, now: WallTime, out: &mut Vec<u8>) {
        let limits = self.limits();
        match attribute {
            2 => {
                encode::structure(out, 3);
                encode::long_unsigned(out, 3);
                encode::octet_string(out, &[1, 0, 1, 7, 0, 255]);
                encode::integer(out, 2);
            }
            3 | 4 => encode::double_long_unsigned(out, limits.normal_w),
            5 => encode::double_long_unsigned(out, limits.emergency_w),
            6 => encode::double_long_unsigned(out, limits.over_s),
            7 => encode::double_long_unsigned(out, limits.under_s),
            8 => {
                encode::structure(out, 3);
                encode::long_unsigned(out, 0);
                encode::date_time(out, self.date_time_octets(self.clock_us(now)));
                encode::double_long_unsigned(out, 0);
            }
            9 => encode::array(out, 0),
            10 => encode::boolean(out, false),
            _ => {
                encode::structure(out, 2);
                for selector in [1, 2] {
                    encode::structure(out, 2);
                    encode::octet_string(out, &[0, 0, 10, 0, 106, 255]);
                    encode::long_unsigned(out, selector);
                }
            }
        }
    }

    fn write(&mut self, item: Item, attribute: i8, value: &[u8], now: WallTime) -> Result<(), DataAccessResult> {
        match (item, attribute) {
            (Item::Clock, _) => {
                let date_time = encode::date_time_of(value).ok_or(DataAccessResult::TypeUnmatched)?;
                let clock_us = self.moment_of(date_time).ok_or(DataAccessResult::OtherReason)?;
                self.set_clock(clock_us, now);
            }
            (Item::Disconnector, _) => {
                let [mode] = encode::fixed(value, 22).ok_or(DataAccessResult::TypeUnmatched)?;
                if mode > 6 {
                    return Err(DataAccessResult::OtherReason);
                }
                self.changes_mut().mode = mode;
            }
            (Item::Limiter, _) => {
                let octets = encode::fixed(value, 6).ok_or(DataAccessResult::TypeUnmatched)?;
                let number = u32::from_be_bytes(octets);
                let limits = &mut self.changes_mut().limits;
                match attribute {
                    4 => limits.normal_w = number,
                    5 => limits.emergency_w = number,
                    6 => limits.over_s = number,
                    _ => limits.under_s = number,
                }
            }
            (Item::ActivityCalendar, _) => {
                self.changes_mut().calendar.get_or_insert_default().write(attribute, value)?;
            }
            _ => return Err(DataAccessResult::ReadWriteDenied),
        }
        Ok(())
    }

    /// The moment in microseconds of UTC that a date-time names; without a deviation it is local time.
    fn moment_of(&self, date_time: DateTime) -> Option<i64> {
        let zone = self.fleet.spec().zone;
        let wall = date_time.to_wall().filter(|wall| (1980..2100).contains(&CivilDateTime::from_wall(*wall).year))?;
        match date_time.deviation() {
            // Read as UTC so far; summer time is judged by the standard time that it would be.
            None => {
                let standard_s = wall.0.div_euclid(WallTime::SECOND) - zone.standard_offset_s();
                Some(wall.0 - zone.offset_s(standard_s) * WallTime::SECOND)
            }
            Some(deviation) => (-840..=840).contains(&deviation).then_some(wall.0),
        }
    }

    fn invoke(&mut self, item: Item, method: i8, parameters: Option<&[u8]>, now: WallTime) -> ActionResult {
        let at_s = now.0.div_euclid(WallTime::SECOND);
        match (item, method) {
            (Item::Clock, 6) => {
                let Some(shift) = parameters.and_then(|value| encode::fixed(value, 16)).map(i16::from_be_bytes) else {
                    return ActionResult::TypeUnmatched;
                };
                if !(-900..=900).contains(&shift) {
                    return ActionResult::OtherReason;
                }
                self.set_clock(self.clock_us(now) + i64::from(shift) * WallTime::SECOND, now);
            }
            (Item::Clock, _) => {
                let step_s = match method {
                    1 => 900,
                    2 => i64::from(self.fleet.spec().capture_period_s),
                    _ => 60,
                };
                let step_us = step_s * WallTime::SECOND;
                let clock_us = self.clock_us(now);
                self.set_clock((clock_us + step_us / 2).div_euclid(step_us) * step_us, now);
            }
            (Item::Disconnector, 1) => {
                // Mode 0: always connected.
                if self.mode() == 0 {
                    return ActionResult::OtherReason;
                }
                if self.supply() != Supply::Disconnected {
                    self.obey(Supply::Disconnected, event::REMOTE_DISCONNECTION, at_s);
                }
            }
            (Item::Disconnector, 2) => match (self.mode(), self.supply()) {
                (0, _) => return ActionResult::OtherReason,
                (2 | 4, Supply::Disconnected | Supply::ReadyForReconnection) => {
                    self.obey(Supply::Connected, event::REMOTE_RECONNECTION, at_s);
                }
                (_, Supply::Disconnected) => {
                    // The customer presses the button within five minutes.
                    let button_s = at_s + between(noise(self.seed, 9_030, at_s), 20, 300);
                    self.switch(Supply::ReadyForReconnection, event::READY_FOR_RECONNECTION, at_s);
                    self.changes_mut().button_s = button_s;
                }
                _ => {}
            },
            (Item::PushSetup, _) => self.push_due = true,
            (Item::ActivityCalendar, _) => self.changes_mut().calendar.get_or_insert_default().activate(),
            (Item::ImageTransfer, _) => return self.image_transfer(method, parameters.unwrap_or_default(), at_s),
            (Item::SecuritySetup, 2) => return self.take_keys(parameters).unwrap_or(ActionResult::OtherReason),
            // reply_to_HLS_authentication and the like are the session's.
            _ => return ActionResult::OtherReason,
        }
        ActionResult::Success
    }
}

impl VirtualMeter {
    /// The key under which new ones come.
    pub(super) fn master_key(&self) -> Key {
        let known = self.changes.as_ref().and_then(|changes| changes.master.clone());
        known.unwrap_or_else(|| self.fleet.master_key(self.index))
    }

    fn image_transfer(&mut self, method: i8, parameters: &[u8], at_s: i64) -> ActionResult {
        let fault = self.fault();
        let image = &mut self.changes_mut().image;
        if method == 1 {
            return match Image::initiate(parameters) {
                Ok(begun) => {
                    *image = Some(Box::new(begun));
                    ActionResult::Success
                }
                Err(no) => no,
            };
        }
        let Some(image) = image else { return ActionResult::OtherReason };
        match method {
            2 => image.block(parameters, fault == Some(Fault::Loses)),
            3 => image.verify(at_s),
            // Says yes and goes on with what it runs.
            _ if fault == Some(Fault::Lies) => ActionResult::Success,
            _ => image.activate(at_s),
        }
    }

    /// global_key_transfer: all keys or none. They come into use after the answer.
    fn take_keys(&mut self, parameters: Option<&[u8]>) -> Result<ActionResult, ProtocolError> {
        let parameters = parameters.unwrap_or_default();
        let Some(Method::KeyTransfer(wrapped)) = Method::decode(2, parameters, &ipss_session::Limits::default())?
        else {
            return Ok(ActionResult::TypeUnmatched);
        };
        let master = self.master_key();
        let suite = self.fleet.spec().security.suite;
        let mut keys = NewKeys::default();
        for (id, octets) in wrapped {
            keys.put(id, Key::for_suite(suite, derive::unwrap(&master, &octets)?.octets())?);
        }
        let changes = self.changes_mut();
        if keys.master.is_some() {
            changes.master.clone_from(&keys.master);
        }
        changes.new_keys = Some(Box::new(keys));
        Ok(ActionResult::Success)
    }
}

fn push_attribute(attribute: i8, out: &mut Vec<u8>) {
    match attribute {
        2 => {
            encode::array(out, PUSHED.len());
            for (class_id, name, attribute) in PUSHED {
                encode::structure(out, 4);
                encode::long_unsigned(out, class_id);
                encode::logical_name(out, name);
                encode::integer(out, attribute);
                encode::long_unsigned(out, 0);
            }
        }
        3 => {
            // TCP, to nowhere yet, as an A-XDR encoded xDLMS APDU.
            encode::structure(out, 3);
            encode::enumeration(out, 0);
            encode::octet_string(out, &[]);
            encode::enumeration(out, 0);
        }
        4 => encode::array(out, 0),
        5 => encode::long_unsigned(out, 0),
        6 => encode::unsigned(out, 0),
        _ => encode::long_unsigned(out, 0),
    }
}

fn capture_object(out: &mut Vec<u8>, column: Column) {
    let (class_id, name) = column.object();
    encode::structure(out, 4);
    encode::long_unsigned(out, class_id);
    encode::logical_name(out, name);
    encode::integer(out, 2);
    encode::long_unsigned(out, 0);
}

fn scaler_unit(out: &mut Vec<u8>, quantity: Quantity) {
    match quantity {
        Quantity::Import | Quantity::ImportDay | Quantity::ImportNight | Quantity::Export => {
            unit(out, 0, unit::WATT_HOUR);
        }
        Quantity::ReactiveImport | Quantity::ReactiveExport => unit(out, 0, unit::VAR_HOUR),
        Quantity::ImportPower | Quantity::ExportPower => unit(out, 0, unit::WATT),
        Quantity::PowerFactor => unit(out, -3, unit::NONE),
        Quantity::Frequency => unit(out, -2, unit::HERTZ),
        Quantity::Voltage(_) => unit(out, -1, unit::VOLT),
        Quantity::Current(_) => unit(out, -2, unit::AMPERE),
    }
}

fn unit(out: &mut Vec<u8>, scaler: i8, unit: u8) {
    encode::structure(out, 2);
    encode::integer(out, scaler);
    encode::enumeration(out, unit);
}
