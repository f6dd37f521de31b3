//! Data, class 1: one value of any type.

use super::InterfaceClass;

/// The class.
pub const CLASS: InterfaceClass =
    InterfaceClass { id: 1, name: "Data", versions: &[0], attributes: &["logical_name", "value"], methods: &[] };
