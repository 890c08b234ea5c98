//! Random numbers of Python's `random.Random`: the Mersenne Twister MT19937 and `sample`, so that few-shot examples are those
//! that lm-evaluation-harness draws.
//!
//! M. Matsumoto and T. Nishimura, "Mersenne Twister", ACM TOMACS 8(1), 1998; seeding by an array of words from their version
//! of 2002.

use std::collections::BTreeSet;

/// Words of the state.
const N: usize = 624;
/// Distance of the word that is mixed in.
const M: usize = 397;

/// `random.Random(seed)`.
#[derive(Clone)]
pub(crate) struct PythonRandom {
    state: [u32; N],
    next: usize,
}

impl PythonRandom {
    /// The generator that Python seeds with a non-negative integer.
    pub(crate) fn new(seed: u64) -> Self {
        let words = [seed as u32, (seed >> 32) as u32];
        let key = if words[1] == 0 { &words[..1] } else { &words[..] };
        Self::from_key(key)
    }

    fn from_key(key: &[u32]) -> Self {
        let mut state = [0u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        for _ in 1..N {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_566_083_941))
                .wrapping_sub(i as u32);
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, next: N }
    }

    /// The next 32 random bits.
    fn word(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let mixed = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ mixed;
        }
        self.next = 0;
    }

    /// `_randbelow(n)`: as many bits as `n` has, drawn again while they are not below it.
    fn below(&mut self, n: usize) -> usize {
        let n_bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = if n_bits <= 32 {
                (self.word() >> (32 - n_bits)) as usize
            } else {
                let low = self.word() as usize;
                low | ((self.word() >> (64 - n_bits)) as usize) << 32
            };
            if drawn < n {
                return drawn;
            }
        }
    }

    /// Indices that `sample(population, k)` selects from a population of `n`, in its order; `None` if `k` is larger than `n`.
    pub(crate) fn sample(&mut self, n: usize, k: usize) -> Option<Vec<usize>> {
        if k > n {
            return None;
        }
        // The size of a set of k members in CPython, above which a set takes less memory than the population.
        let mut set_size = 21;
        if k > 5 {
            let mut power = 1;
            while power < k * 3 {
                power *= 4;
            }
            set_size += power;
        }
        let mut selected = Vec::with_capacity(k);
        if n <= set_size {
            let mut pool: Vec<usize> = (0..n).collect();
            for i in 0..k {
                let j = self.below(n - i);
                selected.push(pool[j]);
                pool[j] = pool[n - i - 1];
            }
        } else {
            let mut seen = BTreeSet::new();
            for _ in 0..k {
                let mut j = self.below(n);
                while !seen.insert(j) {
                    j = self.below(n);
                }
                selected.push(j);
            }
        }
        Some(selected)
    }
}

#[cfg(test)]
mod tests {
    use super::PythonRandom;

    /// Values of CPython 3.11: `random.Random(seed).getrandbits(32)` and `random.Random(seed).sample(range(n), k)`.
    #[test]
    fn bits_and_samples_are_those_of_python() {
        let first = |seed| PythonRandom::new(seed).word();
        assert_eq!([first(0), first(1234), first(1 << 40)], BITS);
        for (seed, n, k, expected) in SAMPLES {
            let mut random = PythonRandom::new(*seed);
            let drawn: Vec<Vec<usize>> =
                (0..expected.len()).map(|_| random.sample(*n, *k).unwrap()).collect();
            assert_eq!(&drawn, expected, "seed {seed}, {k} of {n}");
        }
        assert_eq!(PythonRandom::new(1).sample(3, 4), None);
    }

    const BITS: [u32; 3] = [3_626_764_237, 4_150_886_329, 445_128_065];
    const SAMPLES: &[(u64, usize, usize, [&[usize]; 3])] = &[
        (1234, 8, 3, [&[7, 0, 6], &[1, 6, 4], &[0, 5, 6]]),
        (1234, 8, 4, [&[7, 0, 6, 5], &[0, 5, 6, 7], &[1, 6, 2, 7]]),
        (1234, 21, 5, [&[14, 3, 0, 2, 1], &[2, 3, 11, 7, 0], &[0, 20, 11, 15, 14]]),
        (1234, 22, 5, [&[14, 3, 0, 2, 18], &[1, 21, 2, 3, 11], &[7, 0, 11, 20, 19]]),
        (
            1234,
            100,
            6,
            [&[99, 56, 14, 0, 11, 74], &[4, 85, 88, 10, 12, 98], &[45, 30, 2, 3, 44, 82]],
        ),
        (
            1234,
            1000,
            5,
            [&[989, 796, 451, 119, 7], &[92, 932, 965, 961, 826], &[596, 35, 687, 709, 85]],
        ),
        (
            1234,
            7473,
            5,
            [
                &[6374, 3610, 957, 61, 742],
                &[7462, 6610, 4769, 286, 5501],
                &[5677, 687, 806, 6279, 2905],
            ],
        ),
        (
            1234,
            7473,
            8,
            [
                &[6374, 3610, 957, 61, 742, 7462, 6610, 4769],
                &[286, 5501, 5677, 687, 806, 6279, 2905, 1939],
                &[142, 252, 6461, 129, 2835, 5311, 5105, 3966],
            ],
        ),
        (
            42,
            3000,
            25,
            [
                &[
                    2619, 456, 102, 1126, 1003, 914, 571, 419, 2771, 2233, 356, 2418, 1728, 130,
                    122, 383, 895, 952, 2069, 2465, 108, 2298, 814, 2932, 2661,
                ],
                &[
                    2872, 2232, 1718, 902, 1839, 2413, 1139, 26, 653, 2859, 1731, 1393, 1138, 636,
                    881, 1378, 418, 379, 1556, 396, 1470, 1408, 2472, 1083, 177,
                ],
                &[
                    2988, 1881, 2196, 511, 1550, 322, 2261, 1200, 2574, 2533, 1481, 2364, 787,
                    2885, 284, 187, 2708, 933, 1185, 326, 953, 413, 1556, 1138, 1857,
                ],
            ],
        ),
        (
            42_949_672_960,
            85,
            6,
            [&[73, 40, 69, 56, 26, 81], &[51, 68, 76, 2, 3, 38], &[35, 62, 58, 55, 70, 34]],
        ),
        (1234, 86, 6, [&[56, 14, 0, 11, 74, 4], &[85, 10, 12, 45, 30, 2], &[3, 2, 44, 82, 79, 61]]),
        (0, 1, 1, [&[0], &[0], &[0]]),
    ];
}
