//! One msgpack value after the other, walked without being built (msgpack specification, "Formats").

/// What a frame may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of one message: 4 KiB before somebody is authenticated, 1 MiB after (R35).
    pub octets: usize,
    /// Arrays and maps within each other; at most [`DEEPEST`].
    pub depth: usize,
    /// Values of one message: each may become an object of some 60 octets where it is built.
    pub values: u32,
}

/// The nesting that is ever allowed (R35).
pub const DEEPEST: usize = 16;

/// Octets of a message when nothing else is said.
const OCTETS: usize = 1 << 20;
/// Values of a message when nothing else is said: a list of 50,000 meters with room to spare.
const VALUES: u32 = 131_072;

impl Default for Limits {
    fn default() -> Self {
        Self { octets: OCTETS, depth: DEEPEST, values: VALUES }
    }
}

/// Why a message cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Longer than [`Limits::octets`], or a length that cannot end within them.
    #[error("the message is longer than the {0} octets that are allowed")]
    TooLong(usize),
    /// More arrays and maps within each other than [`Limits::depth`].
    #[error("arrays and maps are nested deeper than the {0} levels that are allowed")]
    TooDeep(usize),
    /// More values than [`Limits::values`].
    #[error("the message has more than the {0} values that are allowed")]
    TooMany(u32),
    /// 0xC1, which the format never uses.
    #[error("octet 0xC1, which no msgpack value begins with")]
    Reserved,
    /// An extension type, timestamps included.
    #[error("an extension type; times are integers of milliseconds, and no other extension is known")]
    Extension,
    /// A map key that is no text.
    #[error("a map key that is no text; keys are text")]
    Key,
    /// One key twice in a map.
    #[error("a map has the same key twice")]
    TwoKeys,
    /// Text that is no UTF-8.
    #[error("a text that is no UTF-8; octets travel as bin")]
    Text,
    /// NaN or an infinity.
    #[error("a float that is no number; NaN and infinities are not taken")]
    Float,
    /// Not the envelope of a request or a notification.
    #[error("{0}")]
    Envelope(&'static str),
}

/// An array or map that is being walked.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    /// Values (of a map: keys and values) still to come.
    left: u32,
    /// A map; then an even `left` means that a key is next.
    map: bool,
    /// Where this map's keys begin in [`Walk::keys`].
    keys: u32,
}

/// How far a message has been walked. Offsets count from the message's first octet.
#[derive(Debug, Default)]
pub struct Walk {
    /// The first octet that was not walked.
    pub at: usize,
    stack: [Open; DEEPEST],
    depth: usize,
    values: u32,
    /// Offset and length of the keys of the open maps.
    keys: Vec<(u32, u32)>,
    begun: bool,
}

/// What one step of a walk came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Walked {
    /// The message ends at [`Walk::at`].
    Whole,
    /// More octets are wanted.
    More,
}

impl Walk {
    /// Forget the message, keep the room.
    pub fn reset(&mut self) {
        self.at = 0;
        self.depth = 0;
        self.values = 0;
        self.keys.clear();
        self.begun = false;
    }

    /// Walk on in `octets`, the message as far as it has arrived.
    ///
    /// # Errors
    /// The first rule that the message breaks.
    pub fn on(&mut self, octets: &[u8], limits: &Limits) -> Result<Walked, Violation> {
        loop {
            if self.begun && self.depth == 0 {
                return Ok(Walked::Whole);
            }
            if self.at >= limits.octets {
                return Err(Violation::TooLong(limits.octets));
            }
            let Some(head) = Head::read(octets, self.at)? else { return Ok(Walked::More) };
            if !self.value(octets, &head, limits)? {
                return Ok(Walked::More);
            }
        }
    }

    /// Take the value that begins here; false if its octets have not all arrived.
    fn value(&mut self, octets: &[u8], head: &Head, limits: &Limits) -> Result<bool, Violation> {
        let body = self.at + head.octets;
        // Every element has an octet at least, so what cannot fit is refused before it is waited for.
        let least = match head.kind {
            Kind::Map => head.length.saturating_mul(2),
            Kind::Plain => 0,
            _ => head.length,
        };
        let end = body.checked_add(least).filter(|end| *end <= limits.octets);
        let end = end.ok_or(Violation::TooLong(limits.octets))?;
        let key = self.depth > 0 && self.stack[self.depth - 1].map && self.stack[self.depth - 1].left % 2 == 0;
        if key && head.kind != Kind::Text {
            return Err(Violation::Key);
        }
        match head.kind {
            Kind::Array | Kind::Map => {
                let deepest = limits.depth.min(DEEPEST);
                if self.depth >= deepest {
                    return Err(Violation::TooDeep(deepest));
                }
                self.count(limits)?;
                let map = head.kind == Kind::Map;
                // Within the frame limit, which is far below u32.
                let left = u32::try_from(least).map_err(|_| Violation::TooLong(limits.octets))?;
                self.at = body;
                self.stack[self.depth] = Open { left, map, keys: self.keys.len() as u32 };
                self.depth += 1;
                self.begun = true;
                return self.close(octets).map(|()| true);
            }
            Kind::Text | Kind::Octets => {
                let Some(text) = octets.get(body..end) else { return Ok(false) };
                if head.kind == Kind::Text && std::str::from_utf8(text).is_err() {
                    return Err(Violation::Text);
                }
                if key {
                    self.keys.push((body as u32, head.length as u32));
                }
                self.at = end;
            }
            Kind::Plain => self.at = body,
        }
        self.count(limits)?;
        self.begun = true;
        if self.depth > 0 {
            self.stack[self.depth - 1].left -= 1;
            self.close(octets)?;
        }
        Ok(true)
    }

    fn count(&mut self, limits: &Limits) -> Result<(), Violation> {
        self.values += 1;
        if self.values > limits.values { Err(Violation::TooMany(limits.values)) } else { Ok(()) }
    }

    /// Close what has no more to come.
    fn close(&mut self, octets: &[u8]) -> Result<(), Violation> {
        while self.depth > 0 && self.stack[self.depth - 1].left == 0 {
            let open = self.stack[self.depth - 1];
            if open.map {
                let key = |span: &(u32, u32)| &octets[span.0 as usize..(span.0 + span.1) as usize];
                let keys = &mut self.keys[open.keys as usize..];
                keys.sort_unstable_by(|one, other| key(one).cmp(key(other)));
                if keys.windows(2).any(|pair| key(&pair[0]) == key(&pair[1])) {
                    return Err(Violation::TwoKeys);
                }
                self.keys.truncate(open.keys as usize);
            }
            self.depth -= 1;
            if self.depth > 0 {
                self.stack[self.depth - 1].left -= 1;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole in its head: nil, booleans, numbers.
    Plain,
    Text,
    Octets,
    Array,
    Map,
}

/// The first octets of a value: what it is and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub kind: Kind,
    /// Octets of the head itself.
    pub octets: usize,
    /// Octets of a text, elements of an array, pairs of a map; of a plain value, the value if it is unsigned.
    pub length: usize,
    /// A whole number that is not negative.
    pub unsigned: bool,
}

impl Head {
    /// The head at `at`; None if it has not arrived whole.
    pub fn read(octets: &[u8], at: usize) -> Result<Option<Self>, Violation> {
        let Some(first) = octets.get(at).copied() else { return Ok(None) };
        let sized = |kind, size: usize| {
            let field = octets.get(at + 1..at + 1 + size)?;
            let length = field.iter().fold(0usize, |length, octet| (length << 8) | usize::from(*octet));
            Some(Self { kind, octets: 1 + size, length, unsigned: false })
        };
        let fixed = |kind, length: u8| {
            Some(Self { kind, octets: 1, length: usize::from(length), unsigned: kind == Kind::Plain })
        };
        let number = |size: usize| sized(Kind::Plain, size).map(|head| Self { unsigned: true, ..head });
        Ok(match first {
            0x00..=0x7F => fixed(Kind::Plain, first),
            0x80..=0x8F => fixed(Kind::Map, first & 0x0F),
            0x90..=0x9F => fixed(Kind::Array, first & 0x0F),
            0xA0..=0xBF => fixed(Kind::Text, first & 0x1F),
            0xC0 | 0xC2 | 0xC3 | 0xE0..=0xFF => Some(Self { kind: Kind::Plain, octets: 1, length: 0, unsigned: false }),
            0xC1 => return Err(Violation::Reserved),
            0xC4 => sized(Kind::Octets, 1),
            0xC5 => sized(Kind::Octets, 2),
            0xC6 => sized(Kind::Octets, 4),
            0xC7..=0xC9 | 0xD4..=0xD8 => return Err(Violation::Extension),
            0xCA | 0xCB => {
                let size = if first == 0xCA { 4 } else { 8 };
                let Some(field) = octets.get(at + 1..at + 1 + size) else { return Ok(None) };
                let exponent = if first == 0xCA {
                    field[0] & 0x7F == 0x7F && field[1] & 0x80 != 0
                } else {
                    field[0] & 0x7F == 0x7F && field[1] & 0xF0 == 0xF0
                };
                if exponent {
                    return Err(Violation::Float);
                }
                Some(Self { kind: Kind::Plain, octets: 1 + size, length: 0, unsigned: false })
            }
            0xCC => number(1),
            0xCD => number(2),
            0xCE => number(4),
            0xCF => number(8),
            0xD0..=0xD3 => sized(Kind::Plain, 1 << (first - 0xD0)),
            0xD9 => sized(Kind::Text, 1),
            0xDA => sized(Kind::Text, 2),
            0xDB => sized(Kind::Text, 4),
            0xDC => sized(Kind::Array, 2),
            0xDD => sized(Kind::Array, 4),
            0xDE => sized(Kind::Map, 2),
            0xDF => sized(Kind::Map, 4),
        })
    }
}
