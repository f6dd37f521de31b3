//! Association LN, class 15: which objects there are, and what may be done with them.

use ipss_session::ProtocolError;

use super::{list, logical_name, number, structure};
use crate::axdr::Data;
use crate::cosem::LogicalName;

/// One object of the list. Classes that nobody knows are kept: manufacturers have their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectListElement {
    /// Its class.
    pub class_id: u16,
    /// The class's version.
    pub version: u8,
    /// Its name.
    pub logical_name: LogicalName,
    /// What may be done with its attributes; empty if the meter does not say.
    pub attribute_access: Vec<AttributeAccessItem>,
    /// What may be done with its methods, by method and access mode; empty if the meter does not say.
    pub method_access: Vec<(i8, u8)>,
}

/// The right to one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeAccessItem {
    /// The attribute.
    pub attribute: i8,
    /// Versions 0 to 2: 0 none, 1 read, 2 write, 3 both, 4 to 6 likewise authenticated. Version 3: bits, 0 read,
    /// 1 write, 2 authenticated request, 3 encrypted request, 4 signed request, 5 to 7 likewise for the response.
    pub access_mode: u8,
    /// The access selectors that may be used.
    pub selectors: Vec<i8>,
}

/// Attribute 2.
///
/// # Errors
/// `type-mismatch`
pub fn object_list(data: &Data) -> Result<Vec<ObjectListElement>, ProtocolError> {
    list(data, "object_list")?.iter().map(element).collect()
}

/// Attribute 8: 0 non-associated, 1 association-pending, 2 associated.
///
/// # Errors
/// `type-mismatch`
pub fn association_status(data: &Data) -> Result<u8, ProtocolError> {
    number(data, "association_status")
}

fn element(data: &Data) -> Result<ObjectListElement, ProtocolError> {
    let [class_id, version, name] = structure(data, "an element of object_list")?;
    let (mut attribute_access, mut method_access) = (Vec::new(), Vec::new());
    if let Some(rights) = data.elements().and_then(|elements| elements.get(3)).filter(|rights| **rights != Data::Null) {
        let [attributes, methods] = structure(rights, "access_rights")?;
        attribute_access = list(attributes, "attribute_access")?.iter().map(attribute).collect::<Result<_, _>>()?;
        method_access = list(methods, "method_access")?.iter().map(method).collect::<Result<_, _>>()?;
    }
    Ok(ObjectListElement {
        class_id: number(class_id, "class_id")?,
        version: number(version, "version")?,
        logical_name: logical_name(name)?,
        attribute_access,
        method_access,
    })
}

fn attribute(data: &Data) -> Result<AttributeAccessItem, ProtocolError> {
    let [attribute, mode] = structure(data, "attribute_access_item")?;
    let selectors = match data.elements().and_then(|elements| elements.get(2)) {
        Some(Data::Null) | None => Vec::new(),
        Some(selectors) => {
            let numbers = list(selectors, "access_selectors")?.iter();
            numbers.map(|selector| number(selector, "an access selector")).collect::<Result<_, _>>()?
        }
    };
    let attribute = number(attribute, "attribute_id")?;
    Ok(AttributeAccessItem { attribute, access_mode: number(mode, "access_mode")?, selectors })
}

/// Version 0 has a boolean for the access mode.
fn method(data: &Data) -> Result<(i8, u8), ProtocolError> {
    let [method, mode] = structure(data, "method_access_item")?;
    let mode = match mode {
        Data::Boolean(allowed) => u8::from(*allowed),
        mode => number(mode, "access_mode")?,
    };
    Ok((number(method, "method_id")?, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(class_id: u16, rights: Data) -> Data {
        let name = Data::OctetString(vec![1, 0, 1, 8, 0, 255]);
        Data::Structure(vec![Data::LongUnsigned(class_id), Data::Unsigned(0), name, rights])
    }

    #[test]
    fn unknown_classes_are_kept_with_their_rights() {
        let attribute = |selectors| Data::Structure(vec![Data::Integer(2), Data::Enum(1), selectors]);
        let rights = Data::Structure(vec![
            Data::Array(vec![attribute(Data::Null), attribute(Data::Array(vec![Data::Integer(1), Data::Integer(2)]))]),
            Data::Array(vec![
                Data::Structure(vec![Data::Integer(1), Data::Boolean(true)]),
                Data::Structure(vec![Data::Integer(2), Data::Enum(0)]),
            ]),
        ]);

        let objects = object_list(&Data::Array(vec![entry(3, rights), entry(32_768, Data::Null)])).unwrap();

        assert_eq!(objects[0].attribute_access[1].selectors, [1, 2]);
        assert_eq!(objects[0].method_access, [(1, 1), (2, 0)]);
        assert_eq!(objects[1].class_id, 32_768);
        assert!(objects[1].attribute_access.is_empty());
    }

    #[test]
    fn wrong_types_are_named() {
        let error = object_list(&Data::Array(vec![Data::Null])).unwrap_err();

        assert_eq!(error.code, "type-mismatch");
        assert!(error.message.contains("an element of object_list cannot be of type null-data"));
    }
}
