//! One binary for all targets: the environment's `FUZZ_TARGET` names the one that is fuzzed.
#![no_main]

use std::sync::OnceLock;

use ipss_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let names: Vec<_> = ipss_fuzz::TARGETS.iter().map(|target| target.name).collect();
        let target = ipss_fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name} is none of {names:?}"));
        let _ = TARGET.set(target);
    },
    |octets: &[u8]| {
        if let Some(target) = TARGET.get() {
            target.check(octets);
        }
    }
);
