//! The types of attributes as `data/classes.tsv` writes them: what the parts of a value are called.

/// What an attribute, or a part of it, holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Anything; shown with its own type.
    Any,
    /// An integer of any width.
    Integer,
    /// A boolean.
    Boolean,
    /// Text, also where it comes as an octet-string.
    Text,
    /// Octets.
    Octets,
    /// Date and time.
    DateTime,
    /// A date.
    Date,
    /// A time of the day.
    Time,
    /// A logical name.
    Name,
    /// An address of the internet protocol: a number or octets.
    Address,
    /// A unit by its number.
    Unit,
    /// Bits by their number; bit 0 is the lowest of an integer and the first of a bit-string.
    Bits(Vec<(i128, String)>),
    /// Numbers that have words.
    Words(Vec<(i128, String)>),
    /// An array.
    List(Box<Schema>),
    /// A structure.
    Fields(Vec<(String, Schema)>),
}

impl Schema {
    /// Read a type as the table writes it.
    ///
    /// # Errors
    /// Where it is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let schema = Self::take(&mut rest, 8)?;
        if rest.trim().is_empty() { Ok(schema) } else { Err(format!("\"{rest}\" behind a type")) }
    }

    /// The word for a number, if it has one.
    pub fn word(&self, number: i128) -> Option<&str> {
        let Self::Words(words) = self else { return None };
        words.iter().find(|(known, _)| *known == number).map(|(_, word)| word.as_str())
    }

    fn take(rest: &mut &str, depth: usize) -> Result<Self, String> {
        let depth = depth.checked_sub(1).ok_or("types inside types too deep")?;
        *rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('[') {
            *rest = inner;
            let element = Self::take(rest, depth)?;
            expect(rest, ']')?;
            return Ok(Self::List(Box::new(element)));
        }
        if let Some(inner) = rest.strip_prefix('{') {
            *rest = inner;
            let mut fields = Vec::new();
            loop {
                let (name, after) = rest.split_once(':').ok_or_else(|| format!("no : in \"{rest}\""))?;
                *rest = after;
                fields.push((name.trim().to_owned(), Self::take(rest, depth)?));
                match next(rest) {
                    Some(',') => {}
                    Some('}') => return Ok(Self::Fields(fields)),
                    other => return Err(format!("{other:?} behind the field {name}")),
                }
            }
        }
        let end = rest.find([',', ']', '}', '(']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        *rest = after;
        let mut words = || -> Result<Vec<(i128, String)>, String> {
            expect(rest, '(')?;
            let (inside, after) = rest.split_once(')').ok_or("a ( without its )")?;
            *rest = after;
            let pairs = inside.split(',').map(str::trim).filter(|pair| !pair.is_empty());
            pairs
                .map(|pair| {
                    let (number, word) =
                        pair.split_once(' ').ok_or_else(|| format!("\"{pair}\" is no number, word"))?;
                    Ok((number.parse().map_err(|_| format!("\"{number}\" is no number"))?, word.to_owned()))
                })
                .collect()
        };
        Ok(match word.trim() {
            "any" => Self::Any,
            "int" => Self::Integer,
            "bool" => Self::Boolean,
            "text" => Self::Text,
            "octets" => Self::Octets,
            "time" => Self::DateTime,
            "date" => Self::Date,
            "clock-time" => Self::Time,
            "name" => Self::Name,
            "ip" => Self::Address,
            "unit" => Self::Unit,
            "bits" => Self::Bits(words()?),
            "enum" => Self::Words(words()?),
            other => return Err(format!("no type is called \"{other}\"")),
        })
    }
}

fn next(rest: &mut &str) -> Option<char> {
    *rest = rest.trim_start();
    let first = rest.chars().next()?;
    *rest = &rest[first.len_utf8()..];
    Some(first)
}

fn expect(rest: &mut &str, wanted: char) -> Result<(), String> {
    match next(rest) {
        Some(found) if found == wanted => Ok(()),
        found => Err(format!("{found:?} where {wanted} was expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_with_their_parts() {
        let schema = Schema::parse("[{a: int, b: enum(0 off, 1 on), c: [name]}]").unwrap();

        let Schema::List(element) = schema else { panic!("{schema:?}") };
        let Schema::Fields(fields) = *element else { panic!("{element:?}") };
        assert_eq!(fields[0], ("a".to_owned(), Schema::Integer));
        assert_eq!(fields[1].1.word(1), Some("on"));
        assert_eq!(fields[2].1, Schema::List(Box::new(Schema::Name)));
    }

    #[test]
    fn mistakes_in_types_are_told() {
        for text in ["", "number", "[int", "{a int}", "{a: int", "enum(on)", "enum 0 on", "int int", &"[".repeat(20)] {
            assert!(Schema::parse(text).is_err(), "{text}");
        }
    }
}
