//! Interface classes (Blue Book, "Interface classes"): their attributes and methods by name and type, from
//! `data/classes.tsv`; and, one file a class, the values that sessions and plans work with.

pub mod association_ln;
pub mod clock;
pub mod data;
pub mod demand_register;
pub mod disconnect_control;
pub mod extended_register;
pub mod profile_generic;
pub mod push_setup;
pub mod register;
pub mod sap_assignment;
pub mod schema;

use std::sync::OnceLock;

use ipss_session::ProtocolError;

use super::LogicalName;
use crate::axdr::Data;
pub use schema::Schema;

/// A class as the Blue Book lists it.
#[derive(Debug, PartialEq, Eq)]
pub struct InterfaceClass {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: &'static str,
    /// The versions that the table covers.
    pub versions: Vec<u8>,
    /// The attributes, the first being attribute 1, over all versions.
    pub attributes: Vec<Attribute>,
    /// The methods' names, the first being method 1, over all versions.
    pub methods: Vec<&'static str>,
}

/// An attribute of a class.
#[derive(Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub schema: Schema,
    /// Whether the meter changes it by itself.
    pub dynamic: bool,
    /// The first version that has it.
    pub since: u8,
}

/// The class with this number, if the table has it.
pub fn class(id: u16) -> Option<&'static InterfaceClass> {
    classes().iter().find(|class| class.id == id)
}

/// Every class of the table, by number.
pub fn classes() -> &'static [InterfaceClass] {
    static CLASSES: OnceLock<Vec<InterfaceClass>> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let mut classes = Vec::new();
        for line in TABLE.lines() {
            // A test sees to it that nothing is left out here.
            let _ = take_line(&mut classes, line);
        }
        classes
    })
}

/// Take one line of the table; `None` if it is not understood.
fn take_line(classes: &mut Vec<InterfaceClass>, line: &'static str) -> Option<()> {
    let mut fields = line.split('\t');
    match fields.next()? {
        "C" => classes.push(InterfaceClass {
            id: fields.next()?.parse().ok()?,
            name: fields.next()?,
            versions: fields.next()?.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?,
            attributes: Vec::new(),
            methods: Vec::new(),
        }),
        "A" => {
            let attributes = &mut classes.last_mut()?.attributes;
            let number: usize = fields.next()?.parse().ok()?;
            let (name, schema) = (fields.next()?, Schema::parse(fields.next()?).ok()?);
            let dynamic = fields.next()? == "dynamic";
            let since = fields.next()?.parse().ok()?;
            (number == attributes.len() + 1).then(|| attributes.push(Attribute { name, schema, dynamic, since }))?;
        }
        "M" => {
            let methods = &mut classes.last_mut()?.methods;
            let number: usize = fields.next()?.parse().ok()?;
            let name = fields.next()?;
            (number == methods.len() + 1).then(|| methods.push(name))?;
        }
        comment if comment.starts_with('#') => {}
        _ => return None,
    }
    Some(())
}

const TABLE: &str = include_str!("../../../data/classes.tsv");

impl InterfaceClass {
    /// Attribute `id`, counted from 1.
    pub fn attribute(&self, id: i8) -> Option<&Attribute> {
        self.attributes.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    /// The name of method `id`, counted from 1.
    pub fn method(&self, id: i8) -> Option<&'static str> {
        self.methods.get(usize::try_from(id).ok()?.checked_sub(1)?).copied()
    }
}

/// An integer of any type that fits.
pub(crate) fn number<T: TryFrom<i128>>(data: &Data, what: &str) -> Result<T, ProtocolError> {
    data.as_integer().and_then(|number| T::try_from(number).ok()).ok_or_else(|| mismatch(data, what))
}

/// The elements of an array or structure.
pub(crate) fn list<'a>(data: &'a Data, what: &str) -> Result<&'a [Data], ProtocolError> {
    data.elements().ok_or_else(|| mismatch(data, what))
}

/// A structure with so many elements at least; later versions append.
pub(crate) fn structure<'a, const N: usize>(data: &'a Data, what: &str) -> Result<&'a [Data; N], ProtocolError> {
    data.elements().and_then(|elements| elements.first_chunk()).ok_or_else(|| mismatch(data, what))
}

pub(crate) fn logical_name(data: &Data) -> Result<LogicalName, ProtocolError> {
    let octets = data.as_octets().and_then(|octets| octets.try_into().ok());
    octets.map(LogicalName).ok_or_else(|| mismatch(data, "logical name"))
}

pub(crate) fn boolean(data: &Data, what: &str) -> Result<bool, ProtocolError> {
    match data {
        Data::Boolean(value) => Ok(*value),
        other => Ok(number::<u8>(other, what)? != 0),
    }
}

#[cold]
pub(crate) fn mismatch(data: &Data, what: &str) -> ProtocolError {
    ProtocolError::remote("cosem", 0, "type-mismatch", format!("{what} cannot be of type {}", data.type_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let mut classes = Vec::new();
        for line in TABLE.lines() {
            assert!(take_line(&mut classes, line).is_some(), "{line}");
        }
        assert!(classes.windows(2).all(|two| two[0].id < two[1].id));
        for class in &classes {
            assert_eq!((class.attributes[0].name, &class.attributes[0].schema), ("logical_name", &Schema::Name));
            assert!(
                class.attributes.iter().all(|attribute| class.versions.contains(&attribute.since)),
                "{}",
                class.name
            );
        }
    }

    #[test]
    fn every_class_that_meters_use_is_there_with_its_attributes() {
        let counts = [
            (1, 2),
            (3, 3),
            (4, 5),
            (5, 9),
            (6, 4),
            (7, 8),
            (8, 9),
            (9, 2),
            (10, 2),
            (11, 2),
            (12, 6),
            (15, 11),
            (17, 2),
            (18, 7),
            (19, 9),
            (20, 10),
            (21, 4),
            (22, 4),
            (23, 9),
            (25, 5),
            (26, 4),
            (27, 4),
            (28, 7),
            (29, 6),
            (30, 6),
            (40, 13),
            (41, 6),
            (42, 10),
            (43, 2),
            (44, 5),
            (45, 4),
            (47, 8),
            (48, 10),
            (61, 4),
            (62, 6),
            (63, 3),
            (64, 6),
            (65, 8),
            (70, 4),
            (71, 11),
            (72, 14),
            (74, 2),
            (100, 7),
            (111, 19),
            (112, 11),
            (113, 13),
            (115, 6),
            (116, 12),
            (122, 3),
            (123, 2),
            (124, 10),
            (151, 3),
        ];
        for (id, attributes) in counts {
            assert_eq!(class(id).map(|class| class.attributes.len()), Some(attributes), "class {id}");
        }
        assert_eq!(classes().len(), counts.len());
        let names = |id: u16, attribute, method| {
            let class = class(id).unwrap();
            (class.name, class.attribute(attribute).map(|known| known.name), class.method(method))
        };
        assert_eq!(
            names(20, 2, 1),
            ("Activity calendar", Some("calendar_name_active"), Some("activate_passive_calendar"))
        );
        assert_eq!(names(64, 2, 1), ("Security setup", Some("security_policy"), Some("security_activate")));
        assert_eq!(names(70, 3, 2), ("Disconnect control", Some("control_state"), Some("remote_reconnect")));
        assert_eq!(class(3).unwrap().attribute(0), None);
        assert_eq!(class(3).unwrap().method(2), None);
        assert_eq!(class(9999), None);
    }
}
