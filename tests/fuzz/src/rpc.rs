//! msgpack-RPC as clients send it.

// The scanner alone: the crate around it brings sockets and TLS, which the fuzzer need not build.
#[path = "../../../rust/src/rpc/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the part of the crate that takes octets")]
mod wire;

use wire::{Limits, Scanner};

use crate::script::Script;

/// A stream in pieces; what is found does not depend on the pieces.
pub fn scanner(octets: &[u8]) {
    let mut script = Script::new(octets);
    let size = usize::from(script.octet().unwrap_or_default()) + 1;
    let octets = script.rest();
    let limits = Limits::default();
    let found = |size: usize| {
        let mut scanner = Scanner::new(limits);
        let mut found = Vec::new();
        for chunk in octets.chunks(size.max(1)) {
            scanner.feed(chunk);
            loop {
                match scanner.next() {
                    None => break,
                    Some(Ok(call)) => {
                        assert!(scanner.method(&call).len() <= 128 && scanner.params(&call).len() <= octets.len());
                        found.push((call.kind, call.id, scanner.params(&call).len()));
                    }
                    Some(Err(_)) => return (found, true),
                }
            }
            assert!(scanner.waiting() <= octets.len());
        }
        (found, false)
    };
    let whole = found(octets.len());
    let pieces = found(size);
    assert_eq!(whole, pieces);
}
