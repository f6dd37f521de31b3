//! Counts of what a reactor did, for `/metrics` and for tests.

use ipss_session::Outcome;

/// Counters since the start (`connections`, `associated`, `queued`, `active`, `meters`: the number at this moment).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Meters known.
    pub meters: u64,
    /// Connections open, inbound ones whose peer is not known yet included.
    pub connections: u64,
    /// Of them, associated.
    pub associated: u64,
    /// Requests that wait.
    pub queued: u64,
    /// Requests that a session holds.
    pub active: u64,
    /// Requests ended, by the number of their outcome.
    pub ended: [u64; Outcome::ALL.len()],
    /// Tries after a broken line.
    pub retries: u64,
    /// Outbound connections tried.
    pub connects: u64,
    /// Of them, failed.
    pub connect_failures: u64,
    /// Inbound connections taken.
    pub accepts: u64,
    /// Inbound connections refused (unknown, or their meter is associated already).
    pub claims_refused: u64,
    /// Refused connections that were given the chance to prove that they are the meter.
    pub challenges: u64,
    /// Of them, those that did while the meter's own connection lived.
    pub clones: u64,
    /// Pushes of refused connections that were handed to the owner.
    pub pushes_unclaimed: u64,
    /// Such pushes that were dropped: too many, or too long.
    pub pushes_dropped: u64,
    /// Times that a new connection had to wait for the token bucket or for a descriptor.
    pub admission_delays: u64,
    /// Octets read.
    pub octets_in: u64,
    /// Octets written.
    pub octets_out: u64,
    /// Datagrams that found no room or no peer.
    pub datagrams_dropped: u64,
    /// Turns run.
    pub turns: u64,
    /// Batches handed over.
    pub batches: u64,
    /// Rows in them.
    pub rows: u64,
    /// Times that reading stopped because the consumer was behind.
    pub stalls: u64,
    /// Sessions that panicked and were taken out of service.
    pub panics: u64,
}

impl Stats {
    /// The sum over several threads.
    pub fn add(&mut self, other: &Self) {
        let Self { meters, connections, associated, queued, active, ended, .. } = other;
        self.meters += meters;
        self.connections += connections;
        self.associated += associated;
        self.queued += queued;
        self.active += active;
        self.ended.iter_mut().zip(ended).for_each(|(sum, more)| *sum += more);
        self.retries += other.retries;
        self.connects += other.connects;
        self.connect_failures += other.connect_failures;
        self.accepts += other.accepts;
        self.claims_refused += other.claims_refused;
        self.challenges += other.challenges;
        self.clones += other.clones;
        self.pushes_unclaimed += other.pushes_unclaimed;
        self.pushes_dropped += other.pushes_dropped;
        self.admission_delays += other.admission_delays;
        self.octets_in += other.octets_in;
        self.octets_out += other.octets_out;
        self.datagrams_dropped += other.datagrams_dropped;
        self.turns += other.turns;
        self.batches += other.batches;
        self.rows += other.rows;
        self.stalls += other.stalls;
        self.panics += other.panics;
    }

    /// All requests ended, whatever the outcome.
    pub fn ended_total(&self) -> u64 {
        self.ended.iter().sum()
    }
}
