//! Replays next-token distributions after each sampling filter, and after all of them.

use std::path::Path;

use generate::Sampling;

use super::report::{Quantity, Tolerance};
use super::vectors::Vectors;
use crate::error::Result;

const TOLERANCE: Tolerance = Tolerance::absolute(1e-6);

pub(super) fn replay(path: &Path) -> Result<Vec<Quantity>> {
    let vectors = Vectors::open(path)?;
    let logits = vectors.floats("logits")?;
    let seen = vectors.ids("input_ids")?;
    let names = vectors.names();
    let (&[rows, n_vocab], &[seen_rows, n_seen]) = (&logits.shape[..], &seen.shape[..]) else {
        return Err(vectors.bad("tensor `logits` must have two dimensions".to_owned()));
    };
    if rows != seen_rows || n_vocab == 0 || n_seen == 0 {
        return Err(vectors
            .bad("tensors `logits` and `input_ids` have shapes that do not match".to_owned()));
    }
    let mut quantities = Vec::new();
    for name in names.iter().filter_map(|name| name.strip_prefix("probs.")) {
        let sampling = settings(name)
            .ok_or_else(|| vectors.bad(format!("unknown settings: `probs.{name}`")))?;
        let expected = vectors.floats_of(&format!("probs.{name}"), &[rows, n_vocab])?;
        let mut quantity = Quantity::new(name);
        let all = logits.values.chunks(n_vocab).zip(seen.values.chunks(n_seen));
        for (row, ((logits, seen), expected)) in all.zip(expected.chunks(n_vocab)).enumerate() {
            let got = sampling.probabilities(logits, seen);
            quantity.add(&format!("row {row}"), &got, expected, TOLERANCE);
        }
        quantities.push(quantity);
    }
    Ok(quantities)
}

/// The settings of a distribution, by its name in the reference.
fn settings(name: &str) -> Option<Sampling> {
    let plain = Sampling::default();
    Some(match name {
        "temperature_0_7" => Sampling { temperature: 0.7, ..plain },
        "top_k_5" => Sampling { top_k: Some(5), ..plain },
        "top_p_0_9" => Sampling { top_p: Some(0.9), ..plain },
        "min_p_0_1" => Sampling { min_p: Some(0.1), ..plain },
        "repetition_1_3" => Sampling { repetition_penalty: 1.3, ..plain },
        "all" => Sampling {
            temperature: 0.7,
            top_k: Some(20),
            top_p: Some(0.9),
            min_p: Some(0.02),
            repetition_penalty: 1.3,
            greedy: false,
        },
        _ => return None,
    })
}
