//! R10: invocation counters as random histories of grants, frames and forgeries, against the rules in a few lines.
//!
//! `IPSS_COUNTER_CASES=100000` tries so many histories.

mod common;

use common::*;
use ipss_dlms::security::{CounterBlock, HighWater, Protection, Sealer, Suite, cipher};
use ipss_session::rig::SeededRandom;

/// How many histories; each has twenty steps.
fn cases() -> u64 {
    std::env::var("IPSS_COUNTER_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000)
}

/// A number near one where counters change their meaning, or anywhere.
fn near(random: &mut SeededRandom, last: u32) -> u32 {
    let limits = [0, last, 1_000_000, last.saturating_add(1_000_000), 1 << 31, 2_000_000_000, u32::MAX];
    if random.chance(100) {
        return random.next_u64() as u32;
    }
    let limit = limits[random.below(limits.len() as u64) as usize];
    (i64::from(limit) + random.below(5) as i64 - 2).clamp(0, u32::MAX.into()) as u32
}

#[test]
fn r10_a_counter_is_spent_once_within_what_was_granted_and_never_the_last() {
    let mut random = SeededRandom::new(10);
    let (mut sealed, mut refused) = (0_u64, 0_u64);
    for _ in 0..cases() {
        let (next, end) = (near(&mut random, 0), near(&mut random, 0));
        // The model: what is left to spend, and the end of all that was ever granted.
        let (mut left, mut granted) = (next.min(end)..end, end);
        let mut last = None;
        let mut sealer = Sealer::new(HEAD_END_TITLE, key(1), CounterBlock::new(next, end));
        for _ in 0..20 {
            if random.chance(400) {
                let (next, end) = (near(&mut random, granted), near(&mut random, granted));
                let taken = sealer.grant(next, end);

                assert_eq!(taken, next >= granted && end > next, "{next}..{end} after {granted}");
                if taken {
                    left = if next == granted { left.start..end } else { next..end };
                    granted = end;
                }
                continue;
            }
            let mut out = b"\xC0\x01".to_vec();
            match sealer.seal(Protection::Authenticated, &key(2), &mut out, 1) {
                Ok(counter) => {
                    assert_eq!(Some(counter), left.next(), "the next of what was granted");
                    assert!(last < Some(counter), "{counter} after {last:?}");
                    assert!(counter < u32::MAX, "2^32-1 is never sealed with");
                    assert_eq!(out[2..6], counter.to_be_bytes());
                    last = Some(counter);
                    sealed += 1;
                }
                Err(_) => {
                    assert!(left.is_empty() && out == b"\xC0\x01", "nothing is sealed and nothing is changed");
                    refused += 1;
                }
            }
            assert_eq!(sealer.counters().left() as usize, left.len());
        }
    }
    assert!(sealed > cases() && refused > cases(), "{sealed} sealed, {refused} refused");
}

#[test]
fn r10_the_peers_counter_is_believed_when_its_tag_is_right_and_never_goes_down() {
    let mut random = SeededRandom::new(11);
    let (mut believed, mut replays, mut forged) = (0_u64, 0_u64, 0_u64);
    for _ in 0..cases() {
        let mut model = random.chance(800).then(|| near(&mut random, 0));
        let mut water = HighWater::new(model);
        for _ in 0..20 {
            let counter = near(&mut random, model.unwrap_or_default()).min(u32::MAX - 1);
            let mut octets = vec![0xC4];
            let mut peer = Sealer::new(METER_TITLE, key(1), CounterBlock::new(counter, counter + 1));
            peer.seal(Protection::Authenticated, &key(2), &mut octets, 0).unwrap();
            let bent = random.chance(300);
            if bent {
                // Its counter or its tag.
                let place = if random.chance(500) { 1 + random.below(4) } else { 6 + random.below(12) };
                octets[place as usize] ^= 1 << random.below(8);
            }
            let jump = water.is_jump(counter);

            let opened = cipher::open(
                Suite::Zero,
                &key(1),
                &key(2),
                METER_TITLE,
                Protection::Authenticated,
                &mut water,
                &mut octets,
            );

            match opened {
                Ok(opened) => {
                    assert!(!bent && opened.counter == counter && model.is_none_or(|highest| counter > highest));
                    assert_eq!(jump, model.is_some_and(|highest| counter - highest > 1_000_000));
                    model = Some(counter);
                    believed += 1;
                }
                Err(error) if bent => {
                    assert_eq!(error.code, "tag-invalid", "the tag before the counter");
                    forged += 1;
                }
                Err(error) => {
                    assert_eq!(error.code, "replay");
                    assert!(model >= Some(counter));
                    replays += 1;
                }
            }
            assert_eq!(water.highest(), model);
        }
    }
    let least = cases() / 2;
    assert!(believed > least && replays > least && forged > least, "{believed}, {replays}, {forged}");
}
