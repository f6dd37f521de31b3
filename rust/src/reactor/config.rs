//! What an operator or a test can turn, with the reason for each default.

use std::time::Duration;

/// Settings of a reactor, the same for all its threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Threads that run turns. Default: one less than the cores, at least one.
    pub threads: usize,
    /// Rows after which a batch is handed over.
    pub batch_rows: usize,
    /// Time after its first row at which a batch is handed over. Each batch costs the consumer a wake-up, so bulk work
    /// waits a little; the end of an on-demand or critical request is handed over with the turn that saw it.
    pub batch_delay: Duration,
    /// Batches that may wait for the consumer; then the reactor stops reading sockets.
    pub batches: usize,
    /// New connections a second, in and out together, over all threads; 0 for no bound.
    pub connects_per_second: u32,
    /// New connections at once after a rest.
    pub connect_burst: u32,
    /// Connections that may be open at once over all threads. Default: the process's bound on descriptors, less
    /// those in use and 64 in reserve for the store and the console.
    pub connections: usize,
    /// Requests that may wait for one meter.
    pub queue: usize,
    /// Requests that may be on their way from submitters to a thread.
    pub submissions: usize,
    /// Wait for an outbound connection to open.
    pub connect_timeout: Duration,
    /// Absolute bound from open connection to association, whatever the session says. Raise it for peers that may
    /// stay connected without one.
    pub associate_timeout: Duration,
    /// Absolute bound from accepted connection to known identity.
    pub identify_timeout: Duration,
    /// Absolute bound from the first octet of a frame to its last.
    pub frame_timeout: Duration,
    /// Wait for a session to end its association in good order.
    pub release_timeout: Duration,
    /// The longest first pause after a failure; doubles with each further one.
    pub backoff_base: Duration,
    /// The longest pause after failures.
    pub backoff_cap: Duration,
    /// The pause after a meter refused our proof or gave a wrong one: at most two tries in 15 minutes, so that a
    /// meter does not lock us out.
    pub authentication_pause: Duration,
    /// Failures in a row after which [`ipss_session::EventKind::BackedOff`] is reported.
    pub breaker: u32,
    /// An unassociated connection that was silent for so long gives way to a new one for the same meter.
    pub claim_grace: Duration,
    /// Refused connections that may prove themselves at a time, in each thread: what each costs is an association.
    pub challenges: usize,
    /// How long such a one has.
    pub challenge_timeout: Duration,
    /// Pause between two of them for one meter: each spends invocation counters.
    pub challenge_pause: Duration,
    /// Pause after one that succeeded: the owner knows of it.
    pub clone_pause: Duration,
    /// A meter that is silent for so long ends its turn on a shared connection if others wait for theirs.
    pub turn: Duration,
    /// Pushes a second, over all threads, that are handed to the owner although no session can have them: anybody may
    /// send one. 0 for no bound.
    pub unclaimed_per_second: u32,
    /// Such pushes at once after a rest.
    pub unclaimed_burst: u32,
    /// Octets that one refused connection may leave so: two pushes of the greatest length before an association.
    pub unclaimed_octets: usize,
    /// Octets of an incomplete frame that a connection may keep.
    pub partial: usize,
    /// Octets that a peer may leave unread before it is cut off.
    pub unsent: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1),
            batch_rows: 1_000,
            batch_delay: Duration::from_millis(10),
            batches: 64,
            connects_per_second: 500,
            connect_burst: 1_000,
            connections: super::mio_network::descriptors_to_spare(),
            queue: 16,
            submissions: 1 << 20,
            connect_timeout: Duration::from_secs(10),
            associate_timeout: Duration::from_secs(60),
            identify_timeout: Duration::from_secs(30),
            frame_timeout: Duration::from_secs(30),
            release_timeout: Duration::from_secs(5),
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(300),
            authentication_pause: Duration::from_secs(450),
            breaker: 5,
            claim_grace: Duration::from_secs(10),
            challenges: 64,
            challenge_timeout: Duration::from_secs(10),
            challenge_pause: Duration::from_secs(5),
            clone_pause: Duration::from_secs(600),
            turn: Duration::from_secs(20),
            unclaimed_per_second: 50,
            unclaimed_burst: 200,
            unclaimed_octets: 8_208,
            partial: 65_536 + 64,
            unsent: 1 << 20,
        }
    }
}
