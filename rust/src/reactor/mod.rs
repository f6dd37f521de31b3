//! The reactor: it owns sockets, time and queues, and steps a session for whatever is ready.
//!
//! One meter is one long-lived [`Session`](ipss_session::Session) in it. The owner (the bindings, a test) never sees a
//! frame: requests go down in bulk, rows come up in batches. All of the owner's side:
//!
//! ```text
//! let reactor = Reactor::<HeadEnd>::start(Config::default())?;   // threads start; nothing is connected
//! let handle = reactor.handle();                                 // Clone + Send + Sync
//! handle.add(vec![NewMeter { meter: 7, session, route: Route::held(address), identities: vec![] }])?;
//! let deadline = reactor.now().monotonic + Duration::from_secs(60);
//! handle.submit(work, &[7, 8, 9], 1_000, deadline, Priority::Scheduled, 3)?;   // requests 1000, 1001, 1002
//! loop {
//!     wait until handle.waker_fd() is readable;                  // trio.lowlevel.wait_readable
//!     while let Some(batch) = handle.take() { .. }               // every request ends once in batch.ends
//!     if handle.finished() { break }
//! }
//! handle.cancel(&[(7, 1_000)])?;          // withdraw; it still ends once
//! handle.control(vec![(7, control)])?;    // S::Control to a session: invocation counters granted
//! handle.remove(&[7])?;
//! reactor.listen(address, acceptor)?;     // inbound: Accepted::Meter, Greet or Refuse
//! handle.stats();                         // Stats, for /metrics
//! handle.drain(deadline); reactor.join(); // or handle.stop(); dropping stops and joins
//! ```
//!
//! `add`, `submit`, `cancel`, `control`, `remove` fail with [`SubmitError`] (full, stopping) and have then done
//! nothing. None of them waits. A batch is handed over with the end of an on-demand or critical request, at
//! [`Config::batch_rows`] rows, or [`Config::batch_delay`] after its first row; when [`Config::batches`] of them wait,
//! the reactor stops reading sockets and accepting submissions until one is taken, and TCP holds the meters back;
//! timers and cancellation go on.
//!
//! What it promises: each accepted request ends exactly once, at its deadline at the latest, whether the meter is up
//! or not; a broken line is retried with full jitter; one bad meter, or one session that panics, harms no other; a
//! connection that merely claims to be a meter displaces none that has proved it. The parts:
//!
//! | file | what |
//! |---|---|
//! | `turn`, `service`, `connection`, `inbound` | the turn, over any [`Network`] |
//! | `challenge` | refused connections that prove to be a copy of the meter |
//! | `line` | connections that several meters share, in turns |
//! | `entry`, `endpoint`, `queue`, `slab`, `wheel` | what is kept of a meter, and when it needs attention |
//! | `admission` | token bucket and back-off |
//! | `guard` | work that needs a permit in the step that seals it |
//! | `command`, `handover` | the bounded queues down and up |
//! | `mio_network`, `simulated` | the real network, and one that follows from a seed |
//! | `serial`, `tls`, `udp` | transports of the real network beside TCP |
//! | `reactor` | threads and handles |

pub mod admission;
mod challenge;
pub mod command;
pub mod config;
mod connection;
pub mod endpoint;
pub mod entry;
pub mod guard;
pub mod handover;
pub mod inbound;
mod line;
pub mod mio_network;
pub mod network;
pub mod queue;
#[allow(clippy::module_inception)]
mod reactor;
pub mod serial;
mod service;
pub mod simulated;
pub mod slab;
pub mod stats;
pub mod tls;
mod turn;
pub mod udp;
pub mod wheel;

pub use command::{Accepted, Acceptor, SubmitError};
pub use config::Config;
pub use endpoint::Endpoint;
pub use entry::{Hold, NewMeter, Route, Share};
pub use guard::Guard;
pub use inbound::NO_METER;
pub use mio_network::MioNetwork;
pub use network::Network;
pub use reactor::{Handle, Reactor, SimulatedReactor};
pub use stats::Stats;
