//! Readings as JSON objects. What they are is found by [`crate::push::Finder`].

use ipss_session::CivilDateTime;

use crate::axdr::{DateTime, integer, tag};
use crate::cosem::lookup;
use crate::cosem::units::{Unit, scaled};
use crate::push::Found;
use crate::push::finder::text;
use ipss_session::json::Json;

/// One reading.
pub(super) fn reading(json: &mut Json<'_>, found: &Found<'_>) {
    if matches!(found.tag, tag::ARRAY | tag::STRUCTURE) {
        return; // its value is among the APDU's; a reading is one value
    }
    let known = lookup(found.logical_name);
    let class_id = found.class_id.or(known.map(|entry| entry.class_id));
    let number = integer(found.tag, found.octets);
    let unit = found.unit.or(known.and_then(|entry| entry.unit).filter(|_| found.scaler.is_none()));
    let unit = unit.filter(|_| number.is_some()).and_then(Unit::symbol);
    json.begin('{');
    json.member_string("logical_name", &found.logical_name.to_string());
    json.key("class_id");
    match class_id {
        Some(class_id) => json.integer(class_id),
        None => json.null(),
    }
    json.member_integer("attribute", found.attribute);
    json.key("value");
    match number {
        Some(number) => json.string(&scaled(number, found.scaler.unwrap_or(0))),
        None => json.string(&words(found.tag, found.octets)),
    }
    json.key("scaler");
    match found.scaler {
        Some(scaler) => json.integer(scaler),
        None => json.null(),
    }
    json.key("unit");
    match unit {
        Some(unit) => json.string(unit),
        None => json.null(),
    }
    json.key("capture_time");
    match found.capture_time.and_then(iso) {
        Some(text) => json.string(&text),
        None => json.null(),
    }
    json.end();
}

/// A value that is no integer.
fn words(tag: u8, octets: &[u8]) -> String {
    match (tag, octets) {
        (tag::BOOLEAN, [octet]) => (*octet != 0).to_string(),
        (tag::FLOATING_POINT | tag::FLOAT32, &[a, b, c, d]) => f32::from_be_bytes([a, b, c, d]).to_string(),
        (tag::FLOAT64, &[a, b, c, d, e, f, g, h]) => f64::from_be_bytes([a, b, c, d, e, f, g, h]).to_string(),
        (tag::OCTET_STRING | tag::DATE_TIME, octets) => date_time(octets).unwrap_or_else(|| text(octets)),
        _ => text(octets),
    }
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
