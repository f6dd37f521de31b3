//! Companion profiles: what a companion standard or a meter model adds to the standard, as data (`data/profiles/`).
//!
//! ```toml
//! inherits = "nordic-han"            # everything of that profile, and what follows here
//! about = "Kaifa MA304H3E, Norway"
//! source = "where each line comes from"
//!
//! [quirks]                           # switches and limits by the names of `crate::quirks::QUIRKS`
//! with_list_allowed = false
//!
//! [time]
//! deviation = "as-sent"              # "ignored": it means nothing (the quirk deviation_reversed turns its sign)
//! standard-deviation = -60           # minutes to add to normal time for UTC, where no deviation is specified
//! summer-time = "none"               # "eu": such a clock follows the European Union's summer time
//!
//! [scalers]                          # where the meter does not say; "always" if what it says is wrong
//! "1.0.32.7.0.255" = "-1 V"
//! "1.0.1.8.*.255" = "always 1 Wh"
//!
//! [[push]]
//! name = "list 1"
//! begins = "KFM_001"                 # the text that its first element begins with, if lists of one length differ
//! columns = ["3/1.0.1.7.0.255 0 W"]
//! ```

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use super::finder::Found;
use super::layout::{Column, Layout, Shape, scaler_and_unit};
use super::time_rules::TimeRules;
use crate::cosem::LogicalName;
use crate::cosem::units::Unit;
use crate::profile::Profile;
use crate::quirks::{QuirkValue, Quirks};

/// A companion profile with everything that it inherits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Companion {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub about: String,
    /// How its times are to be understood.
    pub time: TimeRules,
    /// Lists that do not say what stands where.
    pub layouts: Vec<Layout>,
    /// Switches by name, for whoever knows them.
    pub quirks: BTreeMap<String, Quirk>,
    /// The octets of floats come the wrong way round.
    pub floats_swapped: bool,
    scalers: Vec<Scaler>,
}

/// The value of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Quirk {
    /// On or off.
    Switch(bool),
    /// A number, such as a limit.
    Number(u32),
    /// One of several ways.
    Word(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Scaler {
    groups: [Option<u8>; 6],
    always: bool,
    scaler: Option<i8>,
    unit: Option<Unit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    inherits: Option<String>,
    about: String,
    source: String,
    #[serde(default)]
    quirks: BTreeMap<String, Quirk>,
    #[serde(default)]
    time: Time,
    #[serde(default)]
    scalers: BTreeMap<String, String>,
    #[serde(default)]
    push: Vec<Push>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Time {
    deviation: Option<Deviation>,
    standard_deviation: Option<i16>,
    summer_time: Option<SummerTime>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Deviation {
    AsSent,
    Ignored,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SummerTime {
    None,
    Eu,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    name: String,
    begins: Option<String>,
    columns: Vec<String>,
}

impl Companion {
    /// Read a profile from its text. `parent` gives the profile that it inherits from by name.
    ///
    /// # Errors
    /// What is wrong, with the place where the text can tell.
    pub fn parse(
        name: &str,
        text: &str,
        parent: &mut dyn FnMut(&str) -> Result<Companion, String>,
    ) -> Result<Self, String> {
        let wrong = |what: String| format!("profile {name}: {what}");
        let file: File = toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
        if file.source.trim().is_empty() {
            return Err(wrong("source is empty; say where its lines come from".into()));
        }
        let mut profile = match &file.inherits {
            Some(inherited) => parent(inherited)?,
            None => Self::default(),
        };
        profile.name = name.to_owned();
        profile.about = file.about;
        profile.quirks.extend(file.quirks);
        let quirks = profile.session_quirks().map_err(wrong)?;
        profile.time.deviation_inverted = quirks.deviation_reversed;
        profile.floats_swapped = quirks.floats_swapped;
        if let Some(deviation) = file.time.deviation {
            profile.time.deviation_ignored = matches!(deviation, Deviation::Ignored);
        }
        if quirks.standard_time_all_year {
            profile.time.summer_time_eu = false;
        }
        if let Some(minutes) = file.time.standard_deviation {
            profile.time.standard_deviation_min = Some(minutes);
        }
        if let Some(summer) = file.time.summer_time {
            profile.time.summer_time_eu = matches!(summer, SummerTime::Eu);
        }
        // What comes first counts: a profile's own lines before those that it inherits.
        let mut scalers = Vec::new();
        for (object, says) in &file.scalers {
            scalers.push(Scaler::parse(object, says).map_err(|what| wrong(format!("scalers: {what}")))?);
        }
        scalers.append(&mut profile.scalers);
        profile.scalers = scalers;
        let mut layouts = Vec::new();
        for push in file.push {
            let columns = push.columns.iter().map(|column| Column::parse(column)).collect::<Result<_, _>>();
            let columns = columns.map_err(|what| wrong(format!("push \"{}\": {what}", push.name)))?;
            layouts.push(Layout { name: push.name, begins: push.begins, columns });
        }
        layouts.append(&mut profile.layouts);
        profile.layouts = layouts;
        Ok(profile)
    }

    /// Set what the profile says in a meter's pinned profile.
    ///
    /// # Errors
    /// A name that nobody knows, or a value that it cannot have.
    pub fn apply(&self, profile: &mut Profile) -> Result<(), String> {
        for (name, quirk) in &self.quirks {
            let value = match quirk {
                Quirk::Switch(switch) => QuirkValue::Flag(*switch),
                Quirk::Number(number) => QuirkValue::Number(*number),
                Quirk::Word(word) => QuirkValue::Word(word),
            };
            profile.set_quirk(name, value).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn session_quirks(&self) -> Result<Quirks, String> {
        let mut profile = Profile::public();
        self.apply(&mut profile)?;
        Ok(profile.quirks)
    }

    /// The layout of a list of this shape.
    pub fn layout(&self, shape: &Shape) -> Option<&Layout> {
        self.layouts.iter().find(|layout| layout.fits(shape))
    }

    /// Put in the scaler and unit that the meter left out, or that it has wrong. A scaler is never guessed from what
    /// other meters send.
    pub fn scale(&self, found: &mut Found<'_>) {
        let Some(known) = self.scalers.iter().find(|known| known.matches(found.logical_name)) else { return };
        if known.always || found.scaler.is_none() {
            found.scaler = known.scaler;
            found.unit = known.unit;
        }
    }
}

impl Scaler {
    fn parse(object: &str, says: &str) -> Result<Self, String> {
        let parts: Vec<&str> = object.split('.').collect();
        let mut groups = [None; 6];
        if parts.len() != groups.len() {
            return Err(format!("\"{object}\": expected six numbers or * with dots"));
        }
        for (group, part) in groups.iter_mut().zip(parts) {
            *group = match part {
                "*" => None,
                number => Some(number.parse().map_err(|_| format!("\"{object}\": {number} is no number to 255 or *"))?),
            };
        }
        let (always, rest) = match says.strip_prefix("always ") {
            Some(rest) => (true, rest),
            None => (false, says),
        };
        let (scaler, unit) =
            scaler_and_unit(rest.split_whitespace()).map_err(|what| format!("\"{object}\": {what}"))?;
        Ok(Self { groups, always, scaler, unit })
    }

    fn matches(&self, name: LogicalName) -> bool {
        self.groups.iter().zip(name.0).all(|(group, octet)| group.is_none_or(|group| group == octet))
    }
}

/// A profile of those that come with this crate.
///
/// # Errors
/// No profile has this name; the message lists those that are there.
pub fn companion(name: &str) -> Result<&'static Companion, String> {
    static LOADED: [OnceLock<Result<Companion, String>>; FILES.len()] = [const { OnceLock::new() }; FILES.len()];
    let Some(place) = FILES.iter().position(|(known, _)| *known == name) else {
        let known: Vec<&str> = names().collect();
        return Err(format!("no profile is called \"{name}\"; there are {}", known.join(", ")));
    };
    LOADED[place].get_or_init(|| load(name, FILES.len())).as_ref().map_err(Clone::clone)
}

/// The names of the profiles that come with this crate.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The text of a profile that comes with this crate.
pub fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

fn load(name: &str, deep: usize) -> Result<Companion, String> {
    let text = text(name).ok_or_else(|| format!("no profile is called \"{name}\""))?;
    Companion::parse(name, text, &mut |parent| match deep.checked_sub(1) {
        Some(deep) => load(parent, deep),
        None => Err(format!("profile {name}: profiles inherit from each other in a circle")),
    })
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../data/profiles/", $name, ".toml")))),*]
    };
}

const FILES: [(&str, &str); FILE_COUNT] = files![
    "generic",
    "aidon-han",
    "austrian-push",
    "czech-han",
    "dsmr4",
    "idis",
    "is15959",
    "iskraemeco-am550-list-18",
    "italian",
    "kaifa-han",
    "kamstrup-han",
    "nordic-han",
    "sagemcom-t210d",
    "smr5",
    "swiss-push",
    "virtual",
    "wiener-netze-push"
];
const FILE_COUNT: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(text: &str) -> Result<Companion, String> {
        Companion::parse("test", text, &mut |parent| companion(parent).cloned())
    }

    #[test]
    fn every_profile_of_this_crate_is_understood() {
        for name in names() {
            let profile = companion(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(profile.name, name);
            assert!(!profile.about.is_empty());
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let head = "about = 'x'\nsource = 'y'\n";
        for (text, said) in [
            ("", "about"),
            ("about = 'x'\nsource = ' '", "source is empty"),
            (&format!("{head}inherits = 'nobody'"), "no profile is called \"nobody\""),
            (&format!("{head}[tme]"), "tme"),
            (&format!("{head}[time]\ndeviation = 'odd'"), "odd"),
            (&format!("{head}[quirks]\nwith_lists = true"), "with_lists"),
            (&format!("{head}[quirks]\nmax_pdu = 7"), "max_pdu"),
            (&format!("{head}[scalers]\n'1.0.1' = '-1 V'"), "six numbers"),
            (&format!("{head}[scalers]\n'1.0.1.8.0.255' = '-1 Volt'"), "no unit has the symbol \"Volt\""),
            (&format!("{head}[[push]]\nname = 'l'\ncolumns = ['3']"), "push \"l\""),
        ] {
            let error = alone(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn quirk_20_and_21_a_utilitys_own_profile_adds_to_the_models() {
        let own = "inherits = 'generic'\nabout = 'tenths'\nsource = 'the utility'\n\
                   [scalers]\n'1.*.1.8.0.255' = '1 Wh'\n[quirks]\nwith_list_allowed = false";

        let profile = alone(own).unwrap();

        assert_eq!(profile.quirks["with_list_allowed"], Quirk::Switch(false));
        let mut found = Found {
            logical_name: "1.0.1.8.0.255".parse().unwrap(),
            class_id: None,
            attribute: 2,
            data_index: 0,
            tag: 6,
            octets: &[0, 0, 0, 5],
            bits: 0,
            scaler: None,
            unit: None,
            capture_time: None,
        };
        companion("generic").unwrap().scale(&mut found);
        assert_eq!(found.scaler, None, "never guessed");
        profile.scale(&mut found);
        assert_eq!((found.scaler, found.unit), (Some(1), Some(Unit::WATT_HOUR)));
        found.scaler = Some(0);
        profile.scale(&mut found);
        assert_eq!(found.scaler, Some(0), "what the meter says counts more");
    }
}
