//! Reference log-probabilities: those of the initial weights for each answer, precomputed before the first update.
//!
//! They are saved in the stage's directory with a checksum and a key over everything that they depend on. A resumed run reads
//! the same numbers; a damaged or stale file is computed again. No second model stays in memory, and only pairs that the
//! stage visits are computed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use data::Batch;
use fsio::{DirWriter, MappedFile};
use generate::without_autodiff;
use loss::{PairLogprobs, SequenceLogprobs};
use model::CausalLm;
use plan::{DpoPlan, Plan, StagePlan};
use serde_json::{Value, json};
use train::{
    BaseModelCache, LeaderFirst, Learner, ModelSource, RunDir, StageRun, Weights, first_weights,
};

use crate::{Error, Result, answer_logprobs};

/// The directory within the stage's.
pub const REFERENCE_DIR: &str = "reference";
/// Rows of a sample index (8 bytes) and its log-probability (f32, 4 bytes), little-endian, in the order of indices.
const LOGPROBS_FILE: &str = "logprobs.bin";
const ROW_BYTES: usize = 12;
/// Raise it whenever the same inputs give other numbers.
const REFERENCE_VERSION: u32 = 1;

/// log π_ref(answer | prompt) of each text by its sample index.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// The loss has no reference; all values are 0.
    Unused,
    /// Sums over the tokens of each answer.
    Sums(BTreeMap<u64, f32>),
}

impl Reference {
    /// Computes the log-probabilities of every pair that the stage's steps and evaluations visit.
    ///
    /// Batches are those of the steps, so that policy and reference of the first step are bit-identical.
    pub fn compute(stage: &StagePlan, model: &CausalLm, device: &Device) -> Result<Self> {
        let model = without_autodiff(model);
        let mut sums = BTreeMap::new();
        let dataset = &stage.dataset;
        for step in 0..stage.max_steps {
            for micro in dataset.batch(step).micro_batches(2 * stage.micro_batch) {
                compute_batch(stage, &model, &micro, device, &mut sums)?;
            }
        }
        let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
        for batch in dataset.eval_batches(stage.micro_batch, max_rows) {
            compute_batch(stage, &model, &batch, device, &mut sums)?;
        }
        Ok(Self::Sums(sums))
    }

    /// The log-probabilities of a batch whose rows are chosen and rejected texts, alternating. The lengths are the
    /// policy's, because both come from one mask.
    ///
    /// Errors: a sample without a precomputed value.
    pub fn of(
        &self,
        stage: &StagePlan,
        batch: &Batch,
        policy: &PairLogprobs,
    ) -> Result<PairLogprobs> {
        let known = |sample: &u64| match self {
            Self::Unused => Ok(0.0),
            Self::Sums(sums) => sums
                .get(sample)
                .copied()
                .ok_or_else(|| Error::NotInReference { place: place_of(stage, *sample) }),
        };
        let sums: Vec<f32> = batch.samples.iter().map(known).collect::<Result<_>>()?;
        let side = |answers: &SequenceLogprobs, from: usize| {
            let n_tokens_p = answers.n_tokens();
            let sums: Vec<f32> = sums.iter().skip(from).step_by(2).copied().collect();
            let data = TensorData::new(sums, n_tokens_p.dims());
            SequenceLogprobs::from_sums(Tensor::from_data(data, &n_tokens_p.device()), n_tokens_p)
        };
        Ok(PairLogprobs { chosen: side(&policy.chosen, 0), rejected: side(&policy.rejected, 1) })
    }

    /// Number of texts.
    pub fn n_texts(&self) -> usize {
        match self {
            Self::Unused => 0,
            Self::Sums(sums) => sums.len(),
        }
    }

    /// Writes a checksummed directory, which must not exist yet.
    pub fn save(&self, dir: &Path, key: &str) -> Result<()> {
        let mut rows = Vec::new();
        if let Self::Sums(sums) = self {
            for (sample, logprob) in sums {
                rows.extend_from_slice(&sample.to_le_bytes());
                rows.extend_from_slice(&logprob.to_le_bytes());
            }
        }
        let mut writer = DirWriter::begin(dir)?;
        writer.write(LOGPROBS_FILE, rows)?;
        writer.commit(json!({ "key": key }))?;
        Ok(())
    }

    /// Reads a directory that [`Self::save`] wrote under the same key.
    ///
    /// Errors: it cannot be read, or another version wrote it.
    pub fn load(dir: &Path, key: &str) -> Result<Saved> {
        let manifest = match fsio::verify_dir(dir) {
            Ok(manifest) => manifest,
            Err(error) if error.is_not_found() => return Ok(Saved::Nothing),
            Err(fsio::Error::Damaged { file, damage, .. }) if damage.is_other_content() => {
                let path = dir.join(file);
                return Ok(Saved::Unusable(format!("{}: {damage}", path.display())));
            }
            Err(error) => return Err(error.into()),
        };
        if manifest.extra.get("key").and_then(Value::as_str) != Some(key) {
            let reason = format!("{}: belongs to other weights or data", dir.display());
            return Ok(Saved::Unusable(reason));
        }
        let path = dir.join(LOGPROBS_FILE);
        let bytes = MappedFile::open(&path)?;
        let (rows, rest) = bytes.as_chunks::<ROW_BYTES>();
        if !rest.is_empty() {
            return Ok(Saved::Unusable(format!("{}: cut short", path.display())));
        }
        let sums = rows.iter().map(|row| {
            let (sample, logprob) = row.split_at(8);
            let sample = sample.try_into().map_or(0, u64::from_le_bytes);
            (sample, logprob.try_into().map_or(f32::NAN, f32::from_le_bytes))
        });
        Ok(Saved::Usable(Self::Sums(sums.collect())))
    }
}

/// The log-probabilities in a stage's directory.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    /// Undamaged, and under the expected key.
    Usable(Reference),
    /// Damaged, or of other inputs; the reason.
    Unusable(String),
    /// There are none.
    Nothing,
}

/// Reads the reference log-probabilities from the stage's directory, or computes and saves them. The leader computes; the
/// other replicas read.
pub(crate) fn load_or_precompute(
    plan: &Plan,
    stage: &StagePlan,
    key: &str,
    run_dir: &RunDir,
    run: &mut StageRun<'_>,
    model: &CausalLm,
    learner: &Learner<'_>,
) -> Result<Reference> {
    let turn = LeaderFirst::wait(learner.replicas)?;
    let dir = run.dir().path().join(REFERENCE_DIR);
    let reference = match Reference::load(&dir, key)? {
        Saved::Usable(reference) => reference,
        Saved::Nothing => precompute(plan, stage, run_dir, run, model, learner.device, key)?,
        Saved::Unusable(reason) => {
            run.warn(format!("{reason}; reference log-probabilities are computed again"));
            fsio::remove_dir_all(&dir)?;
            precompute(plan, stage, run_dir, run, model, learner.device, key)?
        }
    };
    turn.end()?;
    Ok(reference)
}

/// Computes the reference log-probabilities by the stage's initial weights and saves them.
fn precompute(
    plan: &Plan,
    stage: &StagePlan,
    run_dir: &RunDir,
    run: &mut StageRun<'_>,
    model: &CausalLm,
    device: &Device,
    key: &str,
) -> Result<Reference> {
    let start = Instant::now();
    let reference = if run.step() == 0 {
        Reference::compute(stage, model, device)?
    } else {
        // The policy has been trained, so the initial weights are read again, in the data type of the first time.
        let mut bases = BaseModelCache::new(device).with_base_dtype(stage.lora.as_ref());
        let source = ModelSource::of(stage);
        let Weights { model, .. } = first_weights::<CausalLm>(plan, source, run_dir, &mut bases)?;
        Reference::compute(stage, &model, device)?
    };
    reference.save(&run.dir().path().join(REFERENCE_DIR), key)?;
    let (n_pairs, seconds) = (reference.n_texts() / 2, start.elapsed().as_secs_f64());
    run.note(format!(
        "precomputed the reference log-probabilities of {n_pairs} pairs in {seconds:.1} s"
    ));
    Ok(reference)
}

fn compute_batch(
    stage: &StagePlan,
    model: &CausalLm,
    batch: &Batch,
    device: &Device,
    sums: &mut BTreeMap<u64, f32>,
) -> Result<()> {
    // A later epoch visits the same pairs again.
    if batch.samples.iter().all(|sample| sums.contains_key(sample)) {
        return Ok(());
    }
    let found = answer_logprobs(model, &batch.trimmed(), device);
    let host =
        |answers: &SequenceLogprobs| kernels::with_host_values(&answers.sums(), <[f32]>::to_vec);
    let answers = host(&found.chosen).into_iter().zip(host(&found.rejected));
    let logprobs = answers.flat_map(|(chosen, rejected)| [chosen, rejected]);
    for (sample, logprob) in batch.samples.iter().zip(logprobs) {
        if !logprob.is_finite() {
            return Err(Error::ReferenceNotFinite { place: place_of(stage, *sample), logprob });
        }
        sums.entry(*sample).or_insert(logprob);
    }
    Ok(())
}

fn place_of(stage: &StagePlan, sample: u64) -> String {
    let place = stage.dataset.location(sample);
    place.map_or_else(|| format!("sample {sample}"), |place| place.to_string())
}

/// A hash of everything that the log-probabilities depend on: the initial weights, the token ids, the pairs visited.
pub fn reference_key(
    plan: &Plan,
    stage: &StagePlan,
    dpo: &DpoPlan,
    run_dir: &RunDir,
) -> Result<String> {
    let adapter = stage.lora.as_ref().and_then(|lora| lora.adapter.as_ref());
    let mut weights = Vec::new();
    for start in std::iter::once(&stage.start).chain(adapter) {
        weights.push(match train::start_dir(stage, start, run_dir)? {
            None => json!({ "seed": plan.seed, "model": plan.recipe.model }),
            Some(dir) => weight_hashes(&dir)?,
        });
    }
    let eval = stage.keys.eval.as_ref();
    let inputs = json!({
        "version": REFERENCE_VERSION,
        "weights": weights,
        "lora": dpo.section.input.lora,
        "data": stage.inputs,
        "stage": stage.name,
        "seed": plan.seed,
        "sequence_length": stage.sequence_length,
        "overlong": dpo.section.input.overlong,
        "pairs_per_step": stage.rows_per_step,
        "steps": stage.max_steps,
        "eval": eval.map(|eval| json!([eval.holdout, eval.by, eval.max_rows])),
    });
    Ok(fsio::sha256_hex(inputs.to_string().as_bytes()))
}

/// The hashes of a directory's weight files by name, and of an adapter's record of its base model.
fn weight_hashes(dir: &Path) -> Result<Value> {
    let unread = |source| Error::Read { path: dir.to_owned(), source };
    let mut hashes = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_weights = name.ends_with(".safetensors") && name != train::OPTIMIZER_FILE;
        if is_weights || name == plan::BASE_FILE {
            hashes.insert(name, fsio::verified_sha256(entry.path())?);
        }
    }
    Ok(json!(hashes))
}
