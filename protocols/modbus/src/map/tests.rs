use proptest::prelude::*;

use super::library::BUILTIN;
use super::*;
use crate::decimal::Decimal;

const HEAD: &str =
    "[map]\nname = \"mine\"\ntitle = \"t\"\nmanufacturer = \"m\"\nsource = \"manual, table 1\"\n\n[points]\n";

fn load(points: &str) -> Result<Library, MapErrors> {
    Library::load(&[("mine.toml", &format!("{HEAD}{points}"))])
}

fn point(points: &str) -> Point {
    let library = load(points).expect("a good map");
    library.map("mine").expect("loaded").points[0].clone()
}

fn number(points: &str, registers: &[u16]) -> Option<String> {
    point(points).read(registers, None).decimal().map(|decimal| decimal.to_string())
}

/// The one message about a map that is wrong.
fn message(points: &str) -> String {
    let MapErrors(errors) = load(points).expect_err("a bad map");
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

#[test]
fn every_map_that_comes_with_the_crate_is_good_and_names_its_source() {
    let library = Library::builtin().unwrap_or_else(|errors| panic!("{errors}"));

    assert_eq!(library.maps().count(), BUILTIN.len());
    for map in library.maps() {
        assert!(map.source.len() > 20 && map.points.len() > 3, "{}", map.name);
        assert!(map.points.iter().any(|point| point.reading.is_some()), "{}", map.name);
    }
}

#[test]
fn every_file_of_maps_is_built_in_under_its_own_name() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/data/maps");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    files.sort();
    let library = Library::builtin().expect("good");

    assert_eq!(files, BUILTIN.iter().map(|(file, _)| *file).collect::<Vec<_>>());
    for file in files {
        assert!(library.map(file.trim_end_matches(".toml")).is_some(), "{file}");
    }
}

#[test]
fn points_that_switch_or_limit_say_so() {
    let point = |effect: &str, access: &str| {
        format!("one = {{ address = 1, type = \"uint16\", access = \"{access}\", effect = \"{effect}\" }}")
    };
    assert_eq!(self::point(&point("switch", "w")).effect, Some(Effect::Switch));
    assert_eq!(self::point(&point("limit", "rw")).effect, Some(Effect::Limit));
    assert_eq!(self::point("one = { address = 1, type = \"uint16\", access = \"rw\" }").effect, None);
    assert!(message(&point("blink", "w")).contains("effect \"blink\" is not known; use switch, limit"));
    assert!(message(&point("limit", "r")).contains("only read"));

    let library = Library::builtin().expect("good");
    for map in library.maps() {
        for point in map.points.iter().filter(|point| point.writable) {
            let tells = ["limit", "start", "stop", "on_off"].iter().any(|word| point.name.contains(word));
            assert_eq!(point.effect.is_some(), tells, "{}: {}", map.name, point.name);
        }
        let critical: Vec<&str> = map.critical().iter().map(|(point, _)| point.name.as_str()).collect();
        for one in map.controls.values().flatten() {
            assert!(critical.contains(&one.point.as_str()), "{}: {}", map.name, one.point);
        }
    }
    // What an act writes is critical without a word.
    let points = "on = { address = 1, type = \"uint16\", access = \"rw\" }\nother = { address = 2, type = \"uint16\", access = \"rw\" }\n\
                  [control]\nconnect = { on = 1 }\ndisconnect = { on = 0 }\n";
    let library = load(points).expect("a good map");
    let critical = library.map("mine").expect("loaded").critical();
    assert_eq!(
        critical.iter().map(|(point, effect)| (&point.name[..], *effect)).collect::<Vec<_>>(),
        [("on", Effect::Switch)]
    );
}

#[test]
fn a_map_takes_over_what_it_inherits_and_may_leave_points_out() {
    let library = Library::builtin().expect("good");
    let three = library.map("eastron-sdm630").expect("there");

    assert_eq!(three.point("voltage_l1").map(|point| point.address), Some(0));
    assert_eq!(three.point("active_power").map(|point| point.address), Some(0x34));
    assert_eq!(three.most, 80);
}

#[test]
fn a_map_says_how_many_requests_its_device_takes_at_once() {
    let map = |line: &str| {
        let head = "[map]\nname = \"m\"\ntitle = \"M\"\nmanufacturer = \"Maker\"\nsource = \"Manual\"\n";
        let text = format!("{head}{line}\n[points]\np = {{ address = 1, type = \"uint16\" }}\n");
        Library::load(&[("m.toml", &text)]).map(|library| library.map("m").map(|map| map.in_flight))
    };

    assert_eq!(map("").expect("good"), Some(1));
    assert_eq!(map("in_flight = 16").expect("good"), Some(16));
    for wrong in ["in_flight = 0", "in_flight = 17"] {
        let errors = map(wrong).expect_err(wrong).to_string();
        assert!(errors.contains("m.toml: line 1: map.in_flight: not in 1 to 16"), "{errors}");
    }
}

#[test]
fn shipped_inverters_are_switched_and_limited_by_one_write_of_registers() {
    let library = Library::builtin().expect("good");
    let written = |map: &str, act, percent: Option<&str>| {
        let percent = percent.map(|text| Decimal::parse(text).expect("a number"));
        let write = library.map(map).expect("there").write(act, percent).expect("it can be said")?;
        Some((write.table, write.address, write.registers))
    };

    assert_eq!(written("sungrow-sg", Act::Limit, Some("40.5")), Some((Table::Holding, 5006, vec![0xAA, 405])));
    assert_eq!(written("sungrow-sg", Act::Release, None), Some((Table::Holding, 5006, vec![0x55])));
    assert_eq!(written("sungrow-sg", Act::Disconnect, None), Some((Table::Holding, 5005, vec![0xCE])));
    assert_eq!(written("sungrow-sg", Act::Connect, None), Some((Table::Holding, 5005, vec![0xCF])));
    assert_eq!(written("growatt-inverter", Act::Limit, Some("0")), Some((Table::Holding, 3, vec![0])));
    assert_eq!(written("growatt-inverter", Act::Release, None), Some((Table::Holding, 3, vec![100])));
    assert_eq!(written("growatt-inverter", Act::Disconnect, None), Some((Table::Holding, 0, vec![0])));
    assert_eq!(written("huawei-sun2000", Act::Limit, Some("12.3")), Some((Table::Holding, 40_125, vec![123])));
    assert_eq!(written("huawei-sun2000", Act::Disconnect, None), None);
    assert_eq!(written("eastron-sdm630", Act::Limit, Some("0")), None);
    let rounded = library.map("growatt-inverter").expect("there").write(Act::Limit, Decimal::parse("2.5"));
    assert!(rounded.expect_err("in steps of 1").to_string().contains("2.5 cannot be said in steps of 1"));
}

#[test]
fn mistakes_in_what_switches_a_device_are_told_with_their_place() {
    let points = r#"
p = { address = 1, type = "uint16", unit = "%", access = "rw" }
q = { address = 2, type = "uint16", access = "rw" }
far = { address = 9, type = "uint16", access = "rw" }
r = { address = 20, type = "uint16" }
[control]
"#;
    let release = "release = { p = 100 }\n";
    let cases = [
        (r#"limit = { p = "percent" }"#, "control.limit: nothing takes it back; say release as well"),
        (r#"limit = { q = "percent" }"#, "control.limit: q takes the percent, but its unit is not %"),
        ("limit = { p = 40 }", "control.limit: needs one point that takes \"percent\""),
        (r#"limit = { p = "most" }"#, "value \"most\" is not known; use percent, a number"),
        (r#"limit = { s = "percent" }"#, "control.limit: s is no point of this map"),
        (r#"limit = { p = "percent", far = 1 }"#, "its points do not stand side by side"),
        (r#"limit = { p = "percent", r = 1 }"#, "r is not of access rw"),
        (r#"limit = { p = "percent", q = 70000 }"#, "70000 is not in 0 to 65535"),
        ("cut = { q = 1 }", "act \"cut\" is not known; use connect, disconnect, limit, release"),
    ];
    for (line, expected) in cases {
        let rest = if expected.contains("takes it back") { "" } else { release };
        let MapErrors(errors) = load(&format!("{points}{rest}{line}\n")).expect_err(line);
        assert!(errors.iter().any(|error| error.to_string().contains(expected)), "{line}: {errors:?}");
    }
    assert!(load(&format!("{points}{release}limit = {{ p = \"percent\", q = 1 }}\n")).is_ok());
}

#[test]
fn inherited_control_goes_with_its_points() {
    let parent = format!(
        "{HEAD}p = {{ address = 1, type = \"uint16\", unit = \"%\", access = \"rw\" }}\n\
         q = {{ address = 2, type = \"uint16\" }}\n[control]\nlimit = {{ p = \"percent\" }}\nrelease = {{ p = 100 }}\n"
    );
    let child = |rest: &str| {
        let head =
            "[map]\nname = \"child\"\ntitle = \"t\"\nmanufacturer = \"m\"\nsource = \"table 1\"\ninherits = \"mine\"\n";
        Library::load(&[("mine.toml", &parent), ("child.toml", &format!("{head}{rest}"))])
            .map(|library| library.map("child").expect("there").controls.len())
    };

    assert_eq!(child("").expect("good"), 2);
    assert_eq!(child("without = [\"p\"]\n").expect("good"), 0);
}

#[test]
fn every_type_reads_its_registers() {
    let cases: [(&str, &[u16], &str); 14] = [
        (r#"p = { address = 1, type = "uint16", scale = -1 }"#, &[2_301], "230.1"),
        (r#"p = { address = 1, type = "int16" }"#, &[0xFFFE], "-2"),
        (r#"p = { address = 1, type = "uint32" }"#, &[1, 2], "65538"),
        (r#"p = { address = 1, type = "int32", low_word_first = true, scale = -1 }"#, &[0xFFF6, 0xFFFF], "-1.0"),
        (r#"p = { address = 1, type = "uint64", scale = 1 }"#, &[0, 0, 1, 0], "655360"),
        (r#"p = { address = 1, type = "int64" }"#, &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF], "-1"),
        (r#"p = { address = 1, type = "float32", scale = 3 }"#, &[0x3F9D, 0xF3B6], "1234"),
        (r#"p = { address = 1, type = "float32", low_word_first = true }"#, &[0xF3B6, 0x3F9D], "1.234"),
        (r#"p = { address = 1, type = "float32", swap_octets = true }"#, &[0x9D3F, 0xB6F3], "1.234"),
        (r#"p = { address = 1, type = "float64" }"#, &[0x40C3, 0x8800, 0, 0], "10000"),
        (r#"p = { address = 1, type = "bcd", count = 2 }"#, &[0x1234, 0x5678], "12345678"),
        (r#"p = { address = 1, type = "mod10k", count = 3 }"#, &[1, 2, 3], "100020003"),
        (r#"p = { address = 1, type = "mod10k", count = 2, low_word_first = true }"#, &[0xFFFF, 0xFFFE], "-20001"),
        (r#"p = { address = 1, type = "enum16", names = { 1 = "on" } }"#, &[2], "2"),
    ];
    for (points, registers, expected) in cases {
        assert_eq!(number(points, registers).as_deref(), Some(expected), "{points}");
    }
}

#[test]
fn text_bits_and_names_are_no_numbers() {
    let read = |points: &str, registers: &[u16]| point(points).read(registers, None).value;

    assert_eq!(
        read(r#"p = { address = 1, type = "text", count = 3 }"#, &[0x4142, 0x4320, 0]),
        Value::Text("ABC".into())
    );
    assert_eq!(
        read(r#"p = { address = 1, type = "text", count = 2, swap_octets = true }"#, &[0x4241, 0x0043]),
        Value::Text("ABC".into())
    );
    assert_eq!(read(r#"p = { address = 1, type = "enum16", names = { 1 = "on" } }"#, &[1]), Value::Text("on".into()));
    assert_eq!(read(r#"p = { address = 1, type = "bits32" }"#, &[1, 2]), Value::Bits(0x1_0002));
}

#[test]
fn what_is_no_value_is_told_from_a_value() {
    let status = |points: &str, registers: &[u16]| point(points).read(registers, None).status;

    let sentinel = r#"p = { address = 1, type = "int32", not_available = [0x80000000] }"#;
    assert_eq!(status(sentinel, &[0x8000, 0]), Status::NotAvailable);
    let wide = r#"p = { address = 1, type = "uint64", not_available = [-1] }"#;
    assert_eq!(status(wide, &[0xFFFF; 4]), Status::NotAvailable);
    assert_eq!(status(r#"p = { address = 1, type = "bcd", count = 1 }"#, &[0x00A0]), Status::Invalid);
    assert_eq!(status(r#"p = { address = 1, type = "mod10k", count = 1 }"#, &[10_000]), Status::Invalid);
    assert_eq!(status(r#"p = { address = 1, type = "float32" }"#, &[0x7FC0, 0]), Status::Invalid);
    assert_eq!(status(r#"p = { address = 1, type = "uint16" }"#, &[]), Status::Invalid);
    assert_eq!(status(r#"p = { address = 1, type = "text", count = 1 }"#, &[0xFFFF]), Status::Invalid);
    assert_eq!(status(r#"p = { address = 1, type = "text", count = 1 }"#, &[0]), Status::NotAvailable);
}

#[test]
fn a_scale_from_another_register_is_taken_into_the_scaler() {
    let scaled = "p = { address = 1, type = \"int16\", scale_from = \"s\" }\ns = { address = 9, type = \"int16\" }";
    let power = point(scaled);

    assert_eq!(power.read(&[123], Some(-2)).decimal(), Some(Decimal::new(123, -2)));
    assert_eq!(power.read(&[123], None).status, Status::ScaleUnknown);
    assert_eq!(power.read(&[123], Some(-32_768)).status, Status::ScaleUnknown);
}

#[test]
fn a_set_point_is_written_exactly_or_refused() {
    let limit = point(r#"p = { address = 1, type = "int16", scale = -1, access = "rw", not_available = [0x7FFF] }"#);
    let wide = point(r#"p = { address = 1, type = "uint32", low_word_first = true, access = "w" }"#);
    let float = point(r#"p = { address = 1, type = "float32", scale = 3, access = "w" }"#);
    let refused = |point: &Point, number| point.write(number, None).expect_err("refused").to_string();

    assert_eq!(limit.write(Decimal::new(605, -1), None), Ok(vec![605]));
    assert_eq!(limit.write(Decimal::new(-60, 0), None), Ok(vec![(-600_i16) as u16]));
    assert_eq!(wide.write(Decimal::new(0x1_0002, 0), None), Ok(vec![2, 1]));
    assert_eq!(float.write(Decimal::new(1_500, 0), None), Ok(vec![0x3FC0, 0]));
    assert_eq!(refused(&limit, Decimal::new(6_055, -2)), "p: 60.55 cannot be said in steps of 0.1");
    assert!(refused(&limit, Decimal::new(4_000, 0)).contains("is not in"));
    assert!(refused(&limit, Decimal::new(32_767, -1)).contains("not available"));
    assert!(refused(&point(r#"p = { address = 1, type = "int16" }"#), Decimal::new(1, 0)).contains("only be read"));
}

#[test]
fn every_mistake_says_file_line_place_and_remedy() {
    let cases = [
        (
            r#"p = { address = 1, type = "int17" }"#,
            "mine.toml: line 8: points.p: type \"int17\" is not known; use uint16,",
        ),
        (
            r#"p = { address = 70000, type = "int16" }"#,
            "points.p: address 70000 is not in 0 to 65535; addresses are those",
        ),
        (r#"p = { address = 65535, type = "int32" }"#, "points.p: address 65535 and count 2 go beyond register 65535"),
        (r#"p = { address = 1, type = "int32", count = 3 }"#, "points.p: count 3, but int32 has 2; leave count out"),
        (r#"p = { address = 1, type = "text" }"#, "points.p: no count; text needs the number of its registers"),
        (r#"p = { address = 1, type = "text", count = 126 }"#, "count 126 is not in 1 to 125"),
        (
            r#"p = { address = 1, type = "int16", table = "input", access = "rw" }"#,
            "access rw, but table input is only read",
        ),
        (r#"p = { address = 1, type = "bit" }"#, "type bit does not stand in table holding"),
        (r#"p = { address = 1, type = "int16", reading = "1.8.0" }"#, "is no logical name; write six numbers"),
        (r#"p = { address = 1, type = "int16", scale_from = "q" }"#, "scale_from \"q\" is no point of this map"),
        (
            r#"p = { address = 1, type = "int16", poll = "often" }"#,
            "poll \"often\" is not known; use fast, slow, once, never",
        ),
        (
            r#"p = { address = 1, type = "int16", not_available = [65536] }"#,
            "not_available 65536 does not fit 1 registers",
        ),
        (r#"p = { address = 1, type = "int16", names = { 1 = "x" } }"#, "names, but type int16 has none"),
        (r#"p = { address = 1, tipe = "int16" }"#, "mine.toml: line 8: p: unknown field `tipe`"),
    ];
    for (points, expected) in cases {
        let said = message(points);
        assert!(said.contains(expected), "{said}\n{expected}");
    }
    let overlap = "a = { address = 1, type = \"int32\" }\nb = { address = 2, type = \"int16\" }";
    assert_eq!(
        message(overlap),
        "mine.toml: line 9: points.b: overlaps a (holding 1 to 2); correct one of them, or say shared = true"
    );
    assert!(load(&overlap.replace("\"int16\"", "\"int16\", shared = true")).is_ok());
}

#[test]
fn a_missing_parent_and_a_circle_are_told() {
    let head = |name: &str, inherits: &str| HEAD.replace("\"mine\"", &format!("\"{name}\"\ninherits = \"{inherits}\""));
    let said = |files: &[(&str, &str)]| Library::load(files).expect_err("bad").to_string();

    let missing = said(&[("a.toml", &head("a", "nobody"))]);
    let circle = said(&[("a.toml", &head("a", "b")), ("b.toml", &head("b", "a"))]);
    let without =
        said(&[("a.toml", &head("a", "eastron-sdm120").replace("\n[points]", "without = [\"x\"]\n[points]"))]);
    let twice = said(&[("a.toml", HEAD), ("b.toml", HEAD)]);

    assert!(
        missing.contains("a.toml: line 3: map.inherits: there is no map \"nobody\"; there are a, abb-b23"),
        "{missing}"
    );
    assert!(circle.contains("a -> b -> a: a circle; break it"), "{circle}");
    assert!(without.contains("\"x\" is no point of what this map inherits; take it out"), "{without}");
    assert!(twice.contains("b.toml: line 1: map.name: \"mine\" is the name of the map in a.toml"), "{twice}");
}

#[test]
fn a_device_is_known_by_the_beginning_of_its_name() {
    let library = Library::builtin().expect("good");
    let known = |vendor: &str, product: &str| {
        library.maps().filter(|map| map.is_named(vendor, product)).map(|map| map.name.clone()).collect::<Vec<_>>()
    };

    assert_eq!(known("Schneider Electric", "iEM3155"), ["schneider-iem3155"]);
    assert_eq!(known("Huawei", "SUN2000-10KTL-M1"), ["huawei-sun2000"]);
    assert!(known("Nobody", "iEM3155").is_empty());
}

static LIBRARY: std::sync::LazyLock<Library> = std::sync::LazyLock::new(|| Library::builtin().expect("good"));

proptest! {
    // Each case of two of these reads all the files.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_registers_come_every_point_reads_or_says_why_not(registers in prop::collection::vec(any::<u16>(), 0..130), factor in prop::option::of(any::<i64>())) {
        for point in LIBRARY.maps().flat_map(|map| &map.points) {
            let whole = registers.get(..usize::from(point.count)).unwrap_or(&registers);
            let reading = point.read(whole, factor);
            prop_assert_eq!(reading.value == Value::None, matches!(reading.status, Status::NotAvailable | Status::Invalid));
        }
    }

    #[test]
    fn a_written_number_reads_back(mantissa in -40_000_i64..40_000, scale in -3_i8..3, low_word_first: bool, swap_octets: bool, wide: bool) {
        let kind = if wide { "int32" } else { "int16" };
        let point = point(&format!("p = {{ address = 0, type = \"{kind}\", scale = {scale}, access = \"rw\", low_word_first = {low_word_first}, swap_octets = {swap_octets} }}"));
        let number = Decimal::new(mantissa.into(), scale);
        match point.write(number, None) {
            Ok(registers) => prop_assert_eq!(point.read(&registers, None).decimal(), Some(number)),
            Err(_) => prop_assert!(!wide && i16::try_from(mantissa).is_err()),
        }
    }

    #[test]
    fn any_text_is_a_map_or_a_list_of_mistakes(text in "[a-z\\[\\]=\"{}0-9,. \n_-]{0,200}") {
        if let Err(MapErrors(errors)) = Library::load(&[("any.toml", &text)]) {
            prop_assert!(!errors.is_empty());
        }
    }
}
