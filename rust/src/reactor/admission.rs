//! What may start now: the token bucket for new connections, and how long a meter is left alone after failures.

use std::time::Duration;

use ipss_session::{Instant, Random};

/// Tokens that come back at a steady rate up to a burst. One new connection, in or out, takes one.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: u64,
    burst: u64,
    /// Tokens, in units of 1e-9 so that nothing is lost between refills.
    level: u64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 means no bound.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = u64::from(burst.max(1));
        Self { per_second: per_second.into(), burst, level: burst * ONE, filled_at: now }
    }

    /// Take one token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.per_second == 0 {
            return true;
        }
        self.refill(now);
        let enough = self.level >= ONE;
        if enough {
            self.level -= ONE;
        }
        enough
    }

    /// Put back a token that turned out not to be needed.
    pub fn put_back(&mut self) {
        self.level = (self.level + ONE).min(self.burst * ONE);
    }

    /// When the next token is there.
    pub fn next(&mut self, now: Instant) -> Instant {
        self.refill(now);
        if self.per_second == 0 || self.level >= ONE {
            return now;
        }
        now + Duration::from_nanos((ONE - self.level).div_ceil(self.per_second))
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.since(self.filled_at).as_nanos() as u64;
        self.filled_at = now;
        self.level = self.level.saturating_add(passed.saturating_mul(self.per_second)).min(self.burst * ONE);
    }
}

const ONE: u64 = 1_000_000_000;

/// How long a meter is left alone after `failures` in a row: anything up to `base` doubled for each, at most `cap`
/// (full jitter, so that meters that failed together do not come back together).
pub fn backoff(base: Duration, cap: Duration, failures: u32, random: &mut dyn Random) -> Duration {
    let bound = base.saturating_mul(1 << failures.saturating_sub(1).min(30)).min(cap);
    let mut octets = [0; 8];
    random.fill(&mut octets);
    let nanoseconds = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(u64::from_le_bytes(octets) % nanoseconds.max(1))
}

#[cfg(test)]
mod tests {
    use ipss_session::rig::SeededRandom;

    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1_000_000)
    }

    #[test]
    fn bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(500, 1_000, at(0));

        let burst = (0..5_000).filter(|_| bucket.take(at(0))).count();
        let later: usize = (1..=1_000).map(|now| (0..50).filter(|_| bucket.take(at(now))).count()).sum();

        assert_eq!(burst, 1_000);
        assert_eq!(later, 500);
        assert_eq!(bucket.next(at(1_000)), at(1_002));
    }

    #[test]
    fn bucket_never_holds_more_than_its_burst() {
        let mut bucket = TokenBucket::new(500, 3, at(0));

        assert_eq!((0..9).filter(|_| bucket.take(at(1_000_000))).count(), 3);
    }

    #[test]
    fn backoff_doubles_up_to_its_cap_with_full_jitter() {
        let mut random = SeededRandom::new(3);
        let (base, cap) = (Duration::from_secs(1), Duration::from_secs(300));
        for failures in 1..60 {
            let bound = base.saturating_mul(1 << (failures - 1).min(20)).min(cap);
            let delays: Vec<Duration> = (0..200).map(|_| backoff(base, cap, failures, &mut random)).collect();

            assert!(delays.iter().all(|delay| *delay < bound));
            assert!(delays.iter().any(|delay| *delay > bound * 8 / 10));
            assert!(delays.iter().any(|delay| *delay < bound * 2 / 10));
        }
    }
}
