//! Modbus and SunSpec, for the head-end's role and the device's role, sans IO.
//!
//! From the wire inwards: [`adu`] frames (TCP, RTU, ASCII, UDP), [`pdu`] requests and responses, [`function`] codes and
//! exceptions. On them stand the two roles: [`head_end`] asks, [`device`] answers. [`group`] joins sparse registers to
//! blocks; [`profile`] says how one device is to be treated, [`quirks`] what is wrong with it; [`sunspec`] reads the
//! registers of devices that describe themselves, [`map`] those that a register map describes. The loop that drives a session is that of `ipss_session`:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use ipss_modbus::head_end::{HeadEnd, Item, Plan, Read, Work};
//! use ipss_modbus::profile::Profile;
//! use ipss_modbus::{Decode, Table};
//! use ipss_session::rig::SeededRandom;
//! use ipss_session::{Batch, Cell, Context, Input, Instant, Now, Outcome, Priority, Request, Session, WallTime};
//!
//! let mut session = HeadEnd::new(7, Arc::new(Profile::tcp()));
//! let (mut random, mut to_send, mut batch) = (SeededRandom::new(1), Vec::new(), Batch::default());
//! let now = Now { monotonic: Instant(1), wall: WallTime(0) };
//! let mut step = |input, to_send: &mut Vec<u8>, batch: &mut Batch| {
//!     session.step(input, &mut Context { now, random: &mut random, to_send, batch })
//! };
//! let _ = step(Input::Opened, &mut to_send, &mut batch);
//!
//! let read = Read::points(1, &[(Table::Holding, 107, 1, Decode::Unsigned)])?;
//! let work = Work { meter: 7, unit: 17, plan: Arc::new(Plan { items: [Item::Read(read)].into() }) };
//! let deadline = now.monotonic + Duration::from_secs(10);
//! let request = Request { id: 1, deadline, priority: Priority::OnDemand, attempts_left: 0, exchanges: 0, work };
//! let _ = step(Input::Request(request), &mut to_send, &mut batch);
//!
//! let [high, low, rest @ ..] = &to_send[..] else { panic!("nothing was asked") };
//! assert_eq!(rest, [0, 0, 0, 6, 17, 3, 0, 107, 0, 1]);
//! let mut answer = [*high, *low, 0, 0, 0, 5, 17, 3, 2, 0x02, 0x2B];
//! let done = step(Input::Bytes(&mut answer), &mut to_send, &mut batch);
//! assert_eq!(done.finished.unwrap().1, Outcome::Done);
//! assert_eq!(batch.cells(0), [Cell::Integer(555)]);
//! # Ok::<(), ipss_session::ProtocolError>(())
//! ```

#![forbid(unsafe_code)]

pub mod adu;
pub mod decimal;
pub mod device;
pub mod function;
pub mod group;
pub mod head_end;
pub mod map;
pub mod pdu;
pub mod profile;
pub mod quirks;
pub mod sunspec;
pub mod translate;
mod value;

pub use pdu::Table;
pub use value::Decode;
