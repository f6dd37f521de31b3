//! What may be asked of a meter: plans, made once and shared by all meters that are asked the same.

use std::sync::Arc;

use ipss_session::WallTime;

use crate::apdu::tags;
use crate::axdr::line::BufferShape;
use crate::cosem::descriptor::CaptureObject;
use crate::cosem::{AttributeDescriptor, EntrySelection, LogicalName, MethodDescriptor, Selection};

/// A plan and, for what it reads of profiles, the time that this request wants.
#[derive(Clone, Debug)]
pub struct Work {
    /// What to ask, in order.
    pub plan: Arc<Plan>,
    /// First and last capture time wanted of profiles, both included; unused by other items.
    pub from: WallTime,
    /// See `from`.
    pub to: WallTime,
}

/// Questions in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The questions.
    pub items: Box<[Item]>,
}

impl Plan {
    /// Whether asking it again can do no harm: it only reads.
    pub fn is_repeatable(&self) -> bool {
        self.items.iter().all(Item::is_repeatable)
    }
}

/// One question, or a few that make up one line. Its place in the plan is the `item` of its rows.
#[derive(Clone, Debug)]
pub enum Item {
    /// Attributes that make up one line, a cell each, in this order.
    Attributes(Attributes),
    /// A profile's buffer, a line an entry.
    Buffer(Buffer),
    /// Write attributes, several in one SET with-list. The answer is an empty line if all were written; otherwise a
    /// line with the result of each (0 for written) and a refusal for each that was not.
    Set(Box<[(AttributeDescriptor, Box<[u8]>)]>),
    /// Invoke a method. The answer is a line with the return parameters, if there are any, or a refusal.
    Action(MethodDescriptor, Option<Box<[u8]>>),
    /// Invoke methods, several in one ACTION with-list where the meter has that. The answer is a line, empty or with the
    /// return parameters of each, and a refusal for each that was refused.
    Actions(Box<[Invocation]>),
    /// Read, write and invoke in one ACCESS. The answer is a line with a cell each, null where there is no value, and a
    /// refusal for each that was refused.
    Access(Box<AccessList>),
    /// Write or invoke without an answer: a [`Item::Set`] or [`Item::Action`]. The line, empty, says that it was sent.
    Unconfirmed(Box<Item>),
}

impl Item {
    /// Whether asking it again can do no harm: it only reads.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Attributes(_) | Self::Buffer(_) => true,
            Self::Access(access) => access.items.iter().all(|item| matches!(item, Access::Get(..))),
            Self::Set(_) | Self::Action(..) | Self::Actions(_) | Self::Unconfirmed(_) => false,
        }
    }

    /// How many parts it has that may be asked apart.
    pub(super) fn parts(&self) -> usize {
        match self {
            Self::Attributes(attributes) => attributes.attributes.len(),
            Self::Set(values) => values.len(),
            Self::Actions(list) => list.len(),
            Self::Buffer(_) | Self::Action(..) | Self::Access(_) | Self::Unconfirmed(_) => 1,
        }
    }

    /// The tag of the APDU that answers it, with logical names.
    pub(super) fn answered_by(&self) -> u8 {
        match self {
            Self::Attributes(_) | Self::Buffer(_) => tags::GET_RESPONSE,
            Self::Set(_) => tags::SET_RESPONSE,
            Self::Action(..) | Self::Actions(_) => tags::ACTION_RESPONSE,
            Self::Access(_) => tags::ACCESS_RESPONSE,
            Self::Unconfirmed(_) => 0,
        }
    }
}

/// A method and its parameters, one A-XDR value.
pub type Invocation = (MethodDescriptor, Option<Box<[u8]>>);

/// What one ACCESS asks for.
#[derive(Clone, Debug)]
pub struct AccessList {
    /// In this order.
    pub items: Box<[Access]>,
    /// The first *no* ends the list.
    pub break_on_error: bool,
    /// The answer repeats what was asked, and must agree with it.
    pub self_descriptive: bool,
}

/// One thing in an ACCESS.
#[derive(Clone, Debug)]
pub enum Access {
    /// Read an attribute, or a part of it.
    Get(AttributeDescriptor, Option<Selection>),
    /// Write an attribute; the value is A-XDR.
    Set(AttributeDescriptor, Box<[u8]>),
    /// Invoke a method; the parameters are A-XDR.
    Action(MethodDescriptor, Option<Box<[u8]>>),
}

/// Attributes read for one line.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// The line's layout, chosen by the asker. In a line of layout 0 integers too keep their octets, so that the asker
    /// sees their types.
    pub layout: u32,
    /// What to read. A refused attribute leaves a null cell and a refusal.
    pub attributes: Box<[AttributeDescriptor]>,
    /// The attribute whose value is the capture time of the others (extended register 5, demand register 6): it
    /// sets the line's time and is no cell. Without one the line has no capture time.
    pub capture_time: Option<u16>,
}

/// A profile's buffer to read.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// The line's layout, chosen by the asker.
    pub layout: u32,
    /// The profile (class 7, attribute 2).
    pub logical_name: LogicalName,
    /// What its entries look like.
    pub shape: BufferShape,
    /// Which of them are wanted.
    pub wanted: Wanted,
}

/// Which entries of a buffer are wanted.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// All there are.
    All,
    /// Those captured from [`Work::from`] to [`Work::to`], by this sort object; columns as named, or all.
    Range {
        /// The clock's time, as a rule.
        restricting_object: CaptureObject,
        /// Columns wanted; empty for all.
        columns: Vec<CaptureObject>,
    },
    /// By position.
    Entries(EntrySelection),
}
