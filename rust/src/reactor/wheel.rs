//! One timer for each slot of the slab, in a hierarchical wheel: setting one is O(1) and allocates nothing.
//!
//! Five levels of 256 places, one millisecond each on the lowest. A timer sits in exactly one place, in a list that
//! runs through the slots themselves. A deadline that moves *later* does not move the timer: when its old place comes
//! up, the deadline is looked at again and the timer is put where it belongs. As each exchange with a meter moves its
//! deadline later, an exchange costs the wheel one store. Nothing fires early; it fires at most a millisecond late.

use ipss_session::Instant;

/// The wheel. Slots are numbered as in the slab that it serves.
pub struct Wheel {
    nodes: Vec<Node>,
    heads: Vec<u32>,
    occupied: [[u64; WORDS]; LEVELS],
    /// All ticks up to this one have been handled.
    current: u64,
}

#[derive(Clone, Copy)]
struct Node {
    deadline: u64,
    tick: u64,
    next: u32,
    previous: u32,
    /// Where it is linked (level * 256 + place), or [`NOWHERE`].
    place: u32,
}

impl Wheel {
    /// An empty wheel at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            nodes: Vec::new(),
            heads: vec![END; LEVELS * PLACES],
            occupied: [[0; WORDS]; LEVELS],
            current: now.0 / TICK,
        }
    }

    /// Let `slot`'s timer fire at `deadline`, or never.
    #[inline]
    pub fn set(&mut self, slot: u32, deadline: Option<Instant>) {
        let index = slot as usize;
        if index >= self.nodes.len() {
            if deadline.is_none() {
                return;
            }
            let idle = Node { deadline: u64::MAX, tick: u64::MAX, next: END, previous: END, place: NOWHERE };
            self.nodes.resize(index + 1, idle);
        }
        let node = &mut self.nodes[index];
        let Some(deadline) = deadline else {
            // Left in its place: when that comes up, it is found to have nothing to do.
            node.deadline = u64::MAX;
            return;
        };
        node.deadline = deadline.0;
        let tick = deadline.0.div_ceil(TICK);
        if node.place != NOWHERE {
            if tick >= node.tick {
                return;
            }
            self.unlink(slot);
        }
        self.link(slot, tick);
    }

    /// Forget `slot`'s timer, because the slot is given up.
    pub fn clear(&mut self, slot: u32) {
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            node.deadline = u64::MAX;
            if node.place != NOWHERE {
                self.unlink(slot);
            }
        }
    }

    /// When [`Wheel::advance`] has something to do next: a deadline, or the moment to look at one again.
    pub fn next_due(&self) -> Option<Instant> {
        self.next_place().map(|(_, tick)| Instant(tick.saturating_mul(TICK)))
    }

    /// Move the wheel to `now` and append to `fired` each slot whose deadline has passed, in order of deadlines' ticks.
    pub fn advance(&mut self, now: Instant, fired: &mut Vec<u32>) {
        let target = now.0 / TICK;
        while self.current < target {
            let Some((place, tick)) = self.next_place().filter(|(_, tick)| *tick <= target) else {
                self.current = target;
                return;
            };
            self.current = tick;
            self.empty_place(place, now, fired);
        }
    }

    fn empty_place(&mut self, place: usize, now: Instant, fired: &mut Vec<u32>) {
        let mut slot = std::mem::replace(&mut self.heads[place], END);
        self.occupied[place / PLACES][place % PLACES / 64] &= !(1 << (place % 64));
        while slot != END {
            let node = &mut self.nodes[slot as usize];
            let next = node.next;
            (node.next, node.previous, node.place) = (END, END, NOWHERE);
            let deadline = node.deadline;
            if deadline <= now.0 {
                node.deadline = u64::MAX;
                fired.push(slot);
            } else if deadline != u64::MAX {
                self.link(slot, deadline.div_ceil(TICK));
            }
            slot = next;
        }
    }

    fn link(&mut self, slot: u32, tick: u64) {
        // A tick already handled comes up as the next one; one beyond the wheel's span is looked at again there.
        let tick = tick.clamp(self.current + 1, self.current + SPAN);
        let level = (63 - (self.current ^ tick).leading_zeros()) as usize / BITS;
        let level = level.min(LEVELS - 1);
        let place = level * PLACES + (tick >> (level * BITS)) as usize % PLACES;
        let head = std::mem::replace(&mut self.heads[place], slot);
        if head != END {
            self.nodes[head as usize].previous = slot;
        }
        let node = &mut self.nodes[slot as usize];
        (node.tick, node.next, node.previous, node.place) = (tick, head, END, place as u32);
        self.occupied[level][place % PLACES / 64] |= 1 << (place % 64);
    }

    fn unlink(&mut self, slot: u32) {
        let Node { next, previous, place, .. } = self.nodes[slot as usize];
        let place = place as usize;
        if next != END {
            self.nodes[next as usize].previous = previous;
        }
        if previous != END {
            self.nodes[previous as usize].next = next;
        } else {
            self.heads[place] = next;
            if next == END {
                self.occupied[place / PLACES][place % PLACES / 64] &= !(1 << (place % 64));
            }
        }
        let node = &mut self.nodes[slot as usize];
        (node.next, node.previous, node.place) = (END, END, NOWHERE);
    }

    /// The first place that is not empty, and the tick at which it comes up. A lower level always comes first, as
    /// its timers share more of the current tick.
    fn next_place(&self) -> Option<(usize, u64)> {
        (0..LEVELS).find_map(|level| {
            let shift = level * BITS;
            let from = (self.current >> shift) as usize % PLACES + 1;
            let digit = first_set_from(&self.occupied[level], from)?;
            let above = self.current >> shift >> BITS << BITS << shift;
            Some((level * PLACES + digit, above | (digit as u64) << shift))
        })
    }
}

/// The first set bit at or after `from`.
fn first_set_from(words: &[u64; WORDS], from: usize) -> Option<usize> {
    if from >= PLACES {
        return None;
    }
    let first = words[from / 64] & (u64::MAX << (from % 64));
    if first != 0 {
        return Some(from / 64 * 64 + first.trailing_zeros() as usize);
    }
    let rest = words.iter().enumerate().skip(from / 64 + 1);
    rest.filter(|(_, word)| **word != 0).map(|(index, word)| index * 64 + word.trailing_zeros() as usize).next()
}

/// One tick is one millisecond, in nanoseconds.
const TICK: u64 = 1_000_000;
const BITS: usize = 8;
const PLACES: usize = 1 << BITS;
const WORDS: usize = PLACES / 64;
/// Five levels span 34 years.
const LEVELS: usize = 5;
/// No timer is put farther away than this (17 years), so that the highest level never runs over.
const SPAN: u64 = 1 << (LEVELS * BITS - 1);
const END: u32 = u32::MAX;
const NOWHERE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ipss_session::rig::SeededRandom;

    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * TICK)
    }

    #[test]
    fn nothing_fires_early_and_nothing_a_millisecond_late() {
        for seed in 0..200 {
            let mut random = SeededRandom::new(seed);
            let mut now = Instant(random.below(1 << 45));
            let mut wheel = Wheel::new(now);
            let mut want = vec![u64::MAX; 50];
            for _ in 0..400 {
                let slot = random.below(50) as u32;
                let spread = 1 << random.below(44);
                let deadline = Instant(now.0 + random.below(spread));
                if random.chance(50) {
                    wheel.set(slot, None);
                    want[slot as usize] = u64::MAX;
                } else {
                    wheel.set(slot, Some(deadline));
                    want[slot as usize] = deadline.0;
                }
                now = now + Duration::from_nanos(random.below(spread));

                let mut fired = Vec::new();
                wheel.advance(now, &mut fired);

                for slot in fired {
                    assert!(want[slot as usize] <= now.0, "seed {seed}: fired early");
                    want[slot as usize] = u64::MAX;
                }
                assert!(want.iter().all(|at| *at >= now.0.saturating_sub(TICK)), "seed {seed}: too late");
            }
        }
    }

    #[test]
    fn every_timer_fires_once_when_one_sleeps_until_next_due() {
        let mut wheel = Wheel::new(at(7));
        let mut random = SeededRandom::new(1);
        let mut want: Vec<u64> = (0..500).map(|_| at(7).0 + random.below(1 << 40)).collect();
        for (slot, deadline) in want.iter().enumerate() {
            wheel.set(slot as u32, Some(Instant(*deadline)));
        }

        let mut fired = Vec::new();
        let mut turns = 0;
        while let Some(due) = wheel.next_due() {
            turns += 1;
            let before = fired.len();
            wheel.advance(due, &mut fired);
            for slot in &fired[before..] {
                assert!(want[*slot as usize] <= due.0 && want[*slot as usize] + TICK > due.0);
                want[*slot as usize] = 0;
            }
        }

        assert_eq!(fired.len(), 500);
        assert!(turns < 500 * 4);
    }

    #[test]
    fn deadline_that_moves_later_stays_in_place_and_one_that_moves_earlier_does_not() {
        let mut wheel = Wheel::new(at(0));
        let mut fired = Vec::new();
        wheel.set(3, Some(at(100)));

        wheel.set(3, Some(at(5_000)));
        assert_eq!(wheel.next_due(), Some(at(100)));
        wheel.advance(at(200), &mut fired);
        assert!(fired.is_empty());

        wheel.set(3, Some(at(300)));
        wheel.advance(at(300), &mut fired);
        assert_eq!(fired, [3]);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn deadline_beyond_the_end_of_the_clock_never_fires() {
        let mut wheel = Wheel::new(at(0));
        let mut fired = Vec::new();

        wheel.set(0, Some(Instant(u64::MAX - 1)));
        wheel.advance(at(1 << 39), &mut fired);
        wheel.set(1, Some(at((1 << 39) + 5)));
        wheel.advance(at((1 << 39) + 5), &mut fired);

        assert_eq!(fired, [1]);
    }
}
