//! Push layouts: what stands in which place of a list that does not say so itself.
//!
//! A column is written `CLASS/LOGICAL NAME[:ATTRIBUTE[:DATA INDEX]] [SCALER [UNIT]]`, such as `3/1.0.32.7.0.255 -1 V`,
//! or `-` for a place that means nothing. The attribute is 2 if none is written.

use super::finder::Found;
use crate::axdr::{Visitor, tag};
use crate::cosem::units::Unit;
use crate::cosem::{AttributeDescriptor, LogicalName};

/// What stands in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The attribute.
    pub descriptor: AttributeDescriptor,
    /// The element of the attribute, counted from 1; 0 for all of it.
    pub data_index: u16,
    /// The power of ten for the value, if the layout knows it.
    pub scaler: Option<i8>,
    /// The unit, if the layout knows it.
    pub unit: Option<Unit>,
}

impl Column {
    /// Read a column as profiles write it; `Ok(None)` for `-`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let mut words = text.split_whitespace();
        let object = words.next().ok_or("a column is empty; write - for a place without meaning")?;
        if object == "-" {
            return Ok(None);
        }
        let wrong = || format!("\"{text}\": expected CLASS/LOGICAL NAME[:ATTRIBUTE[:INDEX]] [SCALER [UNIT]]");
        let (class_id, rest) = object.split_once('/').ok_or_else(wrong)?;
        let mut parts = rest.split(':');
        let name = parts.next().ok_or_else(wrong)?;
        let attribute = parts.next().map_or(Ok(2), str::parse).map_err(|_| wrong())?;
        let data_index = parts.next().map_or(Ok(0), str::parse).map_err(|_| wrong())?;
        let (scaler, unit) = scaler_and_unit(words).map_err(|word| format!("\"{text}\": {word}"))?;
        let descriptor = AttributeDescriptor {
            class_id: class_id.parse().map_err(|_| wrong())?,
            logical_name: name.parse().map_err(|_| wrong())?,
            attribute,
        };
        Ok(Some(Self { descriptor, data_index, scaler, unit }))
    }

    /// As [`Column::parse`] reads it.
    pub fn text(&self) -> String {
        let AttributeDescriptor { class_id, logical_name, attribute } = self.descriptor;
        let mut text = format!("{class_id}/{logical_name}:{attribute}");
        if self.data_index != 0 {
            text += &format!(":{}", self.data_index);
        }
        if let Some(scaler) = self.scaler {
            text += &format!(" {scaler}");
            if let Some(symbol) = self.unit.and_then(Unit::symbol) {
                text += &format!(" {symbol}");
            }
        }
        text
    }
}

/// A scaler, and behind it perhaps a unit's symbol.
pub(super) fn scaler_and_unit<'a>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<(Option<i8>, Option<Unit>), String> {
    let Some(scaler) = words.next() else { return Ok((None, None)) };
    let scaler = scaler.parse().map_err(|_| format!("\"{scaler}\" is no scaler, a power of ten such as -1"))?;
    let symbol = words.collect::<Vec<_>>().join(" ");
    let unit = match symbol.as_str() {
        "" => None,
        symbol => Some(Unit::named(symbol).ok_or_else(|| format!("no unit has the symbol \"{symbol}\""))?),
    };
    Ok((Some(scaler), unit))
}

/// One list as a meter model sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What it is called, for people.
    pub name: String,
    /// The text that its first element begins with, to tell lists of one length apart.
    pub begins: Option<String>,
    /// What stands in each place.
    pub columns: Vec<Option<Column>>,
}

/// What a body looks like from outside: enough to find its layout.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shape {
    depth: usize,
    /// Elements of the outermost structure.
    pub count: usize,
    /// Its first element, if that is text or octets.
    pub first: Vec<u8>,
}

impl Layout {
    /// Whether a body of this shape is this list.
    pub fn fits(&self, shape: &Shape) -> bool {
        self.columns.len() == shape.count
            && self.begins.as_ref().is_none_or(|begins| shape.first.starts_with(begins.as_bytes()))
    }

    /// The column of a value found in another place of the same list, for what is no place of its own.
    pub fn column(&self, name: LogicalName) -> Option<&Column> {
        self.columns.iter().flatten().find(|column| column.descriptor.logical_name == name)
    }
}

impl Visitor for Shape {
    fn simple(&mut self, tag: u8, octets: &[u8], _: usize) {
        if self.depth <= 1 {
            if self.count == 0 && matches!(tag, tag::OCTET_STRING | tag::VISIBLE_STRING | tag::UTF8_STRING) {
                self.first = octets[..octets.len().min(64)].to_vec();
            }
            self.count += 1;
        }
    }

    fn open(&mut self, _: u8, _: Option<usize>) {
        if self.depth == 1 {
            self.count += 1;
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

impl From<&Found<'_>> for Column {
    fn from(found: &Found<'_>) -> Self {
        Self {
            descriptor: AttributeDescriptor {
                class_id: found.class_id.unwrap_or(0),
                logical_name: found.logical_name,
                attribute: found.attribute,
            },
            data_index: found.data_index,
            scaler: found.scaler,
            unit: found.unit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_as_they_are_written() {
        for text in ["3/1.0.32.7.0.255:2 -1 V", "8/0.0.1.0.0.255:2", "7/1.0.99.1.0.255:2:1", "4/1.0.1.6.0.255:5 3"] {
            assert_eq!(Column::parse(text).unwrap().unwrap().text(), text);
        }
        assert_eq!(Column::parse("-").unwrap(), None);
        assert_eq!(Column::parse("3/1.0.1.8.0.255").unwrap().unwrap().descriptor.attribute, 2);
    }

    #[test]
    fn mistakes_in_columns_are_told() {
        for text in [
            "",
            "1.0.1.8.0.255",
            "3/1.0.1.8.0",
            "3/1.0.1.8.0.255 kWh",
            "3/1.0.1.8.0.255 3 Wattstunden",
            "x/1.0.1.8.0.255",
        ] {
            assert!(Column::parse(text).is_err(), "{text}");
        }
    }
}
