//! What a meter says unasked: Data-Notification \[15\] with its confirmation \[16\], and Event-Notification-Request
//! \[194\] (Green Book, "Unsolicited services").

use ipss_session::ProtocolError;

use super::list::{attribute_descriptor, encode_attribute, last_data, open};
use super::tags;
use crate::axdr::{DateTime, Reader, tag};
use crate::cosem::AttributeDescriptor;

/// A push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataNotification<'a> {
    /// Long-Invoke-Id-And-Priority: the invoke id in bits 0 to 23, service class in bit 30, priority in bit 31, and
    /// bits 28 and 29 for self-description and breaking on error.
    pub long_invoke_id_and_priority: u32,
    /// When it was sent, by the meter's clock.
    pub date_time: Option<DateTime>,
    /// Whether the time carried a type octet of A-XDR data, which the standard does not have there (Kaifa).
    pub date_time_tagged: bool,
    /// The content, one A-XDR value, not walked yet.
    pub body: &'a [u8],
}

/// The head-end's word that a push arrived, which a confirmed push waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataNotificationConfirm {
    /// That of the push.
    pub long_invoke_id_and_priority: u32,
    /// When it was sent.
    pub date_time: Option<DateTime>,
}

impl DataNotificationConfirm {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-date-time`, `trailing-octets`.
    pub fn decode(apdu: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::DATA_NOTIFICATION_CONFIRM)?;
        let confirm = Self { long_invoke_id_and_priority: reader.u32()?, date_time: date_time(&mut reader)? };
        reader.finish()?;
        Ok(confirm)
    }

    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(tags::DATA_NOTIFICATION_CONFIRM);
        out.extend_from_slice(&self.long_invoke_id_and_priority.to_be_bytes());
        encode_date_time(out, self.date_time);
    }
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventNotification<'a> {
    /// When it was sent, by the meter's clock.
    pub time: Option<DateTime>,
    /// Whether the time's presence was marked by the type octet of an octet-string (Iskra MX382).
    pub time_tagged: bool,
    /// The attribute that the value belongs to.
    pub descriptor: AttributeDescriptor,
    /// Its value, not walked yet.
    pub value: &'a [u8],
}

impl<'a> DataNotification<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-date-time`.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::DATA_NOTIFICATION)?;
        let long_invoke_id_and_priority = reader.u32()?;
        // Lengths are 0 or 12, so that a type octet can be told from one.
        let date_time_tagged = matches!(reader.rest(), [tag::OCTET_STRING, 0 | 12, ..] | [tag::DATE_TIME, ..]);
        let typed = date_time_tagged && reader.u8()? == tag::DATE_TIME;
        let date_time = if typed { Some(DateTime(reader.array()?)) } else { date_time(&mut reader)? };
        Ok(Self { long_invoke_id_and_priority, date_time, date_time_tagged, body: last_data(&mut reader)? })
    }

    /// Append it. The time is written as the standard has it, whatever `date_time_tagged` says.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(tags::DATA_NOTIFICATION);
        out.extend_from_slice(&self.long_invoke_id_and_priority.to_be_bytes());
        encode_date_time(out, self.date_time);
        out.extend_from_slice(self.body);
    }
}

impl<'a> EventNotification<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-date-time`.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::EVENT_NOTIFICATION_REQUEST)?;
        let flag = reader.u8()?;
        let time = if flag == 0 { None } else { date_time(&mut reader)? };
        let descriptor = attribute_descriptor(&mut reader)?;
        Ok(Self { time, time_tagged: flag == tag::OCTET_STRING, descriptor, value: last_data(&mut reader)? })
    }

    /// Append it, the time's presence as the standard has it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[tags::EVENT_NOTIFICATION_REQUEST, u8::from(self.time.is_some())]);
        if self.time.is_some() {
            encode_date_time(out, self.time);
        }
        encode_attribute(out, &self.descriptor);
        out.extend_from_slice(self.value);
    }
}

/// An octet-string of twelve octets, or empty for none.
pub(super) fn date_time(reader: &mut Reader<'_>) -> Result<Option<DateTime>, ProtocolError> {
    match reader.length()? {
        0 => Ok(None),
        12 => Ok(Some(DateTime(reader.array()?))),
        other => Err(reader.error("bad-date-time", format!("{other} octets of date-time; 0 or 12 expected"))),
    }
}

pub(super) fn encode_date_time(out: &mut Vec<u8>, date_time: Option<DateTime>) {
    match date_time {
        Some(DateTime(octets)) => {
            out.push(12);
            out.extend_from_slice(&octets);
        }
        None => out.push(0),
    }
}
