//! All maps together: what they inherit is joined, and what only shows then is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::control::{self, Act, Controls, Setting, Write};
use super::file::{MapError, MapFile, table_name};
use super::{Effect, Kind, Point, Poll, WriteError};
use crate::Table;
use crate::decimal::Decimal;

/// A whole map.
#[derive(Clone, Debug)]
pub struct Map {
    /// Its name, by which others inherit it and meters choose it.
    pub name: String,
    /// The devices that it is for.
    pub title: String,
    /// Who makes them.
    pub manufacturer: String,
    /// The manual that it is from.
    pub source: String,
    /// Registers that the device answers at once, at most.
    pub most: u16,
    /// Milliseconds that the device wants between requests.
    pub gap_ms: u16,
    /// Requests that the device takes before it has answered.
    pub in_flight: u8,
    /// How the device is known.
    pub matches: Vec<Match>,
    /// Its points, by table and address.
    pub points: Vec<Point>,
    /// What switches or limits the device.
    pub controls: Controls,
}

/// How a device is known. All that is said must fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The beginning of the vendor's name in its device identification (function 43/14) or SunSpec common model.
    pub vendor: String,
    /// The beginning of the product's name there.
    pub product: String,
    /// A register that says who it is.
    pub register: Option<(Table, u16)>,
    /// What that register may say.
    pub values: Vec<u16>,
}

impl Map {
    /// The point of this name.
    pub fn point(&self, name: &str) -> Option<&Point> {
        self.points.iter().find(|point| point.name == name)
    }

    /// The one write that does this, `percent` being what a limit is set to; `None` if the map does not know how.
    ///
    /// # Errors
    /// The points cannot say it: a rounded limit is another limit.
    pub fn write(&self, act: Act, percent: Option<Decimal>) -> Result<Option<Write>, WriteError> {
        let Some(settings) = self.controls.get(&act) else { return Ok(None) };
        let settings: Vec<(&Point, Option<i64>)> =
            settings.iter().filter_map(|one| Some((self.point(&one.point)?, one.value))).collect();
        control::write(&settings, percent).map(Some)
    }

    /// The points whose write switches or limits the device: those that say so, and those of its acts.
    pub fn critical(&self) -> Vec<(&Point, Effect)> {
        let by_act = |point: &Point| {
            let (act, _) =
                self.controls.iter().find(|(_, settings)| settings.iter().any(|one| one.point == point.name))?;
            Some(match act {
                Act::Connect | Act::Disconnect => Effect::Switch,
                Act::Limit | Act::Release => Effect::Limit,
            })
        };
        let effect = |point: &Point| point.effect.or_else(|| by_act(point));
        self.points.iter().filter_map(|point| Some((point, effect(point)?))).collect()
    }

    /// The points of a poll class, by table and address, with those that their scale comes from.
    pub fn polled(&self, poll: Poll) -> Vec<&Point> {
        let wanted: BTreeSet<&str> = self
            .points
            .iter()
            .filter(|point| point.poll == poll && point.readable)
            .flat_map(|point| [Some(point.name.as_str()), point.scale_from.as_deref()])
            .flatten()
            .collect();
        self.points.iter().filter(|point| wanted.contains(point.name.as_str())).collect()
    }

    /// Whether a device that names itself so is one of this map's.
    pub fn is_named(&self, vendor: &str, product: &str) -> bool {
        let begins = |text: &str, beginning: &str| text.to_lowercase().starts_with(&beginning.to_lowercase());
        self.matches
            .iter()
            .any(|known| !known.vendor.is_empty() && begins(vendor, &known.vendor) && begins(product, &known.product))
    }
}

/// Every mistake found in a set of maps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct MapErrors(pub Vec<MapError>);

/// Maps by name.
#[derive(Clone, Debug, Default)]
pub struct Library {
    maps: BTreeMap<String, Arc<Map>>,
}

impl Library {
    /// The maps that come with the crate.
    ///
    /// # Errors
    /// Never, as long as the crate's tests pass.
    pub fn builtin() -> Result<Self, MapErrors> {
        Self::load(&[])
    }

    /// The maps that come with the crate and those of `files` (a file's name and its text), which may inherit from any
    /// and replace one of the same name.
    ///
    /// # Errors
    /// All mistakes, file by file.
    pub fn load(files: &[(&str, &str)]) -> Result<Self, MapErrors> {
        let mut errors = Vec::new();
        let mut parsed: BTreeMap<String, MapFile> = BTreeMap::new();
        let mut added: BTreeMap<String, String> = BTreeMap::new();
        let own = BUILTIN.iter().map(|(file, text)| (*file, *text, false));
        for (file, text, user) in own.chain(files.iter().map(|(file, text)| (*file, *text, true))) {
            match MapFile::parse(file, text) {
                Err(found) => errors.extend(found),
                Ok(map) => {
                    if let Some(other) = added.get(&map.name) {
                        let message = format!("\"{}\" is the name of the map in {other}; choose another", map.name);
                        errors.push(MapError { file: file.into(), line: 1, place: "map.name".into(), message });
                    }
                    if user {
                        added.insert(map.name.clone(), file.into());
                    }
                    parsed.insert(map.name.clone(), map);
                }
            }
        }
        let mut maps = BTreeMap::new();
        for map in parsed.values() {
            match joined(map, &parsed) {
                Ok(joined) => {
                    maps.insert(joined.name.clone(), Arc::new(joined));
                }
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() { Ok(Self { maps }) } else { Err(MapErrors(errors)) }
    }

    /// The map of this name.
    pub fn map(&self, name: &str) -> Option<&Arc<Map>> {
        self.maps.get(name)
    }

    /// All maps, by name.
    pub fn maps(&self) -> impl Iterator<Item = &Arc<Map>> {
        self.maps.values()
    }
}

/// A map with what it inherits.
fn joined(map: &MapFile, all: &BTreeMap<String, MapFile>) -> Result<Map, Vec<MapError>> {
    let error = |line: usize, place: &str, message: String| {
        vec![MapError { file: map.file.clone(), line, place: place.into(), message }]
    };
    // Itself first, then what it inherits, and so on.
    let mut line_up = vec![map];
    while let Some((parent, line)) = line_up.last().and_then(|last| last.inherits.as_ref()) {
        let found = all.get(parent).ok_or_else(|| {
            error(*line, "map.inherits", format!("there is no map \"{parent}\"; there are {}", names(all)))
        })?;
        if line_up.iter().any(|seen| seen.name == found.name) {
            let circle: Vec<&str> = line_up.iter().map(|map| map.name.as_str()).chain([parent.as_str()]).collect();
            return Err(error(*line, "map.inherits", format!("{}: a circle; break it", circle.join(" -> "))));
        }
        line_up.push(found);
    }
    let mut points: BTreeMap<&str, (&Point, &MapFile, usize)> = BTreeMap::new();
    for from in line_up.iter().rev() {
        for (name, line) in &from.without {
            if points.remove(name.as_str()).is_none() {
                return Err(vec![MapError {
                    file: from.file.clone(),
                    line: *line,
                    place: "map.without".into(),
                    message: format!("\"{name}\" is no point of what this map inherits; take it out"),
                }]);
            }
        }
        points.extend(from.points.iter().map(|(point, line)| (point.name.as_str(), (point, *from, *line))));
    }
    let mut errors = Vec::new();
    for (point, from, line) in points.values() {
        let Some(name) = point.scale_from.as_deref() else { continue };
        let wrong = match points.get(name) {
            None => Some(format!("scale_from \"{name}\" is no point of this map")),
            Some((other, ..)) if !matches!(other.kind, Kind::Signed | Kind::Unsigned) || other.count != 1 => {
                Some(format!("scale_from \"{name}\" is no integer of one register"))
            }
            Some(_) => None,
        };
        errors.extend(wrong.map(|message| at(from, *line, point, message)));
    }
    let (controls, wrong) = controls(map, &line_up, &points);
    errors.extend(wrong);
    let shared: BTreeSet<&str> = line_up.iter().flat_map(|map| map.shared.iter().map(String::as_str)).collect();
    let mut ordered: Vec<_> = points.values().collect();
    ordered.sort_by_key(|(point, ..)| (point.table, point.address, point.count));
    let alone: Vec<_> = ordered.iter().filter(|(point, ..)| !shared.contains(point.name.as_str())).collect();
    for two in alone.windows(2) {
        let ((before, ..), (after, from, line)) = (two[0], two[1]);
        if before.table == after.table && before.address + before.count > after.address {
            let message = format!(
                "overlaps {} ({} {} to {}); correct one of them, or say shared = true",
                before.name,
                table_name(before.table),
                before.address,
                before.address + (before.count - 1)
            );
            errors.push(at(from, *line, after, message));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let first = |choose: fn(&MapFile) -> Option<u16>| line_up.iter().find_map(|map| choose(map));
    Ok(Map {
        name: map.name.clone(),
        title: map.title.clone(),
        manufacturer: map.manufacturer.clone(),
        source: map.source.clone(),
        most: first(|map| map.most).unwrap_or(MOST),
        gap_ms: first(|map| map.gap_ms).unwrap_or(0),
        // Not above `MOST_IN_FLIGHT`.
        in_flight: first(|map| map.in_flight).unwrap_or(1) as u8,
        matches: map.matches.clone(),
        points: ordered.into_iter().map(|(point, ..)| (*point).clone()).collect(),
        controls,
    })
}

/// What switches or limits a device: its map's own acts, and those that it inherits as long as their points are there.
fn controls(
    map: &MapFile,
    line_up: &[&MapFile],
    points: &BTreeMap<&str, (&Point, &MapFile, usize)>,
) -> (Controls, Vec<MapError>) {
    let mut known: BTreeMap<Act, (&[Setting], &MapFile, usize)> = BTreeMap::new();
    for from in line_up.iter().rev() {
        known.extend(from.controls.iter().map(|(act, settings, line)| (*act, (&settings[..], *from, *line))));
    }
    let gone = |settings: &[Setting]| {
        settings.iter().find(|one| !points.contains_key(one.point.as_str())).map(|one| one.point.clone())
    };
    known.retain(|_, (settings, from, _)| from.name == map.name || gone(settings).is_none());
    let mut errors = Vec::new();
    for (act, (settings, from, line)) in &known {
        let found: Vec<(&Point, Option<i64>)> =
            settings.iter().filter_map(|one| Some((points.get(one.point.as_str())?.0, one.value))).collect();
        let message = match gone(settings) {
            Some(point) => Some(format!("{point} is no point of this map")),
            None if !known.contains_key(&act.back()) => {
                Some(format!("nothing takes it back; say {} as well", act.back().name()))
            }
            None => control::mistake(*act, &found),
        };
        let place = format!("control.{}", act.name());
        errors.extend(message.map(|message| MapError { file: from.file.clone(), line: *line, place, message }));
    }
    (known.into_iter().map(|(act, (settings, ..))| (act, settings.to_vec())).collect(), errors)
}

fn at(map: &MapFile, line: usize, point: &Point, message: String) -> MapError {
    MapError { file: map.file.clone(), line, place: format!("points.{}", point.name), message }
}

fn names(all: &BTreeMap<String, MapFile>) -> String {
    all.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Registers of one read, if a map says nothing.
const MOST: u16 = 125;

macro_rules! builtin {
    ($($name:literal)*) => {
        /// The files of `data/maps`.
        pub(super) const BUILTIN: &[(&str, &str)] =
            &[$((concat!($name, ".toml"), include_str!(concat!("../../data/maps/", $name, ".toml")))),*];
    };
}

builtin! {
    "abb-b23" "carlo-gavazzi-em24-e1" "carlo-gavazzi-em24" "carlo-gavazzi-em340" "chint-dtsu666" "eastron-sdm120"
    "eastron-sdm630" "growatt-inverter" "huawei-sun2000" "inepro-pro380" "janitza-umg96rm" "pzem-004t" "schneider-iem3155"
    "schneider-pm5110" "schneider-pm800" "siemens-pac3200" "sma-stp" "solis-hybrid" "sungrow-sg" "victron-gx" "victron-vm3p"
}
