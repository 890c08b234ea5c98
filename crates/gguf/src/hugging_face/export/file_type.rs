//! Kinds of files, and the storage format of each tensor in them; the choices are those of `llama-quantize`.

use std::fmt;

use super::super::architecture::Architecture;
use crate::TensorType;

/// A kind of file by the format of most weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// Every tensor in f32.
    F32,
    /// Matrices in f16.
    F16,
    /// Matrices in bf16.
    Bf16,
    /// Matrices in blocks of 8-bit codes.
    Q8_0,
    /// Matrices in blocks of 4-bit codes, the head in Q6_K.
    Q4_0,
    /// Matrices in super-blocks of 4-bit codes, the more sensitive ones in Q6_K.
    Q4KM,
}

impl FileType {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4KM];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4KM => "q4_k_m",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.name() == name)
    }

    /// The value of `general.file_type`.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Bf16 => 32,
        }
    }

    fn most(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::Bf16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q4_0 => TensorType::Q4_0,
            Self::Q4KM => TensorType::Q4K,
        }
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Inputs of the choice besides a tensor's name and shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) file_type: FileType,
    pub(super) arch: &'static Architecture,
    pub(super) n_layers: usize,
    pub(super) n_experts: usize,
    /// Query heads share keys.
    pub(super) groups_queries: bool,
    /// The head is the embedding.
    pub(super) is_tied: bool,
}

impl Context {
    /// The storage format of the tensor `name` in GGUF with the given shape there.
    pub(super) fn tensor_type(self, name: &str, shape: &[usize]) -> TensorType {
        let is_small = shape.len() < 2
            || !name.ends_with(".weight")
            || ["_norm.weight", "ffn_gate_inp", "position_embd"].iter().any(|s| name.contains(s));
        if is_small {
            return TensorType::F32;
        }
        let n_columns = shape.last().copied().unwrap_or(1);
        let most = self.file_type.most();
        if most.block_elements() == 1 {
            return most;
        }
        fit(self.choose(most, name, n_columns), n_columns)
    }

    fn choose(self, most: TensorType, name: &str, n_columns: usize) -> TensorType {
        let is_head = name == "output.weight" || (self.is_tied && name == "token_embd.weight");
        if is_head {
            let is_whole = n_columns.is_multiple_of(most.block_elements());
            let keeps = !is_whole || most == TensorType::Q8_0;
            return if keeps { TensorType::Q8_0 } else { TensorType::Q6K };
        }
        let is_mixture = self.file_type == FileType::Q4KM;
        let layer = layer(name).unwrap_or(0);
        let more = is_mixture && uses_more_bits(layer, self.n_layers);
        let has = |part: &str| name.contains(part);
        if has("attn_v.weight") || has("attn_qkv.weight") {
            return match () {
                () if self.n_experts == 8 => TensorType::Q8_0,
                () if more => TensorType::Q6K,
                // Llama 70B: eight query heads share these weights, so they are small.
                () if is_mixture
                    && self.arch.gguf == "llama"
                    && self.n_layers == 80
                    && self.groups_queries =>
                {
                    TensorType::Q5K
                }
                () => most,
            };
        }
        match () {
            () if has("attn_k.weight") && self.n_experts == 8 => TensorType::Q8_0,
            () if has("attn_output.weight") && self.n_experts == 8 && is_mixture => TensorType::Q5K,
            () if has("ffn_down") && more => TensorType::Q6K,
            () => most,
        }
    }
}

/// The first and last eighth of the layers, and every third one between.
fn uses_more_bits(layer: usize, n_layers: usize) -> bool {
    let eighth = n_layers / 8;
    layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2
}

/// A format whose blocks divide a row: smaller blocks, else f16.
fn fit(ty: TensorType, n_columns: usize) -> TensorType {
    if n_columns.is_multiple_of(ty.block_elements()) {
        return ty;
    }
    let smaller = match ty {
        TensorType::Q4K => TensorType::Q5_0,
        TensorType::Q5K => TensorType::Q5_1,
        TensorType::Q6K => TensorType::Q8_0,
        TensorType::F32
        | TensorType::F16
        | TensorType::Bf16
        | TensorType::Q4_0
        | TensorType::Q4_1
        | TensorType::Q5_0
        | TensorType::Q5_1
        | TensorType::Q8_0
        | TensorType::Q2K
        | TensorType::Q3K
        | TensorType::Iq4Nl
        | TensorType::Iq4Xs => TensorType::F16,
    };
    if n_columns.is_multiple_of(smaller.block_elements()) { smaller } else { TensorType::F16 }
}

fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(file_type: FileType, n_layers: usize) -> Context {
        Context {
            file_type,
            arch: Architecture::of_model_type("llama").unwrap(),
            n_layers,
            n_experts: 0,
            groups_queries: true,
            is_tied: true,
        }
    }

    #[test]
    fn a_mixture_of_formats() {
        let of = |name: &str| context(FileType::Q4KM, 32).tensor_type(name, &[512, 2048]).name();
        assert_eq!(of("token_embd.weight"), "Q6_K");
        assert_eq!(of("blk.3.attn_v.weight"), "Q6_K");
        assert_eq!(of("blk.4.attn_v.weight"), "Q4_K");
        assert_eq!(of("blk.6.ffn_down.weight"), "Q6_K");
        assert_eq!(of("blk.7.ffn_down.weight"), "Q4_K");
        assert_eq!(of("blk.28.ffn_down.weight"), "Q6_K");
        assert_eq!(of("blk.3.attn_q.weight"), "Q4_K");
        assert_eq!(of("blk.3.attn_norm.weight"), "F32");
        assert_eq!(of("blk.3.ffn_gate_inp.weight"), "F32");
    }

    #[test]
    fn rows_that_are_no_whole_blocks() {
        let of = |ty, name: &str, columns| context(ty, 32).tensor_type(name, &[8, columns]).name();
        assert_eq!(of(FileType::Q4KM, "blk.9.attn_q.weight", 576), "Q5_0");
        assert_eq!(of(FileType::Q4KM, "blk.0.attn_v.weight", 576), "Q8_0");
        assert_eq!(of(FileType::Q4KM, "token_embd.weight", 576), "Q8_0");
        assert_eq!(of(FileType::Q4KM, "blk.9.attn_q.weight", 40), "F16");
        assert_eq!(of(FileType::Q4_0, "token_embd.weight", 576), "Q8_0");
        assert_eq!(of(FileType::Q4_0, "token_embd.weight", 512), "Q6_K");
        assert_eq!(of(FileType::Q8_0, "token_embd.weight", 512), "Q8_0");
        assert_eq!(of(FileType::Q8_0, "blk.9.attn_q.weight", 40), "F16");
    }
}
