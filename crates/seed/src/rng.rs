//! A counter-based generator: the n-th value is a function of (key, n) alone.
//!
//! Its only state is its position, so a stream can be started anywhere and divided among threads without changing a
//! value.

/// Philox 2×64 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
#[derive(Clone, Debug)]
pub struct Rng {
    key: u64,
    /// Number of 64-bit values drawn so far.
    position: u64,
    /// Block that contains the value at `position`; computed when an even position is drawn.
    block: [u64; 2],
    /// Second value of a Box–Muller pair, not yet returned.
    spare_normal: Option<f64>,
}

impl Rng {
    /// Stream of a key, from its first value.
    pub fn new(key: u64) -> Self {
        Self::at(key, 0)
    }

    /// Stream of a key, from value `position`, counted in calls of `next_u64`.
    pub fn at(key: u64, position: u64) -> Self {
        let block = philox([position / 2, 0], key);
        Self { key, position, block, spare_normal: None }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let lane = (self.position % 2) as usize;
        if lane == 0 {
            self.block = philox([self.position / 2, 0], self.key);
        }
        self.position = self.position.wrapping_add(1);
        self.block[lane]
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Fills a buffer with the values that as many calls of [`Self::f64`] return, several times as fast.
    pub fn fill_f64(&mut self, out: &mut [f64]) {
        /// Blocks computed in parallel: the ten rounds of one block depend on each other, those of other blocks do not.
        const N_BLOCKS: usize = 4;
        let unit = |bits: u64| (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64);
        let mut rest = out;
        while !self.position.is_multiple_of(2) && !rest.is_empty() {
            rest[0] = self.f64();
            rest = &mut rest[1..];
        }
        let (chunks, rest) = rest.as_chunks_mut::<{ 2 * N_BLOCKS }>();
        for chunk in chunks {
            let first = self.position / 2;
            let counters = std::array::from_fn(|idx| [first.wrapping_add(idx as u64), 0]);
            let blocks: [[u64; 2]; N_BLOCKS] = philox_of(counters, self.key);
            for (out, bits) in chunk.iter_mut().zip(blocks.iter().flatten()) {
                *out = unit(*bits);
            }
            self.position = self.position.wrapping_add(2 * N_BLOCKS as u64);
        }
        for out in rest {
            *out = self.f64();
        }
    }

    /// Uniform in [0, 1), with 24 bits.
    pub fn f32(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / (1_u32 << 24) as f32)
    }

    /// Uniform in 0..n without bias (Lemire 2019, "Fast random integer generation in an interval").
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(0) has no possible value");
        let reject_below = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= reject_below {
                return (product >> 64) as u64;
            }
        }
    }

    /// Standard normal (Box–Muller, in f64; two values from two draws).
    pub fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare_normal.take() {
            return value;
        }
        // 1 - u is in (0, 1], so its logarithm is finite.
        let radius = (-2.0 * (1.0 - self.f64()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.f64()).sin_cos();
        self.spare_normal = Some(radius * sin);
        radius * cos
    }

    /// Fills a buffer with normal values of mean 0 and the given standard deviation.
    pub fn fill_normal(&mut self, out: &mut [f32], std: f64) {
        for value in out {
            *value = (self.normal() * std) as f32;
        }
    }
}

fn philox(counter: [u64; 2], key: u64) -> [u64; 2] {
    philox_of([counter], key)[0]
}

fn philox_of<const N: usize>(mut counters: [[u64; 2]; N], mut key: u64) -> [[u64; 2]; N] {
    const MULTIPLIER: u64 = 0xD2B7_4407_B1CE_6E93;
    const WEYL: u64 = 0x9E37_79B9_7F4A_7C15;
    for _ in 0..10 {
        for counter in &mut counters {
            let product = u128::from(MULTIPLIER) * u128::from(counter[0]);
            *counter = [(product >> 64) as u64 ^ key ^ counter[1], product as u64];
        }
        key = key.wrapping_add(WEYL);
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::{Rng, philox};

    #[test]
    fn a_filled_buffer_equals_single_draws() {
        for (skipped, n) in [(0, 0), (0, 1), (0, 8), (1, 1), (1, 40), (3, 17), (2, 100)] {
            let (mut filled, mut single) = (Rng::at(7, skipped), Rng::at(7, skipped));
            if skipped % 2 == 1 {
                // One draw moves to an odd position.
                (filled, single) = (Rng::at(7, skipped - 1), Rng::at(7, skipped - 1));
                assert_eq!(filled.f64(), single.f64());
            }
            let mut out = vec![0.0; n];
            filled.fill_f64(&mut out);
            assert_eq!(out, (0..n).map(|_| single.f64()).collect::<Vec<_>>());
            assert_eq!(filled.next_u64(), single.next_u64(), "{skipped} {n}");
        }
    }

    /// Known answers published with the reference implementation (Random123, kat_vectors).
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0, 0], 0), [0xca00_a045_9843_d731, 0x66c2_4222_c9a8_45b5]);
        assert_eq!(
            philox([u64::MAX, u64::MAX], u64::MAX),
            [0x65b0_21d6_0cd8_310f, 0x4d02_f322_2f86_df20]
        );
        assert_eq!(
            philox([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344], 0xa409_3822_299f_31d0),
            [0x0a5e_742c_2997_341c, 0xb0f8_83d3_8000_de5d]
        );
    }
}
