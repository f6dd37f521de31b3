//! R11: how long the check of a tag takes does not say where the tag is wrong (Welch's t-test over many compares).
//!
//! With `IPSS_TAG_COMPARES` the figure is judged; in a quick run, beside other work, it is only printed. A comparison
//! that gives up early goes through the same measurement and is found out: that shows that it measures something.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use ipss_dlms::security::{CounterBlock, HighWater, Key, Protection, Sealer, Suite, SystemTitle, cipher};
use ipss_session::rig::SeededRandom;

const TITLE: SystemTitle = SystemTitle(*b"MTR00001");

/// Beyond this, a difference is believed (as in "dude, is my code constant time?", Reparaz, Balasch, Verbauwhede, 2017).
const BELIEVED: f64 = 4.5;

#[test]
fn r11_time_of_a_check_does_not_say_which_octet_of_the_tag_is_wrong() {
    let asked = std::env::var("IPSS_TAG_COMPARES").ok().and_then(|text| text.parse().ok());
    let compares: usize = asked.unwrap_or(20_000);
    let (key, authentication_key) = (Key::Aes128([7; 16]), Key::Aes128([9; 16]));
    let mut genuine = b"\xC4\x01\xC1\x00\x06\x00\x00\x00\x63".to_vec();
    let mut sealer = Sealer::new(TITLE, key.clone(), CounterBlock::new(5, 6));
    sealer.seal(Protection::Both, &authentication_key, &mut genuine, 0).unwrap();
    let mut water = HighWater::new(Some(4));
    let mut refused = 0;

    let mut quietest = f64::MAX;
    for round in 0..3 {
        let found = welch(compares, round, &genuine, |octets| {
            let opened = cipher::open(
                Suite::Zero,
                &key,
                &authentication_key,
                TITLE,
                Protection::Both,
                &mut water,
                black_box(octets),
            );
            refused += usize::from(opened.is_err());
        });
        quietest = if found.abs() < quietest.abs() { found } else { quietest };
    }
    let control = welch(compares, 9, &genuine, |octets| {
        black_box(hasty(black_box(octets), black_box(&genuine)));
    });

    figure(&format!("t {quietest:.2} over 3 x {compares} compares; of one that gives up early {control:.1}"));
    assert_eq!(refused, 3 * compares);
    assert_eq!(water.highest(), Some(4));
    if asked.is_some() {
        // What is there shows in each of three runs; what disturbs one does not disturb all.
        assert!(quietest.abs() < BELIEVED, "{quietest}");
        assert!(control.abs() > BELIEVED, "the measurement finds nothing: {control}");
    }
}

/// What nobody should compare secrets with.
#[inline(never)]
fn hasty(octets: &[u8], genuine: &[u8]) -> bool {
    let from = genuine.len() - 12;
    octets[from..].iter().zip(&genuine[from..]).all(|(one, other)| black_box(one == other))
}

/// Welch's t of the times for a tag that is wrong in its first octet and for one that is wrong in its last.
fn welch(compares: usize, seed: u64, genuine: &[u8], mut check: impl FnMut(&mut [u8])) -> f64 {
    let mut random = SeededRandom::new(seed);
    let mut times: [Vec<u32>; 2] = [Vec::with_capacity(compares), Vec::with_capacity(compares)];
    let mut octets = genuine.to_vec();
    for _ in 0..compares {
        let class = random.below(2) as usize;
        octets.copy_from_slice(genuine);
        let wrong = if class == 0 { octets.len() - 12 } else { octets.len() - 1 };
        octets[wrong] ^= 1 << random.below(8);
        let begun = Instant::now();
        check(&mut octets);
        times[class].push(begun.elapsed().as_nanos().min(u128::from(u32::MAX)) as u32);
    }
    // Interrupts are no property of the code: the slowest tenth of all is left out.
    let mut all: Vec<u32> = times.iter().flatten().copied().collect();
    all.sort_unstable();
    let most = all[all.len() * 9 / 10];
    let moments = |times: &[u32]| {
        let kept = times.iter().filter(|time| **time <= most).map(|time| f64::from(*time));
        let (count, sum, squares) = kept.fold((0.0, 0.0, 0.0), |(count, sum, squares): (f64, f64, f64), time| {
            (count + 1.0, sum + time, squares + time * time)
        });
        let mean = sum / count;
        (mean, (squares / count - mean * mean) / count)
    };
    let ((first, spread), (last, spread_last)) = (moments(&times[0]), moments(&times[1]));
    (first - last) / (spread + spread_last).sqrt().max(f64::MIN_POSITIVE)
}

/// For people, and for the results that `make trust` keeps.
fn figure(text: &str) {
    println!("{text}");
    if let Some(path) = std::env::var_os("IPSS_FIGURES") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{text}").unwrap();
    }
}
