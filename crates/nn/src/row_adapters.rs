//! Adapters of which each row of a batch has one or none, so that several models on one base are one batch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

use crate::LoraAdapter;

/// The number of each row's adapter, or none: shared by all layers of a model.
///
/// It is set before each forward.
#[derive(Clone, Debug, Default)]
pub struct AdapterRows(Arc<Mutex<Vec<Option<usize>>>>);

impl AdapterRows {
    /// Sets the adapters of the rows of the forwards that follow.
    pub fn set(&self, rows: &[Option<usize>]) {
        let mut own = self.rows();
        own.clear();
        own.extend_from_slice(rows);
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Option<usize>>> {
        // A list of numbers is whole after a panic, too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The adapters of a layer, by number.
#[derive(Module, Debug)]
pub struct RowAdapters {
    adapters: Vec<Option<LoraAdapter>>,
    /// A of all of them below each other, `[R, in]`
    all_a: Param<Tensor<2>>,
    /// B of all of them beside each other, `[out, R]`
    all_b: Param<Tensor<2>>,
    #[module(skip)]
    rows: AdapterRows,
}

/// The adapters that the rows of a batch have.
#[derive(Debug)]
pub(crate) enum Chosen<'a> {
    /// No row has one.
    None,
    /// All rows have this one.
    One(&'a LoraAdapter),
    /// They differ.
    Several,
}

impl RowAdapters {
    /// Adapters of a layer, of which each has its number's place.
    ///
    /// # Panics
    /// If all are none, or one has dropout, a bias or other widths.
    pub fn new(adapters: Vec<Option<LoraAdapter>>, rows: AdapterRows) -> Self {
        let present = || adapters.iter().flatten();
        assert!(present().count() > 0, "no adapter");
        assert!(present().all(|lora| lora.low_rank().is_some()), "adapters with dropout or bias");
        let all_a = Tensor::cat(present().map(|lora| lora.lora_A.weight.val()).collect(), 0);
        let all_b = Tensor::cat(present().map(|lora| lora.lora_B.weight.val()).collect(), 1);
        let [all_a, all_b] = [all_a, all_b].map(Param::from_tensor);
        Self { adapters, all_a, all_b, rows }
    }

    /// The adapters of the rows that were set.
    pub(crate) fn chosen(&self) -> Chosen<'_> {
        let rows = self.rows.rows();
        let mut rows = rows.iter().map(|row| self.of_row(*row));
        let first = rows.next().flatten();
        let number = first.map(|(number, _)| number);
        if !rows.all(|row| row.map(|(number, _)| number) == number) {
            return Chosen::Several;
        }
        first.map_or(Chosen::None, |(_, lora)| Chosen::One(lora))
    }

    /// The adapter of a row, if it changes this layer.
    fn of_row(&self, row: Option<usize>) -> Option<(usize, &LoraAdapter)> {
        let number = row?;
        Some((number, self.adapters.get(number)?.as_ref()?))
    }

    /// See [`crate::Adapter::forward`].
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
        match self.chosen() {
            Chosen::None => y,
            Chosen::One(lora) => lora.forward(x, y),
            Chosen::Several => y + self.change(x),
        }
    }

    /// What the adapters of rows that differ add to the layer's output: `[b, .., in]` → `[b, .., out]`.
    ///
    /// One product with all factors A and one with all factors B: between them, what belongs to the adapters of other rows
    /// is multiplied with 0, so no row depends on another one's adapter.
    ///
    /// # Panics
    /// If there are not as many rows as were set.
    pub(crate) fn change<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut dims = x.dims();
        let n_rows = dims[0];
        let narrow = kernels::linear(x, self.all_a.val(), None);
        dims = dims.map(|_| 1);
        (dims[0], dims[D - 1]) = (n_rows, self.all_a.dims()[0]);
        let factors =
            Tensor::<D>::from_data(TensorData::new(self.factors(n_rows), dims), &narrow.device());
        kernels::linear(narrow * factors, self.all_b.val(), None)
    }

    /// For each row and each place of the narrow product, the scale of the row's adapter, and 0 for others.
    fn factors(&self, n_rows: usize) -> Vec<f32> {
        let rows = self.rows.rows();
        assert_eq!(rows.len(), n_rows, "the adapter of each row is set before a forward");
        let mut factors = Vec::with_capacity(n_rows * self.all_a.dims()[0]);
        for row in rows.iter() {
            for (number, lora) in self.adapters.iter().enumerate() {
                let Some(lora) = lora else { continue };
                let factor = if *row == Some(number) { lora.scale() as f32 } else { 0.0 };
                factors.extend(std::iter::repeat_n(factor, lora.rank()));
            }
        }
        factors
    }
}
