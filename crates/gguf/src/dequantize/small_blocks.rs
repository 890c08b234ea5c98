//! Blocks of 32 elements with one scale, and a minimum in the formats that end in `_1`.
//!
//! The low halves of the bytes are the first 16 elements, the high halves the last 16; fifth bits are in a u32.

use super::scale_at;

pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = scale_at(block, 0);
    for (j, byte) in block[2..].iter().enumerate() {
        out[j] = f32::from(i16::from(byte & 0x0f) - 8) * scale;
        out[j + 16] = f32::from(i16::from(byte >> 4) - 8) * scale;
    }
}

pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, min) = (scale_at(block, 0), scale_at(block, 2));
    for (j, byte) in block[4..].iter().enumerate() {
        out[j] = f32::from(byte & 0x0f) * scale + min;
        out[j + 16] = f32::from(byte >> 4) * scale + min;
    }
}

pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = scale_at(block, 0);
    let high = fifth_bits(block, 2);
    for (j, byte) in block[6..].iter().enumerate() {
        let [low, up] = five_bits(*byte, high, j);
        out[j] = f32::from(i16::from(low) - 16) * scale;
        out[j + 16] = f32::from(i16::from(up) - 16) * scale;
    }
}

pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, min) = (scale_at(block, 0), scale_at(block, 2));
    let high = fifth_bits(block, 4);
    for (j, byte) in block[8..].iter().enumerate() {
        let [low, up] = five_bits(*byte, high, j);
        out[j] = f32::from(low) * scale + min;
        out[j + 16] = f32::from(up) * scale + min;
    }
}

pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = scale_at(block, 0);
    for (out, byte) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(byte.cast_signed()) * scale;
    }
}

fn fifth_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Elements `j` and `j + 16` of a block, each of five bits.
fn five_bits(byte: u8, high: u32, j: usize) -> [u8; 2] {
    let bit = |n: usize| ((high >> n) & 1) as u8 * 16;
    [byte & 0x0f | bit(j), byte >> 4 | bit(j + 16)]
}
