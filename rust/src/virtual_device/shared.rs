//! One device, several connections at once, as real devices have them: each sees the same registers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipss_modbus::device::{Access, Model};
use ipss_modbus::function::Exception;
use ipss_modbus::pdu::{Bits, Registers, Table};
use ipss_session::Now;

use super::{Kind, UNIT, VirtualDevice, image};

/// A device behind any number of connections up to a bound.
#[derive(Clone, Debug)]
pub struct SharedDevice(Arc<Site>);

#[derive(Debug)]
struct Site {
    kind: Kind,
    device: Mutex<VirtualDevice>,
    most: u32,
    open: AtomicU32,
}

impl SharedDevice {
    /// This device, with at most `most` connections at once.
    pub fn new(device: VirtualDevice, most: u32) -> Self {
        Self(Arc::new(Site { kind: device.kind(), device: Mutex::new(device), most, open: AtomicU32::new(0) }))
    }

    /// One more connection to it; `None` if it has as many as it takes. Its place is free again when it is dropped.
    pub fn connection(&self) -> Option<Connection> {
        let site = &self.0;
        let taken = |open: u32| (open < site.most).then_some(open + 1);
        site.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).ok()?;
        Some(Connection(Arc::clone(site)))
    }
}

/// What one connection sees of a device.
#[derive(Debug)]
pub struct Connection(Arc<Site>);

impl Connection {
    fn device(&self) -> MutexGuard<'_, VirtualDevice> {
        self.0.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Model for Connection {
    fn serves(&mut self, unit: u8) -> bool {
        unit == UNIT
    }

    fn read(
        &mut self,
        access: Access,
        table: Table,
        address: u16,
        quantity: u16,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        Model::read(&mut *self.device(), access, table, address, quantity, now, out)
    }

    fn write_registers(
        &mut self,
        access: Access,
        address: u16,
        values: Registers<'_>,
        now: Now,
    ) -> Result<(), Exception> {
        self.device().write_registers(access, address, values, now)
    }

    fn write_coils(&mut self, access: Access, address: u16, values: Bits<'_>, now: Now) -> Result<(), Exception> {
        self.device().write_coils(access, address, values, now)
    }

    fn identification(&self, _: u8, object: u8) -> Option<&[u8]> {
        image::identification(self.0.kind, object)
    }
}
