//! Walks along with a value and names what readings are in it.
//!
//! What the octets say themselves is understood for every meter: a logical name in front of its value, with or without
//! scaler and unit behind it; an attribute descriptor beside its value; a push object list in front of the values; an
//! answer whose question is known ([`Finder::expect`]). A list that says nothing needs a layout.

use super::companion::Companion;
use super::layout::{Column, Layout, Shape};
use crate::axdr::{DateTime, Visitor, tag, write_length};
use crate::cosem::units::Unit;
use crate::cosem::{AttributeDescriptor, LogicalName};

/// One value with its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'v> {
    /// The object.
    pub logical_name: LogicalName,
    /// Its class, if the octets or the layout say so.
    pub class_id: Option<u16>,
    /// The attribute; 2 where nothing says otherwise.
    pub attribute: i8,
    /// The element of the attribute, counted from 1; 0 for all of it.
    pub data_index: u16,
    /// The type of the value: its type octet.
    pub tag: u8,
    /// The value's octets without type octet and length; of an array or structure the whole encoding.
    pub octets: &'v [u8],
    /// The length of a bit-string.
    pub bits: usize,
    /// The power of ten, if known.
    pub scaler: Option<i8>,
    /// The unit, if known.
    pub unit: Option<Unit>,
    /// The last clock that stood in front of it, or the time of the notification.
    pub capture_time: Option<DateTime>,
}

/// Who is told.
pub type Sink<'s> = dyn FnMut(&Found<'_>) + 's;

/// See the module.
pub struct Finder<'s> {
    sink: &'s mut Sink<'s>,
    companion: Option<&'s Companion>,
    capture_time: Option<DateTime>,
    state: State,
    depth: usize,
    /// The value before if it could be the class of a descriptor, to tell its logical name from one beside a value.
    before: Option<u16>,
    /// The value before was the attribute of a descriptor.
    described: bool,
    /// Columns of a push object list or of a layout, and how many of their values have been seen.
    columns: Vec<Option<Column>>,
    seen: usize,
    /// How deep the values that belong to the columns stand, once that is known.
    columns_depth: Option<usize>,
    /// A structure of two was opened at this depth: a descriptor in it belongs to the value beside it.
    pair: Option<usize>,
    /// An array or structure that is a value of its own, as it is put together again.
    whole: Option<Whole>,
    found: usize,
}

#[derive(Debug)]
enum State {
    Idle,
    /// A logical name; with the class if one stood before it.
    Named(LogicalName, Option<u16>),
    /// A value beside it.
    Valued(LogicalName, Held),
    /// A structure of two after the value: perhaps its scaler and unit.
    InStructure(LogicalName, Held),
    /// The first of the two was an integer.
    Scaled(LogicalName, Held, i8),
}

/// A value that waits for its scaler and unit.
#[derive(Debug)]
struct Held {
    tag: u8,
    octets: Vec<u8>,
    bits: usize,
}

/// An array or structure being put together again.
struct Whole {
    column: Column,
    octets: Vec<u8>,
    /// Where its type octet and the counts of open arrays without one stand, with what they have so far.
    open: Vec<(usize, usize, bool)>,
}

impl<'s> Finder<'s> {
    /// Tell `sink` what is found. `capture_time` is that of the notification.
    pub fn new(sink: &'s mut Sink<'s>, companion: Option<&'s Companion>, capture_time: Option<DateTime>) -> Self {
        Self {
            sink,
            companion,
            capture_time: capture_time.map(|time| resolve(companion, time)),
            state: State::Idle,
            depth: 0,
            before: None,
            described: false,
            columns: Vec::new(),
            seen: 0,
            columns_depth: None,
            pair: None,
            whole: None,
            found: 0,
        }
    }

    /// The value that comes is that of this attribute.
    pub fn expect(&mut self, descriptor: AttributeDescriptor) {
        self.columns.push(Some(Column { descriptor, data_index: 0, scaler: None, unit: None }));
        self.columns_depth = Some(self.depth);
    }

    /// The value that comes is a list of this layout.
    pub fn lay_out(&mut self, layout: &Layout) {
        self.columns = layout.columns.clone();
        self.columns_depth = Some(1);
    }

    /// As [`Finder::lay_out`], if the companion profile has a layout for a body of this shape.
    pub fn lay_out_as(&mut self, shape: &Shape) {
        if let Some(layout) = self.companion.and_then(|companion| companion.layout(shape)) {
            self.lay_out(layout);
        }
    }

    /// How many values were named so far.
    pub fn found(&self) -> usize {
        self.found
    }

    fn flush(&mut self) {
        if let State::Valued(name, held) | State::InStructure(name, held) | State::Scaled(name, held, _) =
            std::mem::replace(&mut self.state, State::Idle)
        {
            self.tell_named(name, &held, None);
        }
    }

    fn tell_named(&mut self, name: LogicalName, held: &Held, scaler_unit: Option<(i8, Unit)>) {
        let found = Found {
            logical_name: name,
            class_id: None,
            attribute: 2,
            data_index: 0,
            tag: held.tag,
            octets: &held.octets,
            bits: held.bits,
            scaler: scaler_unit.map(|(scaler, _)| scaler),
            unit: scaler_unit.map(|(_, unit)| unit),
            capture_time: self.capture_time,
        };
        self.tell(found);
    }

    fn tell_column(&mut self, column: &Column, tag: u8, octets: &[u8], bits: usize) {
        let found = Found {
            logical_name: column.descriptor.logical_name,
            class_id: Some(column.descriptor.class_id).filter(|class| *class != 0),
            attribute: column.descriptor.attribute,
            data_index: column.data_index,
            tag,
            octets,
            bits,
            scaler: column.scaler,
            unit: column.unit,
            capture_time: self.capture_time,
        };
        self.tell(found);
    }

    fn tell(&mut self, found: Found<'_>) {
        let mut turned = [0; 8];
        let mut found: Found<'_> = found;
        if is_clock(&found) {
            if let Ok(octets) = found.octets.try_into() {
                self.capture_time = Some(resolve(self.companion, DateTime(octets)));
                found.capture_time = self.capture_time;
            }
        }
        if let Some(companion) = self.companion {
            companion.scale(&mut found);
            let float = matches!(found.tag, tag::FLOATING_POINT | tag::FLOAT32 | tag::FLOAT64);
            if let Some(turned) = turned.get_mut(..found.octets.len()).filter(|_| float && companion.floats_swapped) {
                turned.copy_from_slice(found.octets);
                turned.reverse();
                found.octets = turned;
            }
        }
        self.found += 1;
        (self.sink)(&found);
    }

    /// The column of the value at this place, if a layout is known.
    fn column(&mut self) -> Option<Column> {
        if self.columns_depth != Some(self.depth) {
            return None;
        }
        let column = self.columns.get(self.seen).cloned();
        self.seen += 1;
        column.flatten()
    }

    fn whole_simple(&mut self, tag: u8, octets: &[u8], bits: usize) {
        if let Some(whole) = &mut self.whole {
            encode(&mut whole.octets, tag, octets, bits);
            if let Some(open) = whole.open.last_mut() {
                open.1 += 1;
            }
        }
    }
}

impl Visitor for Finder<'_> {
    fn simple(&mut self, tag: u8, octets: &[u8], bits: usize) {
        if self.whole.is_some() {
            return self.whole_simple(tag, octets, bits);
        }
        let class_id = match *octets {
            [high, low] if tag == tag::LONG_UNSIGNED => Some(u16::from_be_bytes([high, low])),
            _ => None,
        };
        let before = std::mem::replace(&mut self.before, class_id);
        let described = std::mem::take(&mut self.described);
        match (std::mem::replace(&mut self.state, State::Idle), tag) {
            (State::Named(name, Some(class_id)), tag::INTEGER) if self.columns_depth.is_none() => {
                let attribute = octets.first().map_or(0, |octet| *octet as i8);
                let descriptor = AttributeDescriptor { class_id, logical_name: name, attribute };
                self.columns.push(Some(Column { descriptor, data_index: 0, scaler: None, unit: None }));
                self.described = true;
                return;
            }
            (State::Named(name, _), tag) if logical_name(tag, octets).is_none() => {
                if self.columns_depth != Some(self.depth) {
                    self.state = State::Valued(name, Held { tag, octets: octets.to_vec(), bits });
                    return;
                }
            }
            (State::InStructure(name, held), tag::INTEGER) => {
                self.state = State::Scaled(name, held, octets.first().map_or(0, |octet| *octet as i8));
                return;
            }
            (State::Scaled(name, held, scaler), tag::ENUM) => {
                let unit = Unit(octets.first().copied().unwrap_or(0));
                self.tell_named(name, &held, Some((scaler, unit)));
                return;
            }
            // Behind a descriptor's attribute: its element.
            (State::Idle, tag::LONG_UNSIGNED) if described => {
                if let (Some(Some(column)), Some(index)) = (self.columns.last_mut(), class_id) {
                    column.data_index = index;
                }
                self.before = None;
                return;
            }
            (state, _) => {
                self.state = state;
                self.flush();
            }
        }
        if self.columns_depth == Some(self.depth) {
            if let Some(column) = self.column() {
                self.tell_column(&column, tag, octets, bits);
                self.state = State::Idle;
                return;
            }
        }
        if let Some(name) = logical_name(tag, octets) {
            self.state = State::Named(name, before);
        }
    }

    fn open(&mut self, tag: u8, count: Option<usize>) {
        if let Some(whole) = &mut self.whole {
            whole.begin(tag);
            self.depth += 1;
            return;
        }
        self.before = None;
        self.described = false;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Valued(name, held) if tag == tag::STRUCTURE && count == Some(2) => {
                self.state = State::InStructure(name, held);
            }
            state => {
                self.state = state;
                self.flush();
                self.state = State::Idle;
                if let Some(column) = self.column() {
                    let mut whole = Whole { column, octets: Vec::new(), open: Vec::new() };
                    whole.begin(tag);
                    self.whole = Some(whole);
                    self.depth += 1;
                    return;
                }
                if tag == tag::STRUCTURE && count == Some(2) && self.columns.is_empty() {
                    self.pair = Some(self.depth);
                }
            }
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.described = false;
        if let Some(whole) = &mut self.whole {
            if whole.end() {
                if let Some(Whole { column, octets, .. }) = self.whole.take() {
                    let tag = octets.first().copied().unwrap_or_default();
                    self.tell_column(&column, tag, &octets, 0);
                }
            }
            return self.pair_ends();
        }
        self.flush();
        self.state = State::Idle;
        if self.columns_depth.is_none() && !self.columns.is_empty() {
            if self.pair.is_some_and(|pair| pair + 1 == self.depth) {
                // The descriptor is closed; its value comes.
                self.columns_depth = Some(self.depth);
                self.seen = 0;
            } else if self.depth == 1 {
                // Descriptors stand two deep in the list; the values follow beside it.
                self.columns_depth = Some(1);
                // The list is mostly the value of its own first descriptor.
                let own = self.columns.first().and_then(Option::as_ref);
                self.seen = usize::from(own.is_some_and(|first| first.descriptor.class_id == 40));
            }
        }
        self.pair_ends();
    }
}

impl Finder<'_> {
    /// Behind a pair of descriptor and value nothing of it counts any more.
    fn pair_ends(&mut self) {
        if self.pair == Some(self.depth) {
            self.pair = None;
            if self.columns_depth == Some(self.depth + 1) {
                self.columns.clear();
                self.columns_depth = None;
                self.seen = 0;
            }
        }
    }
}

impl Whole {
    fn begin(&mut self, tag: u8) {
        if let Some(open) = self.open.last_mut() {
            open.1 += 1;
        }
        self.open.push((self.octets.len(), 0, tag == tag::STRUCTURE));
        self.octets.push(tag);
    }

    /// Whether the outermost was ended.
    fn end(&mut self) -> bool {
        if let Some((place, count, _)) = self.open.pop() {
            let mut length = Vec::with_capacity(4);
            write_length(&mut length, count);
            // The count is known at the end only: what follows it moves by as many octets as it takes.
            self.octets.splice(place + 1..place + 1, length);
        }
        self.open.is_empty()
    }
}

/// Append a value as A-XDR has it.
pub(super) fn encode(out: &mut Vec<u8>, tag: u8, octets: &[u8], bits: usize) {
    out.push(tag);
    match tag {
        tag::OCTET_STRING | tag::VISIBLE_STRING | tag::UTF8_STRING => write_length(out, octets.len()),
        tag::BIT_STRING => write_length(out, bits),
        _ => {}
    }
    out.extend_from_slice(octets);
}

/// A logical name in an octet-string. Group F is 255 for current values; other octet-strings of six are text or
/// addresses.
fn logical_name(tag: u8, octets: &[u8]) -> Option<LogicalName> {
    match *octets {
        [a, b, c, d, e, 255] if tag == tag::OCTET_STRING && !(16..128).contains(&a) => {
            Some(LogicalName([a, b, c, d, e, 255]))
        }
        _ => None,
    }
}

/// Whether this is a clock's time: 0-b:1.0.e, of whatever channel.
pub(super) fn is_clock(found: &Found<'_>) -> bool {
    let clock = matches!(found.logical_name.0, [0, _, 1, 0, _, 255]);
    clock
        && found.attribute == 2
        && found.class_id.is_none_or(|class| class == 8)
        && matches!(found.tag, tag::OCTET_STRING | tag::DATE_TIME)
        && found.octets.len() == 12
}

fn resolve(companion: Option<&Companion>, time: DateTime) -> DateTime {
    companion.map_or(time, |companion| companion.time.resolve(time))
}

/// Octets as people read them: text as it is, without padding; a date-time as ISO 8601 has it; else hexadecimal digits.
///
/// Identifiers come as visible-string or octet-string, padded with NUL or space, sometimes with more behind the NUL.
pub fn text(octets: &[u8]) -> String {
    let shown = octets.iter().position(|octet| *octet == 0).map_or(octets, |end| match &octets[..end] {
        text if text.len() >= SHORTEST_PADDED => text,
        _ => octets,
    });
    if !shown.is_empty() && shown.iter().all(|octet| (0x20..0x7F).contains(octet)) {
        let text = String::from_utf8_lossy(shown);
        let trimmed = text.trim_end();
        return if trimmed.is_empty() { text.into_owned() } else { trimmed.to_owned() };
    }
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Fewer printable octets in front of a NUL are a number by chance.
const SHORTEST_PADDED: usize = 4;
