//! Profile generic, class 7: values captured together, entry by entry. The buffer itself goes through
//! [`crate::axdr::decode_buffer`].

use ipss_session::ProtocolError;

use super::{list, mismatch, number};
use crate::apdu::selection::capture_object;
use crate::axdr::{BufferShape, Data};
use crate::cosem::descriptor::CaptureObject;

/// In which order entries stand in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SortMethod {
    /// First in, first out: by time, if the clock is not set back.
    Fifo = 1,
    /// Last in, first out.
    Lifo = 2,
    /// By the sort object, largest first.
    Largest = 3,
    /// By the sort object, smallest first.
    Smallest = 4,
    /// By the sort object, nearest to zero first.
    NearestToZero = 5,
    /// By the sort object, farthest from zero first (the Blue Book spells it farest_from_zero).
    FarthestFromZero = 6,
}

/// Attribute 3.
///
/// # Errors
/// `type-mismatch`
pub fn capture_objects(data: &Data) -> Result<Vec<CaptureObject>, ProtocolError> {
    let objects = list(data, "capture_objects")?;
    objects.iter().map(|object| capture_object(object).ok_or_else(|| mismatch(object, "a capture object"))).collect()
}

/// Attribute 4, in seconds; 0 if captures have no period.
///
/// # Errors
/// `type-mismatch`
pub fn capture_period_s(data: &Data) -> Result<u32, ProtocolError> {
    number(data, "capture_period")
}

/// Attribute 5.
///
/// # Errors
/// `type-mismatch`
pub fn sort_method(data: &Data) -> Result<SortMethod, ProtocolError> {
    use SortMethod::*;
    match number::<u8>(data, "sort_method")? {
        1 => Ok(Fifo),
        2 => Ok(Lifo),
        3 => Ok(Largest),
        4 => Ok(Smallest),
        5 => Ok(NearestToZero),
        6 => Ok(FarthestFromZero),
        _ => Err(mismatch(data, "sort_method")),
    }
}

/// Attribute 6; `None` if the buffer is not sorted by an object (all zeros, or null-data).
///
/// # Errors
/// `type-mismatch`
pub fn sort_object(data: &Data) -> Result<Option<CaptureObject>, ProtocolError> {
    if *data == Data::Null {
        return Ok(None);
    }
    let object = capture_object(data).ok_or_else(|| mismatch(data, "sort_object"))?;
    Ok(Some(object).filter(|object| object.descriptor.class_id != 0))
}

/// Attributes 7 and 8.
///
/// # Errors
/// `type-mismatch`
pub fn entry_count(data: &Data) -> Result<u32, ProtocolError> {
    number(data, "a count of entries")
}

/// What the buffer's decoder needs to know of a profile with these columns.
pub fn buffer_shape(columns: &[CaptureObject], capture_period_s: u32) -> BufferShape {
    let place = |wanted: fn(&CaptureObject) -> bool| columns.iter().position(wanted).map(|place| place as u16);
    BufferShape {
        columns: u16::try_from(columns.len()).unwrap_or(u16::MAX),
        clock_column: place(|column| column.descriptor.class_id == 8 && column.descriptor.attribute == 2),
        // 0-b:96.10.e*255, the profiles' status.
        status_column: place(|column| {
            matches!(column.descriptor.logical_name.0, [0, _, 96, 10, _, _]) && column.descriptor.attribute == 2
        }),
        capture_period_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apdu::selection::encode_capture_object;
    use crate::cosem::AttributeDescriptor;
    use ipss_session::Limits;

    #[test]
    fn columns_give_the_buffers_shape() {
        let column = |class_id, name: &str, attribute| CaptureObject {
            descriptor: AttributeDescriptor { class_id, logical_name: name.parse().unwrap(), attribute },
            data_index: 0,
        };
        let columns = [column(8, "0.0.1.0.0.255", 2), column(1, "0.0.96.10.1.255", 2), column(3, "1.0.1.8.0.255", 2)];
        let mut octets = vec![1, 3];
        for column in &columns {
            encode_capture_object(&mut octets, column);
        }

        let decoded = capture_objects(&Data::from_octets(&octets, &Limits::default()).unwrap()).unwrap();

        assert_eq!(decoded, columns);
        assert_eq!(
            buffer_shape(&decoded, 900),
            BufferShape { columns: 3, clock_column: Some(0), status_column: Some(1), capture_period_s: 900 }
        );
    }

    #[test]
    fn no_sort_object_is_no_error() {
        let nothing = Data::Structure(vec![
            Data::LongUnsigned(0),
            Data::OctetString(vec![0; 6]),
            Data::Integer(0),
            Data::LongUnsigned(0),
        ]);

        assert_eq!(sort_object(&nothing).unwrap(), None);
        assert_eq!(sort_object(&Data::Null).unwrap(), None);
        assert_eq!(sort_object(&Data::Boolean(true)).unwrap_err().code, "type-mismatch");
        assert_eq!(sort_method(&Data::Enum(7)).unwrap_err().code, "type-mismatch");
    }
}
