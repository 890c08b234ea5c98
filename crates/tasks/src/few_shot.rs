//! Selection of few-shot examples as in lm-evaluation-harness's samplers.

use std::collections::BTreeMap;

use data::Row;
use serde_json::{Map, Value};

use crate::definition::RowsKey;
use crate::python_random::PythonRandom;

/// Seed of lm-evaluation-harness's `fewshot_random_seed`.
pub(crate) const SEED: u64 = 1234;

/// Examples and the state of their selection.
pub(crate) struct FewShot {
    /// Rows to select from.
    pub(crate) pool: Vec<Row>,
    rows: RowsKey,
    seed: u64,
    /// Whether the row of the prompt is left out, and one example more is drawn for that.
    leave_out_row: bool,
    /// Column that must be equal in the prompt's row and in an example.
    same: Option<String>,
    /// Members of the pool and the generator, by the value of `same`.
    groups: BTreeMap<String, (Vec<usize>, PythonRandom)>,
}

impl FewShot {
    pub(crate) fn new(
        pool: Vec<Row>,
        rows: RowsKey,
        seed: u64,
        leave_out_row: bool,
        same: Option<String>,
    ) -> Self {
        Self { pool, rows, seed, leave_out_row, same, groups: BTreeMap::new() }
    }

    /// Indices of `k` examples for a row, in the order of the prompt; the error is a sentence.
    ///
    /// Random examples depend on all rows before: each call advances the generator.
    pub(crate) fn select(
        &mut self,
        row: &Map<String, Value>,
        k: usize,
    ) -> Result<Vec<usize>, String> {
        if k == 0 {
            return Ok(Vec::new());
        }
        let key = self.key(row)?;
        if !self.groups.contains_key(&key) {
            let members = self.members(&key)?;
            self.groups.insert(key.clone(), (members, PythonRandom::new(self.seed)));
        }
        let Some((members, random)) = self.groups.get_mut(&key) else { return Ok(Vec::new()) };
        let pool = &self.pool;
        let is_other = |idx: &usize| pool.get(*idx).is_none_or(|other| other.columns != *row);
        let too_few = |n: usize| format!("the number of rows to choose from is {n}");
        if self.rows == RowsKey::First {
            let others = members.iter().copied();
            let mut selected: Vec<usize> =
                others.filter(|idx| !self.leave_out_row || is_other(idx)).collect();
            if selected.len() < k {
                return Err(too_few(selected.len()));
            }
            selected.truncate(k);
            return Ok(selected);
        }
        let n_drawn = k.saturating_add(usize::from(self.leave_out_row));
        let drawn = random.sample(members.len(), n_drawn).ok_or_else(|| too_few(members.len()))?;
        let mut selected: Vec<usize> =
            drawn.into_iter().filter_map(|at| members.get(at).copied()).collect();
        if self.leave_out_row {
            selected.retain(is_other);
            selected.truncate(k);
        }
        if selected.len() < k {
            // Copies of the row were drawn more than once: it draws again among the others.
            let others: Vec<usize> = members.iter().copied().filter(is_other).collect();
            let drawn = random.sample(others.len(), k).ok_or_else(|| too_few(others.len()))?;
            selected = drawn.into_iter().filter_map(|at| others.get(at).copied()).collect();
        }
        Ok(selected)
    }

    fn key(&self, row: &Map<String, Value>) -> Result<String, String> {
        match &self.same {
            None => Ok(String::new()),
            Some(column) => match row.get(column) {
                Some(value) => Ok(value.to_string()),
                None => Err(format!("no column `{column}`, which few_shot.same names")),
            },
        }
    }

    fn members(&self, key: &str) -> Result<Vec<usize>, String> {
        let mut members = Vec::new();
        for (idx, example) in self.pool.iter().enumerate() {
            let own = self.key(&example.columns);
            if own.map_err(|problem| format!("{}: {problem}", example.location))? == *key {
                members.push(idx);
            }
        }
        Ok(members)
    }
}
