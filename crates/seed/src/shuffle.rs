//! A permutation of 0..n with random access and without a stored list. Not cryptographically secure.

/// Index in 0..n of element `i` of the shuffled order.
///
/// A bijection of 0..n for every key: an 8-round Feistel network over the next power of four, with
/// cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). The expected
/// number of walks is below 4.
///
/// # Panics
/// If `i >= n`.
pub fn shuffled_index(key: u64, n: u64, i: u64) -> u64 {
    assert!(i < n, "index {i} is outside of 0..{n}");
    let mut value = i;
    loop {
        value = feistel(key, half_bits(n), value);
        if value < n {
            return value;
        }
    }
}

/// Half of the number of bits of the domain. At least 4: narrower halves would reach too few permutations.
fn half_bits(n: u64) -> u32 {
    let bits = u64::BITS - (n - 1).leading_zeros();
    bits.div_ceil(2).max(4)
}

fn feistel(key: u64, half_bits: u32, value: u64) -> u64 {
    let mask = (1_u64 << half_bits) - 1;
    let (mut left, mut right) = (value >> half_bits, value & mask);
    for round in 0..8 {
        let mixed = mix(key ^ mix(right | (round << 40)));
        (left, right) = (right, left ^ (mixed & mask));
    }
    (left << half_bits) | right
}

/// Finalizer of SplitMix64 (Steele, Lea, Flood 2014), after adding an odd constant so that 0 is no fixed point.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
