//! Numbers of a parquet page: levels and the keys of a dictionary, in parquet's mixture of repeated and bit-packed values, and
//! lengths as differences (`DELTA_BINARY_PACKED`).
//!
//! They are read one at a time without allocation, so that a run of millions takes no memory.

/// The values of one sequence of runs.
#[derive(Debug)]
pub(super) struct Runs<'a> {
    /// The runs that follow the current one.
    rest: &'a [u8],
    /// Bits of a value.
    width: u32,
    run: Run<'a>,
    /// Number of values that the current run still has.
    left: u64,
}

#[derive(Debug)]
enum Run<'a> {
    Repeated(u32),
    /// Packed values, and the number of bits that were read.
    Packed(&'a [u8], usize),
}

impl<'a> Runs<'a> {
    /// The runs in `bytes` of values of `width` bits, at most 32.
    pub(super) fn new(bytes: &'a [u8], width: u32) -> Self {
        Self { rest: bytes, width: width.min(32), run: Run::Repeated(0), left: 0 }
    }

    /// Number of bits of values up to `largest`.
    pub(super) fn width_of(largest: i16) -> u32 {
        u16::BITS - largest.unsigned_abs().leading_zeros()
    }

    /// The next value, and the number of times that it follows at least.
    pub(super) fn next_run(&mut self) -> Option<(u32, u64)> {
        let value = self.next()?;
        let repeated = matches!(self.run, Run::Repeated(_));
        let n_more = if repeated { std::mem::take(&mut self.left) } else { 0 };
        Some((value, 1 + n_more))
    }

    fn start_run(&mut self) -> Option<()> {
        let header = varint(&mut self.rest)? & u64::from(u32::MAX);
        let n_bytes = if header & 1 == 1 {
            self.left = (header >> 1) * 8;
            ((header >> 1) * u64::from(self.width)) as usize
        } else {
            self.left = header >> 1;
            self.width.div_ceil(8) as usize
        };
        let (bytes, rest) = self.rest.split_at(n_bytes.min(self.rest.len()));
        self.rest = rest;
        self.run = if header & 1 == 1 {
            Run::Packed(bytes, 0)
        } else {
            let value = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
            Run::Repeated(bytes.iter().rev().fold(0, value))
        };
        Some(())
    }
}

impl Iterator for Runs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while self.left == 0 {
            self.start_run()?;
        }
        self.left -= 1;
        match &mut self.run {
            Run::Repeated(value) => Some(*value),
            Run::Packed(bytes, at) => {
                let value = packed(bytes, *at, self.width)?;
                *at += self.width as usize;
                Some(value)
            }
        }
    }
}

/// Numbers that are stored as differences in blocks of bit-packed values.
#[derive(Debug)]
pub(super) struct Deltas<'a> {
    rest: &'a [u8],
    /// Number of values of a part of a block.
    part_values: u64,
    /// Number of parts of a block.
    n_parts: u64,
    /// Number of values that follow.
    left: u64,
    value: u64,
    min_delta: u64,
    /// Widths of the parts of the block that follow, in bits.
    widths: &'a [u8],
    /// Packed values of the part, their width, and the number of those that were read.
    part: (&'a [u8], u32, u64),
}

impl<'a> Deltas<'a> {
    /// The numbers in `bytes`; none if they are damaged.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut rest = bytes;
        let mut header = || {
            let (block, n_parts) = (varint(&mut rest)?, varint(&mut rest)?);
            let (n_values, first) = (varint(&mut rest)?, zigzag(&mut rest)?);
            // As the format demands; a block of a few values would take more time than its bytes.
            let part_values = block.checked_div(n_parts).filter(|n_values| *n_values >= 32)?;
            Some((part_values.min(1 << 20), n_parts, n_values, first))
        };
        let (part_values, n_parts, left, value) = header().unwrap_or((1, 1, 0, 0));
        let part = (&[][..], 0, part_values);
        Self { rest, part_values, n_parts, left, value, min_delta: 0, widths: &[], part }
    }

    fn start_part(&mut self) -> Option<()> {
        if self.widths.is_empty() {
            self.min_delta = zigzag(&mut self.rest)?;
            let n_parts = usize::try_from(self.n_parts).ok()?;
            (self.widths, self.rest) = self.rest.split_at_checked(n_parts)?;
        }
        let (width, widths) = self.widths.split_first()?;
        self.widths = widths;
        let n_bytes = self.part_values * u64::from(*width) / 8;
        let (bytes, rest) = self.rest.split_at((n_bytes as usize).min(self.rest.len()));
        self.rest = rest;
        self.part = (bytes, u32::from(*width), 0);
        (*width <= 32).then_some(())
    }
}

impl Iterator for Deltas<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let value = self.value;
        self.left = self.left.checked_sub(1)?;
        if self.left > 0 {
            if self.part.2 == self.part_values && self.start_part().is_none() {
                self.left = 0;
                return Some(value);
            }
            let (bytes, width, at) = self.part;
            self.part.2 += 1;
            let delta = packed(bytes, at as usize * width as usize, width).unwrap_or(0);
            self.value = self.value.wrapping_add(self.min_delta).wrapping_add(u64::from(delta));
        }
        Some(value)
    }
}

/// The `width` bits from bit `at`.
fn packed(bytes: &[u8], at: usize, width: u32) -> Option<u32> {
    let rest = bytes.get(at / 8..).filter(|rest| !rest.is_empty() || width == 0)?;
    let word = match rest.first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => rest.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte)),
    };
    Some(((word >> (at % 8)) & ((1_u64 << width) - 1)) as u32)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A signed number in two's complement.
fn zigzag(bytes: &mut &[u8]) -> Option<u64> {
    let value = varint(bytes)?;
    Some((value >> 1) ^ (value & 1).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::{Deltas, Runs};

    #[test]
    fn runs_are_read_as_the_format_defines_them() {
        // The example of the format's specification: 0 to 7 in three bits each.
        let packed = [0b0000_0011, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        assert_eq!(Runs::new(&packed, 3).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
        // The second run is empty.
        let repeated = [10, 0x39, 0x05, 0, 9, 9, 4, 1, 0];
        assert_eq!(
            Runs::new(&repeated, 11).collect::<Vec<_>>(),
            [1337, 1337, 1337, 1337, 1337, 1, 1]
        );
        // Cut off: the values that are there, and no panic.
        assert_eq!(Runs::new(&packed[..2], 3).take(2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(Runs::new(&[0x80], 3).next(), None);
        let mut runs = Runs::new(&repeated, 11);
        assert_eq!([(); 3].map(|()| runs.next_run()), [Some((1337, 5)), Some((1, 2)), None]);
        // Without bits, every value is 0.
        assert_eq!(Runs::new(&[6], 0).collect::<Vec<_>>(), [0, 0, 0]);
        assert_eq!([0, 1, 2, 3, 4].map(Runs::width_of), [0, 1, 2, 2, 3]);
    }

    #[test]
    fn differences_are_added() {
        // Examples of the format's specification in blocks of 128 values: 1 to 5, and 7, 5, 3, 1, 2, 3, 4, 5.
        let deltas = [&[0x80, 1, 4, 5, 2, 2, 0, 0, 0, 0][..], &[0; 8]].concat();
        assert_eq!(Deltas::new(&deltas).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        let packed = 0b11_1111_1100_0000_u16.to_le_bytes();
        let deltas = [&[0x80, 1, 4, 8, 14, 3, 2, 0, 0, 0][..], &packed, &[0; 6]].concat();
        assert_eq!(Deltas::new(&deltas).collect::<Vec<_>>(), [7, 5, 3, 1, 2, 3, 4, 5]);
        assert_eq!(Deltas::new(&deltas[..6]).collect::<Vec<_>>(), [7]);
        assert_eq!(Deltas::new(&[0x80, 1, 0, 5, 2]).count(), 0);
    }
}
