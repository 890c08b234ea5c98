//! Tables of rotary angles and their rows for a batch's positions.
//!
//! The angles come from arch, which computes them in f64 for each kind of scaling.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Cosines and sines of every position, one value for each pair of a head's halves.
#[derive(Clone, Debug)]
pub struct RopeTables {
    cos_pc: Tensor<2>,
    sin_pc: Tensor<2>,
}

impl RopeTables {
    /// Tables `[n_positions, c]`, row after row; a model's attention factor is already in them.
    ///
    /// They are constants, so they are on `device` without autodiff.
    ///
    /// # Panics
    /// If a table has another length than `n_positions * c`.
    pub fn new(cos: Vec<f32>, sin: Vec<f32>, n_positions: usize, device: &Device) -> Self {
        let device = device.clone().inner();
        let c = cos.len() / n_positions.max(1);
        let table = |values: Vec<f32>| {
            assert_eq!(values.len(), n_positions * c, "a table of {n_positions} positions");
            Tensor::from_data(TensorData::new(values, [n_positions, c]), &device)
        };
        Self { cos_pc: table(cos), sin_pc: table(sin) }
    }

    /// Number of positions.
    pub fn n_positions(&self) -> usize {
        let [n_positions, _] = self.cos_pc.dims();
        n_positions
    }

    /// The rows of each position: `(cos, sin)`, both `[b, t, c]`.
    ///
    /// # Panics
    /// If `max_position` is beyond the tables: the text is longer than the model's context.
    pub fn gather(
        &self,
        positions_bt: Tensor<2, Int>,
        max_position: usize,
    ) -> (Tensor<3>, Tensor<3>) {
        let n_positions = self.n_positions();
        assert!(
            max_position < n_positions,
            "position {max_position} of a model that reads {n_positions}"
        );
        let cos = kernels::embedding(self.cos_pc.clone(), positions_bt.clone());
        let sin = kernels::embedding(self.sin_pc.clone(), positions_bt);
        (cos, sin)
    }
}
