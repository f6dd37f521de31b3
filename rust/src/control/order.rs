//! An order's canonical octets: what people sign, decoded strictly (`docs/commands.md`).
//!
//! One order has one effect and one to [`MOST_TARGETS`] meters. Its octets are one msgpack array in which everything has
//! exactly one encoding; whatever else decodes is refused, so no two octet strings mean the same order.

use ipss_dlms::cosem::{AttributeDescriptor, LogicalName, MethodDescriptor};
use ipss_dlms::security::setup::CLASS_ID;
use ipss_session::{MeterId, WallTime};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::effect::{Effect, KEY_TRANSFER, Kind, RegisterWrite, are_keys};

/// The most meters of one order: a list of 50,000 is the fault catalogue's, and two octet strings of each fit.
pub const MOST_TARGETS: usize = 100_000;

/// The most octets of an order.
pub const LARGEST: usize = 8 << 20;

/// The most octets of an effect's value: it must fit one APDU of any meter, as nothing may leave after a stop.
const LARGEST_VALUE: usize = 512;

/// The most octets of a text that people wrote.
const LARGEST_TEXT: usize = 1_024;

/// The name and form in front.
const FORM: (&str, u64) = ("ipss-headend order", 1);

/// One meter of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The command's own number, a UUID.
    pub command: [u8; 16],
    /// The meter.
    pub meter: MeterId,
    /// Its system title, empty for a meter that has none: the command goes to this device or to nobody.
    pub system_title: Box<[u8]>,
}

/// What was asked for, as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The order's number, a UUID.
    pub id: [u8; 16],
    /// What it is about, by its effect.
    pub kind: Kind,
    /// What is sent to each meter.
    pub effect: Effect,
    /// The state that is to be read afterwards; the head-end's word, opaque here.
    pub expected: String,
    /// Why.
    pub reason: String,
    /// When it was written.
    pub created: WallTime,
    /// After this moment nothing of it may leave.
    pub not_after: WallTime,
    /// Who asks for it.
    pub requester: String,
    /// For which meters, in the order of their numbers, each once.
    pub targets: Vec<Target>,
    /// Digest of the canonical octets: what is signed.
    pub hash: [u8; 32],
}

/// Why octets are no order.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no order: {0}")]
pub struct NoOrder(pub &'static str);

/// The digest of an order's octets.
pub fn digest(octets: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(b"ipss-headend order, form 1\0");
    digest.update(octets);
    digest.finalize().into()
}

impl Order {
    /// Decode canonical octets.
    ///
    /// # Errors
    /// [`NoOrder`] for whatever is not exactly one order in its only encoding.
    pub fn decode(octets: &[u8]) -> Result<Self, NoOrder> {
        if octets.len() > LARGEST {
            return Err(NoOrder("too many octets"));
        }
        let mut reader = Reader(octets);
        if reader.array()? != 11 || reader.text()? != FORM.0 || reader.unsigned()? != FORM.1 {
            return Err(NoOrder("another form"));
        }
        let id = reader.uuid()?;
        let kind = reader.text()?;
        let effect = effect(&mut reader)?;
        let kind = effect.kind(kind).ok_or(NoOrder("the effect is not the kind's"))?;
        let expected = reader.text()?.to_owned();
        let reason = reader.text()?.to_owned();
        let created = reader.moment()?;
        let not_after = reader.moment()?;
        let requester = reader.text()?.to_owned();
        if reason.is_empty() || requester.is_empty() {
            return Err(NoOrder("no reason or no requester"));
        }
        let count = reader.array()?;
        if count == 0 || count > MOST_TARGETS {
            return Err(NoOrder("no targets, or too many"));
        }
        let mut targets: Vec<Target> = Vec::with_capacity(count.min(reader.0.len() / 8));
        for _ in 0..count {
            if reader.array()? != 3 {
                return Err(NoOrder("a target has three parts"));
            }
            let command = reader.uuid()?;
            let meter = u32::try_from(reader.unsigned()?).map_err(|_| NoOrder("a meter's number has 32 bits"))?;
            let system_title: Box<[u8]> = reader.octets()?.into();
            if !matches!(system_title.len(), 0 | 8) || targets.last().is_some_and(|last| last.meter >= meter) {
                return Err(NoOrder("targets out of order, twice, or with no system title"));
            }
            targets.push(Target { command, meter, system_title });
        }
        if !reader.0.is_empty() {
            return Err(NoOrder("octets behind its end"));
        }
        let mut numbers: Vec<&[u8; 16]> = targets.iter().map(|target| &target.command).collect();
        numbers.sort_unstable();
        if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(NoOrder("a command's number twice"));
        }
        let hash = digest(octets);
        Ok(Self { id, kind, effect, expected, reason, created, not_after, requester, targets, hash })
    }
}

fn effect(reader: &mut Reader<'_>) -> Result<Effect, NoOrder> {
    if reader.array()? != 5 {
        return Err(NoOrder("an effect has five parts"));
    }
    let service = reader.text()?;
    if service == "modbus" {
        return register_write(reader);
    }
    let class_id = u16::try_from(reader.unsigned()?).map_err(|_| NoOrder("a class id has 16 bits"))?;
    let name: [u8; 6] = reader.octets()?.try_into().map_err(|_| NoOrder("a logical name has six octets"))?;
    let number = i8::try_from(reader.unsigned()?).map_err(|_| NoOrder("an attribute or method is 1 to 127"))?;
    let value = reader.octets()?;
    if number == 0 || value.len() > LARGEST_VALUE {
        return Err(NoOrder("attribute or method 0, or too large a value"));
    }
    let logical_name = LogicalName(name);
    match service {
        "action" => Ok(Effect::Action(MethodDescriptor { class_id, logical_name, method: number }, value.into())),
        "key-transfer" if class_id == CLASS_ID && number == KEY_TRANSFER && are_keys(value) => {
            Ok(Effect::Transfer(MethodDescriptor { class_id, logical_name, method: number }, value.into()))
        }
        "set" => Ok(Effect::Set(AttributeDescriptor { class_id, logical_name, attribute: number }, value.into())),
        _ => Err(NoOrder("a service that no command has")),
    }
}

/// The rest of a write of a Modbus unit: unit identifier, first register or coil, function code, values.
fn register_write(reader: &mut Reader<'_>) -> Result<Effect, NoOrder> {
    let unit = u8::try_from(reader.unsigned()?).map_err(|_| NoOrder("a unit identifier has 8 bits"))?;
    let address = u16::try_from(reader.unsigned()?).map_err(|_| NoOrder("a register's address has 16 bits"))?;
    let function = u8::try_from(reader.unsigned()?).map_err(|_| NoOrder("a function code has 8 bits"))?;
    let values = reader.octets()?;
    let write = RegisterWrite::new(unit, address, function, values).ok_or(NoOrder("no write of a Modbus unit"))?;
    Ok(Effect::Registers(write))
}

/// msgpack with exactly one encoding for everything: the shortest.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], NoOrder> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(NoOrder("cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn octet(&mut self) -> Result<u8, NoOrder> {
        Ok(self.take(1)?[0])
    }

    /// A big-endian number of `width` octets that is at least `least`: less has a shorter encoding.
    fn number(&mut self, width: usize, least: u64) -> Result<u64, NoOrder> {
        let number = self.take(width)?.iter().fold(0, |number, octet| number << 8 | u64::from(*octet));
        if number < least { Err(NoOrder("not the shortest encoding")) } else { Ok(number) }
    }

    fn unsigned(&mut self) -> Result<u64, NoOrder> {
        match self.octet()? {
            small @ 0..=0x7F => Ok(u64::from(small)),
            0xCC => self.number(1, 0x80),
            0xCD => self.number(2, 0x100),
            0xCE => self.number(4, 0x1_0000),
            0xCF => self.number(8, 0x1_0000_0000),
            _ => Err(NoOrder("a whole number was expected")),
        }
    }

    fn moment(&mut self) -> Result<WallTime, NoOrder> {
        i64::try_from(self.unsigned()?).map(WallTime).map_err(|_| NoOrder("a moment has 63 bits"))
    }

    fn array(&mut self) -> Result<usize, NoOrder> {
        match self.octet()? {
            small @ 0x90..=0x9F => Ok(usize::from(small & 0x0F)),
            0xDC => Ok(self.number(2, 16)? as usize),
            0xDD => Ok(self.number(4, 0x1_0000)? as usize),
            _ => Err(NoOrder("an array was expected")),
        }
    }

    fn octets(&mut self) -> Result<&'a [u8], NoOrder> {
        let length = match self.octet()? {
            0xC4 => self.number(1, 0)?,
            0xC5 => self.number(2, 0x100)?,
            _ => return Err(NoOrder("octets were expected")),
        };
        self.take(length as usize)
    }

    fn text(&mut self) -> Result<&'a str, NoOrder> {
        let length = match self.octet()? {
            small @ 0xA0..=0xBF => u64::from(small & 0x1F),
            0xD9 => self.number(1, 32)?,
            0xDA => self.number(2, 0x100)?,
            _ => return Err(NoOrder("a text was expected")),
        };
        if length as usize > LARGEST_TEXT {
            return Err(NoOrder("too long a text"));
        }
        std::str::from_utf8(self.take(length as usize)?).map_err(|_| NoOrder("no UTF-8"))
    }

    fn uuid(&mut self) -> Result<[u8; 16], NoOrder> {
        self.octets()?.try_into().map_err(|_| NoOrder("a UUID has 16 octets"))
    }
}
