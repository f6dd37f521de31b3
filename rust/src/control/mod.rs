//! Critical commands at the last door: what may reach a meter is decided here, whatever the process around it says.
//!
//! Pure: no socket, no clock, no random source; every moment is an argument. The owner (the bindings) admits an
//! *order*, the canonical octets that people signed, and asks for the *release* of one of its commands; the reactor
//! asks [`Gate`] once more in the very step that seals the octets.
//!
//! ```text
//! gate.admit(octets, signatures, now)?;         // decodes, checks signatures, quorum, deadline
//! let armed = gate.arm(order, command, request, now)?;   // one ticket, for one meter and one request
//! handle.submit(armed.work, ..);                // its octets follow from the signed order, not from the caller
//! gate.permit(meter, request, &work, now)?;     // by the reactor, right before sealing; spends the ticket
//! gate.settle(request)                          // afterwards: was it spent, that is, may octets have left?
//! ```
//!
//! | file | what |
//! |---|---|
//! | `order` | the canonical octets, decoded strictly: `docs/commands.md` specifies them |
//! | `effect` | what a command does on the wire, and which objects only commands may touch |
//! | `approval` | who signed what; how many must |
//! | `gate` | tickets, deadlines, protected and held meters, the stop switch, the lease, the ceiling |

pub mod approval;
pub mod effect;
#[cfg(test)]
mod fences;
pub mod gate;
pub mod order;
#[cfg(test)]
mod tests;

pub use approval::{Policy, Principal, Purpose, Signature};
pub use effect::{Effect, Kind, Pool, RegisterWrite, kind_of};
pub use gate::{Awake, Gate, Limits, OpenPart, Refusal};
pub use order::{Order, Target};
