//! What common logical names mean, from `data/objects.tsv`. A convenience for people and a first guess for plans: what
//! a meter's own object list says counts more.

use std::ops::RangeInclusive;
use std::sync::OnceLock;

use super::LogicalName;
use super::units::Unit;

/// A standard object, or a family of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    groups: [RangeInclusive<u8>; 6],
    /// Interface class.
    pub class_id: u16,
    /// The unit that meters usually give it.
    pub unit: Option<Unit>,
    /// Where energy goes: import, export, net, total, or a quadrant.
    pub direction: Option<&'static str>,
    /// Its reading type as in the table, with `E` and `P`; see [`CatalogueEntry::reading_type`].
    reading_type: Option<&'static str>,
    /// What it is.
    pub name: &'static str,
}

impl CatalogueEntry {
    fn matches(&self, name: LogicalName) -> bool {
        self.groups.iter().zip(name.0).all(|(group, octet)| group.contains(&octet))
    }

    /// The reading type of `name`, all 18 fields (IEC 61968-9), for values in the unit itself. `capture_period_s` is that of
    /// the profile it was captured by; 0 where there is none, or where the period has no number there.
    pub fn reading_type(&self, name: LogicalName, capture_period_s: u32) -> Option<String> {
        let period = PERIODS.iter().find(|(seconds, _)| *seconds == capture_period_s).map_or(0, |(_, number)| *number);
        let filled = |field: &str| match field {
            "E" => name.0[4].to_string(),
            "P" => period.to_string(),
            other => other.to_owned(),
        };
        Some(self.reading_type?.split('.').map(filled).collect::<Vec<_>>().join("."))
    }

    /// How many logical names it stands for: the fewer, the better it fits.
    fn breadth(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.end() - group.start()) + 1).product()
    }
}

/// Seconds of a capture period, and its number among the measuring periods of IEC 61968-9.
const PERIODS: [(u32, u8); 7] = [(60, 3), (300, 6), (600, 1), (900, 2), (1800, 5), (3600, 7), (86_400, 4)];

/// The entry that fits best.
pub fn lookup(name: LogicalName) -> Option<&'static CatalogueEntry> {
    entries().iter().filter(|entry| entry.matches(name)).min_by_key(|entry| entry.breadth())
}

/// All entries.
pub fn entries() -> &'static [CatalogueEntry] {
    static ENTRIES: OnceLock<Vec<CatalogueEntry>> = OnceLock::new();
    ENTRIES.get_or_init(|| TABLE.lines().filter_map(entry).collect())
}

/// One line of the table; `None` for comments. A test sees to it that nothing else is left out.
fn entry(line: &'static str) -> Option<CatalogueEntry> {
    let mut fields = line.split('\t');
    let name = fields.next().filter(|name| !name.starts_with('#'))?;
    let mut parts = name.split('.').map(group);
    let mut next = || parts.next().flatten();
    Some(CatalogueEntry {
        groups: [next()?, next()?, next()?, next()?, next()?, next()?],
        class_id: fields.next()?.parse().ok()?,
        unit: match given(fields.next()?) {
            None => None,
            Some(number) => Some(Unit(number.parse().ok()?)),
        },
        direction: given(fields.next()?),
        reading_type: given(fields.next()?),
        name: fields.next()?,
    })
}

fn given(field: &str) -> Option<&str> {
    Some(field).filter(|field| *field != "-")
}

fn group(text: &str) -> Option<RangeInclusive<u8>> {
    if text == "*" {
        return Some(0..=255);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

const TABLE: &str = include_str!("../../data/objects.tsv");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();

        assert_eq!(entries().len(), lines);
        assert!(lines >= 60);
        for entry in entries() {
            assert!(entry.unit.is_none_or(|unit| unit.symbol().is_some()), "{entry:?}");
            assert!(entry.groups.iter().all(|group| group.start() <= group.end()), "{entry:?}");
            let reading_type = entry.reading_type(LogicalName(entry.groups.clone().map(|group| *group.start())), 900);
            assert!(reading_type.is_none_or(|text| {
                text.split('.').count() == 18 && text.split('.').all(|field| field.parse::<u8>().is_ok())
            }));
            assert!(entry.direction.is_none() || entry.reading_type.is_some(), "{entry:?}");
        }
    }

    #[test]
    fn well_known_names_are_found() {
        for (name, class_id, unit, text) in [
            ("1.0.1.8.0.255", 3, Some("Wh"), "active energy import (+A), total"),
            ("1.0.1.8.2.255", 3, Some("Wh"), "active energy import (+A), rate"),
            ("1.1.32.7.0.255", 3, Some("V"), "voltage, L1, instantaneous"),
            ("1.0.1.6.0.255", 4, Some("W"), "active power import (+A), maximum demand"),
            ("0.0.1.0.0.255", 8, None, "clock"),
            ("0.0.43.1.3.255", 1, None, "invocation counter"),
            ("0.0.96.3.10.255", 70, None, "disconnect control"),
            ("0.0.17.0.0.255", 71, None, "limiter"),
            ("0.0.40.0.0.255", 15, None, "current association"),
            ("1.0.99.1.0.255", 7, None, "load profile 1"),
            ("0.0.99.98.1.255", 7, None, "event log"),
            ("0.0.10.0.106.255", 9, None, "script table, disconnector"),
        ] {
            let entry = lookup(name.parse().unwrap()).unwrap_or_else(|| panic!("{name}"));
            let symbol = entry.unit.and_then(Unit::symbol);
            assert_eq!((entry.class_id, symbol, entry.name), (class_id, unit, text), "{name}");
        }
        assert_eq!(lookup(LogicalName([128, 128, 128, 128, 128, 0])), None);
    }

    /// As a public metering system pairs logical names with reading types, and as the standard's examples have them.
    #[test]
    fn reading_types_say_direction_tariff_phase_and_interval() {
        for (name, capture_period_s, direction, reading_type) in [
            ("1.0.1.8.0.255", 0, Some("import"), "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0"),
            ("1.0.1.8.2.255", 0, Some("import"), "0.0.0.1.1.1.12.0.0.0.0.2.0.0.0.0.72.0"),
            ("1.0.2.8.0.255", 0, Some("export"), "0.0.0.1.19.1.12.0.0.0.0.0.0.0.0.0.72.0"),
            ("1.0.5.8.0.255", 0, Some("quadrant I"), "0.0.0.1.15.1.12.0.0.0.0.0.0.0.0.0.73.0"),
            ("1.0.16.8.0.255", 0, Some("net"), "0.0.0.1.4.1.12.0.0.0.0.0.0.0.0.0.72.0"),
            ("1.0.1.29.0.255", 900, Some("import"), "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0"),
            ("1.0.1.29.0.255", 7, Some("import"), "0.0.0.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0"),
            ("1.0.32.7.0.255", 0, None, "0.0.0.12.0.1.54.0.0.0.0.0.0.0.128.0.29.0"),
            ("1.0.61.7.0.255", 0, Some("import"), "0.0.0.12.1.1.37.0.0.0.0.0.0.0.32.0.38.0"),
        ] {
            let name: LogicalName = name.parse().unwrap();
            let entry = lookup(name).unwrap();
            assert_eq!(entry.direction, direction, "{name:?}");
            assert_eq!(entry.reading_type(name, capture_period_s).as_deref(), Some(reading_type), "{name:?}");
        }
        assert_eq!(
            lookup("0.0.1.0.0.255".parse().unwrap()).unwrap().reading_type("0.0.1.0.0.255".parse().unwrap(), 0),
            None
        );
    }
}
