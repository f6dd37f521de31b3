//! Whatever decodes encodes to itself.
#![no_main]

use ipss_modbus::pdu::{RequestPdu, ResponsePdu};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(request) = RequestPdu::decode(octets) {
        let mut out = Vec::new();
        request.encode(&mut out).unwrap();
        assert_eq!(out, octets);
    }
    if let Ok(response) = ResponsePdu::decode(octets) {
        let mut out = Vec::new();
        response.encode(&mut out);
        assert_eq!(ResponsePdu::decode(&out), Ok(response));
    }
});
