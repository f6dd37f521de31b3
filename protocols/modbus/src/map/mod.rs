//! Register maps: what stands in which register of a device, as data (`data/maps/*.toml`).
//!
//! A map names its source, may inherit from another map, and lists points by name. [`Library`] holds the maps that come
//! with this crate and any that a user adds; loading checks everything and says file, line and remedy of a mistake.
//! A [`Point`] turns its registers into a [`Reading`]: an exact integer, its scaler, its unit and a status.
//!
//! ```
//! use ipss_modbus::map::{Library, Value};
//!
//! let library = Library::builtin()?;
//! let map = library.map("eastron-sdm120").expect("it comes with the crate");
//! let power = map.point("active_power").expect("it has one");
//! let reading = power.read(&[0x43E6, 0x2000], None);
//! assert_eq!((reading.value, reading.scaler), (Value::Integer(46_025), -2));
//! # Ok::<(), ipss_modbus::map::MapErrors>(())
//! ```

mod control;
mod file;
mod library;
mod reading;
#[cfg(test)]
mod tests;

use crate::Table;

pub use control::{Act, Controls, Setting, Write};
pub use file::MapError;
pub use library::{Library, Map, MapErrors, Match};
pub use reading::{Reading, Status, Value, WriteError};

/// How often a point is worth reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Poll {
    /// What moves by the second: powers, voltages, currents.
    Fast,
    /// What moves by the minute: energies, temperatures.
    Slow,
    /// What is as it is: names, ratings.
    Once,
    /// Only when somebody asks.
    Never,
}

/// What the registers of a point hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An unsigned integer of 1, 2 or 4 registers.
    Unsigned,
    /// An integer in two's complement of 1, 2 or 4 registers.
    Signed,
    /// IEEE 754 of 2 or 4 registers.
    Float,
    /// Text, two characters a register.
    Text,
    /// Decimal digits, four a register.
    Bcd,
    /// A bit a name.
    Bits,
    /// A number a name.
    Enumeration,
    /// Registers of 0 to 9999 (or -9999 to 9999), each worth 10,000 times the one below: "M10K", "Mod10".
    Mod10k,
    /// One bit, of the tables of bits.
    Bit,
}

/// What a write of a point does to the supply behind the device: such a write is a critical command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Puts the device on the grid or takes it off, starts or stops it.
    Switch,
    /// Limits the power that flows.
    Limit,
}

/// One point of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name in the map.
    pub name: String,
    /// Where it stands.
    pub table: Table,
    /// Its first register or bit, counted from 0 as on the wire.
    pub address: u16,
    /// Its registers; 1 for a bit.
    pub count: u16,
    /// What they hold.
    pub kind: Kind,
    /// Whether each register's low octet comes first.
    pub swap_octets: bool,
    /// Whether the lowest register comes first.
    pub low_word_first: bool,
    /// The power of ten of one unit of the value.
    pub scale: i8,
    /// A point whose value is a further power of ten.
    pub scale_from: Option<String>,
    /// Its unit, or nothing.
    pub unit: String,
    /// What it is a reading of, as a logical name, where there is one for it.
    pub reading: Option<String>,
    /// Whether it may be written.
    pub writable: bool,
    /// What a write of it switches or limits, if anything.
    pub effect: Option<Effect>,
    /// Whether it may be read.
    pub readable: bool,
    /// How often it is worth reading.
    pub poll: Poll,
    /// Raw values that say "not available".
    pub not_available: Vec<u64>,
    /// Names of an enumeration's numbers or of bits.
    pub names: Vec<(u32, String)>,
}
