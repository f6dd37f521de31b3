//! JSON as it goes: every piece is handed on at once, so that an answer of any size costs no memory.

/// Where the answer's text goes, piece by piece.
pub struct Json<'w> {
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
    /// To `write`.
    pub fn new(write: &'w mut dyn FnMut(&str)) -> Self {
        Self { write: Some(write), comma: false, open: Vec::new(), values: 0 }
    }

    /// To nobody.
    pub fn inactive() -> Self {
        Self { write: None, comma: false, open: Vec::new(), values: 0 }
    }

    /// Whether somebody wants the answer.
    pub fn is_active(&self) -> bool {
        self.write.is_some()
    }

    /// A writer for the elements of the list that was just begun.
    pub fn inside(&mut self) -> Json<'_> {
        match &mut self.write {
            Some(write) => Json::new(&mut **write),
            None => Json::inactive(),
        }
    }

    /// How many values have begun, to find out whether one has.
    pub fn values(&self) -> usize {
        self.values
    }

    /// Count a value that is not written because nobody wants the answer.
    pub fn count(&mut self) {
        self.values += 1;
    }

    /// Text as it is, without a comma before it.
    pub fn raw(&mut self, text: &str) {
        if let Some(write) = &mut self.write {
            write(text);
        }
    }

    /// Before a member or element.
    pub fn next(&mut self) {
        self.values += 1;
        if self.comma {
            self.raw(",");
        }
        self.comma = false;
    }

    /// A member's name; its value follows.
    pub fn key(&mut self, key: &str) {
        self.string(key);
        self.raw(":");
        self.comma = false;
    }

    /// Begin an object (`{`) or a list (`[`).
    pub fn begin(&mut self, bracket: char) {
        self.next();
        let (opening, closing) = if bracket == '{' { ("{", '}') } else { ("[", ']') };
        self.raw(opening);
        self.open.push(closing);
    }

    /// End the innermost object or list.
    pub fn end(&mut self) {
        if let Some(bracket) = self.open.pop() {
            self.raw(bracket.encode_utf8(&mut [0; 4]));
        }
        self.comma = true;
    }

    /// How many brackets are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Close brackets until so many are open.
    pub fn end_to(&mut self, depth: usize) {
        while self.open.len() > depth {
            self.end();
        }
    }

    /// A value without quotes: a number, `true`, `null`.
    pub fn plain(&mut self, text: &str) {
        self.next();
        self.raw(text);
        self.comma = true;
    }

    /// An integer.
    pub fn integer(&mut self, integer: impl Into<i128>) {
        self.plain(&integer.into().to_string());
    }

    /// A boolean.
    pub fn boolean(&mut self, value: bool) {
        self.plain(if value { "true" } else { "false" });
    }

    /// No value.
    pub fn null(&mut self) {
        self.plain("null");
    }

    /// A float; JSON has none that are not finite.
    pub fn float(&mut self, text: String, finite: bool) {
        self.plain(if finite { &text } else { "null" });
    }

    /// A text.
    pub fn string(&mut self, text: &str) {
        self.next();
        self.raw("\"");
        self.escaped(text);
        self.raw("\"");
        self.comma = true;
    }

    /// Octets as text, those that are none replaced.
    pub fn text(&mut self, octets: &[u8]) {
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

    /// Octets as hexadecimal digits.
    pub fn hex(&mut self, octets: &[u8]) {
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

    /// A member that is a text.
    pub fn member_string(&mut self, key: &str, text: &str) {
        self.key(key);
        self.string(text);
    }

    /// A member that is an integer.
    pub fn member_integer(&mut self, key: &str, integer: impl Into<i128>) {
        self.key(key);
        self.integer(integer);
    }

    /// A member that is a boolean.
    pub fn member_boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.boolean(value);
    }

    /// A member that is octets.
    pub fn member_hex(&mut self, key: &str, octets: &[u8]) {
        self.key(key);
        self.hex(octets);
    }

    /// A name of the standard, or the number that it has none for.
    pub fn member_named(&mut self, key: &str, name: Option<&str>, number: u8) {
        self.key(key);
        match name {
            Some(name) => self.string(name),
            None => self.integer(number),
        }
    }

    /// The first `bits` of these octets as a text of digits 0 and 1, the highest of an octet first.
    pub fn bits(&mut self, octets: &[u8], bits: usize) {
        self.next();
        self.raw("\"");
        for (place, octet) in octets.iter().enumerate() {
            let digits = format!("{octet:08b}");
            self.raw(&digits[..bits.saturating_sub(place * 8).min(8)]);
        }
        self.raw("\"");
        self.comma = true;
    }

    /// A member that is an integer or null.
    pub fn optional(&mut self, key: &str, number: Option<impl Into<i128>>) {
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

const HEX: &[u8; 16] = b"0123456789abcdef";
