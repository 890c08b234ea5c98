//! Answers of models to prompts, and their comparison.
//!
//! A language model's answer has the greedy ids and the five largest logits at each position of the prompt and the greedy
//! ids, from one forward pass over both. A sequence classifier's answer is the score at the last token.

use generate::{Sampling, Settings, generate};
use model::{CausalLm, ScalarModel};
use nn::TokenBatch;
use serde::{Deserialize, Serialize};
use train::TrainedModel;

use crate::error::{Error, Result};
use crate::host_values::host_values;
use crate::verify::{Quantity, Tolerance};

/// Number of logits that are stored for each position.
const N_TOP: usize = 5;
/// Ids of greedy decoding, which uses a cache, must be those of the largest logits of one forward pass where these differ by
/// more than this.
const TIE: f32 = 1e-3;

/// An answer to a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// A language model's.
    Logits {
        /// The ids of greedy decoding, the end id included.
        greedy_ids: Vec<u32>,
        /// The ids of the five largest logits at each position of prompt and greedy ids, largest first.
        top_ids: Vec<Vec<u32>>,
        /// Their logits.
        top_logits: Vec<Vec<f32>>,
    },
    /// A sequence classifier's.
    Score {
        /// The score at the last token.
        score: f32,
    },
}

impl Answer {
    pub(super) fn none() -> Self {
        Self::Logits { greedy_ids: Vec::new(), top_ids: Vec::new(), top_logits: Vec::new() }
    }

    /// Whether all logits, or the score, are finite.
    pub(super) fn is_finite(&self) -> bool {
        match self {
            Self::Logits { top_logits, .. } => top_logits.iter().flatten().all(|x| x.is_finite()),
            Self::Score { score } => score.is_finite(),
        }
    }

    /// The largest magnitude of a logit or score.
    pub fn largest(&self) -> f32 {
        match self {
            Self::Logits { top_logits, .. } => {
                top_logits.iter().flatten().fold(0.0, |max, x| max.max(x.abs()))
            }
            Self::Score { score } => score.abs(),
        }
    }
}

/// A model whose exports have a proof.
pub trait ProvenModel: TrainedModel {
    /// The answer to a prompt of these ids, with at most `n_new` greedy ids. `eos_ids` end greedy decoding.
    ///
    /// Errors: a value that is not finite; greedy ids that are not those of the largest logits.
    fn answer(&self, ids: &[u32], n_new: usize, eos_ids: &[u32]) -> Result<Answer>;

    /// Compares a stored answer with this model's values at the same positions, and adds the differences to `to`. `place`
    /// names the prompt.
    fn compare(&self, ids: &[u32], stored: &Answer, place: &str, to: &mut Differences);

    /// The logits of each position of one text; of a sequence classifier the score at its end.
    fn outputs(&self, ids: &[u32]) -> Vec<Vec<f32>>;
}

/// The differences of all prompts.
#[derive(Debug)]
pub struct Differences {
    tolerance: f64,
    values: Quantity,
    greedy: (usize, usize),
    malformed: usize,
}

impl Differences {
    /// No differences yet; `name` is `logits` or `scores`.
    pub fn new(name: &str, tolerance: f64) -> Self {
        Self { tolerance, values: Quantity::new(name), greedy: (0, 0), malformed: 0 }
    }

    /// The largest difference of values, and the number of greedy ids that differ.
    pub fn finish(self) -> Vec<Quantity> {
        let mut quantities = vec![self.values];
        if self.malformed > 0 {
            quantities.push(Quantity::mistakes("answers_of_another_kind", self.malformed, 1));
        }
        if self.greedy.1 > 0 {
            quantities.push(Quantity::mistakes("greedy_ids", self.greedy.0, self.greedy.1));
        }
        quantities
    }

    fn add(&mut self, place: &str, got: &[f32], stored: &[f32]) {
        self.values.add(place, got, stored, Tolerance::absolute(self.tolerance));
    }
}

impl ProvenModel for CausalLm {
    fn answer(&self, ids: &[u32], n_new: usize, eos_ids: &[u32]) -> Result<Answer> {
        let settings = Settings {
            sampling: Sampling::greedy(),
            max_new_tokens: n_new,
            eos_ids: eos_ids.to_vec(),
            ..Settings::default()
        };
        let completions = generate(self, &[ids.to_vec()], &settings, 0, |_| ())?;
        let mut greedy_ids: Vec<u32> =
            completions.into_iter().flat_map(|completion| completion.tokens).collect();
        loop {
            let rows = logits(self, &[ids, &greedy_ids].concat());
            if rows.iter().flatten().any(|logit| !logit.is_finite()) {
                return Err(Error::NoProof { reason: "a logit is not a finite number".to_owned() });
            }
            let Some(wrong) = first_not_greedy(&rows, ids.len(), &greedy_ids, TIE) else {
                let (top_ids, top_logits) = rows.iter().map(|row| largest(row)).unzip();
                return Ok(Answer::Logits { greedy_ids, top_ids, top_logits });
            };
            if !self.config().rope_depends_on_length() {
                return Err(Error::NoProof {
                    reason: format!("greedy id {wrong} is not that of the largest logit"),
                });
            }
            // Angles changed with the length of the text, after this id was chosen.
            greedy_ids.truncate(wrong);
        }
    }

    fn compare(&self, ids: &[u32], stored: &Answer, place: &str, to: &mut Differences) {
        let Answer::Logits { greedy_ids, top_ids, top_logits } = stored else {
            to.malformed += 1;
            return;
        };
        let all = [ids, greedy_ids].concat();
        let vocab_size = self.config().vocab_size();
        let n_rows = all.len();
        let known = |id: &u32| (*id as usize) < vocab_size;
        let fits = top_ids.len() == n_rows
            && top_logits.len() == n_rows
            && n_rows <= self.config().max_positions()
            && all.iter().chain(top_ids.iter().flatten()).all(known)
            && top_ids.iter().zip(top_logits).all(|(a, b)| a.len() == b.len() && !a.is_empty());
        if !fits {
            to.malformed += 1;
            return;
        }
        let rows = logits(self, &all);
        for (position, (row, (top_ids, stored))) in
            rows.iter().zip(top_ids.iter().zip(top_logits)).enumerate()
        {
            let at = |id: &u32| row.get(*id as usize).copied().unwrap_or(f32::NAN);
            let got: Vec<f32> = top_ids.iter().map(at).collect();
            let place = format!("{place}, position {position}");
            to.add(&place, &got, stored);
            // No other logit may be among the largest.
            let smallest = stored.iter().copied().fold(f32::INFINITY, f32::min);
            let others = row.iter().enumerate().filter(|(id, _)| !top_ids.contains(&(*id as u32)));
            let largest = others.fold(f32::NEG_INFINITY, |max, (_, x)| max.max(*x));
            if largest > smallest {
                to.add(&place, &[largest], &[smallest]);
            }
        }
        let gap = 2.0 * to.tolerance as f32;
        to.greedy.0 += usize::from(first_not_greedy(&rows, ids.len(), greedy_ids, gap).is_some());
        to.greedy.1 += greedy_ids.len();
    }

    fn outputs(&self, ids: &[u32]) -> Vec<Vec<f32>> {
        logits(self, ids)
    }
}

impl ProvenModel for ScalarModel {
    fn answer(&self, ids: &[u32], _n_new: usize, _eos_ids: &[u32]) -> Result<Answer> {
        let score = score(self, ids);
        if score.is_finite() {
            return Ok(Answer::Score { score });
        }
        Err(Error::NoProof { reason: "a score is not a finite number".to_owned() })
    }

    fn compare(&self, ids: &[u32], stored: &Answer, place: &str, to: &mut Differences) {
        match stored {
            Answer::Score { score: stored } => to.add(place, &[score(self, ids)], &[*stored]),
            Answer::Logits { .. } => to.malformed += 1,
        }
    }

    fn outputs(&self, ids: &[u32]) -> Vec<Vec<f32>> {
        vec![vec![score(self, ids)]]
    }
}

/// The logits of each position of one text.
fn logits(model: &CausalLm, ids: &[u32]) -> Vec<Vec<f32>> {
    let batch = TokenBatch::of_rows(ids, 1, &model.backbone.device());
    let values = host_values(&model.logits(model.forward(&batch).hidden_btd));
    values.chunks(model.config().vocab_size()).map(<[f32]>::to_vec).collect()
}

fn score(model: &ScalarModel, ids: &[u32]) -> f32 {
    let batch = TokenBatch::of_rows(ids, 1, &model.backbone.device());
    let scores = model.scores_at(&batch, &[ids.len().saturating_sub(1)]);
    host_values(&scores).first().copied().unwrap_or(f32::NAN)
}

/// The number of the first greedy id whose logit is below the largest by more than `gap`.
fn first_not_greedy(
    rows: &[Vec<f32>],
    n_prompt: usize,
    greedy_ids: &[u32],
    gap: f32,
) -> Option<usize> {
    greedy_ids.iter().enumerate().position(|(idx, id)| {
        let Some(row) = rows.get(n_prompt + idx - 1) else { return true };
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Not a number counts as wrong.
        row.get(*id as usize).is_none_or(|own| (best - own).is_nan() || best - own > gap)
    })
}

/// The indices of the largest values, and these, largest first.
fn largest(row: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    let value = |id: &u32| row.get(*id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let by_value = |a: &u32, b: &u32| value(b).total_cmp(&value(a)).then(a.cmp(b));
    let n = N_TOP.min(order.len());
    if n < order.len() {
        order.select_nth_unstable_by(n, by_value);
        order.truncate(n);
    }
    order.sort_by(by_value);
    let values = order.iter().map(value).collect();
    (order, values)
}
