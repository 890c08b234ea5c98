//! ggml's storage formats of tensors: names, sizes of blocks, and their conversion to f32. Every value equals ggml's to the bit.
//!
//! Conversions are always inlined, so that a caller that is compiled for more instructions converts with them.

mod iq4;
mod k_quants;
mod small_blocks;
mod tensor_type;

pub use small_blocks::{q4_0, q4_1, q8_0};
pub use tensor_type::TensorType;

/// Converts whole blocks to f32.
///
/// Blocks after the last of either slice are ignored.
#[inline(always)]
#[allow(clippy::inline_always)]
pub fn decode(ty: TensorType, bytes: &[u8], out: &mut [f32]) {
    match ty {
        TensorType::F32 => blocks(bytes, out, |b, out: &mut [f32; 1]| {
            out[0] = f32::from_le_bytes(*b);
        }),
        TensorType::F16 => blocks(bytes, out, |b, out: &mut [f32; 1]| {
            out[0] = f16_to_f32(u16::from_le_bytes(*b));
        }),
        TensorType::Bf16 => blocks(bytes, out, |b, out: &mut [f32; 1]| {
            out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
        }),
        TensorType::Q4_0 => blocks(bytes, out, small_blocks::q4_0),
        TensorType::Q4_1 => blocks(bytes, out, small_blocks::q4_1),
        TensorType::Q5_0 => blocks(bytes, out, small_blocks::q5_0),
        TensorType::Q5_1 => blocks(bytes, out, small_blocks::q5_1),
        TensorType::Q8_0 => blocks(bytes, out, small_blocks::q8_0),
        TensorType::Q2K => blocks(bytes, out, k_quants::q2_k),
        TensorType::Q3K => blocks(bytes, out, k_quants::q3_k),
        TensorType::Q4K => blocks(bytes, out, k_quants::q4_k),
        TensorType::Q5K => blocks(bytes, out, k_quants::q5_k),
        TensorType::Q6K => blocks(bytes, out, k_quants::q6_k),
        TensorType::Iq4Nl => blocks(bytes, out, iq4::iq4_nl),
        TensorType::Iq4Xs => blocks(bytes, out, iq4::iq4_xs),
    }
}

/// Applies `convert` to each block of `B` bytes and its `N` elements.
#[inline(always)]
#[allow(clippy::inline_always)]
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    convert: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let (bytes, _) = bytes.as_chunks::<B>();
    let (out, _) = out.as_chunks_mut::<N>();
    for (bytes, out) in bytes.iter().zip(out) {
        if N == 1 {
            convert(bytes, out);
            continue;
        }
        // Loops within a block become vector instructions. Without the barrier, the compiler may take the same element of several
        // blocks instead, byte by byte.
        let block = *std::hint::black_box(bytes);
        convert(&block, out);
    }
}

/// The f16 at a position of a block.
#[inline(always)]
#[allow(clippy::inline_always)]
fn scale_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// The value of a number in half precision, without a branch and without instructions that must be looked for.
#[inline(always)]
#[allow(clippy::inline_always)]
fn f16_to_f32(bits: u16) -> f32 {
    /// 2^112: the difference of the two formats' exponents.
    const SHIFT: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = u32::from(bits & 0x7fff);
    // Exact for numbers below the smallest normal one too.
    let finite = (f32::from_bits(magnitude << 13) * SHIFT).to_bits();
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(finite | special | u32::from(bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::f16_to_f32;

    #[test]
    fn halves_have_their_values() {
        for bits in 0..=u16::MAX {
            let (got, want) = (f16_to_f32(bits), half::f16::from_bits(bits).to_f32());
            let equal = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(equal, "{bits:#x}: {got} {want}");
        }
    }
}
