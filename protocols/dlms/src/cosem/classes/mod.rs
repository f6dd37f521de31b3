//! Interface classes: their attributes and methods by name, and the values of attributes by type (Blue Book,
//! "Interface classes"). One file a class.

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

use ipss_session::ProtocolError;

use super::LogicalName;
use crate::axdr::Data;

/// A class as the Blue Book lists it.
#[derive(Debug, PartialEq, Eq)]
pub struct InterfaceClass {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: &'static str,
    /// The versions that the values here are decoded for.
    pub versions: &'static [u8],
    /// The attributes' names, the first being attribute 1, over all versions.
    pub attributes: &'static [&'static str],
    /// The methods' names, the first being method 1, over all versions.
    pub methods: &'static [&'static str],
}

/// The classes that are decoded.
pub const CLASSES: [&InterfaceClass; 10] = [
    &data::CLASS,
    &register::CLASS,
    &extended_register::CLASS,
    &demand_register::CLASS,
    &profile_generic::CLASS,
    &clock::CLASS,
    &association_ln::CLASS,
    &sap_assignment::CLASS,
    &push_setup::CLASS,
    &disconnect_control::CLASS,
];

/// The class with this number, if it is decoded.
pub fn class(id: u16) -> Option<&'static InterfaceClass> {
    CLASSES.into_iter().find(|class| class.id == id)
}

impl InterfaceClass {
    /// The name of attribute `id`, counted from 1.
    pub fn attribute(&self, id: i8) -> Option<&'static str> {
        self.attributes.get(usize::try_from(id).ok()?.checked_sub(1)?).copied()
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
