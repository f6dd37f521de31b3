//! File records (clauses 6.14 and 6.15): groups of registers by file and record number.

use super::{Registers, malformed, u16_at};
use ipss_session::ProtocolError;

/// The only reference type that there is.
const REFERENCE: u8 = 6;
/// Octets of a group's head: reference type, file, record, length.
const HEAD: usize = 7;

/// One group to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRead {
    /// File number, 1 to 65,535.
    pub file: u16,
    /// First record, 0 to 9,999.
    pub record: u16,
    /// How many registers.
    pub length: u16,
}

/// The groups of a request to read, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileReads<'a>(&'a [u8]);

impl<'a> FileReads<'a> {
    pub(super) fn decode(octets: &'a [u8]) -> Result<Self, ProtocolError> {
        if octets.is_empty() || octets.len() % HEAD != 0 {
            let message = format!("{} octets of groups; each takes {HEAD}", octets.len());
            return Err(malformed(1, "bad-length", message));
        }
        match octets.chunks_exact(HEAD).position(|group| group[0] != REFERENCE) {
            Some(place) => Err(malformed(2 + place * HEAD, "bad-reference-type", "a reference type other than 6")),
            None => Ok(Self(octets)),
        }
    }

    /// In order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = FileRead> + 'a {
        self.0.chunks_exact(HEAD).map(|group| FileRead {
            file: u16::from_be_bytes([group[1], group[2]]),
            record: u16::from_be_bytes([group[3], group[4]]),
            length: u16::from_be_bytes([group[5], group[6]]),
        })
    }

    /// Append the octets of these groups.
    pub fn pack(groups: &[FileRead], out: &mut Vec<u8>) {
        for group in groups {
            out.push(REFERENCE);
            out.extend_from_slice(&group.file.to_be_bytes());
            out.extend_from_slice(&group.record.to_be_bytes());
            out.extend_from_slice(&group.length.to_be_bytes());
        }
    }

    /// The octets.
    pub fn octets(self) -> &'a [u8] {
        self.0
    }
}

/// One group to write, or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileWrite<'a> {
    /// File number.
    pub file: u16,
    /// First record.
    pub record: u16,
    /// The registers.
    pub values: Registers<'a>,
}

/// The groups of a request to write, or of its response, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileWrites<'a>(&'a [u8]);

impl<'a> FileWrites<'a> {
    pub(super) fn decode(octets: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut at = 0;
        while at < octets.len() {
            if octets[at] != REFERENCE {
                return Err(malformed(2 + at, "bad-reference-type", "a reference type other than 6"));
            }
            let length = u16_at(octets, at + 5).map(|length| at + HEAD + usize::from(length) * 2);
            match length.filter(|end| *end <= octets.len()) {
                Some(end) => at = end,
                None => return Err(malformed(2 + at, "bad-length", "a group of records that is not whole")),
            }
        }
        if octets.is_empty() {
            return Err(malformed(1, "bad-length", "no groups of records"));
        }
        Ok(Self(octets))
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = FileWrite<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (file, record, length) = (u16_at(rest, 1)?, u16_at(rest, 3)?, u16_at(rest, 5)?);
            let end = HEAD + usize::from(length) * 2;
            let values = Registers::new(rest.get(HEAD..end)?);
            rest = &rest[end..];
            Some(FileWrite { file, record, values })
        })
    }

    /// Append the octets of one group.
    pub fn pack(group: FileWrite<'_>, out: &mut Vec<u8>) {
        out.push(REFERENCE);
        out.extend_from_slice(&group.file.to_be_bytes());
        out.extend_from_slice(&group.record.to_be_bytes());
        out.extend_from_slice(&(group.values.len() as u16).to_be_bytes());
        out.extend_from_slice(group.values.octets());
    }

    /// The octets.
    pub fn octets(self) -> &'a [u8] {
        self.0
    }
}

/// One group that was read: its registers.
pub type FileRecord<'a> = Registers<'a>;

/// The groups of a response to a read, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRecords<'a>(&'a [u8]);

impl<'a> FileRecords<'a> {
    pub(super) fn decode(octets: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut at = 0;
        while at < octets.len() {
            // The length counts the reference type and the registers' octets.
            let length = usize::from(octets[at]);
            let whole = at + 1 + length <= octets.len() && length % 2 == 1;
            if !whole {
                return Err(malformed(2 + at, "bad-length", format!("a group of {length} octets does not fit")));
            }
            if octets[at + 1] != REFERENCE {
                return Err(malformed(3 + at, "bad-reference-type", "a reference type other than 6"));
            }
            at += 1 + length;
        }
        Ok(Self(octets))
    }

    /// In the order of the request's groups.
    pub fn iter(self) -> impl Iterator<Item = FileRecord<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(*rest.first()?);
            let values = Registers::new(rest.get(2..1 + length)?);
            rest = &rest[1 + length..];
            Some(values)
        })
    }

    /// Append the octets of one group.
    pub fn pack(values: Registers<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&[(1 + values.octets().len()) as u8, REFERENCE]);
        out.extend_from_slice(values.octets());
    }

    /// The octets.
    pub fn octets(self) -> &'a [u8] {
        self.0
    }
}
