//! Seeded noise: a value that looks random and is a function of its arguments alone.

/// Mix the bits of `value` (finaliser of SplitMix64; Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014). Not cryptographic.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The noise of `seed` at place `at`, for the purpose `tag`.
pub(crate) const fn noise(seed: u64, tag: u32, at: i64) -> u64 {
    mix(mix(seed ^ ((tag as u64) << 40)) ^ (at as u64))
}

/// Noise within 0..`bound`, for a bound below 2^32; 0 for a bound of 0.
pub(crate) const fn below(noise: u64, bound: u32) -> u32 {
    (((noise >> 32) * bound as u64) >> 32) as u32
}

/// Noise within `low`..=`high`.
pub(crate) const fn between(noise: u64, low: i64, high: i64) -> i64 {
    low + below(noise, (high - low + 1) as u32) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_stays_in_its_bounds_and_reaches_them() {
        let seen: Vec<i64> = (0..2_000).map(|at| between(noise(7, 1, at), -3, 3)).collect();

        assert_eq!((seen.iter().min(), seen.iter().max()), (Some(&-3), Some(&3)));
        assert_eq!(below(u64::MAX, 0), 0);
        assert_ne!(noise(7, 1, 5), noise(7, 2, 5));
        assert_ne!(noise(7, 1, 5), noise(8, 1, 5));
    }
}
