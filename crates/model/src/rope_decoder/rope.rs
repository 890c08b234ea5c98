//! Rotary angles of a batch: from a table, or computed for texts so long that their length changes the frequencies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arch::RopeParameters;
use burn::tensor::{Device, Int, Tensor, TensorData};
use nn::{Input, RopeTables};

use crate::build::{Builder, TableSource};

/// Positions that have angles from the start.
const FIRST_POSITIONS: usize = 4096;

/// A rotary embedding.
#[derive(Clone, Debug)]
pub(super) struct Rope {
    /// Angles that depend on positions alone, of as many positions as were needed so far: a context of millions would take
    /// gigabytes.
    tables: Arc<Mutex<RopeTables>>,
    /// Positions whose angles are in tables.
    n_tabled: usize,
    source: TableSource,
    parameters: RopeParameters,
    head_dim: usize,
    n_positions: usize,
}

impl Rope {
    /// The rotary embedding of heads of width `head_dim` at positions `0..n_positions`.
    pub(super) fn build(
        parameters: &RopeParameters,
        head_dim: usize,
        n_positions: usize,
        from: &Builder,
    ) -> Self {
        let n_tabled = parameters.fixed_up_to().map_or(n_positions, |n| n.min(n_positions));
        let source = from.table_source();
        let first = source.tables(parameters, head_dim, n_tabled.min(FIRST_POSITIONS));
        let (tables, parameters) = (Arc::new(Mutex::new(first)), parameters.clone());
        Self { tables, n_tabled, source, parameters, head_dim, n_positions }
    }

    /// Tables with the angles of a position.
    ///
    /// # Panics
    /// If the position is beyond the model's context.
    fn tables_up_to(&self, position: usize) -> RopeTables {
        let n = self.n_tabled;
        assert!(position < n, "position {position} of a model that reads {n}");
        // A panic of another thread leaves complete tables.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if position >= tables.n_positions() {
            let n = (position + 1).next_power_of_two().min(n);
            *tables = self.source.tables(&self.parameters, self.head_dim, n);
        }
        tables.clone()
    }

    /// Cosines and sines of each position: `[b, t, c]` each.
    ///
    /// # Panics
    /// If a position is beyond the model's context.
    pub(super) fn angles(&self, input: &Input) -> (Tensor<3>, Tensor<3>) {
        let last = input.max_position;
        match self.parameters.fixed_up_to() {
            Some(length) if last >= length => self.angles_by_length(input),
            Some(_) | None => self.tables_up_to(last).gather(input.positions_bt.clone(), last),
        }
    }

    /// Angles of texts of which at least one is so long that its length counts. A text's length is its last position in the
    /// batch plus one, so no text depends on another.
    fn angles_by_length(&self, input: &Input) -> (Tensor<3>, Tensor<3>) {
        let (n, last) = (self.n_positions, input.max_position);
        assert!(last < n, "position {last} of a model that reads {n}");
        let [b, t] = input.dims();
        let positions = host(&input.positions_bt);
        let segments = host(&input.segments_bt);
        let texts = || {
            let places = segments.iter().enumerate().map(|(idx, segment)| (idx / t, *segment));
            places.zip(positions.iter().map(|position| *position as usize))
        };
        let mut lengths = BTreeMap::new();
        for (text, position) in texts() {
            let length = lengths.entry(text).or_insert(0);
            *length = (*length).max(position + 1);
        }
        let tokens: Vec<(usize, usize)> =
            texts().map(|(text, position)| (position, lengths[&text])).collect();
        let table = self.parameters.table_of_tokens(self.head_dim, &tokens);
        let device = input.positions_bt.device();
        let shape = [b, t, table.half_width];
        (tensor(table.cos, shape, &device), tensor(table.sin, shape, &device))
    }
}

fn host(x_bt: &Tensor<2, Int>) -> Vec<i32> {
    x_bt.clone().into_data().convert::<i32>().iter::<i32>().collect()
}

fn tensor(values: Vec<f32>, shape: [usize; 3], device: &Device) -> Tensor<3> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
