//! Any octets are explained.
#![no_main]

use ipss_modbus::translate::{TranslateRequest, translate};
use ipss_session::explain::Transmission;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    for layer in ["modbus-tcp", "modbus-rtu", "modbus-ascii", "auto"] {
        let transmissions = [Transmission { from: None, octets }];
        let mut written = 0;
        translate(&TranslateRequest { id: None, layer, transmissions: &transmissions }, &mut |piece| written += piece.len());
        assert!(written <= 64 * octets.len() + 65_536);
    }
});
