//! Replays blocks of GGUF files: values of stored bytes, and the bytes that values are written as.

use std::path::Path;

use gguf::TensorType;

use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::Result;

/// Bytes against the values of the `gguf` package or ggml, to the bit, and values `x` against their bytes.
pub(super) fn replay(path: &Path) -> Result<Vec<Quantity>> {
    let file = Vectors::open(path)?;
    let x = file.has("x").then(|| file.floats("x")).transpose()?;
    let mut read = Quantity::new("dequantised");
    let mut written = Quantity::new("bytes");
    for ty in TensorType::ALL {
        let name = format!("{}.bytes", ty.name());
        if !file.has(&name) {
            continue;
        }
        let bytes = file.bytes(&name)?;
        let values = format!("{}.dequantised", ty.name());
        if file.has(&values) {
            let expected = file.floats(&values)?.values;
            let mut got = vec![0.0; expected.len()];
            if ty.bytes(expected.len() as u64) != Some(bytes.len() as u64) {
                return Err(file.bad(format!("`{name}` and `{values}` have different sizes")));
            }
            gguf::dequantize(ty, &bytes, &mut got);
            read.add(ty.name(), &got, &expected, Tolerance::absolute(0.0));
        }
        // Bytes of another size are not those of `x`.
        let x = x.as_ref().filter(|x| ty.bytes(x.values.len() as u64) == Some(bytes.len() as u64));
        if let Some(got) = x.and_then(|x| gguf::quantize(ty, &x.values)) {
            let n_wrong = got.iter().zip(&bytes).filter(|(got, want)| got != want).count();
            written.add_difference(Some(ty.name()), n_wrong as f64, 0.0, bytes.len());
        }
    }
    Ok([read, written].into_iter().filter(|quantity| quantity.n_compared > 0).collect())
}
