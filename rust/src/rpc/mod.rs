//! msgpack-RPC as it arrives: frames found and checked before anything is built from them.
//!
//! A client's bytes go through [`Scanner`], which walks each message once, resumes where bytes ran out, and allocates
//! nothing but its own buffer, which has the frame limit as its bound. What comes out is well-formed: depth, lengths,
//! keys, floats and the envelope of the message were checked (docs/rpc.md, "Wire rules").
//!
//! ```
//! use ipss_core::rpc::{Call, Limits, Scanner};
//!
//! let mut scanner = Scanner::new(Limits::default());
//! scanner.feed(b"\x94\x00\x07\xa8rpc.ping\x91\x80");
//! let call = scanner.next().unwrap().unwrap();
//! assert_eq!((call.kind, call.id), (Call::REQUEST, 7));
//! assert_eq!((scanner.method(&call), scanner.params(&call)), (&b"rpc.ping"[..], &b"\x91\x80"[..]));
//! ```

mod envelope;
mod scan;

pub use envelope::{Call, Fault, Scanner};
pub use scan::{Limits, Violation};
