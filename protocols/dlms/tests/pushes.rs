//! Captured pushes of real meters, found in public material, are read as their sources say.

use std::collections::BTreeSet;

use ipss_dlms::push::companion;
use ipss_dlms::security::Key;
use ipss_dlms::translate::{Keys, TranslateRequest, Transmission, parse_hex, translate};
use serde_json::Value;
use toml::Table;

const FILES: [&str; 10] = [
    include_str!("../vectors/pushes/aidon.toml"),
    include_str!("../vectors/pushes/elster.toml"),
    include_str!("../vectors/pushes/energomera.toml"),
    include_str!("../vectors/pushes/iskraemeco.toml"),
    include_str!("../vectors/pushes/kaifa.toml"),
    include_str!("../vectors/pushes/kamstrup.toml"),
    include_str!("../vectors/pushes/landis-gyr.toml"),
    include_str!("../vectors/pushes/mbus.toml"),
    include_str!("../vectors/pushes/siemens.toml"),
    include_str!("../vectors/pushes/untagged.toml"),
];

fn pushes() -> Vec<Table> {
    let files = FILES.iter().map(|file| file.parse::<Table>().unwrap());
    files
        .flat_map(|file| file["push"].as_array().unwrap().clone())
        .map(|push| push.as_table().unwrap().clone())
        .collect()
}

fn text<'t>(push: &'t Table, key: &str) -> Option<&'t str> {
    push.get(key).map(|value| value.as_str().unwrap())
}

fn decoded(push: &Table, profile: Option<&str>) -> Value {
    let key = |name| text(push, name).map(|digits| Key::from_slice(&parse_hex(digits).unwrap()).unwrap());
    let keys = Keys {
        encryption_key: key("encryption_key"),
        authentication_key: key("authentication_key"),
        ..Keys::default()
    };
    let octets = parse_hex(text(push, "bytes").unwrap()).unwrap();
    let request = TranslateRequest {
        id: None,
        layer: text(push, "layer").unwrap(),
        transmissions: &[Transmission { from: None, octets: &octets }],
        keys: &[keys],
        companion: profile.map(|name| companion(name).unwrap()),
    };
    let mut answer = String::new();
    translate(&request, &mut |piece| answer.push_str(piece));
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn captured_pushes_of_many_makes_are_read_as_their_sources_say() {
    let mut wrong = Vec::new();
    for push in pushes() {
        let name = text(&push, "name").unwrap();
        assert!(!text(&push, "source").unwrap().is_empty(), "{name}");

        let answer = decoded(&push, text(&push, "profile"));

        if answer["outcome"] != text(&push, "outcome").unwrap_or("decoded") {
            wrong.push(format!("{name}: {}", answer["error"]));
            continue;
        }
        let readings = answer["readings"].as_array().unwrap();
        for line in text(&push, "readings").unwrap().lines().filter(|line| !line.trim().is_empty()) {
            let (object, wanted) = line.split_once(' ').unwrap();
            let found = readings.iter().any(|reading| {
                let value = reading["value"].as_str().unwrap();
                let unit = reading["unit"].as_str().unwrap_or_default();
                reading["logical_name"] == object && (wanted == value || wanted == format!("{value} {unit}"))
            });
            if !found {
                let near: Vec<_> = readings.iter().filter(|reading| reading["logical_name"] == object).collect();
                wrong.push(format!("{name}: no {line} among {} readings, but {near:?}", readings.len()));
            }
        }
        if let Some(time) = text(&push, "time") {
            let found = readings.last().map(|reading| &reading["capture_time"]);
            if found.is_none_or(|found| found != time) {
                wrong.push(format!("{name}: {time}, but {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ten_makes_and_their_quirks_are_among_the_captures() {
    let pushes = pushes();
    let makes: BTreeSet<&str> =
        pushes.iter().map(|push| text(push, "model").unwrap().split([' ', ',']).next().unwrap()).collect();
    let quirks: BTreeSet<i64> = pushes
        .iter()
        .filter_map(|push| push.get("quirks"))
        .flat_map(|rows| rows.as_array().unwrap())
        .map(|row| row.as_integer().unwrap())
        .collect();

    assert!(makes.len() >= 10, "{makes:?}");
    for row in [2, 4, 5, 7, 16, 19, 20, 21, 22, 24, 26, 27, 28, 29, 43, 44, 51, 52, 55] {
        assert!(quirks.contains(&row), "quirk {row}");
    }
}

#[test]
fn a_capture_cut_off_or_damaged_anywhere_gets_an_answer() {
    for push in pushes() {
        let octets = parse_hex(text(&push, "bytes").unwrap()).unwrap();
        let profile = text(&push, "profile").map(|name| companion(name).unwrap());
        for place in (0..octets.len()).step_by(3) {
            let mut damaged = octets.clone();
            damaged[place] ^= 1 << (place % 8);
            for octets in [&octets[..place], &damaged] {
                let transmissions = [Transmission { from: None, octets }];
                let layer = text(&push, "layer").unwrap();
                let request =
                    TranslateRequest { id: None, layer, transmissions: &transmissions, keys: &[], companion: profile };
                let mut answer = String::new();
                translate(&request, &mut |piece| answer.push_str(piece));
                serde_json::from_str::<Value>(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
            }
        }
    }
}
