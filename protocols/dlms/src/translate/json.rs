//! JSON as it goes: every piece is handed on at once, so that an answer of any size costs no memory.

use crate::axdr::{Date, DateTime, Time, Visitor, integer, tag};

/// Where the answer's text goes, piece by piece.
pub(super) struct Json<'w> {
    /// `None` where nobody wants the answer: nothing is done then.
    write: Option<&'w mut dyn FnMut(&str)>,
    /// Whether a comma is due before the next member or element.
    comma: bool,
    /// Closing brackets that are due, innermost last.
    open: Vec<char>,
    /// Values begun so far.
    values: usize,
}

impl<'w> Json<'w> {
    pub(super) fn new(write: &'w mut dyn FnMut(&str)) -> Self {
        Self { write: Some(write), comma: false, open: Vec::new(), values: 0 }
    }

    pub(super) fn inactive() -> Self {
        Self { write: None, comma: false, open: Vec::new(), values: 0 }
    }

    pub(super) fn is_active(&self) -> bool {
        self.write.is_some()
    }

    /// A writer for the elements of the list that was just begun.
    pub(super) fn inside(&mut self) -> Json<'_> {
        match &mut self.write {
            Some(write) => Json::new(&mut **write),
            None => Json::inactive(),
        }
    }

    /// How many values have begun, to find out whether one has.
    pub(super) fn values(&self) -> usize {
        self.values
    }

    pub(super) fn raw(&mut self, text: &str) {
        if let Some(write) = &mut self.write {
            write(text);
        }
    }

    /// Before a member or element.
    pub(super) fn next(&mut self) {
        self.values += 1;
        if self.comma {
            self.raw(",");
        }
        self.comma = false;
    }

    pub(super) fn key(&mut self, key: &str) {
        self.string(key);
        self.raw(":");
        self.comma = false;
    }

    pub(super) fn begin(&mut self, bracket: char) {
        self.next();
        let (opening, closing) = if bracket == '{' { ("{", '}') } else { ("[", ']') };
        self.raw(opening);
        self.open.push(closing);
    }

    pub(super) fn end(&mut self) {
        if let Some(bracket) = self.open.pop() {
            self.raw(bracket.encode_utf8(&mut [0; 4]));
        }
        self.comma = true;
    }

    /// How many brackets are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Close brackets until so many are open.
    pub(super) fn end_to(&mut self, depth: usize) {
        while self.open.len() > depth {
            self.end();
        }
    }

    /// A value without quotes: a number, `true`, `null`.
    pub(super) fn plain(&mut self, text: &str) {
        self.next();
        self.raw(text);
        self.comma = true;
    }

    pub(super) fn integer(&mut self, integer: impl Into<i128>) {
        self.plain(&integer.into().to_string());
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.plain(if value { "true" } else { "false" });
    }

    pub(super) fn null(&mut self) {
        self.plain("null");
    }

    /// A float; JSON has none that are not finite.
    pub(super) fn float(&mut self, text: String, finite: bool) {
        self.plain(if finite { &text } else { "null" });
    }

    pub(super) fn string(&mut self, text: &str) {
        self.next();
        self.raw("\"");
        self.escaped(text);
        self.raw("\"");
        self.comma = true;
    }

    /// Octets as text, those that are none replaced.
    pub(super) fn text(&mut self, octets: &[u8]) {
        self.next();
        if self.write.is_none() {
            return;
        }
        self.raw("\"");
        for chunk in octets.utf8_chunks() {
            self.escaped(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.raw("\u{FFFD}");
            }
        }
        self.raw("\"");
        self.comma = true;
    }

    pub(super) fn hex(&mut self, octets: &[u8]) {
        self.next();
        if self.write.is_none() {
            return;
        }
        self.raw("\"");
        for chunk in octets.chunks(32) {
            let mut digits = [0; 64];
            for (pair, octet) in digits.chunks_mut(2).zip(chunk) {
                pair[0] = HEX[usize::from(octet >> 4)];
                pair[1] = HEX[usize::from(octet & 15)];
            }
            self.raw(std::str::from_utf8(&digits[..chunk.len() * 2]).unwrap_or_default());
        }
        self.raw("\"");
        self.comma = true;
    }

    pub(super) fn member_string(&mut self, key: &str, text: &str) {
        self.key(key);
        self.string(text);
    }

    pub(super) fn member_integer(&mut self, key: &str, integer: impl Into<i128>) {
        self.key(key);
        self.integer(integer);
    }

    pub(super) fn member_boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.boolean(value);
    }

    pub(super) fn member_hex(&mut self, key: &str, octets: &[u8]) {
        self.key(key);
        self.hex(octets);
    }

    /// A name of the standard, or the number that it has none for.
    pub(super) fn member_named(&mut self, key: &str, name: Option<&str>, number: u8) {
        self.key(key);
        match name {
            Some(name) => self.string(name),
            None => self.integer(number),
        }
    }

    pub(super) fn date_time(&mut self, date_time: DateTime) {
        self.begin('{');
        self.date_parts(date_time.date());
        self.time_parts(date_time.time());
        self.optional("deviation_min", date_time.deviation());
        self.optional("status", date_time.status());
        self.member_hex("raw", &date_time.0);
        self.end();
    }

    fn date_parts(&mut self, date: Date) {
        self.optional("year", date.year());
        self.optional("month", date.month());
        self.optional("day", date.day());
        self.optional("dow", date.day_of_week());
    }

    fn time_parts(&mut self, time: Time) {
        self.optional("hour", time.hour());
        self.optional("minute", time.minute());
        self.optional("second", time.second());
        self.optional("hundredths", time.hundredths());
    }

    fn optional(&mut self, key: &str, number: Option<impl Into<i128>>) {
        self.key(key);
        match number {
            Some(number) => self.integer(number),
            None => self.null(),
        }
    }

    fn escaped(&mut self, text: &str) {
        let mut rest = text;
        while let Some(place) = rest.find(|character: char| character < ' ' || character == '"' || character == '\\') {
            self.raw(&rest[..place]);
            match rest.as_bytes()[place] {
                b'"' => self.raw("\\\""),
                b'\\' => self.raw("\\\\"),
                control => self.raw(&format!("\\u{control:04x}")),
            }
            rest = &rest[place + 1..];
        }
        self.raw(rest);
    }
}

/// A value of COSEM data as `[type, value]`. Containers that an error leaves open are closed by [`Json::end_to`].
impl Visitor for Json<'_> {
    fn simple(&mut self, tag: u8, octets: &[u8], bits: usize) {
        if self.write.is_none() {
            self.values += 1;
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
                Ok(octets) => self.date_time(DateTime(octets)),
                Err(_) => self.null(),
            },
            (tag::DATE, &[a, b, c, d, e]) => {
                self.begin('{');
                self.date_parts(Date([a, b, c, d, e]));
                self.member_hex("raw", octets);
                self.end();
            }
            (tag::TIME, &[a, b, c, d]) => {
                self.begin('{');
                self.time_parts(Time([a, b, c, d]));
                self.member_hex("raw", octets);
                self.end();
            }
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

impl Json<'_> {
    fn bits(&mut self, octets: &[u8], bits: usize) {
        self.next();
        self.raw("\"");
        for (place, octet) in octets.iter().enumerate() {
            let digits = format!("{octet:08b}");
            self.raw(&digits[..bits.saturating_sub(place * 8).min(8)]);
        }
        self.raw("\"");
        self.comma = true;
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
