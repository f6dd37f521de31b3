//! SAP assignment, class 17: the logical devices of a physical device.

use ipss_session::ProtocolError;

use super::{list, mismatch, number, structure};
use crate::axdr::Data;

/// A logical device and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SapAssignment {
    /// Its service access point.
    pub sap: u16,
    /// Its name, sixteen octets at most; mostly ASCII, the first three the manufacturer's.
    pub logical_device_name: Vec<u8>,
}

/// Attribute 2.
///
/// # Errors
/// `type-mismatch`
pub fn sap_assignment_list(data: &Data) -> Result<Vec<SapAssignment>, ProtocolError> {
    let assignment = |data: &Data| {
        let [sap, name] = structure(data, "an element of SAP_assignment_list")?;
        let octets = name.as_octets().ok_or_else(|| mismatch(name, "logical_device_name"))?;
        Ok(SapAssignment { sap: number(sap, "SAP")?, logical_device_name: octets.to_vec() })
    };
    list(data, "SAP_assignment_list")?.iter().map(assignment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_devices_are_listed() {
        let device = Data::Structure(vec![Data::LongUnsigned(1), Data::OctetString(b"IPS0000000000001".to_vec())]);

        let list = sap_assignment_list(&Data::Array(vec![device])).unwrap();

        assert_eq!((list[0].sap, &list[0].logical_device_name[..]), (1, &b"IPS0000000000001"[..]));
    }
}
