//! Super-blocks of 256 elements: groups of 16 or 32 with small scales, which one or two f16 multiply.

use super::scale_at;

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, d_min) = (scale_at(block, 80), scale_at(block, 82));
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group] & 0x0f);
        let min = d_min * f32::from(scales[group] >> 4);
        let place = TwoBits::of(group);
        for (j, out) in out.iter_mut().enumerate() {
            let code = codes[place.first + j] >> place.shift & 3;
            *out = scale * f32::from(code) - min;
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (high, codes, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = scale_at(block, 108);
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let low = scales[group % 8] >> (group / 8 * 4) & 0x0f;
        let upper = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = d * f32::from(i16::from(low | upper << 4) - 32);
        let place = TwoBits::of(group);
        // The third bit of the elements of a half-plane: one bit of `high` per plane of 32.
        let mask = 1_u8 << (group / 2);
        for (j, out) in out.iter_mut().enumerate() {
            let code = codes[place.first + j] >> place.shift & 3;
            let is_high = high[group % 2 * 16 + j] & mask != 0;
            *out = scale * f32::from(i16::from(code) - if is_high { 0 } else { 4 });
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, d_min) = (scale_at(block, 0), scale_at(block, 2));
    let codes = &block[16..];
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = six_bits(&block[4..16], group);
        let (scale, min) = (d * f32::from(scale), d_min * f32::from(min));
        let codes = &codes[group / 2 * 32..];
        for (out, byte) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(byte >> (group % 2 * 4) & 0x0f) - min;
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, d_min) = (scale_at(block, 0), scale_at(block, 2));
    let (high, codes) = (&block[16..48], &block[48..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = six_bits(&block[4..16], group);
        let (scale, min) = (d * f32::from(scale), d_min * f32::from(min));
        let codes = &codes[group / 2 * 32..];
        for ((out, byte), high) in out.iter_mut().zip(codes).zip(high) {
            let code = byte >> (group % 2 * 4) & 0x0f | (high >> group & 1) << 4;
            *out = scale * f32::from(code) - min;
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = scale_at(block, 208);
    let mut codes = [0; 256];
    // A half of the super-block is four planes of 32 elements: all codes first, so that they are computed by vectors.
    for (half, codes) in codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (low, high) = (&low[half * 64..half * 64 + 64], &high[half * 32..half * 32 + 32]);
        for (plane, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = &low[plane % 2 * 32..plane % 2 * 32 + 32];
            for (code, (low, high)) in codes.iter_mut().zip(low.iter().zip(high)) {
                *code = low >> (plane / 2 * 4) & 0x0f | (high >> (plane * 2) & 3) << 4;
            }
        }
    }
    let groups = out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
    for ((out, codes), scale) in groups.zip(scales) {
        let scale = d * f32::from(scale.cast_signed());
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(i16::from(*code) - 32);
        }
    }
}

/// The place of a group of 16 two-bit codes: 32 bytes are four planes of 32 elements.
struct TwoBits {
    first: usize,
    shift: usize,
}

impl TwoBits {
    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn of(group: usize) -> Self {
        Self { first: group / 8 * 32 + group % 2 * 16, shift: group % 8 / 2 * 2 }
    }
}

/// Scale and minimum of a group of 32: twelve bytes are eight pairs of six bits.
#[inline(always)]
#[allow(clippy::inline_always)]
fn six_bits(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 0x0f | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    }
}
