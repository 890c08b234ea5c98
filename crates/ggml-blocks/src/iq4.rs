//! Four-bit codes that index a fixed table of unevenly spaced values.

use super::scale_at;

/// ggml's table of the formats IQ4_NL and IQ4_XS.
const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    look_up(scale_at(block, 0), &block[2..], out);
}

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = scale_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    let (low, codes) = (&block[4..8], &block[8..]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let low = low[group / 2] >> (group % 2 * 4) & 0x0f;
        let upper = (high >> (group * 2) & 3) as u8;
        let scale = d * f32::from(i16::from(low | upper << 4) - 32);
        look_up(scale, &codes[group * 16..group * 16 + 16], out);
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn look_up(scale: f32, codes: &[u8], out: &mut [f32]) {
    for (j, byte) in codes.iter().enumerate() {
        out[j] = scale * f32::from(VALUES[usize::from(byte & 0x0f)]);
        out[j + 16] = scale * f32::from(VALUES[usize::from(byte >> 4)]);
    }
}
