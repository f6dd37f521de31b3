//! What a service points at: an attribute or a method of an object, and which part of it (Green Book, "xDLMS services").

use ipss_session::WallTime;

use super::LogicalName;

/// An attribute of an object, by logical-name referencing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttributeDescriptor {
    /// Interface class.
    pub class_id: u16,
    /// Object.
    pub logical_name: LogicalName,
    /// Attribute, from 1 (which is always the logical name itself).
    pub attribute: i8,
}

/// A method of an object, by logical-name referencing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodDescriptor {
    /// Interface class.
    pub class_id: u16,
    /// Object.
    pub logical_name: LogicalName,
    /// Method, from 1.
    pub method: i8,
}

/// A capture object of a profile: what stands in one column (Blue Book, "Profile generic", capture_object_definition).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CaptureObject {
    /// The attribute that is captured.
    pub descriptor: AttributeDescriptor,
    /// Which element of it, 0 for the whole.
    pub data_index: u16,
}

/// Which part of a profile's buffer is wanted (Blue Book, "Profile generic", selective access).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Access selector 1: by the value of a sort object.
    Range(RangeSelection),
    /// Access selector 2: by position.
    Entry(EntrySelection),
}

/// Lines whose sort object lies within two values, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSelection {
    /// The object to compare, usually the clock's time (8, 0-0:1.0.0*255, 2).
    pub restricting_object: CaptureObject,
    /// From this moment, included.
    pub from: WallTime,
    /// To this moment, included.
    pub to: WallTime,
    /// Columns wanted; empty for all.
    pub columns: Vec<CaptureObject>,
}

/// Lines and columns by number, counted from 1; 0 as an end means the highest possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntrySelection {
    /// First line.
    pub from_entry: u32,
    /// Last line, 0 for the last there is.
    pub to_entry: u32,
    /// First column.
    pub from_column: u16,
    /// Last column, 0 for the last there is.
    pub to_column: u16,
}
