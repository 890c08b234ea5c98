//! Blocks against the `gguf` package (decoding) and ggml (encoding), to the bit.

use gguf::{TensorType, dequantize, is_written, quantize};

use crate::support::Vectors;

/// Every storage format but f32 and f16, which are plain conversions.
fn stored_formats() -> impl Iterator<Item = TensorType> {
    TensorType::ALL.into_iter().filter(|ty| !matches!(ty, TensorType::F32 | TensorType::F16))
}

#[test]
fn blocks_decode_to_the_values_of_the_gguf_package() {
    let vectors = Vectors::open("gguf.safetensors");
    let mut compared = 0;
    for ty in stored_formats() {
        let expected = vectors.floats(&format!("{}.dequantised", ty.name()));
        let mut values = vec![0.0; expected.len()];
        dequantize(ty, vectors.bytes(&format!("{}.bytes", ty.name())), &mut values);
        for (idx, (found, expected)) in values.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{} element {idx}", ty.name());
        }
        compared += 1;
    }
    let n_vectors = vectors
        .names()
        .filter(|name| name.rsplit_once('.').is_some_and(|(_, kind)| kind == "bytes"))
        .count();
    assert_eq!(compared, n_vectors, "formats in the file");
}

#[test]
fn small_blocks_encode_to_the_bytes_of_the_gguf_package() {
    let vectors = Vectors::open("gguf.safetensors");
    let x = vectors.floats("x");
    for ty in stored_formats().filter(|ty| is_written(*ty) && ty.block_elements() <= 32) {
        let bytes = quantize(ty, &x).unwrap();
        assert_eq!(bytes, vectors.bytes(&format!("{}.bytes", ty.name())), "{}", ty.name());
    }
}

#[test]
fn blocks_encode_to_the_bytes_of_ggml() {
    let vectors = Vectors::open("ggml.safetensors");
    let x = vectors.floats("x");
    let formats: Vec<TensorType> = stored_formats().filter(|ty| is_written(*ty)).collect();
    assert_eq!(formats.len(), 8, "every written format but f32 and f16");
    for ty in formats.into_iter().filter(|ty| *ty != TensorType::Bf16) {
        let bytes = quantize(ty, &x).unwrap();
        let expected = vectors.bytes(&format!("{}.bytes", ty.name()));
        let size = ty.block_bytes();
        for (idx, (found, expected)) in bytes.chunks(size).zip(expected.chunks(size)).enumerate() {
            assert_eq!(found, expected, "{} block {idx}", ty.name());
        }
        assert_eq!(bytes.len(), expected.len(), "{}", ty.name());
    }
}

#[test]
fn encoding_loses_at_most_a_step() {
    let x = Vectors::open("ggml.safetensors").floats("x");
    // The largest error relative to the largest magnitude of the block.
    let limits = [
        (TensorType::F32, 0.0),
        (TensorType::F16, 1e-3),
        (TensorType::Bf16, 4e-3),
        (TensorType::Q8_0, 5e-3),
        (TensorType::Q6K, 0.04),
        (TensorType::Q5K, 0.07),
        (TensorType::Q5_1, 0.07),
        (TensorType::Q5_0, 0.07),
        (TensorType::Q4K, 0.14),
        (TensorType::Q4_0, 0.14),
    ];
    for (ty, limit) in limits {
        let bytes = quantize(ty, &x).unwrap();
        let mut values = vec![0.0; x.len()];
        dequantize(ty, &bytes, &mut values);
        for (block, (found, x)) in values.chunks(256).zip(x.chunks(256)).enumerate() {
            let largest = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            let worst = found.iter().zip(x).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
            // Magnitudes below the range of f16 scales become zeros.
            if largest > 1e-6 {
                assert!(
                    worst <= limit * largest,
                    "{} block {block}: {worst} of {largest}",
                    ty.name()
                );
            }
        }
    }
}
