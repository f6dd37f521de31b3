//! What keeps an association honest: keys, counters, and the ciphering of APDUs (Green Book, "Cryptographic
//! protection of xDLMS APDUs").
//!
//! One rule runs through the room: a tag is checked before a counter is believed, and a counter before a plaintext is
//! used. Sealing takes its invocation counter itself; no caller can choose one.

pub mod certificate;
pub mod channel;
pub mod cipher;
pub mod counter;
pub mod curve;
pub mod derive;
mod general;
pub mod hls;
pub mod keys;
pub mod setup;
pub mod suite;

pub use channel::{Channel, Credentials, Plain};
pub use cipher::{Opened, Sealer};
pub use counter::{CounterBlock, Exhausted, HighWater};
pub use curve::{PrivateKey, PublicKey};
pub use hls::VendorMechanism;
pub use keys::{Key, SystemTitle};
pub use suite::{Protection, Suite};
