//! Blocks of 32 elements with one scale, found from the extremes of the block.

use super::put_scale;

pub(super) fn q4_0(values: &[f32; 32], block: &mut [u8; 18]) {
    let scale = signed_extreme(values) / -8.0;
    let inverse = inverse(scale);
    put_scale(block, 0, scale);
    let code = |x: f32| ((x * inverse + 8.5) as i8).min(15) as u8;
    for (j, byte) in block[2..].iter_mut().enumerate() {
        *byte = code(values[j]) | code(values[j + 16]) << 4;
    }
}

pub(super) fn q5_0(values: &[f32; 32], block: &mut [u8; 22]) {
    let scale = signed_extreme(values) / -16.0;
    let inverse = inverse(scale);
    put_scale(block, 0, scale);
    let (head, codes) = block.split_at_mut(6);
    let high = five_bits(values, codes, |x| ((x * inverse + 16.5) as i8).min(31) as u8);
    head[2..6].copy_from_slice(&high.to_le_bytes());
}

pub(super) fn q5_1(values: &[f32; 32], block: &mut [u8; 24]) {
    let min = values.iter().copied().fold(f32::MAX, f32::min);
    let max = values.iter().copied().fold(-f32::MAX, f32::max);
    let scale = (max - min) / 31.0;
    let inverse = inverse(scale);
    put_scale(block, 0, scale);
    put_scale(block, 2, min);
    let (head, codes) = block.split_at_mut(8);
    let high = five_bits(values, codes, |x| ((x - min) * inverse + 0.5) as u8);
    head[4..8].copy_from_slice(&high.to_le_bytes());
}

pub(super) fn q8_0(values: &[f32; 32], block: &mut [u8; 34]) {
    let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    put_scale(block, 0, scale);
    for (byte, x) in block[2..].iter_mut().zip(values) {
        *byte = ((x * inverse).round() as i8).cast_unsigned();
    }
}

/// The value of largest magnitude, the first one of equals.
fn signed_extreme(values: &[f32; 32]) -> f32 {
    values.iter().fold(0.0_f32, |extreme, x| if x.abs() > extreme.abs() { *x } else { extreme })
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Stores the low four bits of each code and returns the fifth ones.
fn five_bits(values: &[f32; 32], codes: &mut [u8], code: impl Fn(f32) -> u8) -> u32 {
    let mut high = 0;
    for (j, byte) in codes.iter_mut().enumerate() {
        let (low, up) = (code(values[j]), code(values[j + 16]));
        *byte = low & 0x0f | (up & 0x0f) << 4;
        high |= u32::from(low >> 4 & 1) << j | u32::from(up >> 4 & 1) << (j + 16);
    }
    high
}
