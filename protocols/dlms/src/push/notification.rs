//! A whole notification taken apart for whoever stores it.

use std::borrow::Cow;

use ipss_session::{Cell, Limits, Line, ProtocolError, WallTime};

use super::companion::Companion;
use super::finder::{Finder, encode, is_clock};
use super::layout::{Column, Shape};
use super::untagged;
use crate::apdu::notification::{DataNotification, EventNotification};
use crate::apdu::tags;
use crate::axdr::{DateTime, Reader, decode_value, walk};
use crate::cosem::{AttributeDescriptor, LogicalName, lookup};

/// An APDU that a meter sends unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification<'a> {
    /// A push.
    Data(DataNotification<'a>),
    /// An event.
    Event(EventNotification<'a>),
}

/// What a notification says, as a line of the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The attribute that the line is of: a push setup's object list for a push, the event's attribute for an event.
    pub source: AttributeDescriptor,
    /// When the meter captured it, in UTC; unknown if it did not say.
    pub capture_time: WallTime,
    /// The deviation as the meter sent it, [`Line::NO_DEVIATION`] if unspecified.
    pub deviation: i16,
    /// The clock status octet; 0xFF if unspecified.
    pub clock_status: u8,
    /// What stands in which place, the clock left out.
    pub values: Vec<PushedValue>,
}

/// One value of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedValue {
    /// What it is.
    pub column: Column,
    /// An integer; `None` for what [`PushedValue::raw`] holds, and for null-data.
    pub integer: Option<i64>,
    /// The value's A-XDR octets; empty for integers and null-data.
    pub raw: Vec<u8>,
}

impl<'a> Notification<'a> {
    /// Decode a whole plain APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-date-time`, `unexpected-apdu` for an APDU that is no notification.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ProtocolError> {
        match apdu.first() {
            Some(&tags::DATA_NOTIFICATION) => DataNotification::decode(apdu).map(Self::Data),
            Some(&tags::EVENT_NOTIFICATION_REQUEST) => EventNotification::decode(apdu).map(Self::Event),
            found => {
                let found = found.map_or("nothing".into(), |tag| format!("tag {tag:02X}"));
                let message = format!("{found} where a notification was expected");
                Err(ProtocolError::remote("apdu", 0, "unexpected-apdu", message))
            }
        }
    }

    /// Its time by the meter's clock.
    pub fn time(&self) -> Option<DateTime> {
        match self {
            Self::Data(notification) => notification.date_time,
            Self::Event(notification) => notification.time,
        }
    }
}

/// Take a plain notification apart under a companion profile. What has no name in it gives no value: a push without
/// values is one whose layout is not known.
///
/// # Errors
/// As [`Notification::decode`] and [`crate::axdr::skip`].
pub fn read(apdu: &[u8], companion: &Companion, limits: &Limits) -> Result<Pushed, ProtocolError> {
    let notification = Notification::decode(apdu)?;
    let (source, body, expected) = match notification {
        Notification::Data(data) => (PUSH_OBJECT_LIST, untagged::tagged(data.body, limits)?, None),
        Notification::Event(event) => (event.descriptor, Cow::Borrowed(event.value), Some(event.descriptor)),
    };
    let mut values = Vec::new();
    let mut clock = None;
    let mut sink = |found: &super::Found<'_>| {
        if is_clock(found) {
            clock = clock.or(found.octets.try_into().ok().map(DateTime));
            return;
        }
        let mut column = Column::from(found);
        if column.descriptor.class_id == 0 {
            column.descriptor.class_id = lookup(found.logical_name).map_or(0, |entry| entry.class_id);
        }
        let mut octets = Vec::new();
        match found.tag {
            crate::axdr::tag::ARRAY | crate::axdr::tag::STRUCTURE => octets.extend_from_slice(found.octets),
            tag => encode(&mut octets, tag, found.octets, found.bits),
        }
        let (integer, raw) = match decode_value(&octets, limits) {
            Ok(Cell::Integer(integer)) => (Some(integer), Vec::new()),
            Ok(Cell::Null) => (None, Vec::new()),
            _ => (None, octets),
        };
        values.push(PushedValue { column, integer, raw });
    };
    let mut finder = Finder::new(&mut sink, Some(companion), notification.time());
    match expected {
        Some(descriptor) => finder.expect(descriptor),
        None => {
            let mut shape = Shape::default();
            walk(&mut Reader::new(&body), limits, &mut shape)?;
            finder.lay_out_as(&shape);
        }
    }
    walk(&mut Reader::new(&body), limits, &mut finder)?;
    drop(finder);
    // The clock among the values says when they were captured, the notification's when they were sent.
    let time = clock.filter(|clock| clock.to_wall().is_some()).or(notification.time());
    Ok(Pushed {
        source,
        capture_time: time.and_then(|time| companion.time.resolve(time).to_wall()).unwrap_or(WallTime::UNKNOWN),
        deviation: time.and_then(DateTime::deviation).unwrap_or(Line::NO_DEVIATION),
        clock_status: time.and_then(DateTime::status).unwrap_or(0xFF),
        values,
    })
}

/// A push does not say which push setup it is of; the first one stands for all (Blue Book: 0-0:25.9.0*255).
const PUSH_OBJECT_LIST: AttributeDescriptor =
    AttributeDescriptor { class_id: 40, logical_name: LogicalName([0, 0, 25, 9, 0, 255]), attribute: 2 };
