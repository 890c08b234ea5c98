//! Super-blocks of 256 elements: scales of groups are found first, then stored in few bits, then codes are chosen for
//! the scales as stored.

use super::put_scale;
use super::search::{Fit, Grid, nearest, scale_and_min, signed_scale};

pub(super) fn q4_k(values: &[f32; 256], block: &mut [u8; 144]) {
    let grid = Grid { max_code: 15, first: -1.0, n_steps: 20 };
    let codes = with_minimum(values, &grid, &mut block[..16]);
    for (half, bytes) in block[16..].chunks_exact_mut(32).enumerate() {
        let codes = &codes[half * 64..half * 64 + 64];
        for (j, byte) in bytes.iter_mut().enumerate() {
            *byte = codes[j] | codes[j + 32] << 4;
        }
    }
}

pub(super) fn q5_k(values: &[f32; 256], block: &mut [u8; 176]) {
    let grid = Grid { max_code: 31, first: -0.5, n_steps: 15 };
    let codes = with_minimum(values, &grid, &mut block[..16]);
    let (high, low) = block[16..].split_at_mut(32);
    high.fill(0);
    for (half, bytes) in low.chunks_exact_mut(32).enumerate() {
        let codes = &codes[half * 64..half * 64 + 64];
        for (j, byte) in bytes.iter_mut().enumerate() {
            *byte = codes[j] & 0x0f | (codes[j + 32] & 0x0f) << 4;
            high[j] |= (codes[j] >> 4) << (half * 2) | (codes[j + 32] >> 4) << (half * 2 + 1);
        }
    }
}

pub(super) fn q6_k(values: &[f32; 256], block: &mut [u8; 210]) {
    let (groups, _) = values.as_chunks::<16>();
    let found: Vec<(f32, [f32; 16])> = groups.iter().map(signed_scale).collect();
    let extreme =
        found.iter().fold(
            0.0_f32,
            |extreme, (scale, _)| if scale.abs() > extreme.abs() { *scale } else { extreme },
        );
    block.fill(0);
    if extreme.abs() < 1e-15 {
        return;
    }
    let inverse = -128.0 / extreme;
    let d = put_scale(block, 208, 1.0 / inverse);
    let mut codes = [0_u8; 256];
    for (idx, (group, (scale, searched))) in groups.iter().zip(found).enumerate() {
        let stored = nearest(inverse * scale).min(127) as i8;
        block[192 + idx] = stored.cast_unsigned();
        let scale = d * f32::from(stored);
        for (j, x) in group.iter().enumerate() {
            // A stored scale of zero leaves the codes of the search, which all stand for zero.
            let code = if scale == 0.0 { searched[j] as i32 } else { nearest(x / scale) };
            codes[idx * 16 + j] = (code.clamp(-32, 31) + 32) as u8;
        }
    }
    for (half, codes) in codes.chunks_exact(128).enumerate() {
        for j in 0..32 {
            let plane = |n: usize| codes[n * 32 + j];
            let bytes = &mut block[half * 64..];
            bytes[j] = plane(0) & 0x0f | plane(2) << 4;
            bytes[j + 32] = plane(1) & 0x0f | plane(3) << 4;
            block[128 + half * 32 + j] =
                plane(0) >> 4 | plane(1) >> 4 << 2 | plane(2) >> 4 << 4 | plane(3) >> 4 << 6;
        }
    }
}

/// Writes d, d_min and the packed scales of eight groups to `head` and returns the codes.
fn with_minimum(values: &[f32; 256], grid: &Grid, head: &mut [u8]) -> [u8; 256] {
    let (groups, _) = values.as_chunks::<32>();
    let found: Vec<Fit> = groups.iter().map(|group| scale_and_min(group, grid)).collect();
    let max_scale = found.iter().fold(0.0_f32, |max, group| max.max(group.scale));
    let max_min = found.iter().fold(0.0_f32, |max, group| max.max(group.min));
    let per_code = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
    let (scale_codes, min_codes) = (per_code(max_scale), per_code(max_min));
    let d = put_scale(head, 0, max_scale / 63.0);
    let d_min = put_scale(head, 2, max_min / 63.0);
    let packed = &mut head[4..16];
    packed.fill(0);
    let mut codes = [0_u8; 256];
    for (idx, (group, found)) in groups.iter().zip(found).enumerate() {
        let searched = found.codes;
        let scale = (nearest(scale_codes * found.scale) as u8).min(63);
        let min = (nearest(min_codes * found.min) as u8).min(63);
        pack(packed, idx, scale, min);
        let (scale, min) = (d * f32::from(scale), d_min * f32::from(min));
        for (j, x) in group.iter().enumerate() {
            // A stored scale of zero leaves the codes of the search, which all stand for one value.
            let code = if scale == 0.0 { searched[j] as i32 } else { nearest((x + min) / scale) };
            codes[idx * 32 + j] = code.clamp(0, i32::from(grid.max_code)) as u8;
        }
    }
    codes
}

/// Stores a pair of six bits; the inverse of `six_bits` in `dequantize`.
fn pack(packed: &mut [u8], idx: usize, scale: u8, min: u8) {
    if idx < 4 {
        packed[idx] |= scale;
        packed[idx + 4] |= min;
    } else {
        packed[idx + 4] = scale & 0x0f | (min & 0x0f) << 4;
        packed[idx - 4] |= scale >> 4 << 6;
        packed[idx] |= min >> 4 << 6;
    }
}
