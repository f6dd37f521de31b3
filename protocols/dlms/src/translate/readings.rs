//! Readings out of answers and notifications, where the octets themselves say what they are: logical names beside
//! values, with or without scaler and unit; a push object list in front of its values; an answer whose question was
//! seen.

use ipss_session::CivilDateTime;

use super::json::{Json, integer};
use crate::axdr::{DateTime, Visitor, tag};
use crate::cosem::units::{ScalerUnit, Unit, scaled};
use crate::cosem::{AttributeDescriptor, LogicalName, lookup};

/// Walks along with a value and says what readings are in it.
pub(super) struct Readings<'j, 'w> {
    json: &'j mut Json<'w>,
    capture_time: Option<DateTime>,
    state: State,
    depth: usize,
    /// The value before if it could be the class of a descriptor, to tell its logical name from one beside a value.
    before: Option<u16>,
    /// Descriptors of a push object list, and how many of their values have been seen.
    layout: Vec<AttributeDescriptor>,
    seen: usize,
    /// How deep the values that belong to the list stand, once it has ended.
    layout_depth: Option<usize>,
}

enum State {
    Idle,
    /// A logical name; with the class if one stood before it.
    Named(LogicalName, Option<u16>),
    /// A value beside it.
    Valued(LogicalName, Value),
    /// A structure of two after the value: perhaps its scaler and unit.
    InStructure(LogicalName, Value),
    /// The first of the two was an integer.
    Scaled(LogicalName, Value, i8),
}

/// A value as text, or as an integer that may yet be scaled.
enum Value {
    Integer(i128),
    Text(String),
}

impl<'j, 'w> Readings<'j, 'w> {
    pub(super) fn new(json: &'j mut Json<'w>, capture_time: Option<DateTime>) -> Self {
        Self {
            json,
            capture_time,
            state: State::Idle,
            depth: 0,
            before: None,
            layout: Vec::new(),
            seen: 0,
            layout_depth: None,
        }
    }

    /// The value that comes is that of this attribute.
    pub(super) fn expect(&mut self, descriptor: AttributeDescriptor) {
        self.layout.push(descriptor);
        self.layout_depth = Some(self.depth);
    }

    fn flush(&mut self) {
        if let State::Valued(name, value) | State::InStructure(name, value) | State::Scaled(name, value, _) =
            std::mem::replace(&mut self.state, State::Idle)
        {
            self.reading(name, None, 2, value, None);
        }
    }

    fn reading(
        &mut self,
        name: LogicalName,
        class_id: Option<u16>,
        attribute: i8,
        value: Value,
        scaler_unit: Option<ScalerUnit>,
    ) {
        let known = lookup(name);
        let class_id = class_id.or(known.map(|entry| entry.class_id));
        let unit = scaler_unit.map(|scaler_unit| scaler_unit.unit).or(known.and_then(|entry| entry.unit));
        let unit = unit.filter(|_| matches!(value, Value::Integer(_))).and_then(Unit::symbol);
        let json = &mut *self.json;
        json.begin('{');
        json.member_string("logical_name", &name.to_string());
        json.key("class_id");
        match class_id {
            Some(class_id) => json.integer(class_id),
            None => json.null(),
        }
        json.member_integer("attribute", attribute);
        json.key("value");
        match value {
            Value::Integer(number) => json.string(&scaled(number, scaler_unit.map_or(0, |known| known.scaler))),
            Value::Text(text) => json.string(&text),
        }
        json.key("scaler");
        match scaler_unit {
            Some(known) => json.integer(known.scaler),
            None => json.null(),
        }
        json.key("unit");
        match unit {
            Some(unit) => json.string(unit),
            None => json.null(),
        }
        json.key("capture_time");
        match self.capture_time.and_then(iso) {
            Some(text) => json.string(&text),
            None => json.null(),
        }
        json.end();
    }

    /// The descriptor of the value at this place, if a layout is known.
    fn laid_out(&mut self) -> Option<AttributeDescriptor> {
        if self.layout_depth != Some(self.depth) {
            return None;
        }
        let descriptor = self.layout.get(self.seen).copied()?;
        self.seen += 1;
        Some(descriptor)
    }
}

impl Visitor for Readings<'_, '_> {
    fn simple(&mut self, tag: u8, octets: &[u8], _: usize) {
        let class_id = integer(tag, octets).filter(|_| tag == tag::LONG_UNSIGNED).and_then(|id| u16::try_from(id).ok());
        let before = std::mem::replace(&mut self.before, class_id);
        let state = std::mem::replace(&mut self.state, State::Idle);
        match (state, tag) {
            (State::Named(name, Some(class_id)), tag::INTEGER) if self.layout_depth.is_none() => {
                let attribute = octets.first().map_or(0, |octet| *octet as i8);
                self.layout.push(AttributeDescriptor { class_id, logical_name: name, attribute });
                return;
            }
            (State::Named(name, _), tag) if logical_name(tag, octets).is_none() => {
                if name == LogicalName::CLOCK {
                    if let Ok(octets) = octets.try_into() {
                        self.capture_time = Some(DateTime(octets));
                    }
                }
                self.state = State::Valued(name, value(tag, octets));
                return;
            }
            (State::InStructure(name, value), tag::INTEGER) => {
                self.state = State::Scaled(name, value, octets.first().map_or(0, |octet| *octet as i8));
                return;
            }
            (State::Scaled(name, value, scaler), tag::ENUM) => {
                let unit = Unit(octets.first().copied().unwrap_or(0));
                self.reading(name, None, 2, value, Some(ScalerUnit { scaler, unit }));
                return;
            }
            (state, _) => {
                self.state = state;
                self.flush();
            }
        }
        if let Some(AttributeDescriptor { class_id, logical_name, attribute }) = self.laid_out() {
            self.reading(logical_name, Some(class_id), attribute, value(tag, octets), None);
            self.state = State::Idle;
            return;
        }
        if let Some(name) = logical_name(tag, octets) {
            self.state = State::Named(name, before);
        }
    }

    fn open(&mut self, tag: u8, count: Option<usize>) {
        self.before = None;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Valued(name, value) if tag == tag::STRUCTURE && count == Some(2) => {
                self.state = State::InStructure(name, value);
            }
            state => {
                self.state = state;
                self.flush();
                self.state = State::Idle;
                self.laid_out();
            }
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        self.flush();
        self.state = State::Idle;
        self.depth = self.depth.saturating_sub(1);
        // Descriptors stand two deep in the list; the values follow beside it.
        if self.layout_depth.is_none() && !self.layout.is_empty() && self.depth == 1 {
            self.layout_depth = Some(1);
            // The list is mostly the value of its own first descriptor.
            self.seen = usize::from(self.layout.first().is_some_and(|first| first.class_id == 40));
        }
    }
}

fn logical_name(tag: u8, octets: &[u8]) -> Option<LogicalName> {
    match *octets {
        [a, b, c, d, e, 255] if tag == tag::OCTET_STRING && !(16..128).contains(&a) => {
            Some(LogicalName([a, b, c, d, e, 255]))
        }
        _ => None,
    }
}

fn value(tag: u8, octets: &[u8]) -> Value {
    if let Some(number) = integer(tag, octets) {
        return Value::Integer(number);
    }
    Value::Text(match (tag, octets) {
        (tag::BOOLEAN, [octet]) => (*octet != 0).to_string(),
        (tag::FLOATING_POINT | tag::FLOAT32, &[a, b, c, d]) => f32::from_be_bytes([a, b, c, d]).to_string(),
        (tag::FLOAT64, &[a, b, c, d, e, f, g, h]) => f64::from_be_bytes([a, b, c, d, e, f, g, h]).to_string(),
        (tag::OCTET_STRING | tag::DATE_TIME, _) if octets.len() == 12 && date_time(octets).is_some() => {
            date_time(octets).unwrap_or_default()
        }
        _ if !octets.is_empty() && octets.iter().all(|octet| (0x20..0x7F).contains(octet)) => {
            String::from_utf8_lossy(octets).into_owned()
        }
        _ => octets.iter().map(|octet| format!("{octet:02x}")).collect(),
    })
}

fn date_time(octets: &[u8]) -> Option<String> {
    iso(DateTime(octets.try_into().ok()?))
}

/// Local time as ISO 8601 has it, with the offset from UTC if the meter specifies its deviation.
fn iso(date_time: DateTime) -> Option<String> {
    let utc = date_time.to_wall()?;
    let deviation = date_time.deviation();
    let behind = i64::from(deviation.unwrap_or(0)) * 60 * ipss_session::WallTime::SECOND;
    let CivilDateTime { year, month, day, hour, minute, second } =
        CivilDateTime::from_wall(ipss_session::WallTime(utc.0 - behind));
    let offset = deviation.map_or(String::new(), |deviation| {
        let ahead = -i32::from(deviation);
        let sign = if ahead < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{:02}", ahead.abs() / 60, ahead.abs() % 60)
    });
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{offset}"))
}
