//! Names and meanings of what a meter holds: logical names, descriptors, selections, results (Blue Book).

pub mod catalogue;
pub mod classes;
pub mod descriptor;
pub mod logical_name;
pub mod result;
pub mod short_names;
pub mod units;

pub use catalogue::{CatalogueEntry, lookup};
pub use descriptor::{AttributeDescriptor, EntrySelection, MethodDescriptor, RangeSelection, Selection};
pub use logical_name::LogicalName;
pub use result::{ActionResult, DataAccessResult};
pub use short_names::{Named, ShortNamedObject, ShortNames};
pub use units::{ScalerUnit, Unit};
