//! Replays greedy continuations: of one prompt, and of left-padded prompts, whose continuations must not depend on the
//! batch.
//!
//! generate samples the ids. The logits of each step are computed from the reference's ids, so that a near tie does not
//! affect later steps.

use std::path::Path;

use arch::ModelConfig;
use generate::{Decoder, Sampling, Settings, generate};
use model::CausalLm;

use super::report::{Quantity, Tolerance};
use super::vectors::{Array, Vectors};
use crate::error::Result;
use crate::host_values::host_values;

/// Ids must equal the reference's where its two largest logits differ by more than this.
const TIE: f32 = 1e-4;

/// Compares both continuations of a file. The reference never samples `eos_ids`.
pub(super) fn compare(
    model: &CausalLm,
    path: &Path,
    eos_ids: &[u32],
    to: &mut Vec<Quantity>,
) -> Result<()> {
    let file = Vectors::open(path)?;
    let prompt = file.ids("prompt")?;
    let all = vec![true; prompt.values.len()];
    let alone = Continuation::read(&file, model.config(), &prompt, &all, "sequence", "logits")?;
    alone.compare(model, eos_ids, "greedy", to)?;

    let prompts = file.ids("left_padded_prompts")?;
    let mask = file.mask("left_padded_mask", &prompts.shape)?;
    let names = ("left_padded_sequences", "left_padded_logits");
    let padded = Continuation::read(&file, model.config(), &prompts, &mask, names.0, names.1)?;
    padded.compare(model, eos_ids, "left_padded", to)
}

/// Compares the logits of a continuation in which RoPE's frequencies change. The prompt is the part before the logits.
pub(super) fn compare_crossing(
    model: &CausalLm,
    file: &Vectors,
    to: &mut Vec<Quantity>,
) -> Result<()> {
    let sequence = file.ids("crossing_sequence")?;
    let logits = file.floats("crossing_logits")?;
    let n_new = logits.shape.get(1).copied().unwrap_or(0);
    let n_prompt = sequence.values.len().saturating_sub(n_new);
    let prompt = Array {
        shape: vec![1, n_prompt],
        values: sequence.values.iter().take(n_prompt).copied().collect(),
    };
    let all = vec![true; n_prompt];
    let crossing = Continuation::read(
        file,
        model.config(),
        &prompt,
        &all,
        "crossing_sequence",
        "crossing_logits",
    )?;
    to.push(crossing.compare_logits(model, "crossing_logits"));
    Ok(())
}

/// Prompts and the reference's continuations.
struct Continuation {
    prompts: Vec<Vec<u32>>,
    /// The new ids of each prompt.
    ids: Vec<Vec<u32>>,
    /// `[prompts, n_new, v]`.
    logits: Vec<f32>,
    n_new: usize,
    n_vocab: usize,
}

impl Continuation {
    fn read(
        file: &Vectors,
        config: &ModelConfig,
        prompts: &Array<u32>,
        mask: &[bool],
        sequences_name: &str,
        logits_name: &str,
    ) -> Result<Self> {
        let bad = || {
            file.bad(format!(
                "tensors `{sequences_name}` and `{logits_name}` have shapes that do not match"
            ))
        };
        let sequences = file.ids_for(config, sequences_name)?;
        let logits = file.floats(logits_name)?;
        let (&[rows, width], &[n_rows, n_new, n_vocab]) = (&prompts.shape[..], &logits.shape[..])
        else {
            return Err(bad());
        };
        let has_all = n_new > 0 && n_vocab == config.vocab_size();
        if n_rows != rows || sequences.shape != [rows, width + n_new] || !has_all {
            return Err(bad());
        }
        let real = |(ids, mask): (&[u32], &[bool])| -> Vec<u32> {
            ids.iter().zip(mask).filter(|(_, real)| **real).map(|(id, _)| *id).collect()
        };
        let prompts = prompts.values.chunks(width).zip(mask.chunks(width)).map(real).collect();
        let ids = sequences.values.chunks(width + n_new).map(|row| row[width..].to_vec()).collect();
        Ok(Self { prompts, ids, logits: logits.values, n_new, n_vocab })
    }

    fn compare(
        &self,
        model: &CausalLm,
        eos_ids: &[u32],
        name: &str,
        to: &mut Vec<Quantity>,
    ) -> Result<()> {
        let settings = Settings {
            sampling: Sampling::greedy(),
            max_new_tokens: self.n_new,
            min_new_tokens: self.n_new,
            eos_ids: eos_ids.to_vec(),
            ..Settings::default()
        };
        let completions = generate(model, &self.prompts, &settings, 0, |_| ())?;
        let (mut n_wrong, mut n_compared) = (0, 0);
        for (row, completion) in completions.iter().enumerate() {
            for step in 0..self.n_new {
                n_compared += 1;
                if completion.tokens.get(step) != self.id(row, step).as_ref() {
                    n_wrong += usize::from(self.margin(row, step, eos_ids) > TIE);
                    // After a different token the texts differ.
                    break;
                }
            }
        }
        to.push(Quantity::mistakes(&format!("{name}_ids"), n_wrong, n_compared));
        to.push(self.compare_logits(model, &format!("{name}_logits")));
        Ok(())
    }

    /// The logits of each step, given the reference's ids before it.
    fn compare_logits(&self, model: &CausalLm, name: &str) -> Quantity {
        let prompts: Vec<&[u32]> = self.prompts.iter().map(Vec::as_slice).collect();
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let mut quantity = Quantity::new(name);
        let (mut decoder, mut hidden) = Decoder::prefill(model, &prompts, longest + self.n_new);
        for step in 0..self.n_new {
            let got = host_values(&model.logits(hidden));
            for (row, got) in got.chunks(self.n_vocab).enumerate() {
                let expected = self.step_logits(row, step);
                quantity.add(&format!("row {row}, step {step}"), got, expected, Tolerance::LOGITS);
            }
            if step + 1 == self.n_new {
                break;
            }
            let ids: Vec<u32> = (0..prompts.len()).filter_map(|row| self.id(row, step)).collect();
            hidden = decoder.feed(&ids);
        }
        quantity
    }

    fn id(&self, row: usize, step: usize) -> Option<u32> {
        self.ids.get(row)?.get(step).copied()
    }

    fn step_logits(&self, row: usize, step: usize) -> &[f32] {
        let start = (row * self.n_new + step) * self.n_vocab;
        self.logits.get(start..start + self.n_vocab).unwrap_or_default()
    }

    /// The difference between the two largest logits of the reference.
    fn margin(&self, row: usize, step: usize, eos_ids: &[u32]) -> f32 {
        let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for (id, &logit) in self.step_logits(row, step).iter().enumerate() {
            if eos_ids.contains(&(id as u32)) {
                continue;
            }
            (best, second) = if logit > best { (logit, best) } else { (best, second.max(logit)) };
        }
        best - second
    }
}
