//! Values of attributes with the names of their parts, as `cosem::classes` knows them, written as JSON while they are
//! walked: nothing is built.

use ipss_session::json::Json;
use ipss_session::{Limits, ProtocolError};

use super::json;
use crate::axdr::{Date, DateTime, Reader, Time, Visitor, integer, tag, walk};
use crate::cosem::classes::{self, Schema};
use crate::cosem::units::Unit;
use crate::push::finder::text;

/// Write the value of this attribute with the names of its parts. Parts that are not of the type that they should have
/// are written as `[type, value]`.
///
/// # Errors
/// As [`walk`]; what was written before stays, and is closed.
pub fn write_named(
    class_id: u16,
    attribute: i8,
    octets: &[u8],
    limits: &Limits,
    out: &mut Json<'_>,
) -> Result<(), ProtocolError> {
    let known = classes::class(class_id).and_then(|class| class.attribute(attribute));
    let schema = known.map_or(&Schema::Any, |known| &known.schema);
    let (depth, before) = (out.depth(), out.values());
    let mut reader = Reader::new(octets);
    let mut named = Named { out, root: schema, open: Vec::new() };
    let result = walk(&mut reader, limits, &mut named).and_then(|()| reader.finish());
    out.end_to(depth);
    if out.values() == before {
        out.null();
    }
    result
}

/// Whether names say more about this attribute than its type does.
pub(super) fn has_names(class_id: u16, attribute: i8) -> bool {
    let known = classes::class(class_id).and_then(|class| class.attribute(attribute));
    known.is_some_and(|known| !matches!(known.schema, Schema::Any | Schema::Integer | Schema::Octets | Schema::Name))
}

struct Named<'j, 'w, 's> {
    out: &'j mut Json<'w>,
    root: &'s Schema,
    open: Vec<Open<'s>>,
}

enum Open<'s> {
    /// A structure, and which field comes next.
    Fields(&'s [(String, Schema)], usize),
    /// An array.
    List(&'s Schema),
    /// What the schema does not know.
    Any,
}

impl<'s> Named<'_, '_, 's> {
    /// What comes next; a field's name is written.
    fn next(&mut self) -> &'s Schema {
        match self.open.last_mut() {
            None => self.root,
            Some(Open::Any) => &Schema::Any,
            Some(Open::List(element)) => element,
            Some(Open::Fields(fields, place)) => {
                *place += 1;
                match fields.get(*place - 1) {
                    Some((name, schema)) => {
                        self.out.key(name);
                        schema
                    }
                    None => {
                        // Later versions append.
                        self.out.key(&format!("element_{place}"));
                        &Schema::Any
                    }
                }
            }
        }
    }

    fn value(&mut self, schema: &Schema, tag: u8, octets: &[u8], bits: usize) -> Option<()> {
        let out = &mut *self.out;
        let string = matches!(tag, tag::OCTET_STRING | tag::VISIBLE_STRING | tag::UTF8_STRING);
        match schema {
            Schema::Integer => out.integer(integer(tag, octets)?),
            Schema::Boolean => out.boolean(match (tag, octets) {
                (tag::BOOLEAN, [octet]) => *octet != 0,
                _ => integer(tag, octets)? != 0,
            }),
            Schema::Text if string => out.string(&text(octets)),
            Schema::Octets if string => out.hex(octets),
            Schema::DateTime if string || tag == tag::DATE_TIME => {
                json::date_time(out, DateTime(octets.try_into().ok()?));
            }
            Schema::Date if string || tag == tag::DATE => json::date(out, Date(octets.try_into().ok()?)),
            Schema::Time if string || tag == tag::TIME => json::time(out, Time(octets.try_into().ok()?)),
            Schema::Name if string => {
                out.string(&crate::cosem::LogicalName(octets.try_into().ok()?).to_string());
            }
            Schema::Address => match octets {
                &[a, b, c, d] => out.string(&std::net::Ipv4Addr::new(a, b, c, d).to_string()),
                _ => out.string(&std::net::Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_string()),
            },
            Schema::Unit => {
                let unit = Unit(u8::try_from(integer(tag, octets)?).ok()?);
                out.string(unit.symbol()?);
            }
            Schema::Words(_) => {
                let number = integer(tag, octets)?;
                match schema.word(number) {
                    Some(word) => out.string(word),
                    None => out.integer(number),
                }
            }
            Schema::Bits(known) => {
                let set: Box<dyn Fn(i128) -> bool> = match tag {
                    tag::BIT_STRING => Box::new(move |bit| {
                        let octet = usize::try_from(bit / 8).ok().and_then(|place| octets.get(place));
                        octet.is_some_and(|octet| octet & (0x80 >> (bit % 8)) != 0)
                    }),
                    _ => {
                        let number = integer(tag, octets)?;
                        Box::new(move |bit| number >> bit & 1 == 1)
                    }
                };
                let width = if tag == tag::BIT_STRING { bits } else { octets.len() * 8 };
                out.begin('[');
                for bit in (0..width.min(LARGEST_BITS) as i128).filter(|bit| set(*bit)) {
                    match known.iter().find(|(number, _)| *number == bit) {
                        Some((_, word)) => out.string(word),
                        None => out.integer(bit),
                    }
                }
                out.end();
            }
            _ => return None,
        }
        Some(())
    }
}

impl Visitor for Named<'_, '_, '_> {
    fn simple(&mut self, tag: u8, octets: &[u8], bits: usize) {
        let schema = self.next();
        if self.value(schema, tag, octets, bits).is_none() {
            Visitor::simple(self.out, tag, octets, bits);
        }
    }

    fn open(&mut self, tag: u8, count: Option<usize>) {
        match (self.next(), tag) {
            (Schema::Fields(fields), tag::STRUCTURE) => {
                self.out.begin('{');
                self.open.push(Open::Fields(fields, 0));
            }
            (Schema::List(element), tag::ARRAY) => {
                self.out.begin('[');
                self.open.push(Open::List(element));
            }
            _ => {
                Visitor::open(self.out, tag, count);
                self.open.push(Open::Any);
            }
        }
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some(Open::Any) => Visitor::close(self.out),
            _ => self.out.end(),
        }
    }
}

/// Bits of a string that are shown by number: an image of so many blocks has them all sent, or nearly.
const LARGEST_BITS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axdr::Data;
    use serde_json::{Value, json};

    fn named(class_id: u16, attribute: i8, octets: &[u8]) -> Value {
        let mut answer = String::new();
        let mut write = |piece: &str| answer.push_str(piece);
        write_named(class_id, attribute, octets, &Limits::default(), &mut Json::new(&mut write)).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// A value as the schema has it, small and legal.
    fn sample(schema: &Schema) -> Data {
        match schema {
            Schema::Any => Data::Unsigned(7),
            Schema::Integer => Data::LongUnsigned(300),
            Schema::Boolean => Data::Boolean(true),
            Schema::Text => Data::OctetString(b"text".to_vec()),
            Schema::Octets => Data::OctetString(vec![0, 1, 0xFF]),
            Schema::DateTime => Data::OctetString(DateTime::UNSPECIFIED.0.to_vec()),
            Schema::Date => Data::OctetString(vec![0xFF, 0xFF, 0xFE, 0xFE, 7]),
            Schema::Time => Data::OctetString(vec![6, 0, 0, 0]),
            Schema::Name => Data::OctetString(vec![0, 0, 10, 0, 100, 255]),
            Schema::Address => Data::DoubleLongUnsigned(0x7F00_0001),
            Schema::Unit => Data::Enum(30),
            Schema::Bits(_) => Data::Unsigned(0b101),
            Schema::Words(words) => Data::Enum(words[0].0 as u8),
            Schema::List(element) => Data::Array(vec![sample(element), sample(element)]),
            Schema::Fields(fields) => Data::Structure(fields.iter().map(|(_, schema)| sample(schema)).collect()),
        }
    }

    /// The value that the named form stands for.
    fn back(schema: &Schema, named: &Value) -> Data {
        match (schema, named) {
            (Schema::Fields(fields), Value::Object(values)) => {
                assert_eq!(values.len(), fields.len());
                Data::Structure(fields.iter().map(|(name, schema)| back(schema, &values[name])).collect())
            }
            (Schema::List(element), Value::Array(values)) => {
                Data::Array(values.iter().map(|value| back(element, value)).collect())
            }
            (Schema::Words(words), Value::String(word)) => {
                Data::Enum(words.iter().find(|(_, known)| known == word).unwrap().0 as u8)
            }
            (Schema::Name, Value::String(name)) => {
                Data::OctetString(name.parse::<crate::cosem::LogicalName>().unwrap().0.to_vec())
            }
            (Schema::Integer, Value::Number(number)) => Data::LongUnsigned(number.as_u64().unwrap() as u16),
            (Schema::Boolean, Value::Bool(value)) => Data::Boolean(*value),
            (Schema::Text, Value::String(text)) => Data::OctetString(text.as_bytes().to_vec()),
            (Schema::Octets, Value::String(hex)) => Data::OctetString(super::super::parse_hex(hex).unwrap()),
            (Schema::DateTime | Schema::Date | Schema::Time, Value::Object(parts)) => {
                Data::OctetString(super::super::parse_hex(parts["raw"].as_str().unwrap()).unwrap())
            }
            (Schema::Any, Value::Array(pair)) => {
                assert_eq!(pair[0], "unsigned");
                Data::Unsigned(pair[1].as_u64().unwrap() as u8)
            }
            (Schema::Unit, Value::String(symbol)) => Data::Enum(Unit::named(symbol).unwrap().0),
            (Schema::Address, Value::String(address)) => {
                Data::DoubleLongUnsigned(address.parse::<std::net::Ipv4Addr>().unwrap().into())
            }
            (Schema::Bits(known), Value::Array(bits)) => {
                let bit = |bit: &Value| match bit {
                    Value::String(word) => known.iter().find(|(_, known)| known == word).unwrap().0 as u8,
                    number => number.as_u64().unwrap() as u8,
                };
                Data::Unsigned(bits.iter().map(|value| 1 << bit(value)).sum())
            }
            _ => panic!("{schema:?} as {named}"),
        }
    }

    #[test]
    fn every_attribute_of_every_class_goes_there_and_back() {
        for class in classes::classes() {
            for (place, attribute) in class.attributes.iter().enumerate() {
                let data = sample(&attribute.schema);

                let shown = named(class.id, place as i8 + 1, &data.to_octets());

                assert_eq!(back(&attribute.schema, &shown), data, "{}: {}", class.name, attribute.name);
            }
        }
    }

    #[test]
    fn values_have_the_books_words() {
        assert_eq!(named(64, 2, &[22, 0b0010_0100]), json!(["authenticated_request", "authenticated_response"]));
        assert_eq!(named(70, 3, &[22, 2]), json!("ready_for_reconnection"));
        assert_eq!(named(3, 3, &[2, 2, 15, 0xFD, 22, 30]), json!({"scaler": -3, "unit": "Wh"}));
        assert_eq!(named(20, 2, &[9, 6, b'S', b'u', b'm', b'm', b'e', b'r']), json!("Summer"));
        assert_eq!(
            named(40, 2, &[1, 1, 2, 4, 18, 0, 8, 9, 6, 0, 0, 1, 0, 0, 255, 15, 2, 18, 0, 0]),
            json!([{"class_id": 8, "logical_name": "0.0.1.0.0.255", "attribute_index": 2, "data_index": 0}])
        );
    }

    #[test]
    fn what_is_not_of_its_type_keeps_its_own() {
        assert_eq!(named(3, 3, &[0]), json!(["null-data", null]));
        assert_eq!(
            named(3, 3, &[2, 3, 15, 1, 22, 30, 17, 5]),
            json!({"scaler": 1, "unit": "Wh", "element_3": ["unsigned", 5]})
        );
        assert_eq!(named(9999, 2, &[17, 5]), json!(["unsigned", 5]));
        assert_eq!(named(70, 3, &[22, 99]), json!(99));
    }
}
