//! Pairs in rows: each pair takes two rows, the chosen text and the rejected text, each alone in its row.
//!
//! For reward models a row has no target tokens; for preference learning its targets are the answer: the last message of
//! the assistant and its end token. In counts, a pair is one target in both cases. Nothing is packed, because a score or
//! the probability of an answer belongs to one text.

use recipe::Overlong;
use seed::shuffled_index;

use crate::batch::RowWriter;
use crate::cache::TokenStore;
use crate::dataset::issues::IssueKind;
use crate::dataset::mixture::{Item, Mixture, Order};
use crate::dataset::train_eval_split::SampleSet;
use crate::dataset::{DatasetSource, SplitRows};

/// Target tokens of a pair's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairTargets {
    /// No token is a target: the whole text receives one score.
    None,
    /// The tokens of the answer.
    Answer,
}

/// Pairs of every source in one split.
#[derive(Debug)]
pub(crate) struct PairRows {
    sources: Vec<Pairs>,
    mixture: Mixture,
    sequence_length: usize,
    targets: PairTargets,
    /// Whether any source has margins: by how much the chosen text is better.
    margins: bool,
}

/// Pairs of one source whose texts differ.
#[derive(Clone, Debug)]
pub(crate) struct Pairs {
    source: DatasetSource,
    /// Samples of each pair: the chosen text and the rejected text.
    pairs: Vec<[u32; 2]>,
}

impl Pairs {
    /// Selects the pairs whose texts differ within a row, and reports those that are truncated or dropped.
    pub(crate) fn select(
        source: DatasetSource,
        samples: &SampleSet,
        sequence_length: usize,
        overlong: Overlong,
        targets: PairTargets,
        mut report: impl FnMut(u64, IssueKind),
    ) -> Self {
        // Both texts of a pair are in the same split: they share their group and their location.
        let rows = samples.samples().filter(|sample| sample % 2 == 0);
        let mut pairs = Vec::new();
        for pair in rows.map(|sample| [sample, sample + 1]) {
            let issue = issue_of(&source.store, pair, sequence_length, overlong, targets);
            if let Some(kind) = issue {
                report(source.first_sample + pair[0], kind);
            }
            if matches!(issue, None | Some(IssueKind::Truncated)) {
                pairs.push(pair.map(|sample| sample as u32));
            }
        }
        Self { source, pairs }
    }

    /// Draws pairs from labelled texts: each text of the larger pool occurs once, in file order, with a text of the
    /// smaller pool, which repeats in a new permutation as often as needed. `key` is the key of each permutation.
    ///
    /// Every epoch has the same pairs. Texts longer than a row are dropped before drawing, or truncated.
    pub(crate) fn draw(
        source: DatasetSource,
        samples: &SampleSet,
        sequence_length: usize,
        overlong: Overlong,
        targets: PairTargets,
        key: impl Fn(u64) -> u64,
        mut report: impl FnMut(u64, IssueKind),
    ) -> Self {
        let store = &source.store;
        let mut pools: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
        for sample in samples.samples() {
            let fits = store.len(sample) <= sequence_length as u64;
            let issue = match overlong {
                _ if fits => None,
                Overlong::Drop => Some(IssueKind::TooLong),
                Overlong::Cut => Some(IssueKind::Truncated),
            };
            if let Some(kind) = issue {
                report(source.first_sample + sample, kind);
            }
            if issue != Some(IssueKind::TooLong) {
                pools[store.label(sample) as usize].push(sample as u32);
            }
        }
        let [n_chosen, n_rejected] = pools.each_ref().map(|pool| pool.len() as u64);
        let n_pairs = if n_chosen.min(n_rejected) == 0 { 0 } else { n_chosen.max(n_rejected) };
        let mut pairs = Vec::with_capacity(n_pairs as usize);
        for i in 0..n_pairs {
            let pair = pools.each_ref().map(|pool| {
                let n = pool.len() as u64;
                let at = if n == n_pairs { i } else { shuffled_index(key(i / n), n, i % n) };
                pool[at as usize]
            });
            let [chosen, rejected] = pair.map(u64::from);
            match issue_of(store, [chosen, rejected], sequence_length, overlong, targets) {
                // Truncation was already reported once for each text.
                None | Some(IssueKind::Truncated) => pairs.push(pair),
                Some(kind) => report(source.first_sample + chosen, kind),
            }
        }
        Self { source, pairs }
    }

    pub(crate) fn n_pairs(&self) -> u64 {
        self.pairs.len() as u64
    }
}

/// Why a pair is truncated or dropped.
fn issue_of(
    store: &TokenStore,
    pair: [u64; 2],
    sequence_length: usize,
    overlong: Overlong,
    targets: PairTargets,
) -> Option<IssueKind> {
    let n_tokens = pair.map(|sample| store.len(sample)).into_iter().max().unwrap_or(0);
    let fits = n_tokens <= sequence_length as u64;
    match (fits, overlong) {
        (false, Overlong::Drop) => Some(IssueKind::TooLong),
        _ if texts_are_identical(store, pair, sequence_length) => Some(IssueKind::IdenticalTexts),
        _ if targets == PairTargets::Answer && !answers_are_left(store, pair, sequence_length) => {
            Some(IssueKind::NoTargets)
        }
        _ if targets == PairTargets::Answer && !prompts_are_identical(store, pair) => {
            Some(IssueKind::DifferentPrompts)
        }
        (false, Overlong::Cut) => Some(IssueKind::Truncated),
        (true, _) => None,
    }
}

/// Whether both texts of a pair have the same tokens within a row.
fn texts_are_identical(
    store: &TokenStore,
    [chosen, rejected]: [u64; 2],
    sequence_length: usize,
) -> bool {
    let tokens = |sample: u64| {
        let kept = store.len(sample).min(sequence_length as u64);
        (store.start(sample)..store.start(sample) + kept).map(|at| store.token(at))
    };
    tokens(chosen).eq(tokens(rejected))
}

/// Whether both answers have a token within a row.
fn answers_are_left(store: &TokenStore, pair: [u64; 2], sequence_length: usize) -> bool {
    pair.into_iter().all(|sample| {
        let targets = store.target_span(sample);
        targets.n > 0 && (targets.first as usize) < sequence_length
    })
}

/// Whether both answers follow the same tokens. Only then can their probabilities be compared.
fn prompts_are_identical(store: &TokenStore, [chosen, rejected]: [u64; 2]) -> bool {
    let prompt = |sample: u64| {
        let first = store.start(sample);
        (first..first + u64::from(store.target_span(sample).first)).map(|at| store.token(at))
    };
    prompt(chosen).eq(prompt(rejected))
}

impl PairRows {
    pub(crate) fn new(
        sources: Vec<Pairs>,
        order: Order,
        sequence_length: usize,
        targets: PairTargets,
    ) -> Self {
        let counts: Vec<(u64, f64)> =
            sources.iter().map(|pairs| (pairs.n_pairs(), pairs.source.weight)).collect();
        let mixture = Mixture::new(&counts, order);
        let margins = sources.iter().any(|pairs| pairs.source.store.summary.margins);
        Self { sources, mixture, sequence_length, targets, margins }
    }

    fn write(&self, item: Item, out: &mut RowWriter<'_>) {
        let pairs = &self.sources[item.source];
        let store = &pairs.source.store;
        let pair = pairs.pairs[item.index as usize].map(u64::from);
        if self.margins {
            out.push_margin(store.margin(pair[0]));
        }
        for sample in pair {
            out.start_sample(pairs.source.first_sample + sample);
            let start = store.start(sample);
            let end = start + store.len(sample).min(self.sequence_length as u64);
            for at in start..end {
                let is_target =
                    self.targets == PairTargets::Answer && at + 1 < end && store.loss_mask(at + 1);
                let target = is_target.then(|| store.token(at + 1));
                out.push(store.token(at), target, store.role(at));
            }
            out.end_row();
        }
    }
}

impl SplitRows for PairRows {
    fn n_rows(&self, epoch: u64) -> u64 {
        self.mixture.epoch(epoch).n_items()
    }

    fn batch_rows(&self) -> u64 {
        2
    }

    fn is_constant(&self) -> bool {
        self.mixture.is_constant()
    }

    fn fill(&self, epoch: u64, row: u64, out: &mut RowWriter<'_>) {
        self.write(self.mixture.epoch(epoch).item(row), out);
    }

    fn n_targets(&self, _epoch: u64, _row: u64) -> u64 {
        1
    }

    fn epoch_targets(&self, epoch: u64) -> u64 {
        self.n_rows(epoch)
    }

    fn n_samples(&self) -> u64 {
        self.sources.iter().map(Pairs::n_pairs).sum()
    }
}
