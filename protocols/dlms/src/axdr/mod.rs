//! A-XDR, the encoding of COSEM data (IEC 61334-6; Green Book, "Data" in the xDLMS APDU definitions).
//!
//! Three ways through the same octets, from dear to cheap: [`Data`] builds an owned tree, [`line`] decodes profile
//! buffers straight into columns, [`skip`] only finds where a value ends. All are linear in the octets, whatever the
//! octets claim.

pub mod compact_array;
pub mod data;
pub mod date_time;
pub mod line;
pub mod reader;
pub mod skip;
pub mod tag;
pub mod walk;

pub use compact_array::TypeDescription;
pub use data::{BitString, Data};
pub use date_time::{Date, DateTime, Time};
pub use line::{BufferShape, decode_buffer, decode_value};
pub use reader::{Reader, write_length};
pub use skip::skip;
pub use walk::{Visitor, integer, walk};
