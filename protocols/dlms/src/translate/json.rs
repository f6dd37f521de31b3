//! COSEM values as JSON.

use ipss_session::json::Json;

use crate::axdr::{Date, DateTime, Time, Visitor, integer, tag};

/// A date-time as an object, null for what it leaves unspecified.
pub(super) fn date_time(json: &mut Json<'_>, date_time: DateTime) {
    json.begin('{');
    date_parts(json, date_time.date());
    time_parts(json, date_time.time());
    json.optional("deviation_min", date_time.deviation());
    json.optional("status", date_time.status());
    json.member_hex("raw", &date_time.0);
    json.end();
}

/// A date, as [`date_time`].
pub(super) fn date(json: &mut Json<'_>, date: Date) {
    json.begin('{');
    date_parts(json, date);
    json.member_hex("raw", &date.0);
    json.end();
}

/// A time of the day, as [`date_time`].
pub(super) fn time(json: &mut Json<'_>, time: Time) {
    json.begin('{');
    time_parts(json, time);
    json.member_hex("raw", &time.0);
    json.end();
}

fn date_parts(json: &mut Json<'_>, date: Date) {
    json.optional("year", date.year());
    json.optional("month", date.month());
    json.optional("day", date.day());
    json.optional("dow", date.day_of_week());
}

fn time_parts(json: &mut Json<'_>, time: Time) {
    json.optional("hour", time.hour());
    json.optional("minute", time.minute());
    json.optional("second", time.second());
    json.optional("hundredths", time.hundredths());
}

/// A value of COSEM data as `[type, value]`. Containers that an error leaves open are closed by [`Json::end_to`].
impl Visitor for Json<'_> {
    fn simple(&mut self, tag: u8, octets: &[u8], bits: usize) {
        if !self.is_active() {
            self.count();
            return;
        }
        self.begin('[');
        self.string(tag::name(tag).unwrap_or_default());
        match (tag, octets) {
            (tag::NULL_DATA | tag::DONT_CARE, _) => self.null(),
            (tag::BOOLEAN, [octet]) => self.boolean(*octet != 0),
            (tag::BIT_STRING, _) => self.bits(octets, bits),
            (tag::OCTET_STRING, _) => self.hex(octets),
            (tag::VISIBLE_STRING | tag::UTF8_STRING, _) => self.text(octets),
            (tag::FLOATING_POINT | tag::FLOAT32, &[a, b, c, d]) => {
                let number = f32::from_be_bytes([a, b, c, d]);
                self.float(number.to_string(), number.is_finite());
            }
            (tag::FLOAT64, &[a, b, c, d, e, f, g, h]) => {
                let number = f64::from_be_bytes([a, b, c, d, e, f, g, h]);
                self.float(number.to_string(), number.is_finite());
            }
            (tag::DATE_TIME, _) => match octets.try_into() {
                Ok(octets) => date_time(self, DateTime(octets)),
                Err(_) => self.null(),
            },
            (tag::DATE, &[a, b, c, d, e]) => date(self, Date([a, b, c, d, e])),
            (tag::TIME, &[a, b, c, d]) => time(self, Time([a, b, c, d])),
            _ => match integer(tag, octets) {
                Some(integer) => self.integer(integer),
                None => self.null(),
            },
        }
        self.end();
    }

    fn open(&mut self, tag: u8, _: Option<usize>) {
        self.begin('[');
        self.string(tag::name(tag).unwrap_or_default());
        self.begin('[');
    }

    fn close(&mut self) {
        self.end();
        self.end();
    }
}
