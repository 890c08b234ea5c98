//! Log-likelihoods of many continuations, in batches.
//!
//! Continuations of the same context, such as the choices of a question, share one pass over it: the KV cache of the context
//! is copied for each. Pairs with a context of their own are read as whole texts. Both ways are causal, so they compute the
//! same up to rounding.
//!
//! Shape legend: b rows, t time, d width, n positions that predict, v vocabulary.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};
use data::Batch;
use generate::{Decoder, without_autodiff};
use kernels::AllThreads as _;
use model::CausalLm;
use nn::TokenBatch;
use rayon::prelude::*;

use super::tokens::Pair;
use crate::error::{Error, Result};

/// Maximum number of tokens that a pass reads, unless one text is longer.
const TOKENS: usize = 2048;
/// Maximum number of positions of a pass's copied caches, unless one context is longer.
const CACHED: usize = 16_384;
/// Maximum number of continuations of one pass over a context.
const MEMBERS: usize = 64;
/// Maximum number of logits at a time.
const LOGITS: usize = 1 << 24;

/// ln p of a continuation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Likelihood {
    /// Sum over its tokens, in nats.
    pub(super) sum: f64,
    /// Whether each token is the most likely one.
    pub(super) is_greedy: bool,
}

/// Log-likelihoods of pairs, in their order. `progress` gets the number of finished pairs and of all.
///
/// No graph is built, even for a model in training. Errors: logits that are not finite.
pub(super) fn log_likelihoods(
    model: &CausalLm,
    pairs: &[Pair],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Likelihood>> {
    let model = without_autodiff(model);
    let mut scorer = Scorer {
        model: &model,
        pairs,
        found: vec![Likelihood { sum: 0.0, is_greedy: true }; pairs.len()],
    };
    let (groups, singles) = scorer.grouped();
    let mut n_done = 0;
    for batch in scorer.batches_of_groups(&groups) {
        scorer.score_groups(batch)?;
        n_done += batch.iter().map(|group| group.members.len()).sum::<usize>();
        progress(n_done, pairs.len());
    }
    for batch in scorer.batches_of_singles(&singles) {
        scorer.score_singles(batch)?;
        n_done += batch.len();
        progress(n_done, pairs.len());
    }
    Ok(scorer.found)
}

/// Pairs with the same context.
#[derive(Debug)]
struct Group<'a> {
    context: &'a [u32],
    members: Vec<usize>,
}

/// A token that a position predicts: the index of its pair, and the id.
type Target = (usize, u32);

struct Scorer<'a> {
    model: &'a CausalLm,
    pairs: &'a [Pair],
    found: Vec<Likelihood>,
}

impl<'a> Scorer<'a> {
    /// Pairs that share contexts, and those that do not; the longest first, so that texts of a batch have similar lengths.
    fn grouped(&self) -> (Vec<Group<'a>>, Vec<usize>) {
        let config = self.model.config();
        // Where angles depend on the length of the whole text, a context alone is another text.
        let shares = !config.rope_depends_on_length() && config.rereads_at().is_none();
        let mut by_context: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
        for (idx, pair) in self.pairs.iter().enumerate() {
            by_context.entry(&pair.context).or_default().push(idx);
        }
        let (mut groups, mut singles) = (Vec::new(), Vec::new());
        for (context, members) in by_context {
            if members.len() > 1 && shares {
                let parts = members.chunks(MEMBERS);
                groups.extend(parts.map(|part| Group { context, members: part.to_vec() }));
            } else {
                singles.extend(members);
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.context.len()));
        singles.sort_by_key(|idx| std::cmp::Reverse(self.pairs[*idx].n_input()));
        (groups, singles)
    }

    /// Tokens of the longest continuation that are read after the context.
    fn n_fed(&self, group: &Group<'_>) -> usize {
        let lengths = group.members.iter().map(|idx| self.pairs[*idx].continuation.len() - 1);
        lengths.max().unwrap_or(0)
    }

    fn batches_of_groups<'g>(&self, groups: &'g [Group<'a>]) -> Vec<&'g [Group<'a>]> {
        let n_positions = self.model.config().max_positions();
        let mut batches = Vec::new();
        let mut start = 0;
        while let Some(first) = groups.get(start) {
            let width = first.context.len();
            let (mut n_fed, mut n_rows) = (self.n_fed(first), first.members.len());
            let mut end = start + 1;
            while let Some(group) = groups.get(end) {
                n_fed = n_fed.max(self.n_fed(group));
                n_rows += group.members.len();
                let n_read = (end - start + 1) * width;
                if n_read.max(n_rows * n_fed) > TOKENS
                    || n_rows * (width + n_fed) > CACHED
                    || width + n_fed > n_positions
                {
                    break;
                }
                end += 1;
            }
            batches.push(&groups[start..end]);
            start = end;
        }
        batches
    }

    fn batches_of_singles<'s>(&self, singles: &'s [usize]) -> Vec<&'s [usize]> {
        let mut batches = Vec::new();
        let mut rest = singles;
        while let Some(first) = rest.first() {
            let n_rows = (TOKENS / self.pairs[*first].n_input().max(1)).clamp(1, rest.len());
            let (batch, tail) = rest.split_at(n_rows);
            batches.push(batch);
            rest = tail;
        }
        batches
    }

    /// Reads contexts once, then the continuations of each on a copy of its cache.
    fn score_groups(&mut self, groups: &[Group<'a>]) -> Result<()> {
        let contexts: Vec<&[u32]> = groups.iter().map(|group| group.context).collect();
        let width = contexts.iter().map(|context| context.len()).max().unwrap_or(0);
        let t = groups.iter().map(|group| self.n_fed(group)).max().unwrap_or(0);
        let (mut decoder, last_b1d) = Decoder::prefill(self.model, &contexts, width + t);
        let [b, _, d] = last_b1d.dims();
        let first = |group: &Group<'_>| -> Vec<Target> {
            group.members.iter().map(|&idx| (idx, self.pairs[idx].continuation[0])).collect()
        };
        let targets: Vec<Vec<Target>> = groups.iter().map(first).collect();
        self.score_positions(&last_b1d.reshape([b, d]), &targets)?;
        if t == 0 {
            return Ok(());
        }
        let mut sources = Vec::new();
        let mut ids = Vec::new();
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for (source, group) in groups.iter().enumerate() {
            for &idx in &group.members {
                let continuation = &self.pairs[idx].continuation;
                let n_fed = continuation.len() - 1;
                if n_fed == 0 {
                    continue;
                }
                let row = sources.len();
                sources.push(source);
                ids.extend_from_slice(&continuation[..n_fed]);
                // Padding comes after all tokens that are scored, which do not attend to it.
                ids.extend(std::iter::repeat_n(0, t - n_fed));
                positions.extend((0..n_fed).map(|column| row * t + column));
                targets.extend(continuation[1..].iter().map(|&id| vec![(idx, id)]));
            }
        }
        decoder.select_rows(&sources);
        let hidden_btd = decoder.feed(&ids);
        let hidden_nd = selected(&hidden_btd.reshape([sources.len() * t, d]), &positions);
        self.score_positions(&hidden_nd, &targets)
    }

    /// Reads whole texts.
    fn score_singles(&mut self, members: &[usize]) -> Result<()> {
        let texts: Vec<Vec<u32>> = members.iter().map(|&idx| self.pairs[idx].input()).collect();
        let batch = Batch::of_texts(&texts, 0);
        let Batch { rows, sequence_length: t, ids, positions, segments, .. } = &batch;
        let device = self.model.backbone.device();
        let tokens = TokenBatch::new(ids, positions, segments, *rows, *t, &device);
        let (mut places, mut targets) = (Vec::new(), Vec::new());
        for (row, &idx) in members.iter().enumerate() {
            let Pair { context, continuation } = &self.pairs[idx];
            let start = row * t + context.len() - 1;
            places.extend(start..start + continuation.len());
            targets.extend(continuation.iter().map(|&id| vec![(idx, id)]));
        }
        let hidden_nd = self.model.forward(&tokens).hidden_nd();
        let hidden_nd = selected(&hidden_nd, &places);
        self.score_positions(&hidden_nd, &targets)
    }

    /// Adds the log-probabilities of the targets of each position, from its hidden state `[n, d]`.
    fn score_positions(&mut self, hidden_nd: &Tensor<2>, targets: &[Vec<Target>]) -> Result<()> {
        let n_vocab = self.model.config().vocab_size();
        let [_, d] = hidden_nd.dims();
        let n_rows = (LOGITS / n_vocab.max(1)).max(1);
        for (number, targets) in targets.chunks(n_rows).enumerate() {
            let start = number * n_rows;
            let hidden_nd = hidden_nd.clone().slice([start..start + targets.len(), 0..d]);
            let logits_nv = self.model.logits(hidden_nd);
            let scored = kernels::with_host_values(&logits_nv, |logits| {
                let rows = logits.par_chunks(n_vocab).zip(targets);
                rows.map_on_all_threads(|(logits, targets)| of_targets(logits, targets))
            });
            for (targets, scored) in targets.iter().zip(scored) {
                let scored = scored.ok_or(Error::NotFinite(f64::NAN))?;
                for ((idx, _), Likelihood { sum, is_greedy }) in targets.iter().zip(scored) {
                    let found = &mut self.found[*idx];
                    found.sum += sum;
                    found.is_greedy &= is_greedy;
                }
            }
        }
        Ok(())
    }
}

/// Rows of hidden states by their numbers.
fn selected(hidden_nd: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let n = rows.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n]), &hidden_nd.device());
    hidden_nd.clone().select(0, rows)
}

/// ln p of each target under the logits of its position; `None` if a logit is not a finite number.
///
/// ln p = x − max − ln Σ e^(x − max), with the sum in f64.
fn of_targets(logits: &[f32], targets: &[Target]) -> Option<Vec<Likelihood>> {
    let best = generate::argmax(logits)?;
    let max = *logits.get(best as usize)?;
    let sum: f64 = logits.iter().map(|x| f64::from((x - max).exp())).sum();
    let log_sum = sum.ln();
    let of = |&(_, id): &Target| {
        let sum = f64::from(*logits.get(id as usize)? - max) - log_sum;
        sum.is_finite().then_some(Likelihood { sum, is_greedy: id == best })
    };
    targets.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arch::ModelConfig;
    use model::CausalLm;
    use testkit::{tiny_decoders, tiny_gpt2, tiny_llama};

    use super::super::tokens::Pair;
    use super::{Likelihood, log_likelihoods};

    fn pairs() -> Vec<Pair> {
        let pair = |context: &[u32], continuation: &[u32]| Pair {
            context: context.to_vec(),
            continuation: continuation.to_vec(),
        };
        vec![
            pair(&[1, 2, 3], &[4]),
            pair(&[5, 6], &[7, 8, 9, 10]),
            pair(&[1, 2, 3], &[5, 6, 7]),
            pair(&[9], &[3, 2]),
            pair(&[1, 2, 3], &[6]),
            pair(&[5, 6], &[8]),
            pair(&[5, 6], &[8, 1]),
        ]
    }

    /// One pass for each pair alone.
    fn alone(model: &CausalLm, pairs: &[Pair]) -> Vec<Likelihood> {
        let one = |pair: &Pair| log_likelihoods(model, std::slice::from_ref(pair), &mut |_, _| ());
        pairs.iter().flat_map(|pair| one(pair).unwrap()).collect()
    }

    #[test]
    fn shared_contexts_change_nothing() {
        let device = kernels::device("cpu").unwrap();
        let few = [tiny_llama(50), tiny_gpt2(50, true)];
        for config in few.into_iter().chain(tiny_decoders(50)) {
            let config = ModelConfig::from_json(&config, Path::new("tiny")).unwrap();
            let model = CausalLm::init(&config, 3, &device);
            let pairs = pairs();
            let mut n_done = Vec::new();
            let together =
                log_likelihoods(&model, &pairs, &mut |done, all| n_done.push((done, all))).unwrap();
            assert_eq!(n_done.last(), Some(&(pairs.len(), pairs.len())));
            for (a, b) in together.iter().zip(alone(&model, &pairs)) {
                assert!((a.sum - b.sum).abs() < 1e-4, "{a:?} {b:?}");
                assert_eq!(a.is_greedy, b.is_greedy);
                assert!(a.sum < 0.0);
            }
        }
    }
}
