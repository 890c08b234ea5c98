//! Blocks of 32 elements with one scale, and a minimum in the formats that end in `_1`.
//!
//! The low halves of the bytes are the first 16 elements, the high halves the last 16; fifth bits are in a u32.

use super::scale_at;

/// A block of `Q4_0`.
#[inline(always)]
#[allow(clippy::inline_always)]
pub fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = scale_at(block, 0);
    for (out, code) in out.iter_mut().zip(half_bytes(&block[2..])) {
        *out = f32::from(i16::from(code) - 8) * scale;
    }
}

/// A block of `Q4_1`.
#[inline(always)]
#[allow(clippy::inline_always)]
pub fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, min) = (scale_at(block, 0), scale_at(block, 2));
    for (out, code) in out.iter_mut().zip(half_bytes(&block[4..])) {
        *out = f32::from(code) * scale + min;
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = scale_at(block, 0);
    let high = fifth_bits(block, 2);
    for (j, byte) in block[6..].iter().enumerate() {
        let [low, up] = five_bits(*byte, high, j);
        out[j] = f32::from(i16::from(low) - 16) * scale;
        out[j + 16] = f32::from(i16::from(up) - 16) * scale;
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, min) = (scale_at(block, 0), scale_at(block, 2));
    let high = fifth_bits(block, 4);
    for (j, byte) in block[8..].iter().enumerate() {
        let [low, up] = five_bits(*byte, high, j);
        out[j] = f32::from(low) * scale + min;
        out[j + 16] = f32::from(up) * scale + min;
    }
}

/// A block of `Q8_0`.
#[inline(always)]
#[allow(clippy::inline_always)]
pub fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = scale_at(block, 0);
    for (out, byte) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(byte.cast_signed()) * scale;
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn fifth_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Elements `j` and `j + 16` of a block, each of five bits.
#[inline(always)]
#[allow(clippy::inline_always)]
fn five_bits(byte: u8, high: u32, j: usize) -> [u8; 2] {
    let bit = |n: usize| ((high >> n) & 1) as u8 * 16;
    [byte & 0x0f | bit(j), byte >> 4 | bit(j + 16)]
}

/// The lower halves of 16 bytes, then the upper ones. Conversions of all of them at once become vector instructions.
#[inline(always)]
#[allow(clippy::inline_always)]
fn half_bytes(bytes: &[u8]) -> [u8; 32] {
    let mut halves = [0; 32];
    for (j, byte) in bytes.iter().enumerate() {
        halves[j] = byte & 0x0f;
        halves[j + 16] = byte >> 4;
    }
    halves
}
