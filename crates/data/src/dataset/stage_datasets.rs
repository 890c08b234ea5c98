//! Constructors of a [`Dataset`]: one for each kind of stage, and one for measuring a model on a file.

use recipe::{Overlong, Packing};
use seed::{Purpose, derive};

use crate::cache::Prepared;
use crate::dataset::chats::{ChatRows, Chats};
use crate::dataset::completions::{CompletionRows, Completions};
use crate::dataset::documents::DocumentRows;
use crate::dataset::issues::IssueKind;
use crate::dataset::mixture::Order;
use crate::dataset::pairs::{PairRows, PairTargets, Pairs};
use crate::dataset::prompts::{PromptRows, Prompts};
use crate::dataset::stream::StreamRows;
use crate::dataset::train_eval_split::{SampleSet, Split, prompt_split, sample_split};
use crate::dataset::{Dataset, DatasetSource, RunOptions, SplitRows, counts};
use crate::error::Result;

/// Rows of the training set and, where there is one, of the validation set.
type TrainAndEval = (Box<dyn SplitRows>, Option<Box<dyn SplitRows>>);

impl Dataset {
    /// Documents for pretraining.
    pub fn pretrain(prepared: &Prepared, options: &RunOptions, packing: Packing) -> Result<Self> {
        let sources = dataset_sources(prepared);
        let rows = packed_rows(&sources, prepared, options, packing, shuffled(options))?;
        Self::new(prepared, sources, options, rows, Vec::new())
    }

    /// Chats for fine-tuning. With `packing`, several share a row.
    pub fn sft(
        prepared: &Prepared,
        options: &RunOptions,
        packing: bool,
        overlong: Overlong,
    ) -> Result<Self> {
        let sources = dataset_sources(prepared);
        let splits = sample_split(&sources, options.holdout)?;
        let length = options.sequence_length;
        let mut issues = Vec::new();
        let mut rows = |samples: fn(&Split) -> &SampleSet, order: Order| {
            let chats = sources.iter().zip(&splits).map(|(source, split)| {
                let report = |sample, kind| issues.push((sample, kind));
                Chats::select(source.clone(), samples(split), length, overlong, report)
            });
            Box::new(ChatRows::new(chats.collect(), order, length, packing)) as Box<dyn SplitRows>
        };
        let train = rows(|split| &split.train, shuffled(options));
        let eval = options.holdout.map(|_| rows(|split| &split.eval, Order::Fixed));
        Self::new(prepared, sources, options, (train, eval), issues)
    }

    /// Pairs for reward models: a row of the run is a pair, which takes two rows of a batch, the chosen text first. No
    /// token is a target.
    ///
    /// Where the pairs of a source are drawn from labelled texts, the texts are split into training and validation
    /// first and pairs are drawn within each, so that no text is in both. The seed of the run and the name of the stage
    /// decide the training pairs; the validation pairs depend on neither, so that two runs are evaluated on the same
    /// pairs.
    pub fn pairs(prepared: &Prepared, options: &RunOptions, overlong: Overlong) -> Result<Self> {
        Self::of_pairs(prepared, options, overlong, PairTargets::None)
    }

    /// Pairs for preference learning: as [`Dataset::pairs`], but the targets are the tokens of the answers, their end
    /// tokens included. Pairs whose answers follow different prompts are dropped and counted.
    pub fn preferences(
        prepared: &Prepared,
        options: &RunOptions,
        overlong: Overlong,
    ) -> Result<Self> {
        Self::of_pairs(prepared, options, overlong, PairTargets::Answer)
    }

    fn of_pairs(
        prepared: &Prepared,
        options: &RunOptions,
        overlong: Overlong,
        targets: PairTargets,
    ) -> Result<Self> {
        let sources = dataset_sources(prepared);
        let splits = sample_split(&sources, options.holdout)?;
        let length = options.sequence_length;
        let mut issues: Vec<(u64, IssueKind)> = Vec::new();
        let mut select = |samples: fn(&Split) -> &SampleSet, (seed, stage): (u64, &str)| {
            let pairs = sources.iter().zip(&splits).enumerate().map(|(idx, (source, split))| {
                let report = |sample, kind| issues.push((sample, kind));
                let (source, samples) = (source.clone(), samples(split));
                if source.store.summary.pools.is_none() {
                    return Pairs::select(source, samples, length, overlong, targets, report);
                }
                let key = |pass| derive(seed, stage, Purpose::Pairs, pass, idx as u64);
                Pairs::draw(source, samples, length, overlong, targets, key, report)
            });
            pairs.collect::<Vec<Pairs>>()
        };
        let train = select(|split| &split.train, (options.seed, &options.stage));
        // This name is part of a hash: another one would draw other validation pairs.
        let eval = select(|split| &split.eval, (0, "held-out"));
        let drawn = counts::drawn(prepared, &train, &eval);
        let rows = |pairs, order| {
            Box::new(PairRows::new(pairs, order, length, targets)) as Box<dyn SplitRows>
        };
        let train = rows(train, shuffled(options));
        let eval = options.holdout.map(|_| rows(eval, Order::Fixed));
        let mut dataset = Self::new(prepared, sources, options, (train, eval), issues)?;
        dataset.counts.drawn = drawn;
        Ok(dataset)
    }

    /// Labelled answers for preference learning without pairs: a row is one text, whose targets are the tokens of the
    /// answer, its end token included. [`crate::Batch::labels`] has the labels.
    pub fn completions(
        prepared: &Prepared,
        options: &RunOptions,
        overlong: Overlong,
    ) -> Result<Self> {
        let sources = dataset_sources(prepared);
        let splits = sample_split(&sources, options.holdout)?;
        let length = options.sequence_length;
        let mut issues = Vec::new();
        let mut rows = |samples: fn(&Split) -> &SampleSet, order: Order| {
            let completions = sources.iter().zip(&splits).map(|(source, split)| {
                let report = |sample, kind| issues.push((sample, kind));
                Completions::select(source.clone(), samples(split), length, overlong, report)
            });
            CompletionRows::new(completions.collect(), order, length)
        };
        let train = rows(|split| &split.train, shuffled(options));
        let labels = train.label_counts();
        let eval = options
            .holdout
            .map(|_| Box::new(rows(|split| &split.eval, Order::Fixed)) as Box<dyn SplitRows>);
        let train: TrainAndEval = (Box::new(train), eval);
        let mut dataset = Self::new(prepared, sources, options, train, issues)?;
        dataset.counts.labels = Some(labels);
        Ok(dataset)
    }

    /// Prompts for stages that sample answers: a row is one prompt, which ends where the assistant's message begins.
    /// Prompts longer than `sequence_length` are dropped.
    ///
    /// If a step needs more prompts than exist, they repeat. If all prompts are the same, validation uses that prompt
    /// too.
    pub fn prompts(prepared: &Prepared, options: &RunOptions) -> Result<Self> {
        let sources = dataset_sources(prepared);
        let splits = prompt_split(&sources, options.holdout)?;
        let mut issues = Vec::new();
        let mut rows = |samples: fn(&Split) -> &SampleSet, order: Order| {
            let prompts = sources.iter().zip(&splits).map(|(source, split)| {
                let report = |sample, kind| issues.push((sample, kind));
                Prompts::select(source.clone(), samples(split), options.sequence_length, report)
            });
            Box::new(PromptRows::new(prompts.collect(), order)) as Box<dyn SplitRows>
        };
        let train = rows(|split| &split.train, shuffled(options));
        let eval = options.holdout.map(|_| rows(|split| &split.eval, Order::Fixed));
        Self::new(prepared, sources, options, (train, eval), issues)
    }

    /// Every document once in file order, for measuring a model on a file: nothing is shuffled, weighted or kept for
    /// validation. Its batches are those of one epoch.
    pub fn in_order(
        prepared: &Prepared,
        sequence_length: usize,
        rows_per_step: usize,
        packing: Packing,
    ) -> Result<Self> {
        let options = RunOptions {
            seed: 0,
            stage: String::new(),
            sequence_length,
            rows_per_step,
            max_steps: None,
            epochs: Some(1.0),
            max_tokens: None,
            holdout: None,
        };
        let sources = dataset_sources(prepared);
        let rows = packed_rows(&sources, prepared, &options, packing, Order::Fixed)?;
        Self::new(prepared, sources, &options, rows, Vec::new())
    }
}

impl Dataset {
    /// Every chat once, as [`Dataset::eval_batches`], for measuring a model on a file. Chats longer than a row are cut.
    pub fn chats_in_order(prepared: &Prepared, sequence_length: usize) -> Result<Self> {
        let options = RunOptions {
            seed: 0,
            stage: String::new(),
            sequence_length,
            rows_per_step: 1,
            max_steps: None,
            epochs: Some(1.0),
            max_tokens: None,
            holdout: None,
        };
        let sources = dataset_sources(prepared);
        let splits = sample_split(&sources, None)?;
        let mut issues = Vec::new();
        let chats = sources.iter().zip(&splits).map(|(source, split)| {
            let report = |sample, kind| issues.push((sample, kind));
            Chats::select(source.clone(), &split.train, sequence_length, Overlong::Cut, report)
        });
        let chats: Vec<Chats> = chats.collect();
        let rows = |chats| {
            Box::new(ChatRows::new(chats, Order::Fixed, sequence_length, true))
                as Box<dyn SplitRows>
        };
        let all = (rows(chats.clone()), Some(rows(chats)));
        Self::new(prepared, sources, &options, all, issues)
    }
}

fn dataset_sources(prepared: &Prepared) -> Vec<DatasetSource> {
    let mut first_sample = 0;
    let sources = prepared.sources.iter().map(|source| {
        let (store, weight) = (source.store.clone(), source.weight);
        let source = DatasetSource { store, weight, first_sample };
        first_sample += source.store.n_samples();
        source
    });
    sources.collect()
}

fn shuffled(options: &RunOptions) -> Order {
    Order::Shuffled { seed: options.seed, stage: options.stage.clone() }
}

/// Rows of documents, packed; the training rows come in `order`.
fn packed_rows(
    sources: &[DatasetSource],
    prepared: &Prepared,
    options: &RunOptions,
    packing: Packing,
    order: Order,
) -> Result<TrainAndEval> {
    let (holdout, length, ids) = (options.holdout, options.sequence_length, &prepared.ids);
    Ok(match packing {
        Packing::Documents => {
            let (train, eval) = DocumentRows::split(sources, holdout, length, ids, order)?;
            (Box::new(train), Some(Box::new(eval)))
        }
        Packing::Stream => {
            let (train, eval) = StreamRows::split(sources, holdout, length, ids, order)?;
            (Box::new(train), Some(Box::new(eval)))
        }
    })
}
