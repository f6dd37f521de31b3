//! The gateway protocol (Green Book, "Gateway protocol"): a header in front of an APDU names the network behind the
//! gateway and the physical device in it.
//!
//! E6 towards the meter, E7 from it; network id (1); length of the address (1); address; APDU.

use super::{Apdu, Received};

/// A meter behind a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// The network behind the gateway.
    pub network: u8,
    /// The physical device in it, as the gateway knows it; at most 255 octets are sent.
    pub device: Box<[u8]>,
}

/// One end of a conversation through a gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    address: GatewayAddress,
    outwards: u8,
    inwards: u8,
}

/// The header in front of an APDU, and the APDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Towards the meter; else from it.
    pub request: bool,
    /// The network behind the gateway.
    pub network: u8,
    /// The physical device in it.
    pub device: &'a [u8],
    /// What the header stands in front of.
    pub apdu: &'a [u8],
}

/// The header that `octets` begin with; `None` if they begin otherwise or end inside it.
pub fn header(octets: &[u8]) -> Option<Header<'_>> {
    let [tag @ (REQUEST | RESPONSE), network, length, rest @ ..] = octets else { return None };
    let (device, apdu) = rest.split_at_checked(usize::from(*length))?;
    Some(Header { request: *tag == REQUEST, network: *network, device, apdu })
}

impl Gateway {
    pub(super) fn head_end(address: GatewayAddress) -> Self {
        Self { address, outwards: REQUEST, inwards: RESPONSE }
    }

    pub(super) fn meter(address: GatewayAddress) -> Self {
        Self { address, outwards: RESPONSE, inwards: REQUEST }
    }

    pub(super) fn begin(&self, out: &mut Vec<u8>) {
        let device = &self.address.device[..self.address.device.len().min(255)];
        out.extend_from_slice(&[self.outwards, self.address.network, device.len() as u8]);
        out.extend_from_slice(device);
    }

    /// Take the header off what was received. What is for, or from, another device is dropped; so is an APDU without a
    /// header, which is the gateway's own.
    pub(super) fn strip(&self, octets: &[u8], received: Received) -> Received {
        let Received::Apdu { source, destination, apdu } = received else { return received };
        let held = match &apdu {
            Apdu::Here(place) => octets.get(place.clone()).unwrap_or_default(),
            Apdu::Held(held) => held,
        };
        let behind = match header(held) {
            Some(header)
                if (header.network, header.device) == (self.address.network, &self.address.device[..])
                    && header.request == (self.inwards == REQUEST) =>
            {
                header.apdu.len()
            }
            Some(_) => return Received::Dropped("an APDU for another device behind the gateway"),
            None => return Received::Dropped("an APDU without a gateway header"),
        };
        let apdu = match apdu {
            Apdu::Here(place) => Apdu::Here(place.end - behind..place.end),
            Apdu::Held(mut held) => Apdu::Held(held.split_off(held.len() - behind)),
        };
        Received::Apdu { source, destination, apdu }
    }
}

/// Tag of the header towards the meter.
pub const REQUEST: u8 = 0xE6;
/// Tag of the header from the meter.
pub const RESPONSE: u8 = 0xE7;
