//! Fuzz targets: each takes any octets, as a peer may send them, and panics if they do what octets must not.
//!
//! `libfuzzer/` drives them guided by coverage (`make fuzz TARGET=dlms_apdu`); `tests/replay.rs` replays what was found
//! worth keeping (`corpus/`) without a fuzzer. Beside panics, each target bounds what octets make it hold (R33), and
//! the fuzzer how long they take.

mod memory;
mod script;

mod dlms;
mod dlms_sessions;
mod links;
mod modbus;
mod rpc;

// Both ends as the protocol's own tests set them up.
#[path = "../../../protocols/dlms/tests/common/mod.rs"]
mod common;
#[path = "../../../protocols/dlms/tests/services/model.rs"]
mod model;

/// One thing that takes octets from others.
pub struct Target {
    /// Its name, also of its corpus.
    pub name: &'static str,
    /// What it does with octets.
    pub run: fn(&[u8]),
    /// Octets that it may hold for each octet of input.
    pub factor: usize,
    /// Octets that it may hold beside that: state of sessions, buffers with a bound of their own.
    pub constant: usize,
}

impl Target {
    /// Run it on `octets`.
    ///
    /// # Panics
    /// What was found: whatever the target asserts, or more memory than its bound.
    pub fn check(&self, octets: &[u8]) {
        let held = memory::most_held(|| (self.run)(octets));
        let bound = self.factor * octets.len() + self.constant;
        assert!(held <= bound, "{}: {held} octets held for {} of input; {bound} at most", self.name, octets.len());
    }
}

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

const KIB: usize = 1 << 10;

/// A decoder: four times its input and 64 KiB at most (R33).
const fn decoder(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, factor: 4, constant: 64 * KIB }
}

/// All of them, from the wire inwards.
pub const TARGETS: &[Target] = &[
    decoder("dlms_wrapper", links::wrapper),
    decoder("dlms_hdlc", links::hdlc),
    decoder("dlms_optical", links::optical),
    decoder("dlms_mbus", links::mbus),
    // Twelve links one behind the other, each with its buffers and answers.
    Target { name: "dlms_link", run: links::link, factor: 64, constant: 256 * KIB },
    // A tree of values: at worst eight of them for an octet of a compact-array (tests/bounds.rs of the protocol).
    Target { name: "dlms_data", run: dlms::data, factor: KIB, constant: 64 * KIB },
    Target { name: "dlms_buffer", run: dlms::buffer, factor: 64, constant: 64 * KIB },
    // Parameters of security setup are read as a tree, too.
    Target { name: "dlms_apdu", run: dlms::apdu, factor: KIB, constant: 64 * KIB },
    decoder("dlms_acse", dlms::acse),
    Target { name: "dlms_ciphering", run: dlms::ciphering, factor: 32, constant: 128 * KIB },
    Target { name: "dlms_blocks", run: dlms::blocks, factor: 64, constant: 256 * KIB },
    Target { name: "dlms_push", run: dlms::push, factor: KIB, constant: 512 * KIB },
    // CLI.md: 16 times the octets and 1 MiB; here also the answer, parsed again.
    Target { name: "dlms_translate", run: dlms::translated, factor: 4 * KIB, constant: 4 << 20 },
    // Two sessions, their rows, and everything that both wrote.
    Target { name: "dlms_head_end", run: dlms_sessions::head_end, factor: 16 * KIB, constant: 16 << 20 },
    Target { name: "dlms_meter", run: dlms_sessions::meter, factor: 16 * KIB, constant: 16 << 20 },
    decoder("modbus_pdu", modbus::pdu),
    decoder("modbus_tcp", modbus::tcp_adu),
    decoder("modbus_rtu", modbus::rtu_adu),
    decoder("modbus_ascii", modbus::ascii_adu),
    Target { name: "modbus_head_end", run: modbus::head_end, factor: 256, constant: 512 * KIB },
    Target { name: "modbus_device", run: modbus::device, factor: 64, constant: 512 * KIB },
    Target { name: "modbus_sunspec", run: modbus::sunspec, factor: 64, constant: 256 * KIB },
    Target { name: "modbus_translate", run: modbus::translated, factor: 4 * KIB, constant: 1 << 20 },
    decoder("rpc_msgpack", rpc::scanner),
];
