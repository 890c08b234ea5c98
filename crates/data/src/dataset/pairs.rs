//! Pairs in rows: each pair is two rows, the chosen text and the rejected one, each whole and alone.
//!
//! Where texts are scored, a row has no targets of single tokens; where preferences are learnt, its targets are the
//! answer: the assistant's last words and their end token. For counting, a pair is one target either way.
//! It deliberately packs nothing: a score, or an answer's probability, belongs to one text.

use recipe::Overlong;
use seed::shuffled_index;

use crate::cache::{Store, TARGET_BIT, TokenRole};
use crate::dataset::chats::CutReason;
use crate::dataset::mixture::{Item, Mixture, Order};
use crate::dataset::row::RowWriter;
use crate::dataset::split::Part;
use crate::dataset::{Layout, SourcePart};

/// What a row of a pair is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// One score for the text: no token is a target.
    Score,
    /// The answer's tokens.
    Answer,
}

/// Pairs of every source on one side of the split.
#[derive(Debug)]
pub(crate) struct PairRows {
    sources: Vec<Pairs>,
    mixture: Mixture,
    sequence_length: usize,
    asked: Asked,
    /// Whether the pairs of any source say by how much their chosen text is the better one.
    margins: bool,
}

/// One source's pairs that can be told apart.
#[derive(Clone, Debug)]
pub(crate) struct Pairs {
    source: SourcePart,
    /// The samples of each pair: the chosen text and the rejected one.
    pairs: Vec<[u32; 2]>,
}

impl Pairs {
    /// Picks the pairs of a part whose texts differ within a row, and says what became of the rest.
    pub(crate) fn pick(
        source: SourcePart,
        part: &Part,
        sequence_length: usize,
        overlong: Overlong,
        asked: Asked,
        mut report: impl FnMut(u64, CutReason),
    ) -> Self {
        // Both texts of a pair stand on the same side of a split: they share their group and place.
        let rows = part.samples().filter(|sample| sample % 2 == 0);
        let mut pairs = Vec::new();
        for pair in rows.map(|sample| [sample, sample + 1]) {
            let reason = problem_of(&source.store, pair, sequence_length, overlong, asked);
            if let Some(reason) = reason {
                report(source.first_sample + pair[0], reason);
            }
            if matches!(reason, None | Some(CutReason::Cut)) {
                pairs.push(pair.map(|sample| sample as u32));
            }
        }
        Self { source, pairs }
    }

    /// Draws pairs from the texts of a part: each of the larger side once, in file order, beside one of the smaller side,
    /// which comes in a new order as often as it has to. `key` gives each of these orders.
    ///
    /// The pairs are those of every epoch. Texts that are longer than a row are left out first, or cut.
    pub(crate) fn draw(
        source: SourcePart,
        part: &Part,
        sequence_length: usize,
        overlong: Overlong,
        asked: Asked,
        key: impl Fn(u64) -> u64,
        mut report: impl FnMut(u64, CutReason),
    ) -> Self {
        let store = &source.store;
        let mut sides: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
        for sample in part.samples() {
            let fits = store.len(sample) <= sequence_length as u64;
            let reason = match overlong {
                _ if fits => None,
                Overlong::Drop => Some(CutReason::Overlong),
                Overlong::Cut => Some(CutReason::Cut),
            };
            if let Some(reason) = reason {
                report(source.first_sample + sample, reason);
            }
            if reason != Some(CutReason::Overlong) {
                sides[store.side(sample) as usize].push(sample as u32);
            }
        }
        let [n_chosen, n_rejected] = sides.each_ref().map(|side| side.len() as u64);
        let n_pairs = if n_chosen.min(n_rejected) == 0 { 0 } else { n_chosen.max(n_rejected) };
        let mut pairs = Vec::with_capacity(n_pairs as usize);
        for i in 0..n_pairs {
            let pair = sides.each_ref().map(|side| {
                let n = side.len() as u64;
                let at = if n == n_pairs { i } else { shuffled_index(key(i / n), n, i % n) };
                side[at as usize]
            });
            let [chosen, rejected] = pair.map(u64::from);
            match problem_of(store, [chosen, rejected], sequence_length, overlong, asked) {
                // That texts were cut is said once, of each text.
                None | Some(CutReason::Cut) => pairs.push(pair),
                Some(reason) => report(source.first_sample + chosen, reason),
            }
        }
        Self { source, pairs }
    }

    /// How many pairs there are.
    pub(crate) fn n_pairs(&self) -> u64 {
        self.pairs.len() as u64
    }
}

/// What is wrong with a pair.
fn problem_of(
    store: &Store,
    pair: [u64; 2],
    sequence_length: usize,
    overlong: Overlong,
    asked: Asked,
) -> Option<CutReason> {
    let n_tokens = pair.map(|sample| store.len(sample)).into_iter().max().unwrap_or(0);
    let fits = n_tokens <= sequence_length as u64;
    match (fits, overlong) {
        (false, Overlong::Drop) => Some(CutReason::Overlong),
        _ if texts_are_alike(store, pair, sequence_length) => Some(CutReason::Alike),
        _ if asked == Asked::Answer && !answers_are_left(store, pair, sequence_length) => {
            Some(CutReason::NoTargets)
        }
        _ if asked == Asked::Answer && !prompts_are_alike(store, pair) => {
            Some(CutReason::OtherPrompt)
        }
        (false, Overlong::Cut) => Some(CutReason::Cut),
        (true, _) => None,
    }
}

/// Whether both texts of a pair have the same tokens within a row.
fn texts_are_alike(store: &Store, [chosen, rejected]: [u64; 2], sequence_length: usize) -> bool {
    let tokens = |sample: u64| {
        let kept = store.len(sample).min(sequence_length as u64);
        (store.start(sample)..store.start(sample) + kept).map(|at| store.token(at))
    };
    tokens(chosen).eq(tokens(rejected))
}

/// Whether both answers have a token within a row.
fn answers_are_left(store: &Store, pair: [u64; 2], sequence_length: usize) -> bool {
    pair.into_iter().all(|sample| {
        let targets = store.targets(sample);
        targets.n > 0 && (targets.first as usize) < sequence_length
    })
}

/// Whether both answers follow the same tokens: only then are their probabilities of one distribution.
fn prompts_are_alike(store: &Store, [chosen, rejected]: [u64; 2]) -> bool {
    let prompt = |sample: u64| {
        let first = store.start(sample);
        (first..first + u64::from(store.targets(sample).first)).map(|at| store.token(at))
    };
    prompt(chosen).eq(prompt(rejected))
}

impl PairRows {
    pub(crate) fn new(
        sources: Vec<Pairs>,
        order: Order,
        sequence_length: usize,
        asked: Asked,
    ) -> Self {
        let counts: Vec<(u64, f64)> =
            sources.iter().map(|pairs| (pairs.n_pairs(), pairs.source.weight)).collect();
        let mixture = Mixture::new(&counts, order);
        let margins = sources.iter().any(|pairs| pairs.source.store.summary.margins);
        Self { sources, mixture, sequence_length, asked, margins }
    }

    fn write(&self, item: Item, out: &mut RowWriter<'_>) {
        let pairs = &self.sources[item.source];
        let store = &pairs.source.store;
        let pair = pairs.pairs[item.index as usize].map(u64::from);
        if self.margins {
            out.margin(store.margin(pair[0]));
        }
        for sample in pair {
            out.start_sample(pairs.source.first_sample + sample);
            let start = store.start(sample);
            let end = start + store.len(sample).min(self.sequence_length as u64);
            for at in start..end {
                let is_target = self.asked == Asked::Answer
                    && at + 1 < end
                    && store.mark(at + 1) & TARGET_BIT != 0;
                let target = is_target.then(|| store.token(at + 1));
                out.push(store.token(at), target, TokenRole::from_mark(store.mark(at)));
            }
            out.end_row();
        }
    }
}

impl Layout for PairRows {
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
