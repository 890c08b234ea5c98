//! Conversions of weights between the layouts of both sides.

use super::architecture::Architecture;

/// Numbers of heads of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heads {
    pub(super) queries: usize,
    pub(super) keys: usize,
}

/// Difference of a tensor between the two formats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Transform {
    /// Not at all.
    None,
    /// The two halves of a head's rows alternate in GGUF.
    PairRows {
        /// Heads among the rows.
        n_heads: usize,
    },
    /// GGUF has 1 more.
    AddOne,
    /// The axes are swapped.
    Transpose,
    /// A row of one element per input in GGUF, a matrix of one row elsewhere.
    Row,
}

impl Transform {
    /// The difference for tensor `hf_name` of a Hugging Face directory with the given number of axes there.
    pub(super) fn of(arch: &Architecture, hf_name: &str, heads: Heads) -> Self {
        let stem = hf_name.rsplit_once('.').map_or(hf_name, |(stem, _)| stem);
        let is_weight = hf_name.ends_with(".weight");
        if arch.pairs_rows && stem.ends_with(".q_proj") {
            return Self::PairRows { n_heads: heads.queries };
        }
        if arch.pairs_rows && stem.ends_with(".k_proj") {
            return Self::PairRows { n_heads: heads.keys };
        }
        if arch.adds_one && is_weight && stem.ends_with("norm") {
            return Self::AddOne;
        }
        if arch.transposes && is_weight && (stem.contains(".attn.") || stem.contains(".mlp.")) {
            return Self::Transpose;
        }
        if stem.ends_with(".shared_expert_gate") {
            return Self::Row;
        }
        Self::None
    }

    /// The shape in a Hugging Face directory of a tensor that has `shape` in GGUF; its own inverse but for [`Self::Row`].
    pub(super) fn hf_shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Transpose, [rows, columns]) => vec![*columns, *rows],
            (Self::Row, [n]) => vec![1, *n],
            _ => shape.to_vec(),
        }
    }

    /// The shape in GGUF of a tensor that has `shape` in a Hugging Face directory.
    pub(super) fn gguf_shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Row, [1, n]) => vec![*n],
            _ => self.hf_shape(shape),
        }
    }

    /// Converts values from GGUF's layout; `shape` is that in GGUF.
    pub(super) fn read(self, values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match self {
            Self::None | Self::Row => values,
            Self::AddOne => values.into_iter().map(|value| value - 1.0).collect(),
            Self::Transpose => transpose(&values, shape),
            Self::PairRows { n_heads } => move_rows(&values, shape, n_heads, unpaired),
        }
    }

    /// Whether the rows of a matrix are the same in both formats, in whatever order.
    pub(super) fn keeps_rows(self) -> bool {
        match self {
            Self::None | Self::PairRows { .. } => true,
            Self::AddOne | Self::Transpose | Self::Row => false,
        }
    }

    /// Moves rows from GGUF's order, if the transform keeps them.
    pub(super) fn read_rows(self, bytes: Vec<u8>, n_rows: usize) -> Vec<u8> {
        match self {
            Self::PairRows { n_heads } => move_rows(&bytes, &[n_rows], n_heads, unpaired),
            Self::None | Self::AddOne | Self::Transpose | Self::Row => bytes,
        }
    }

    /// Converts values to GGUF's layout; `shape` is that in the Hugging Face directory.
    pub(super) fn write(self, values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match self {
            Self::None | Self::Row => values,
            Self::AddOne => values.into_iter().map(|value| value + 1.0).collect(),
            Self::Transpose => transpose(&values, shape),
            Self::PairRows { n_heads } => {
                move_rows(&values, shape, n_heads, |half, row| row % half * 2 + row / half)
            }
        }
    }
}

/// A (rows, columns) matrix as (columns, rows); anything else as it is.
fn transpose(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let [rows, columns] = *shape else { return values.to_vec() };
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| values[row * columns + column]));
    }
    out
}

/// The row of a head whose halves do not alternate.
fn unpaired(half: usize, row: usize) -> usize {
    row % 2 * half + row / 2
}

/// Moves row `row` of every head to row `to(half, row)`, `half` being half the rows of a head.
fn move_rows<T: Copy>(
    values: &[T],
    shape: &[usize],
    n_heads: usize,
    to: impl Fn(usize, usize) -> usize,
) -> Vec<T> {
    let n_rows = shape.first().copied().unwrap_or(0);
    let width = values.len().checked_div(n_rows).unwrap_or(0);
    let head_rows = n_rows / n_heads.max(1);
    let mut out = values.to_vec();
    // Sizes that do not divide are refused when the configuration is read.
    if width == 0 || !head_rows.is_multiple_of(2) || head_rows * n_heads != n_rows {
        return out;
    }
    for (idx, row) in values.chunks_exact(width).enumerate() {
        let target = idx / head_rows * head_rows + to(head_rows / 2, idx % head_rows);
        out[target * width..(target + 1) * width].copy_from_slice(row);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_undoes_writing() {
        let values: Vec<f32> = (0..48).map(|n| n as f32).collect();
        for transform in [
            Transform::None,
            Transform::AddOne,
            Transform::Transpose,
            Transform::PairRows { n_heads: 2 },
        ] {
            let shape = [8, 6];
            let written = transform.write(values.clone(), &shape);
            let read = transform.read(written.clone(), &transform.gguf_shape(&shape));
            assert_eq!(read, values, "{transform:?}");
            assert_eq!(written == values, transform == Transform::None, "{transform:?}");
        }
    }

    #[test]
    fn halves_of_a_head_alternate() {
        let rows = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0].to_vec();
        let paired = Transform::PairRows { n_heads: 2 }.write(rows, &[8]);
        assert_eq!(paired, [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0]);
    }
}
