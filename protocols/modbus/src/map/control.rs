//! What switches or limits a device: the points that are written for it, all in one frame.

use std::collections::BTreeMap;

use super::{Point, WriteError};
use crate::Table;
use crate::decimal::Decimal;

/// What is done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    /// It may feed, or draw.
    Connect,
    /// It leaves the grid.
    Disconnect,
    /// It feeds at most so many percent of its rating.
    Limit,
    /// The limit ends.
    Release,
}

impl Act {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Disconnect, Self::Limit, Self::Release];

    /// Its name in map files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Limit => "limit",
            Self::Release => "release",
        }
    }

    /// The act of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|act| act.name() == name)
    }

    /// What takes it back.
    pub fn back(self) -> Self {
        match self {
            Self::Connect => Self::Disconnect,
            Self::Disconnect => Self::Connect,
            Self::Limit => Self::Release,
            Self::Release => Self::Limit,
        }
    }
}

/// One point of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub point: String,
    /// What it gets, in its own unit; `None`: the percent of the limit.
    pub value: Option<i64>,
}

/// The acts that a map knows.
pub type Controls = BTreeMap<Act, Vec<Setting>>;

/// The one write that does an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Holding registers, or a coil.
    pub table: Table,
    /// The first of them.
    pub address: u16,
    /// The registers; 0 or 1 for a coil.
    pub registers: Vec<u16>,
}

/// The write of these settings, whose points are `points`.
///
/// # Errors
/// A point cannot say its value.
pub(super) fn write(settings: &[(&Point, Option<i64>)], percent: Option<Decimal>) -> Result<Write, WriteError> {
    let mut parts = Vec::new();
    for (point, value) in settings {
        let number = match (value, percent) {
            (Some(value), _) => Decimal::new(i128::from(*value), 0),
            (None, Some(percent)) => percent,
            (None, None) => return Err(WriteError { point: point.name.clone(), message: "no percent given".into() }),
        };
        parts.push((point.address, point.write(number, None)?, point.table));
    }
    parts.sort();
    let (address, _, table) = parts.first().cloned().unwrap_or((0, Vec::new(), Table::Holding));
    Ok(Write { table, address, registers: parts.into_iter().flat_map(|(_, registers, _)| registers).collect() })
}

/// What is wrong with an act, if anything: `settings` are its points and what they get.
pub(super) fn mistake(act: Act, settings: &[(&Point, Option<i64>)]) -> Option<String> {
    let percents: Vec<&Point> = settings.iter().filter(|one| one.1.is_none()).map(|one| one.0).collect();
    match (act, &percents[..]) {
        (Act::Limit, [point]) if point.unit == "%" => {}
        (Act::Limit, [point]) => return Some(format!("{} takes the percent, but its unit is not %", point.name)),
        (Act::Limit, _) => return Some("needs one point that takes \"percent\"".into()),
        (_, []) => {}
        (_, [point, ..]) => return Some(format!("{}: only a limit has \"percent\"; write a number", point.name)),
    }
    let mut places: Vec<(Table, u16, u16)> = Vec::new();
    for (point, _) in settings {
        if !(point.readable && point.writable) {
            return Some(format!("{} is not of access rw; what is written has to be read back", point.name));
        }
        places.push((point.table, point.address, point.count));
    }
    places.sort_unstable();
    let adjacent = places.windows(2).all(|two| {
        let ((table, address, count), next) = (two[0], two[1]);
        table == next.0 && u32::from(address) + u32::from(count) == u32::from(next.1)
    });
    if places.is_empty() || !adjacent || (places.len() > 1 && places[0].0 == Table::Coils) {
        return Some("its points do not stand side by side; one frame has to write them".into());
    }
    write(settings, Some(Decimal::new(0, 0))).err().map(|error| error.to_string())
}
