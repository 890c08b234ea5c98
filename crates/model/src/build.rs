//! Building modules parameter by parameter, from seeded random numbers or from files.
//!
//! A module requests each of its parameters by its Hugging Face name, in module order, from a
//! [`ParameterSource`].

use std::collections::BTreeMap;

use arch::{Init, ParamSpec, RopeParameters, RopeTable};
use burn::tensor::{Device, Tensor, TensorData};
use kernels::{PackedFormat, PackedLayout, TensorType};
use nn::{Conv1d, Embedding, LayerNorm, Linear, RmsNorm, RopeTables, Weight};
use seed::{Purpose, Rng};

use crate::Result;

/// A source of parameter values.
pub trait ParameterSource {
    /// The values of one parameter in row-major order, as many as the shape says.
    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;

    /// The codes of a weight `[out, in]` that is packed into 4 or 8 bits; `None` if it is not.
    fn packed(&mut self, _: &str, _: &[usize]) -> Result<Option<(Vec<u8>, PackedLayout)>> {
        Ok(None)
    }

    /// The blocks of a matrix that is kept in those of a GGUF file; `None` to read its values.
    fn blocks(&mut self, _: &str, _: &[usize]) -> Result<Option<(TensorType, Vec<u8>)>> {
        Ok(None)
    }

    /// The format in which the weight of a linear layer is packed as soon as it is read; `None` to keep it dense.
    fn packs(&self, _: &str) -> Option<PackedFormat> {
        None
    }
}

/// Starting values by a family's papers, each parameter's keyed by its name, so they do not depend on the model's other
/// parameters.
pub(crate) struct SeededInit {
    init: BTreeMap<String, Init>,
    seed: u64,
}

impl SeededInit {
    pub(crate) fn new(specs: Vec<ParamSpec>, seed: u64) -> Self {
        Self { init: specs.into_iter().map(|spec| (spec.name, spec.init)).collect(), seed }
    }
}

impl ParameterSource for SeededInit {
    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let n = shape.iter().product();
        let Some(init) = self.init.get(name) else {
            let (path, name) = ("the table of parameters".into(), name.to_owned());
            return Err(tensor_file::Error::MissingTensor { path, name, more: 0 }.into());
        };
        Ok(match init {
            Init::Zeros => vec![0.0; n],
            Init::Ones => vec![1.0; n],
            Init::Normal { std } => {
                normal_values(n, seed::derive(self.seed, name, Purpose::Init, 0, 0), *std)
            }
        })
    }
}

/// The first `n` normal values of a stream. One thread would take seconds for a model of 135 million parameters.
fn normal_values(n: usize, key: u64, std: f64) -> Vec<f32> {
    // Two values take two numbers of the stream, and parts begin at even values.
    kernels::fill_parts(n, |start, part| Rng::at(key, start as u64).fill_normal(part, std))
}

/// Reads the parameters of one module after the other from a source.
pub(crate) struct Builder<'a> {
    source: &'a mut dyn ParameterSource,
    device: &'a Device,
    prefix: String,
    rounds_frequencies: bool,
    /// Parameters that stay f32, where the matrices are stored in bf16.
    keeps: Option<Keeps<'a>>,
}

/// Accepts the names of parameters that stay f32.
pub(crate) type Keeps<'a> = &'a dyn Fn(&str) -> bool;

impl<'a> Builder<'a> {
    pub(crate) fn new(source: &'a mut dyn ParameterSource, device: &'a Device) -> Self {
        let prefix = String::new();
        Self { source, device, prefix, rounds_frequencies: false, keeps: None }
    }

    /// Rounds matrices to bf16 as they are read, those of [`crate::store_in_bf16`]. The whole model is never in f32.
    pub(crate) fn storing_in_bf16(self, keeps: Keeps<'a>) -> Self {
        Self { keeps: Some(keeps), ..self }
    }

    /// Rounds RoPE's frequencies to bf16: those of a torch module that was cast to bf16 as a whole.
    pub(crate) fn rounding_frequencies(self) -> Self {
        Self { rounds_frequencies: true, ..self }
    }

    /// What computes rotary angles.
    pub(crate) fn table_source(&self) -> TableSource {
        TableSource { rounds_frequencies: self.rounds_frequencies, device: self.device.clone() }
    }

    /// The same source for an inner module: its names start with `name` and a dot.
    pub(crate) fn inside(&mut self, name: &str) -> Builder<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        Builder {
            source: &mut *self.source,
            device: self.device,
            prefix,
            rounds_frequencies: self.rounds_frequencies,
            keeps: self.keeps,
        }
    }

    pub(crate) fn tensor<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Tensor<D>> {
        let name = format!("{}{name}", self.prefix);
        let values = self.source.values(&name, &shape)?;
        let tensor = Tensor::from_data(TensorData::new(values, shape), self.device);
        let is_matrix = D == 2 && shape.first() != Some(&1);
        match self.keeps {
            Some(keeps) if is_matrix && !tensor.is_autodiff() && !keeps(&name) => {
                Ok(kernels::round_weight(tensor))
            }
            _ => Ok(tensor),
        }
    }

    /// A matrix in blocks, if the source keeps them.
    fn blocks(&mut self, full_name: &str, dims: [usize; 2]) -> Result<Option<Weight>> {
        let blocks = self.source.blocks(full_name, &dims)?;
        Ok(blocks.map(|(ty, bytes)| Weight::blocks(bytes, ty, dims)))
    }

    fn bias(&mut self, name: &str, width: usize, present: bool) -> Result<Option<Tensor<1>>> {
        if present { self.tensor(&format!("{name}.bias"), [width]).map(Some) } else { Ok(None) }
    }

    pub(crate) fn linear(
        &mut self,
        name: &str,
        d_in: usize,
        d_out: usize,
        bias: bool,
    ) -> Result<Linear> {
        let full_name = format!("{}{name}.weight", self.prefix);
        if let Some(weight) = self.blocks(&full_name, [d_out, d_in])? {
            return Ok(Linear::of_weight(weight, self.bias(name, d_out, bias)?));
        }
        let weight = match self.source.packed(&full_name, &[d_out, d_in])? {
            Some((codes, layout)) => {
                let codes = kernels::codes_tensor(codes, &layout, &self.device.clone().inner());
                Weight::packed(codes, layout, self.device.clone())
            }
            None => {
                let weight = Weight::new(self.tensor(&format!("{name}.weight"), [d_out, d_in])?);
                match self.source.packs(&full_name) {
                    Some(format) => weight.pack(format),
                    None => weight,
                }
            }
        };
        Ok(Linear::of_weight(weight, self.bias(name, d_out, bias)?))
    }

    pub(crate) fn conv1d(
        &mut self,
        name: &str,
        d_in: usize,
        d_out: usize,
        bias: bool,
    ) -> Result<Conv1d> {
        let weight = self.tensor(&format!("{name}.weight"), [d_in, d_out])?;
        Ok(Conv1d::new(weight, self.bias(name, d_out, bias)?))
    }

    pub(crate) fn embedding(&mut self, name: &str, rows: usize, width: usize) -> Result<Embedding> {
        let full_name = format!("{}{name}.weight", self.prefix);
        Ok(match self.blocks(&full_name, [rows, width])? {
            Some(weight) => Embedding::of_weight(weight),
            None => Embedding::new(self.tensor(&format!("{name}.weight"), [rows, width])?),
        })
    }

    pub(crate) fn rms_norm(&mut self, name: &str, width: usize, eps: f64) -> Result<RmsNorm> {
        Ok(RmsNorm::new(self.tensor(&format!("{name}.weight"), [width])?, eps))
    }

    pub(crate) fn layer_norm(
        &mut self,
        name: &str,
        width: usize,
        bias: bool,
        eps: f64,
    ) -> Result<LayerNorm> {
        let weight = self.tensor(&format!("{name}.weight"), [width])?;
        Ok(LayerNorm::new(weight, self.bias(name, width, bias)?, eps))
    }
}

/// Computes tables of rotary angles.
#[derive(Clone, Debug)]
pub(crate) struct TableSource {
    rounds_frequencies: bool,
    device: Device,
}

impl TableSource {
    /// The rotary angles of heads of width `head_dim` at positions `0..n_positions`.
    pub(crate) fn tables(
        &self,
        rope: &RopeParameters,
        head_dim: usize,
        n_positions: usize,
    ) -> RopeTables {
        let table = if self.rounds_frequencies {
            rounded_rope_table(rope, head_dim, n_positions)
        } else {
            rope.table(head_dim, n_positions)
        };
        RopeTables::new(table.cos, table.sin, table.n_positions, &self.device)
    }
}

/// The table of a module that was cast to bf16 as a whole: its frequencies are a buffer, so the cast rounds them too, and
/// angles are computed from the rounded frequencies in f32.
fn rounded_rope_table(rope: &RopeParameters, head_dim: usize, n_positions: usize) -> RopeTable {
    let frequencies = rope.inverse_frequencies(head_dim);
    let frequencies: Vec<f32> =
        frequencies.iter().map(|f| half::bf16::from_f32(*f as f32).to_f32()).collect();
    let factor = rope.attention_factor();
    let angles = (0..n_positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
    let (sin, cos) = angles
        .map(|angle| f64::from(angle).sin_cos())
        .map(|(sin, cos)| ((sin * factor) as f32, (cos * factor) as f32))
        .unzip();
    RopeTable { cos, sin, n_positions, half_width: frequencies.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_threads_are_those_of_one_stream() {
        for n in [1, 65_535, 65_536, 65_537, 200_001] {
            let mut want = vec![0.0; n];
            Rng::new(7).fill_normal(&mut want, 0.02);
            assert!(normal_values(n, 7, 0.02) == want, "{n}");
        }
    }
}
