//! Virtual inverters, storage and sub-meters behind the device's role of Modbus: SunSpec devices that do what they are told.
//!
//! What a device would produce is a function of its seed and the moment: the sun's height, clouds, the grid's voltage
//! and frequency. What it does is that, bent by its controls: connect and disconnect, limits, power factor, Volt-VAr,
//! Volt-Watt, frequency droop, set points of storage. A set point with a revert timer falls back by itself when it is
//! not renewed, whatever became of whoever set it. Nothing happens between two questions: what would have happened is
//! made up for when the next one comes.

mod control;
mod image;
mod plant;
mod shared;
#[cfg(test)]
mod tests;

use ipss_modbus::device::{Access, Model};
use ipss_modbus::function::Exception;
use ipss_modbus::pdu::{Bits, Registers, Table};
use ipss_modbus::sunspec::{BlockImage, MARKER};
use ipss_session::{Now, WallTime};

use crate::virtual_meter::random::noise;
use control::Timers;
pub use plant::Grid;
use plant::Plant;
pub use shared::{Connection, SharedDevice};

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A three-phase inverter with modules on a roof.
    Inverter,
    /// A three-phase battery inverter.
    Storage,
    /// A three-phase meter behind the utility's.
    SubMeter,
}

/// A group of virtual devices.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSpec {
    /// What all noise comes from.
    pub seed: u64,
    /// Inverters, the first devices.
    pub inverters: u32,
    /// Storage, behind the inverters.
    pub storage: u32,
    /// Sub-meters, the last devices.
    pub submeters: u32,
    /// Whole degrees, north positive.
    pub latitude_deg: i8,
    /// Whole degrees, east positive: where the sun is highest at 12:00 UTC less four minutes a degree.
    pub longitude_deg: i16,
    /// When they were installed.
    pub start: WallTime,
}

impl DeviceSpec {
    /// How many devices there are.
    pub fn count(&self) -> u32 {
        self.inverters.saturating_add(self.storage).saturating_add(self.submeters)
    }

    /// What device `index` is.
    pub fn kind(&self, index: u32) -> Kind {
        match index {
            index if index < self.inverters => Kind::Inverter,
            index if index - self.inverters < self.storage => Kind::Storage,
            _ => Kind::SubMeter,
        }
    }

    /// Device `index`, as new at `now`.
    pub fn device(&self, index: u32, now: WallTime) -> VirtualDevice {
        let seed = noise(self.seed, 9_100, i64::from(index));
        let plant = Plant::new(seed, self.kind(index), self, now);
        let blocks = image::blocks(&plant, index);
        let mut device = VirtualDevice { plant, blocks, timers: Timers::default(), shown_us: i64::MIN };
        device.show(now.0);
        device
    }
}

/// One virtual device.
#[derive(Clone, Debug)]
pub struct VirtualDevice {
    plant: Plant,
    blocks: Vec<BlockImage>,
    timers: Timers,
    /// The moment that the measuring points show.
    shown_us: i64,
}

impl VirtualDevice {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.plant.kind
    }

    /// Put it on another grid than its seed's: for tests, and to show what Volt-VAr, Volt-Watt and droop do.
    pub fn on_grid(&mut self, grid: Option<Grid>) {
        self.plant.grid = grid;
        self.shown_us = i64::MIN;
    }

    /// Its block of a model.
    pub fn block(&self, model: u16) -> Option<&BlockImage> {
        self.blocks.iter().find(|block| block.model().id == model)
    }

    /// Let everything happen that was due until `now`: timers that ran out, energy that flowed.
    pub fn settle(&mut self, now: WallTime) {
        while let Some(due_us) = self.timers.next(now.0) {
            self.plant.run_until(due_us, &self.blocks);
            self.timers.expire(due_us, &mut self.blocks);
            self.shown_us = i64::MIN;
        }
        self.plant.run_until(now.0, &self.blocks);
    }

    /// Write registers from `address` on, as a request would.
    ///
    /// # Errors
    /// There is no register, or none that may be written: illegal address. A value that the device does not take:
    /// illegal value. Nothing is written then.
    pub fn write(&mut self, address: u16, values: &[u16], now: WallTime) -> Result<(), Exception> {
        self.settle(now);
        let (index, offset) = self.locate(address).ok_or(Exception::ILLEGAL_DATA_ADDRESS)?;
        let block = &self.blocks[index];
        let mut changed = block.clone();
        if !changed.write(offset, values) {
            return Err(Exception::ILLEGAL_DATA_ADDRESS);
        }
        let touched = control::touched(block, offset, values.len()).ok_or(Exception::ILLEGAL_DATA_ADDRESS)?;
        if !control::accepts(&changed) {
            return Err(Exception::ILLEGAL_DATA_VALUE);
        }
        control::adopt(&mut changed);
        self.blocks[index] = changed;
        self.timers.start(&self.blocks[index], &touched, now.0);
        self.shown_us = i64::MIN;
        Ok(())
    }

    /// The registers from `address` on; `None` where there are none.
    pub fn read(&mut self, address: u16, quantity: u16, now: WallTime) -> Option<Vec<u16>> {
        self.settle(now);
        self.show(now.0);
        let all = usize::from(address.checked_sub(BASE)?)..usize::from(address - BASE) + usize::from(quantity);
        let blocks = self.blocks.iter().flat_map(|block| block.registers());
        let image = MARKER.iter().chain(blocks).chain(&END);
        let found: Vec<u16> = image.skip(all.start).take(all.len()).copied().collect();
        (found.len() == all.len()).then_some(found)
    }

    /// Bring the measuring points up to a moment, at most once a second.
    fn show(&mut self, now_us: i64) {
        if self.shown_us.div_euclid(WallTime::SECOND) != now_us.div_euclid(WallTime::SECOND) {
            self.shown_us = now_us;
            let operation = self.plant.operation(now_us.div_euclid(WallTime::SECOND), &self.blocks);
            image::show(&self.plant, &operation, &mut self.blocks);
            self.timers.show(now_us, &mut self.blocks);
        }
    }

    /// The block that holds an address, and the place in it.
    fn locate(&self, address: u16) -> Option<(usize, usize)> {
        let mut offset = usize::from(address.checked_sub(BASE)?).checked_sub(MARKER.len())?;
        for (index, block) in self.blocks.iter().enumerate() {
            if offset < block.registers().len() {
                return Some((index, offset));
            }
            offset -= block.registers().len();
        }
        None
    }
}

impl Model for VirtualDevice {
    fn serves(&mut self, unit: u8) -> bool {
        unit == UNIT
    }

    fn read(
        &mut self,
        _: Access,
        table: Table,
        address: u16,
        quantity: u16,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        if table != Table::Holding {
            return Err(Exception::ILLEGAL_DATA_ADDRESS);
        }
        let registers =
            VirtualDevice::read(self, address, quantity, now.wall).ok_or(Exception::ILLEGAL_DATA_ADDRESS)?;
        out.extend(registers.iter().flat_map(|register| register.to_be_bytes()));
        Ok(())
    }

    fn write_registers(&mut self, _: Access, address: u16, values: Registers<'_>, now: Now) -> Result<(), Exception> {
        let values: Vec<u16> = values.iter().collect();
        self.write(address, &values, now.wall)
    }

    fn write_coils(&mut self, _: Access, _: u16, _: Bits<'_>, _: Now) -> Result<(), Exception> {
        Err(Exception::ILLEGAL_DATA_ADDRESS)
    }

    fn identification(&self, _: u8, object: u8) -> Option<&[u8]> {
        image::identification(self.plant.kind, object)
    }
}

/// Where the devices begin: the base at which most devices do.
pub const BASE: u16 = 40_000;
/// The unit that each answers as.
pub const UNIT: u8 = 1;
/// The end model and its length.
const END: [u16; 2] = [0xFFFF, 0];
