//! Token batches: ids, positions and segments of one shape, made from host slices.
//!
//! There is no attention mask of zeros and ones and no padding id: visibility follows from segments.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The segment of padded positions. They attend to each other only, and no other position attends to them.
pub const PAD_SEGMENT: i32 = -1;

/// Token ids with each token's position in its own text and the number of that text in its row.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// Token ids.
    pub ids_bt: Tensor<2, Int>,
    /// Position of each token, from 0 at the start of its own text.
    pub positions_bt: Tensor<2, Int>,
    /// Tokens attend within their segment only; [`PAD_SEGMENT`] for padding.
    pub segments_bt: Tensor<2, Int>,
    /// The segment that each token's text continues, or its own; `None`: no text continues another.
    pub prefixes: Option<Arc<Vec<i32>>>,
    /// Largest position in the batch, known on the host.
    pub max_position: usize,
}

impl TokenBatch {
    /// A batch of `rows` rows of `t` tokens each, row after row.
    ///
    /// The tensors are constants, so they are on `device` without autodiff.
    ///
    /// # Panics
    /// If a slice has another length than `rows * t`.
    pub fn new(
        ids: &[u32],
        positions: &[u32],
        segments: &[i32],
        rows: usize,
        t: usize,
        device: &Device,
    ) -> Self {
        let device = device.clone().inner();
        let ids = ids.iter().map(|id| *id as i32).collect();
        let max_position = positions.iter().max().map_or(0, |position| *position as usize);
        let positions = positions.iter().map(|position| *position as i32).collect();
        Self {
            ids_bt: int_tensor(ids, rows, t, &device),
            positions_bt: int_tensor(positions, rows, t, &device),
            segments_bt: int_tensor(segments.to_vec(), rows, t, &device),
            prefixes: None,
            max_position,
        }
    }

    /// The same batch, in which texts continue an earlier segment of their row, whose tokens they see: `prefixes` has that
    /// segment for each token, or the token's own. Positions must count on from the prefix.
    ///
    /// # Panics
    /// If there is not one for each token.
    #[must_use]
    pub fn with_prefixes(self, prefixes: Vec<i32>) -> Self {
        let [rows, t] = self.dims();
        assert_eq!(prefixes.len(), rows * t, "a prefix for each token");
        Self { prefixes: Some(Arc::new(prefixes)), ..self }
    }

    /// A batch in which each row is one text: positions count from 0, no padding.
    pub fn of_rows(ids: &[u32], rows: usize, device: &Device) -> Self {
        let t = ids.len() / rows.max(1);
        let positions: Vec<u32> = (0..rows).flat_map(|_| 0..t as u32).collect();
        Self::new(ids, &positions, &vec![0; ids.len()], rows, t, device)
    }

    /// Rows padded where `mask` is false, on either side; positions count the unpadded tokens.
    pub fn padded(ids: &[u32], mask: &[bool], rows: usize, device: &Device) -> Self {
        let t = ids.len() / rows.max(1);
        let mut positions = Vec::with_capacity(ids.len());
        let mut segments = Vec::with_capacity(ids.len());
        for row in mask.chunks(t.max(1)) {
            let mut next = 0;
            for real in row {
                // Padding gets position 0, which every position table has.
                positions.push(if *real { next } else { 0 });
                segments.push(if *real { 0 } else { PAD_SEGMENT });
                next += u32::from(*real);
            }
        }
        Self::new(ids, &positions, &segments, rows, t, device)
    }

    /// `[rows, tokens in a row]`.
    pub fn dims(&self) -> [usize; 2] {
        self.ids_bt.dims()
    }
}

fn int_tensor(values: Vec<i32>, rows: usize, t: usize, device: &Device) -> Tensor<2, Int> {
    assert_eq!(values.len(), rows * t, "a batch of {rows} rows needs {t} values in each");
    Tensor::from_data(TensorData::new(values, [rows, t]), device)
}
