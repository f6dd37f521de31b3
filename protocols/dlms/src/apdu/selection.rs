//! Selective access: which part of an attribute is meant (Green Book, Selective-Access-Descriptor; Blue Book,
//! "Profile generic", range_descriptor and entry_descriptor).

use ipss_session::{Limits, Line, ProtocolError, WallTime};

use crate::axdr::{Data, DateTime, Reader, skip, tag, write_length};
use crate::cosem::descriptor::CaptureObject;
use crate::cosem::{AttributeDescriptor, EntrySelection, LogicalName, RangeSelection, Selection};

/// A selection as it stands in an APDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectiveAccess<'a> {
    /// Which kind; 1 and 2 are a profile's range and entries.
    pub selector: u8,
    /// Its parameters, one A-XDR value.
    pub parameters: &'a [u8],
}

/// How a meter wants the moments of a range written. Meters differ, and refuse what they do not like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectionOptions {
    /// The deviation of the meter's local time from UTC in minutes (local + deviation = UTC).
    pub deviation: i16,
    /// Whether the deviation is written out, or left unspecified (8000) beside the local time.
    pub send_deviation: bool,
    /// Type 25 date-time instead of an octet-string.
    pub date_time_type: bool,
    /// Whether the day of the week is written out, or left unspecified.
    pub send_day_of_week: bool,
}

impl Default for SelectionOptions {
    fn default() -> Self {
        Self { deviation: 0, send_deviation: true, date_time_type: false, send_day_of_week: true }
    }
}

impl<'a> SelectiveAccess<'a> {
    /// An OPTIONAL selective access at the reader's place. Its parameters are walked, so that what follows is found.
    pub(crate) fn decode_optional(reader: &mut Reader<'a>, limits: &Limits) -> Result<Option<Self>, ProtocolError> {
        if !reader.present()? {
            return Ok(None);
        }
        let selector = reader.u8()?;
        let start = reader.offset();
        skip(reader, limits)?;
        Ok(Some(Self { selector, parameters: reader.since(start) }))
    }

    /// What is selected. Moments without a deviation are taken as the local time of a meter with `deviation`.
    ///
    /// # Errors
    /// Remote: `bad-selection` for other selectors than 1 and 2, and for parameters that are no range by clock or no
    /// entries.
    pub fn selection(&self, deviation: i16, limits: &Limits) -> Result<Selection, ProtocolError> {
        let wrong = || ProtocolError::remote("apdu", 0, "bad-selection", format!("access selector {}", self.selector));
        let value = Data::from_octets(self.parameters, limits)?;
        match (self.selector, value.elements()) {
            (1, Some([object, from, to, columns])) => {
                let columns = columns.elements().unwrap_or_default().iter().map(capture_object).collect::<Option<_>>();
                Ok(Selection::Range(RangeSelection {
                    restricting_object: capture_object(object).ok_or_else(wrong)?,
                    from: moment(from, deviation).ok_or_else(wrong)?,
                    to: moment(to, deviation).ok_or_else(wrong)?,
                    columns: columns.ok_or_else(wrong)?,
                }))
            }
            (2, Some([from_entry, to_entry, from_column, to_column])) => {
                let number =
                    |value: &Data| value.as_integer().and_then(|number| u32::try_from(number).ok()).ok_or_else(wrong);
                let column = |value| number(value).and_then(|number| u16::try_from(number).map_err(|_| wrong()));
                Ok(Selection::Entry(EntrySelection {
                    from_entry: number(from_entry)?,
                    to_entry: number(to_entry)?,
                    from_column: column(from_column)?,
                    to_column: column(to_column)?,
                }))
            }
            _ => Err(wrong()),
        }
    }
}

/// A class, name, attribute and index, as in a profile's capture objects. Later versions append elements.
pub fn capture_object(value: &Data) -> Option<CaptureObject> {
    let [class_id, name, attribute, data_index, ..] = value.elements()? else { return None };
    Some(CaptureObject {
        descriptor: AttributeDescriptor {
            class_id: u16::try_from(class_id.as_integer()?).ok()?,
            logical_name: LogicalName(name.as_octets()?.try_into().ok()?),
            attribute: i8::try_from(attribute.as_integer()?).ok()?,
        },
        data_index: u16::try_from(data_index.as_integer()?).ok()?,
    })
}

/// Append an OPTIONAL selective access.
pub(crate) fn encode_optional(out: &mut Vec<u8>, selection: Option<&Selection>, options: &SelectionOptions) {
    match selection {
        None => out.push(0),
        Some(Selection::Range(range)) => {
            out.extend_from_slice(&[1, 1, tag::STRUCTURE, 4]);
            encode_capture_object(out, &range.restricting_object);
            encode_moment(out, range.from, options);
            encode_moment(out, range.to, options);
            out.push(tag::ARRAY);
            write_length(out, range.columns.len());
            for column in &range.columns {
                encode_capture_object(out, column);
            }
        }
        Some(Selection::Entry(entry)) => {
            out.extend_from_slice(&[1, 2, tag::STRUCTURE, 4, tag::DOUBLE_LONG_UNSIGNED]);
            out.extend_from_slice(&entry.from_entry.to_be_bytes());
            out.push(tag::DOUBLE_LONG_UNSIGNED);
            out.extend_from_slice(&entry.to_entry.to_be_bytes());
            out.push(tag::LONG_UNSIGNED);
            out.extend_from_slice(&entry.from_column.to_be_bytes());
            out.push(tag::LONG_UNSIGNED);
            out.extend_from_slice(&entry.to_column.to_be_bytes());
        }
    }
}

/// Append a capture object as A-XDR structure.
pub fn encode_capture_object(out: &mut Vec<u8>, object: &CaptureObject) {
    let AttributeDescriptor { class_id, logical_name, attribute } = object.descriptor;
    out.extend_from_slice(&[tag::STRUCTURE, 4, tag::LONG_UNSIGNED]);
    out.extend_from_slice(&class_id.to_be_bytes());
    out.extend_from_slice(&[tag::OCTET_STRING, 6]);
    out.extend_from_slice(&logical_name.0);
    out.push(tag::INTEGER);
    out.extend_from_slice(&attribute.to_be_bytes());
    out.push(tag::LONG_UNSIGNED);
    out.extend_from_slice(&object.data_index.to_be_bytes());
}

fn encode_moment(out: &mut Vec<u8>, moment: WallTime, options: &SelectionOptions) {
    let DateTime(mut octets) = DateTime::from_wall(moment, options.deviation);
    if !options.send_deviation {
        octets[9..11].copy_from_slice(&Line::NO_DEVIATION.to_be_bytes());
    }
    if !options.send_day_of_week {
        octets[4] = 0xFF;
    }
    if options.date_time_type {
        out.push(tag::DATE_TIME);
    } else {
        out.extend_from_slice(&[tag::OCTET_STRING, 12]);
    }
    out.extend_from_slice(&octets);
}

fn moment(value: &Data, deviation: i16) -> Option<WallTime> {
    let date_time = value.as_date_time()?;
    let wall = date_time.to_wall()?;
    let behind =
        if date_time.deviation().is_some() || deviation == Line::NO_DEVIATION { 0 } else { i64::from(deviation) };
    Some(WallTime(wall.0 + behind * 60 * WallTime::SECOND))
}
