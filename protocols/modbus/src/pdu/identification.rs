//! Device identification (clause 6.21): names and versions, by object.

use ipss_session::ProtocolError;

use super::malformed;
use crate::function::{ENCAPSULATED_INTERFACE, MEI_DEVICE_IDENTIFICATION};

/// A response to a read of device identification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identification<'a> {
    /// What was asked for: 1 basic, 2 regular, 3 extended, 4 one object.
    pub code: u8,
    /// What the device has, the same numbers; 0x80 is set if single objects can be read.
    pub conformity: u8,
    /// More objects follow from [`Self::next_object`] on.
    pub more_follows: bool,
    /// Where to go on.
    pub next_object: u8,
    /// The objects.
    pub objects: IdentificationObjects<'a>,
}

/// Objects, checked: id, length, octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentificationObjects<'a>(&'a [u8]);

impl<'a> IdentificationObjects<'a> {
    /// In order: an object's id (0 vendor, 1 product code, 2 revision, ...) and its octets.
    pub fn iter(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let &[id, length, ref octets @ ..] = rest else { return None };
            let value = octets.get(..usize::from(length))?;
            rest = &octets[usize::from(length)..];
            Some((id, value))
        })
    }

    /// The standard's name of an object.
    pub fn name(id: u8) -> Option<&'static str> {
        Some(match id {
            0 => "vendor-name",
            1 => "product-code",
            2 => "major-minor-revision",
            3 => "vendor-url",
            4 => "product-name",
            5 => "model-name",
            6 => "user-application-name",
            _ => return None,
        })
    }
}

impl<'a> Identification<'a> {
    /// From a whole PDU.
    pub(super) fn decode(pdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let &[_, _, code, conformity, more, next_object, count, ref objects @ ..] = pdu else {
            return Err(malformed(pdu.len(), "truncated", "a device identification that is not whole"));
        };
        let mut at = 0;
        for _ in 0..count {
            match objects.get(at + 1) {
                Some(length) if at + 2 + usize::from(*length) <= objects.len() => at += 2 + usize::from(*length),
                _ => return Err(malformed(7 + at, "bad-length", "an object that is not whole")),
            }
        }
        if at != objects.len() {
            return Err(malformed(7 + at, "bad-length", "octets behind the last object"));
        }
        let objects = IdentificationObjects(objects);
        Ok(Self { code, conformity, more_follows: more != 0, next_object, objects })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let more = if self.more_follows { 0xFF } else { 0 };
        out.extend_from_slice(&[ENCAPSULATED_INTERFACE, MEI_DEVICE_IDENTIFICATION, self.code, self.conformity]);
        out.extend_from_slice(&[more, self.next_object, self.objects.iter().count() as u8]);
        out.extend_from_slice(self.objects.0);
    }

    /// Objects from their octets: id, length, value, one behind the other. What does not fit is left out.
    pub fn objects(octets: &'a [u8]) -> IdentificationObjects<'a> {
        IdentificationObjects(octets)
    }
}
