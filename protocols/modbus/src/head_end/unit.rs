//! What is known of one unit: its health, and what it refuses.

use std::time::Duration;

use ipss_session::{Instant, Random};

use crate::group::{Rules, Span};
use crate::pdu::Table;
use crate::profile::Profile;

/// Addresses at which blocks are cut, remembered a unit.
const MAX_CUTS: usize = 64;

/// One unit. Lives as long as the session: what was learnt outlives connections.
#[derive(Debug)]
pub(super) struct Unit {
    pub id: u8,
    /// Questions in a row without an answer.
    pub failures: u8,
    /// Rests in a row.
    rests: u8,
    /// Not asked before this moment: it is silent, while others on the line are not.
    pub rest_until: Instant,
    /// Not asked before this moment: pacing.
    pub not_before: Instant,
    /// The most registers that one answer has had.
    pub proven: u16,
    /// The most registers that one question asks for.
    pub max_registers: u16,
    max_bits: u16,
    max_gap: u16,
    cuts: Vec<(Table, u16)>,
}

impl Unit {
    pub fn new(id: u8, profile: &Profile) -> Self {
        Self {
            id,
            failures: 0,
            rests: 0,
            rest_until: Instant::ORIGIN,
            not_before: Instant::ORIGIN,
            proven: 0,
            max_registers: profile.max_registers,
            max_bits: profile.max_bits,
            max_gap: profile.max_gap,
            cuts: Vec::new(),
        }
    }

    pub fn rules(&self) -> Rules<'_> {
        Rules { max_registers: self.max_registers, max_bits: self.max_bits, max_gap: self.max_gap, cuts: &self.cuts }
    }

    /// It answered, with a value or its own *no*.
    pub fn answered(&mut self) {
        self.failures = 0;
        self.rests = 0;
        self.rest_until = Instant::ORIGIN;
    }

    /// It answered a read of this block.
    pub fn read(&mut self, block: Span) {
        if !block.table.is_bits() {
            self.proven = self.proven.max(block.count);
        }
    }

    /// It did not answer. Beyond `failures` in a row it rests, if it may: returns for how long.
    pub fn silent(
        &mut self,
        profile: &Profile,
        may_rest: bool,
        now: Instant,
        random: &mut dyn Random,
    ) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        if !may_rest || self.failures < profile.failures {
            return None;
        }
        // One question after a rest is enough to know.
        self.failures = profile.failures.saturating_sub(1);
        let longest = profile.rest.saturating_mul(1 << self.rests.min(16)).min(profile.longest_rest);
        self.rests = self.rests.saturating_add(1);
        let mut octets = [0; 4];
        random.fill(&mut octets);
        let rest = longest / 2 + (longest / 2).mul_f64(f64::from(u32::from_le_bytes(octets)) / f64::from(u32::MAX));
        self.rest_until = now + rest;
        Some(rest)
    }

    /// Read no unwanted registers along any more. False if none were anyway.
    pub fn close_gaps(&mut self) -> bool {
        std::mem::take(&mut self.max_gap) > 0
    }

    /// Let no block reach across this address any more.
    pub fn cut(&mut self, table: Table, address: u16) {
        if let Err(place) = self.cuts.binary_search(&(table, address)) {
            if self.cuts.len() < MAX_CUTS {
                self.cuts.insert(place, (table, address));
            }
        }
    }

    /// A block of so many registers got no answer through the gateway, or was refused for its size, and none so large
    /// ever was answered: ask for fewer from now on. False if it is not the size, as far as can be told.
    pub fn shrink(&mut self, block: Span) -> bool {
        if block.table.is_bits() || block.count <= 1 || block.count <= self.proven {
            return false;
        }
        // By quarters: an absent unit costs few questions.
        self.max_registers = (block.count / 4).max(self.proven).max(1);
        true
    }

    /// Not even one register was answered: its size was not the matter.
    pub fn grow_back(&mut self, profile: &Profile) {
        if self.proven == 0 {
            self.max_registers = profile.max_registers;
        }
    }
}
