//! One map file: TOML in, points out, and a message with file and line for everything that is wrong.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Act, Effect, Kind, Match, Point, Poll, Setting};
use crate::Table;

/// A mistake in a map file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: line {line}: {place}: {message}")]
pub struct MapError {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The table and key: `points.voltage_l1`.
    pub place: String,
    /// What was found, what is expected, and what to do.
    pub message: String,
}

/// What one file says, before what it inherits is joined.
#[derive(Clone, Debug)]
pub(super) struct MapFile {
    pub(super) file: String,
    pub(super) name: String,
    pub(super) inherits: Option<(String, usize)>,
    pub(super) title: String,
    pub(super) manufacturer: String,
    pub(super) source: String,
    pub(super) most: Option<u16>,
    pub(super) gap_ms: Option<u16>,
    pub(super) in_flight: Option<u16>,
    pub(super) without: Vec<(String, usize)>,
    pub(super) matches: Vec<Match>,
    /// With the line of each.
    pub(super) points: Vec<(Point, usize)>,
    /// Names of points that may share registers with others.
    pub(super) shared: Vec<String>,
    /// What switches or limits the device, with the line of each.
    pub(super) controls: Vec<(Act, Vec<Setting>, usize)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    map: Spanned<Head>,
    #[serde(default, rename = "match")]
    matches: Vec<Spanned<MatchEntry>>,
    #[serde(default)]
    points: BTreeMap<String, Spanned<Entry>>,
    #[serde(default)]
    control: BTreeMap<String, Spanned<BTreeMap<String, Setpoint>>>,
}

/// What a point of an act gets.
#[derive(Deserialize)]
#[serde(untagged)]
enum Setpoint {
    Number(i64),
    Word(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    name: String,
    title: String,
    manufacturer: String,
    source: String,
    inherits: Option<Spanned<String>>,
    #[serde(default = "holding")]
    table: Spanned<String>,
    #[serde(default)]
    low_word_first: bool,
    #[serde(default)]
    swap_octets: bool,
    most: Option<u16>,
    gap_ms: Option<u16>,
    in_flight: Option<u16>,
    #[serde(default)]
    without: Vec<Spanned<String>>,
    #[serde(default)]
    not_available: BTreeMap<String, Vec<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchEntry {
    vendor: Option<String>,
    product: Option<String>,
    table: Option<String>,
    address: Option<u16>,
    #[serde(default)]
    values: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    address: i64,
    #[serde(rename = "type")]
    kind: String,
    count: Option<u16>,
    table: Option<String>,
    low_word_first: Option<bool>,
    swap_octets: Option<bool>,
    #[serde(default)]
    scale: i8,
    scale_from: Option<String>,
    #[serde(default)]
    unit: String,
    reading: Option<String>,
    #[serde(default = "read_only")]
    access: String,
    effect: Option<String>,
    poll: Option<String>,
    not_available: Option<Vec<i64>>,
    #[serde(default)]
    names: BTreeMap<String, String>,
    /// May share registers with other points, as bits beside their word do.
    #[serde(default)]
    shared: bool,
    /// Where the manual says so, if not where the map's own source points.
    #[serde(default, rename = "source")]
    _source: String,
}

/// Requests that a device takes before it has answered: as many as the TCP guide suggests (MODBUS Messaging on TCP/IP
/// V1.0b, 4.4.1.2: NumberMaxOfServerTransaction, 1 to 16).
pub(super) const MOST_IN_FLIGHT: u16 = 16;

fn holding() -> Spanned<String> {
    Spanned::new(0..0, "holding".into())
}

fn read_only() -> String {
    "r".into()
}

impl MapFile {
    /// Read one file.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, Vec<MapError>> {
        let line = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
        let document: Document = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let place = key_at(text, at);
            vec![MapError { file: file.into(), line: line(at), place, message: error.message().trim().into() }]
        })?;
        let mut errors = Vec::new();
        let mut wrong = |at: usize, place: String, message: String| {
            errors.push(MapError { file: file.into(), line: line(at), place, message });
        };
        let head = document.map.get_ref();
        let at = document.map.span().start;
        if head.source.trim().is_empty() {
            wrong(at, "map.source".into(), "empty; name the manual and its table".into());
        }
        let table = table_named(head.table.get_ref());
        if table.is_none() {
            wrong(at, "map.table".into(), unknown("table", head.table.get_ref(), &TABLES.map(|table| table.0)));
        }
        for kind in head.not_available.keys().filter(|kind| kind_named(kind).is_none()) {
            wrong(at, "map.not_available".into(), unknown("type", kind, &KINDS.map(|kind| kind.0)));
        }
        if head.most.is_some_and(|most| !(1..=125).contains(&most)) {
            wrong(at, "map.most".into(), "not in 1 to 125, what one read may ask for".into());
        }
        if head.in_flight.is_some_and(|in_flight| !(1..=MOST_IN_FLIGHT).contains(&in_flight)) {
            let message =
                format!("not in 1 to {MOST_IN_FLIGHT}, requests that the device takes before it has answered");
            wrong(at, "map.in_flight".into(), message);
        }
        let mut matches = Vec::new();
        for entry in &document.matches {
            let found = entry.get_ref();
            let register = match (found.table.as_deref().map(table_named), found.address) {
                (Some(Some(table)), Some(address)) if !found.values.is_empty() => Some((table, address)),
                _ => None,
            };
            if register.is_none() && found.vendor.is_none() {
                let message = "names neither vendor nor table, address and values; a device is known by one of them";
                wrong(entry.span().start, "match".into(), message.into());
            }
            matches.push(Match {
                vendor: found.vendor.clone().unwrap_or_default(),
                product: found.product.clone().unwrap_or_default(),
                register,
                values: found.values.clone(),
            });
        }
        let mut points = Vec::new();
        let mut shared = Vec::new();
        for (name, entry) in &document.points {
            let at = entry.span().start;
            match point(name, entry.get_ref(), head, table.unwrap_or(Table::Holding)) {
                Ok(point) => points.push((point, line(at))),
                Err(messages) => {
                    messages.into_iter().for_each(|message| wrong(at, format!("points.{name}"), message));
                }
            }
            if entry.get_ref().shared {
                shared.push(name.clone());
            }
        }
        let mut controls = Vec::new();
        for (name, entry) in &document.control {
            let (at, place) = (entry.span().start, format!("control.{name}"));
            let Some(act) = Act::named(name) else {
                wrong(at, place, unknown("act", name, &Act::ALL.map(Act::name)));
                continue;
            };
            let mut settings = Vec::new();
            for (point, value) in entry.get_ref() {
                let value = match value {
                    Setpoint::Number(number) => Some(*number),
                    Setpoint::Word(word) => {
                        if word != "percent" {
                            wrong(at, place.clone(), unknown("value", word, &["percent", "a number"]));
                        }
                        None
                    }
                };
                settings.push(Setting { point: point.clone(), value });
            }
            controls.push((act, settings, line(at)));
        }
        let spanned = |text: &Spanned<String>| (text.get_ref().clone(), line(text.span().start));
        match errors.is_empty() {
            true => Ok(Self {
                file: file.into(),
                name: head.name.clone(),
                inherits: head.inherits.as_ref().map(spanned),
                title: head.title.clone(),
                manufacturer: head.manufacturer.clone(),
                source: head.source.clone(),
                most: head.most,
                gap_ms: head.gap_ms,
                in_flight: head.in_flight,
                without: head.without.iter().map(spanned).collect(),
                matches,
                points,
                shared,
                controls,
            }),
            false => Err(errors),
        }
    }
}

fn point(name: &str, entry: &Entry, head: &Head, table: Table) -> Result<Point, Vec<String>> {
    let mut errors = Vec::new();
    let table = match &entry.table {
        None => table,
        Some(named) => table_named(named).unwrap_or_else(|| {
            errors.push(unknown("table", named, &TABLES.map(|table| table.0)));
            table
        }),
    };
    let (kind, size) = kind_named(&entry.kind).unwrap_or_else(|| {
        errors.push(unknown("type", &entry.kind, &KINDS.map(|kind| kind.0)));
        (Kind::Unsigned, Some(1))
    });
    let most = match kind {
        Kind::Text => MOST_REGISTERS,
        _ => 4,
    };
    let count = match (size, entry.count) {
        (Some(size), None) => size,
        (Some(size), Some(count)) if size == count => size,
        (Some(size), Some(count)) => {
            errors.push(format!("count {count}, but {} has {size}; leave count out", entry.kind));
            size
        }
        (None, Some(count)) if (1..=most).contains(&count) => count,
        (None, Some(count)) => {
            errors.push(format!("count {count} is not in 1 to {most}, what {} may have", entry.kind));
            1
        }
        (None, None) => {
            errors.push(format!("no count; {} needs the number of its registers", entry.kind));
            1
        }
    };
    let address = u16::try_from(entry.address).unwrap_or_else(|_| {
        let message = "is not in 0 to 65535; addresses are those on the wire (40001 in a manual is often holding 0)";
        errors.push(format!("address {} {message}", entry.address));
        0
    });
    if u32::from(address) + u32::from(count) > 1 << 16 {
        errors.push(format!("address {address} and count {count} go beyond register 65535"));
    }
    let bits = matches!(table, Table::Coils | Table::DiscreteInputs);
    if bits != (kind == Kind::Bit) {
        errors.push(format!("type {} does not stand in table {}", entry.kind, table_name(table)));
    }
    let (readable, writable) = match entry.access.as_str() {
        "r" => (true, false),
        "rw" => (true, true),
        "w" => (false, true),
        other => {
            errors.push(unknown("access", other, &["r", "rw", "w"]));
            (true, false)
        }
    };
    if writable && matches!(table, Table::Input | Table::DiscreteInputs) {
        errors.push(format!("access {}, but table {} is only read", entry.access, table_name(table)));
    }
    let effect = entry.effect.as_deref().and_then(|named| {
        let found = EFFECTS.iter().find(|effect| effect.0 == named).map(|effect| effect.1);
        if found.is_none() {
            errors.push(unknown("effect", named, &EFFECTS.map(|effect| effect.0)));
        } else if !writable {
            errors.push(format!("effect \"{named}\", but access {}; what is only read switches nothing", entry.access));
        }
        found
    });
    if !(-20..=20).contains(&entry.scale) {
        errors.push(format!("scale {} is a power of ten in -20 to 20; 0.1 is -1", entry.scale));
    }
    let poll = match entry.poll.as_deref() {
        None if kind == Kind::Text => Poll::Once,
        None if !readable => Poll::Never,
        None => Poll::Fast,
        Some(named) => POLLS.iter().find(|poll| poll.0 == named).map(|poll| poll.1).unwrap_or_else(|| {
            errors.push(unknown("poll", named, &POLLS.map(|poll| poll.0)));
            Poll::Fast
        }),
    };
    if let Some(reading) = entry.reading.as_deref().filter(|reading| !is_logical_name(reading)) {
        errors.push(format!("reading \"{reading}\" is no logical name; write six numbers, 1.0.1.8.0.255"));
    }
    let mut names = Vec::new();
    for (number, named) in &entry.names {
        match number.parse() {
            Ok(number) => names.push((number, named.clone())),
            Err(_) => errors.push(format!("names: \"{number}\" is no number; write 0 = \"off\"")),
        }
    }
    if !names.is_empty() && !matches!(kind, Kind::Bits | Kind::Enumeration) {
        errors.push(format!("names, but type {} has none; use enum16 or bits16", entry.kind));
    }
    let not_available = entry.not_available.clone().or_else(|| head.not_available.get(&entry.kind).cloned());
    let width = 16 * u32::from(count.min(4));
    let not_available = not_available.unwrap_or_default();
    for raw in not_available.iter().filter(|raw| width < 64 && **raw >> width != 0) {
        errors.push(format!("not_available {raw} does not fit {count} registers; write what they hold, unsigned"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Point {
        name: name.into(),
        table,
        address,
        count,
        kind,
        swap_octets: entry.swap_octets.unwrap_or(head.swap_octets),
        low_word_first: entry.low_word_first.unwrap_or(head.low_word_first && kind != Kind::Text),
        scale: entry.scale,
        scale_from: entry.scale_from.clone(),
        unit: entry.unit.clone(),
        reading: entry.reading.clone(),
        writable,
        effect,
        readable,
        poll,
        // 64 bits with the highest set have no positive number in TOML.
        not_available: not_available.into_iter().map(|raw| raw as u64).collect(),
        names,
    })
}

fn table_named(name: &str) -> Option<Table> {
    TABLES.iter().find(|table| table.0 == name).map(|table| table.1)
}

/// The name of a table in map files.
pub(super) fn table_name(table: Table) -> &'static str {
    TABLES.iter().find(|known| known.1 == table).map_or("", |known| known.0)
}

fn kind_named(name: &str) -> Option<(Kind, Option<u16>)> {
    KINDS.iter().find(|kind| kind.0 == name).map(|kind| (kind.1, kind.2))
}

fn unknown(what: &str, found: &str, known: &[&str]) -> String {
    format!("{what} \"{found}\" is not known; use {}", known.join(", "))
}

fn is_logical_name(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 6 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

/// The key whose value holds octet `at`, as far as a line says it.
fn key_at(text: &str, at: usize) -> String {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let key = line.split('=').next().unwrap_or_default().trim();
    if key.is_empty() { "file".into() } else { key.into() }
}

const TABLES: [(&str, Table); 4] = [
    ("coils", Table::Coils),
    ("discrete-inputs", Table::DiscreteInputs),
    ("holding", Table::Holding),
    ("input", Table::Input),
];

const POLLS: [(&str, Poll); 4] =
    [("fast", Poll::Fast), ("slow", Poll::Slow), ("once", Poll::Once), ("never", Poll::Never)];

const EFFECTS: [(&str, Effect); 2] = [("switch", Effect::Switch), ("limit", Effect::Limit)];

/// Types by name, with their registers where the name says them.
const KINDS: [(&str, Kind, Option<u16>); 16] = [
    ("uint16", Kind::Unsigned, Some(1)),
    ("uint32", Kind::Unsigned, Some(2)),
    ("uint64", Kind::Unsigned, Some(4)),
    ("int16", Kind::Signed, Some(1)),
    ("int32", Kind::Signed, Some(2)),
    ("int64", Kind::Signed, Some(4)),
    ("float32", Kind::Float, Some(2)),
    ("float64", Kind::Float, Some(4)),
    ("enum16", Kind::Enumeration, Some(1)),
    ("enum32", Kind::Enumeration, Some(2)),
    ("bits16", Kind::Bits, Some(1)),
    ("bits32", Kind::Bits, Some(2)),
    ("text", Kind::Text, None),
    ("bcd", Kind::Bcd, None),
    ("mod10k", Kind::Mod10k, None),
    ("bit", Kind::Bit, Some(1)),
];

/// Registers of one read (Modbus Application Protocol V1.1b3, clause 6.3): text may be as long.
const MOST_REGISTERS: u16 = 125;
