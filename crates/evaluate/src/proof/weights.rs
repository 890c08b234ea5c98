//! Comparison of written weights with those of the model, tensor by tensor.

use std::path::Path;

use arch::{Dtype, ModelInfo};
use gguf::FileType;
use model::{ParameterSource, SavedModel, WeightFiles, named_parameters, visit_tensors};

use crate::error::{Error, Result};

/// The type of exported weights, and how far it moves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// A directory, or an adapter.
    Directory(Dtype),
    /// A GGUF file.
    Gguf(FileType),
}

impl Rounding {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory(dtype) => dtype.name(),
            Self::Gguf(file_type) => file_type.name(),
        }
    }

    /// The accepted difference of a logit when a proof is replayed. Answers are those of the stored weights, computed in f32;
    /// the larger tolerance leaves room for readers that compute in 16 bits.
    pub fn tolerance(self) -> f64 {
        match self {
            Self::Directory(Dtype::F32) | Self::Gguf(FileType::F32) => 1e-3,
            Self::Directory(Dtype::Bf16 | Dtype::F16)
            | Self::Gguf(
                FileType::F16 | FileType::Bf16 | FileType::Q8_0 | FileType::Q4_0 | FileType::Q4KM,
            ) => 3e-2,
        }
    }

    /// The accepted difference of a logit from that of the model before it was rounded, where the largest logit has this
    /// magnitude. `None` for packed weights, which [`Self::largest_kl`] bounds.
    pub fn moves_logits_by(self, largest: f32) -> Option<f64> {
        match self {
            Self::Directory(Dtype::F32) | Self::Gguf(FileType::F32) => Some(1e-3),
            Self::Directory(Dtype::Bf16 | Dtype::F16)
            | Self::Gguf(FileType::F16 | FileType::Bf16) => {
                Some(3e-2 * f64::from(largest.max(1.0)))
            }
            Self::Gguf(FileType::Q8_0 | FileType::Q4_0 | FileType::Q4KM) => None,
        }
    }

    /// The accepted KL divergence of packed weights' next tokens from those of the weights before, in nats per token on the
    /// prompts of a proof; `None` for weights whose logits have a bound of their own. The fine-tuned SmolLM2-135M
    /// of docs/results.md moves by 0.003 in q8_0, 0.07 in q4_k_m and 0.45 in q4_0; the bounds refuse a model that is no longer
    /// the same.
    pub fn largest_kl(self) -> Option<f64> {
        match self {
            Self::Directory(_) | Self::Gguf(FileType::F32 | FileType::F16 | FileType::Bf16) => None,
            Self::Gguf(FileType::Q8_0) => Some(0.1),
            Self::Gguf(FileType::Q4KM) => Some(1.0),
            Self::Gguf(FileType::Q4_0) => Some(2.0),
        }
    }

    /// Whether weights are written as they are.
    pub(super) fn is_exact(self) -> bool {
        matches!(self, Self::Directory(Dtype::F32) | Self::Gguf(FileType::F32))
    }

    fn moves_weights_by(self) -> Movement {
        // A GGUF file has the weights of Gemma's norms plus 1, in f32: half its step between 1 and 2.
        const OF_NORMS: f32 = f32::EPSILON / 2.0;
        let (relative, absolute, of_largest) = match self {
            Self::Directory(Dtype::F32) => (0.0, 0.0, 0.0),
            // llama.cpp's scale of queries may be part of the weights.
            Self::Gguf(FileType::F32) => (2e-7, OF_NORMS, 0.0),
            // Half a unit in the last place.
            Self::Directory(Dtype::Bf16) => (2.0_f32.powi(-8), 0.0, 0.0),
            Self::Gguf(FileType::Bf16) => (2.0_f32.powi(-8), OF_NORMS, 0.0),
            // Below 6e-5 f16 has steps of 2^-24.
            Self::Directory(Dtype::F16) | Self::Gguf(FileType::F16) => {
                (2.0_f32.powi(-11), 2.0_f32.powi(-24), 0.0)
            }
            // Half a step of a block whose largest value is the tensor's.
            Self::Gguf(FileType::Q8_0) => (0.0, OF_NORMS, 0.6 / 127.0),
            // The smallest 4-bit blocks reach one end of their range only.
            Self::Gguf(FileType::Q4_0 | FileType::Q4KM) => (0.0, OF_NORMS, 0.14),
        };
        Movement { relative, absolute, of_largest }
    }
}

/// The accepted difference of a weight: the sum of these parts.
#[derive(Debug, Clone, Copy)]
struct Movement {
    /// Of the weight itself.
    relative: f32,
    absolute: f32,
    /// Of the largest weight of the tensor.
    of_largest: f32,
}

impl Movement {
    /// The index of the first weight that moved further.
    fn first_wrong(self, own: &[f32], written: &[f32]) -> Option<usize> {
        let largest = own.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let free = self.absolute + self.of_largest * largest;
        own.iter().zip(written).position(|(own, written)| {
            let difference = (own - written).abs();
            difference.is_nan() || difference > self.relative * own.abs() + free
        })
    }
}

/// Reads the weights of a directory or GGUF file back and compares each with the model's.
///
/// Errors: a weight differs by more than its type explains; a tensor is missing.
pub fn compare_weights<M: SavedModel>(model: &M, path: &Path, rounding: Rounding) -> Result<()> {
    let info = ModelInfo::read(path)?;
    // A GGUF file has numbers in f32, and a shorter context where llama.cpp has no windows.
    let same_config = gguf::is_gguf(path) || info.config == *model.config();
    if !same_config || info.architecture != M::ARCHITECTURE {
        return Err(Error::NoProof { reason: "config.json describes another model".to_owned() });
    }
    let file_parameters = model.file_parameters();
    let own: Vec<String> = named_parameters(model).into_iter().map(|param| param.name).collect();
    let parameters: Vec<_> =
        file_parameters.iter().filter(|spec| own.contains(&spec.name)).cloned().collect();
    let mut files = WeightFiles::open(path, &info.config, &parameters, &file_parameters)?;
    let movement = rounding.moves_weights_by();
    visit_tensors(model, |name, shape, values| {
        let written = files.values(name, shape)?;
        match movement.first_wrong(values, &written) {
            None => Ok(()),
            Some(at) => Err(Error::NoProof {
                reason: format!(
                    "element {at} of `{name}` is {} in the file and {} in the model",
                    written.get(at).copied().unwrap_or(f32::NAN),
                    values.get(at).copied().unwrap_or(f32::NAN),
                ),
            }),
        }
    })?;
    Ok(files.finish()?)
}

#[cfg(test)]
mod tests {
    use gguf::{TensorType, dequantize, quantize};

    use super::*;

    /// Small weights, of which f16 keeps few bits or none, beside ordinary ones.
    #[test]
    fn rounded_weights_are_those_of_the_model() {
        let values: Vec<f32> =
            (0..4000).map(|n| 0.4 * (n as f32 * 0.7).sin() * 2.0_f32.powi(-(n % 30))).collect();
        for (tensor_type, file_type) in
            [(TensorType::F16, FileType::F16), (TensorType::Bf16, FileType::Bf16)]
        {
            let bytes = quantize(tensor_type, &values).unwrap();
            let mut written = vec![0.0; values.len()];
            dequantize(tensor_type, &bytes, &mut written);
            let movement = Rounding::Gguf(file_type).moves_weights_by();
            assert_eq!(movement.first_wrong(&values, &written), None, "{file_type:?}");
            written[1] *= 1.01;
            assert_eq!(movement.first_wrong(&values, &written), Some(1), "{file_type:?}");
        }
    }

    /// Gemma's norms, from which 1 is subtracted when they are read.
    #[test]
    fn norms_are_stored_with_one_added() {
        let values: Vec<f32> = (0..1000).map(|n| 0.3 * (n as f32 * 0.7).sin()).collect();
        let written: Vec<f32> = values.iter().map(|x| (x + 1.0) - 1.0).collect();
        assert_ne!(values, written);
        for file_type in [FileType::F32, FileType::F16, FileType::Bf16] {
            let movement = Rounding::Gguf(file_type).moves_weights_by();
            assert_eq!(movement.first_wrong(&values, &written), None, "{file_type:?}");
        }
    }
}
