//! What the tests of the two roles share.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use ipss_modbus::device::{Device, Memory, Settings};
use ipss_modbus::head_end::{HeadEnd, Item, Plan, Read, Work};
use ipss_modbus::profile::{Framing, Profile};
use ipss_modbus::{Decode, Table};
use ipss_session::rig::Rig;
use ipss_session::{Input, Instant, Outcome, Priority, Request, WallTime};

pub type Pair = Rig<HeadEnd, Device<Memory>>;

/// Registers whose values are their addresses, coils that are on where the address is a multiple of 3.
pub fn memory() -> Memory {
    Memory {
        coils: (0..4_000).map(|address| address % 3 == 0).collect(),
        inputs: (0..4_000).map(|address| address % 5 == 0).collect(),
        holding: (0..2_000).collect(),
        input: (0..2_000).map(|address| 10_000 + address).collect(),
        ..Memory::default()
    }
}

pub fn pair(profile: Profile, memory: Memory) -> Pair {
    let settings = Settings::new(match profile.framing {
        Framing::Rtu(timing) => Framing::Rtu(timing),
        other => other,
    });
    let near = HeadEnd::new(1, Arc::new(profile));
    let far = Device::new(1, Arc::new(settings), memory);
    let mut rig = Rig::new(near, far, 7, WallTime(0));
    rig.connect();
    rig
}

pub fn plan(items: impl IntoIterator<Item = Item>) -> Arc<Plan> {
    Arc::new(Plan { items: items.into_iter().collect() })
}

/// Holding registers, each a cell.
pub fn holding(layout: u32, addresses: impl IntoIterator<Item = u16>) -> Item {
    let points: Vec<_> = addresses.into_iter().map(|address| (Table::Holding, address, 1, Decode::Unsigned)).collect();
    Item::Read(Read::points(layout, &points).unwrap())
}

pub fn request(id: u64, unit: u8, plan: Arc<Plan>, now: Instant, seconds: u64) -> Request<Work> {
    Request {
        id,
        deadline: now + Duration::from_secs(seconds),
        priority: Priority::Scheduled,
        attempts_left: 0,
        exchanges: 0,
        work: Work { meter: 100 + u32::from(unit), unit, plan },
    }
}

pub fn ask(rig: &mut Pair, id: u64, unit: u8, items: impl IntoIterator<Item = Item>) {
    let request = request(id, unit, plan(items), rig.now.monotonic, 60);
    rig.tell_near(Input::Request(request));
}

/// How the request ended, once it has.
pub fn outcome(rig: &Pair, id: u64) -> Option<Outcome> {
    rig.near.finished.iter().find(|(request, _)| request.id == id).map(|(_, outcome)| *outcome)
}

/// Let `seconds` pass.
pub fn run(rig: &mut Pair, seconds: u64) {
    rig.run(Duration::from_secs(seconds), 1_000_000);
}

/// The integers of line `index`, `None` for what is no integer.
pub fn integers(rig: &Pair, index: usize) -> Vec<Option<i64>> {
    let cells = rig.near.batch.cells(index);
    cells
        .iter()
        .map(|cell| match cell {
            ipss_session::Cell::Integer(integer) => Some(*integer),
            _ => None,
        })
        .collect()
}
