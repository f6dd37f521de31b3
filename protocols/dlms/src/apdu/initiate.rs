//! What both ends agree on: InitiateRequest \[1\], InitiateResponse \[8\] and ConfirmedServiceError \[14\], which travel in
//! the user-information of AARQ and AARE (Green Book, "xDLMS initiate service").

use std::fmt;

use ipss_session::ProtocolError;

use super::list::open;
use super::tags;
use crate::axdr::{Reader, write_length};

/// What the client proposes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InitiateRequest<'a> {
    /// A key for this association alone. Only in a ciphered request.
    pub dedicated_key: Option<&'a [u8]>,
    /// Whether an answer is wanted at all.
    pub response_allowed: bool,
    /// Nobody uses it.
    pub quality_of_service: Option<i8>,
    /// The xDLMS version, 6.
    pub dlms_version: u8,
    /// What the client can do.
    pub conformance: Conformance,
    /// The largest APDU that the client takes, in octets; 0 for no limit.
    pub max_receive_pdu_size: u16,
}

/// What the server agrees to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitiateResponse {
    /// Nobody uses it.
    pub quality_of_service: Option<i8>,
    /// The xDLMS version, 6.
    pub dlms_version: u8,
    /// What both can do.
    pub conformance: Conformance,
    /// The largest APDU that the server takes, in octets; 0 for no limit.
    pub max_receive_pdu_size: u16,
    /// 0007 for logical-name referencing, FA00 for short names. Some meters send others (0080) and mean 0007.
    pub vaa_name: u16,
}

/// Never shows the dedicated key.
impl fmt::Debug for InitiateRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitiateRequest")
            .field("dedicated_key", &self.dedicated_key.map(<[u8]>::len))
            .field("response_allowed", &self.response_allowed)
            .field("quality_of_service", &self.quality_of_service)
            .field("dlms_version", &self.dlms_version)
            .field("conformance", &self.conformance)
            .field("max_receive_pdu_size", &self.max_receive_pdu_size)
            .finish()
    }
}

impl<'a> InitiateRequest<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-conformance`, `trailing-octets`.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::INITIATE_REQUEST)?;
        let request = Self {
            dedicated_key: if reader.present()? { Some(reader.octet_string()?) } else { None },
            response_allowed: if reader.present()? { reader.present()? } else { true },
            quality_of_service: optional_i8(&mut reader)?,
            dlms_version: reader.u8()?,
            conformance: Conformance::decode(&mut reader)?,
            max_receive_pdu_size: reader.u16()?,
        };
        reader.finish()?;
        Ok(request)
    }

    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(tags::INITIATE_REQUEST);
        match self.dedicated_key {
            Some(key) => {
                out.push(1);
                write_length(out, key.len());
                out.extend_from_slice(key);
            }
            None => out.push(0),
        }
        match self.response_allowed {
            true => out.push(0), // the default is not sent
            false => out.extend_from_slice(&[1, 0]),
        }
        encode_optional_i8(out, self.quality_of_service);
        out.push(self.dlms_version);
        self.conformance.encode(out);
        out.extend_from_slice(&self.max_receive_pdu_size.to_be_bytes());
    }
}

impl InitiateResponse {
    /// The name of a virtual application association with logical-name referencing.
    pub const VAA_NAME_LN: u16 = 0x0007;
    /// The name with short-name referencing.
    pub const VAA_NAME_SN: u16 = 0xFA00;

    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-conformance`, `trailing-octets`.
    pub fn decode(apdu: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::INITIATE_RESPONSE)?;
        let response = Self {
            quality_of_service: optional_i8(&mut reader)?,
            dlms_version: reader.u8()?,
            conformance: Conformance::decode(&mut reader)?,
            max_receive_pdu_size: reader.u16()?,
            vaa_name: reader.u16()?,
        };
        reader.finish()?;
        Ok(response)
    }

    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(tags::INITIATE_RESPONSE);
        encode_optional_i8(out, self.quality_of_service);
        out.push(self.dlms_version);
        self.conformance.encode(out);
        out.extend_from_slice(&self.max_receive_pdu_size.to_be_bytes());
        out.extend_from_slice(&self.vaa_name.to_be_bytes());
    }
}

/// Services and options, 24 bits; bit 0 of the standard is the highest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Conformance(u32);

#[allow(missing_docs)] // each is its name in the standard
impl Conformance {
    pub const GENERAL_PROTECTION: Self = Self::bit(1);
    pub const GENERAL_BLOCK_TRANSFER: Self = Self::bit(2);
    pub const READ: Self = Self::bit(3);
    pub const WRITE: Self = Self::bit(4);
    pub const UNCONFIRMED_WRITE: Self = Self::bit(5);
    pub const DELTA_VALUE_ENCODING: Self = Self::bit(6);
    pub const ATTRIBUTE0_SUPPORTED_WITH_SET: Self = Self::bit(8);
    pub const PRIORITY_MGMT_SUPPORTED: Self = Self::bit(9);
    pub const ATTRIBUTE0_SUPPORTED_WITH_GET: Self = Self::bit(10);
    pub const BLOCK_TRANSFER_WITH_GET_OR_READ: Self = Self::bit(11);
    pub const BLOCK_TRANSFER_WITH_SET_OR_WRITE: Self = Self::bit(12);
    pub const BLOCK_TRANSFER_WITH_ACTION: Self = Self::bit(13);
    pub const MULTIPLE_REFERENCES: Self = Self::bit(14);
    pub const INFORMATION_REPORT: Self = Self::bit(15);
    pub const DATA_NOTIFICATION: Self = Self::bit(16);
    pub const ACCESS: Self = Self::bit(17);
    pub const PARAMETERIZED_ACCESS: Self = Self::bit(18);
    pub const GET: Self = Self::bit(19);
    pub const SET: Self = Self::bit(20);
    pub const SELECTIVE_ACCESS: Self = Self::bit(21);
    pub const EVENT_NOTIFICATION: Self = Self::bit(22);
    pub const ACTION: Self = Self::bit(23);

    /// The standard's names, by bit.
    pub const NAMES: [&'static str; 24] = [
        "reserved-zero",
        "general-protection",
        "general-block-transfer",
        "read",
        "write",
        "unconfirmed-write",
        "delta-value-encoding",
        "reserved-seven",
        "attribute0-supported-with-set",
        "priority-mgmt-supported",
        "attribute0-supported-with-get",
        "block-transfer-with-get-or-read",
        "block-transfer-with-set-or-write",
        "block-transfer-with-action",
        "multiple-references",
        "information-report",
        "data-notification",
        "access",
        "parameterized-access",
        "get",
        "set",
        "selective-access",
        "event-notification",
        "action",
    ];
}

impl Conformance {
    /// No bit set.
    pub const NONE: Self = Self(0);

    const fn bit(number: u32) -> Self {
        Self(1 << (23 - number))
    }

    /// From its three octets, the first bit highest.
    pub const fn from_octets([a, b, c]: [u8; 3]) -> Self {
        Self((a as u32) << 16 | (b as u32) << 8 | c as u32)
    }

    /// Its three octets.
    pub const fn octets(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// The bits of either.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The bits that `other` does not have.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the bits that are set, in order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (0..24).filter(move |bit| self.0 & (1 << (23 - bit)) != 0).map(|bit| Self::NAMES[bit as usize])
    }

    /// \[APPLICATION 31\] BIT STRING of 24 bits in BER. Old encoders leave out the second tag octet.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        if reader.u8()? != 0x5F {
            return Err(reader.error("bad-conformance", "the conformance block begins with 5F 1F"));
        }
        if reader.peek() == Some(0x1F) {
            reader.u8()?;
        }
        match reader.array()? {
            [4, 0] => Ok(Self::from_octets(reader.array()?)),
            [length, unused] => {
                let message = format!("{length} octets, {unused} bits unused; 4 and 0 expected");
                Err(reader.error("bad-conformance", message))
            }
        }
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0x5F, 0x1F, 4, 0]);
        out.extend_from_slice(&self.octets());
    }
}

impl fmt::Debug for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// The server refuses a service of its own accord, mostly the initiate service (Green Book, ConfirmedServiceError).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmedServiceError {
    /// Which service: 1 initiate, 5 read, 6 write, and others that COSEM does not use.
    pub service: u8,
    /// Which group of errors: 0 application-reference to 10 other.
    pub group: u8,
    /// The error within the group.
    pub value: u8,
}

impl ConfirmedServiceError {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `trailing-octets`.
    pub fn decode(apdu: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::CONFIRMED_SERVICE_ERROR)?;
        let [service, group, value] = reader.array()?;
        reader.finish()?;
        Ok(Self { service, group, value })
    }

    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[tags::CONFIRMED_SERVICE_ERROR, self.service, self.group, self.value]);
    }

    /// The standard's name of the service.
    pub fn service_name(&self) -> Option<&'static str> {
        Some(match self.service {
            1 => "initiate-error",
            2 => "get-status",
            3 => "get-name-list",
            4 => "get-variable-attribute",
            5 => "read",
            6 => "write",
            7 => "get-data-set-attribute",
            8 => "get-ti-attribute",
            9 => "change-scope",
            10 => "start",
            11 => "stop",
            12 => "resume",
            13 => "make-usable",
            14 => "initiate-load",
            15 => "load-segment",
            16 => "terminate-load",
            17 => "initiate-upload",
            18 => "upload-segment",
            19 => "terminate-upload",
            _ => return None,
        })
    }

    /// The standard's names of the group and the error in it.
    pub fn error_name(&self) -> Option<(&'static str, &'static str)> {
        let (group, values): (_, &[&str]) = match self.group {
            0 => (
                "application-reference",
                &[
                    "other",
                    "time-elapsed",
                    "application-unreachable",
                    "application-reference-invalid",
                    "application-context-unsupported",
                    "provider-communication-error",
                    "deciphering-error",
                ],
            ),
            1 => (
                "hardware-resource",
                &[
                    "other",
                    "memory-unavailable",
                    "processor-resource-unavailable",
                    "mass-storage-unavailable",
                    "other-resource-unavailable",
                ],
            ),
            2 => (
                "vde-state-error",
                &["other", "no-dlms-context", "loading-data-set", "status-nochange", "status-inoperable"],
            ),
            3 => ("service", &["other", "pdu-size", "service-unsupported"]),
            4 => (
                "definition",
                &["other", "object-undefined", "object-class-inconsistent", "object-attribute-inconsistent"],
            ),
            5 => (
                "access",
                &[
                    "other",
                    "scope-of-access-violated",
                    "object-access-violated",
                    "hardware-fault",
                    "object-unavailable",
                ],
            ),
            6 => (
                "initiate",
                &[
                    "other",
                    "dlms-version-too-low",
                    "incompatible-conformance",
                    "pdu-size-too-short",
                    "refused-by-the-vde-handler",
                ],
            ),
            7 => (
                "load-data-set",
                &[
                    "other",
                    "primitive-out-of-sequence",
                    "not-loadable",
                    "dataset-size-too-large",
                    "not-awaited-segment",
                    "interpretation-failure",
                    "storage-failure",
                    "data-set-not-ready",
                ],
            ),
            9 => ("task", &["other", "no-remote-control", "ti-stopped", "ti-running", "ti-unusable"]),
            10 => ("other", &["other"]),
            _ => return None,
        };
        Some((group, values.get(usize::from(self.value)).copied().unwrap_or("unknown")))
    }
}

fn optional_i8(reader: &mut Reader<'_>) -> Result<Option<i8>, ProtocolError> {
    if reader.present()? { Ok(Some(i8::from_be_bytes(reader.array()?))) } else { Ok(None) }
}

fn encode_optional_i8(out: &mut Vec<u8>, number: Option<i8>) {
    match number {
        Some(number) => out.extend_from_slice(&[1, number as u8]),
        None => out.push(0),
    }
}
