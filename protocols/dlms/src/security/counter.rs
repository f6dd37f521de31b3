//! Invocation counters: the ones that we spend, and the highest that we believe of the peer.
//!
//! Both move in this file only. A counter is taken once and burnt, used or not: two frames under one key and one
//! counter would give the key away (AES-GCM, RFC 5116 section 5.1.1).

use thiserror::Error;

/// Counters that are durably reserved for us and not yet spent: `next` up to, not including, `end`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CounterBlock {
    next: u32,
    end: u32,
}

/// There is no reserved counter left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no reserved invocation counter is left")]
pub struct Exhausted;

impl CounterBlock {
    /// The block `next..end`. The last value of the counter, 2^32-1, is never in a block: `end` excludes it.
    pub fn new(next: u32, end: u32) -> Self {
        Self { next: next.min(end), end }
    }

    /// Add a later block. What is left of the old one is burnt if the two do not meet; a block that does not lie
    /// wholly after what was ever reserved is refused, so that no counter can come twice.
    ///
    /// Returns whether it was taken.
    pub fn grant(&mut self, next: u32, end: u32) -> bool {
        if next < self.end || end <= next {
            return false;
        }
        if next != self.end {
            self.next = next;
        }
        self.end = end;
        true
    }

    /// Take the next counter. It is spent from now on.
    ///
    /// # Errors
    /// [`Exhausted`] when the block is empty: nothing may be sealed until another is granted.
    pub(super) fn take(&mut self) -> Result<u32, Exhausted> {
        if self.next == self.end {
            return Err(Exhausted);
        }
        let counter = self.next;
        self.next += 1;
        Ok(counter)
    }

    /// Whether `counter` lies before the next one to be taken.
    pub fn is_behind(&self, counter: u32) -> bool {
        counter < self.next
    }

    /// Take the next `count` counters out, as a block of their own. They are spent here from now on. `None`, and nothing
    /// changes, if fewer are left.
    pub(super) fn split(&mut self, count: u32) -> Option<Self> {
        let end = self.next.checked_add(count).filter(|end| *end <= self.end)?;
        Some(Self { next: std::mem::replace(&mut self.next, end), end })
    }

    /// How many are left.
    pub fn left(&self) -> u32 {
        self.end - self.next
    }
}

/// The highest invocation counter of the peer, under one key, whose tag was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HighWater(Option<u32>);

impl HighWater {
    /// A jump by more than this is worth an event, though it is accepted.
    pub const JUMP: u32 = 1_000_000;

    /// Continue from a stored value; `None` if the peer was never heard under this key.
    pub fn new(highest: Option<u32>) -> Self {
        Self(highest)
    }

    /// Believe `counter` of a frame whose tag has been verified. False, and nothing changes, if it is a replay.
    #[must_use]
    pub(super) fn raise(&mut self, counter: u32) -> bool {
        if self.0.is_some_and(|highest| counter <= highest) {
            return false;
        }
        self.0 = Some(counter);
        true
    }

    /// Whether a step to `counter` would be a jump far ahead.
    pub fn is_jump(&self, counter: u32) -> bool {
        self.0.is_some_and(|highest| counter.saturating_sub(highest) > Self::JUMP)
    }

    /// The highest so far.
    pub fn highest(&self) -> Option<u32> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_never_taken_twice() {
        let mut block = CounterBlock::new(10, 12);

        assert_eq!(block.take(), Ok(10));
        assert_eq!(block.take(), Ok(11));
        assert_eq!(block.take(), Err(Exhausted));
        assert!(!block.grant(11, 20), "a block that reaches back is refused");
        assert!(block.grant(12, 14));
        assert_eq!(block.take(), Ok(12));
        assert!(block.grant(20, 22), "a gap burns what lies between");
        assert_eq!(block.take(), Ok(20));
    }

    #[test]
    fn what_is_split_off_is_spent_by_one_of_the_two_only() {
        let mut block = CounterBlock::new(10, 15);

        let mut other = block.split(3).unwrap();

        assert_eq!(block.split(3), None, "two are left");
        assert_eq!([other.take(), other.take(), other.take()], [Ok(10), Ok(11), Ok(12)]);
        assert_eq!(other.take(), Err(Exhausted));
        assert_eq!([block.take(), block.take()], [Ok(13), Ok(14)]);
        assert_eq!(block.take(), Err(Exhausted));
    }

    #[test]
    fn adjoining_blocks_lose_nothing() {
        let mut block = CounterBlock::new(0, 2);
        assert!(block.grant(2, 4));

        let taken: Vec<u32> = std::iter::from_fn(|| block.take().ok()).collect();

        assert_eq!(taken, [0, 1, 2, 3]);
    }

    #[test]
    fn the_last_counter_is_never_spent() {
        let mut block = CounterBlock::new(u32::MAX - 2, u32::MAX);

        assert_eq!(block.take(), Ok(u32::MAX - 2));
        assert_eq!(block.take(), Ok(u32::MAX - 1));
        assert_eq!(block.take(), Err(Exhausted));
        assert!(!block.grant(u32::MAX, u32::MAX));
    }

    #[test]
    fn high_water_never_falls() {
        let mut water = HighWater::new(Some(7));

        assert!(!water.raise(7));
        assert!(!water.raise(0));
        assert!(water.raise(8));
        assert!(water.is_jump(8 + HighWater::JUMP + 1));
        assert!(water.raise(u32::MAX));
        assert!(!water.raise(u32::MAX));
        assert!(HighWater::new(None).raise(0));
    }
}
