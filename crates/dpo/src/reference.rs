//! What the starting weights say of each answer: asked once, before any update, kept in the stage's folder.
//!
//! The file is checksummed and bears a key of everything that it depends on, so that a resumed run reads the same numbers
//! to the bit, and a damaged or stale one is computed anew. No second model stays in memory. It deliberately asks about
//! no pair that the stage does not visit.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use data::Batch;
use fsio::{DirWriter, MappedFile};
use generate::without_autodiff;
use loss::{PairLogprobs, SequenceLogprobs};
use model::CausalLm;
use plan::{DpoPlan, Plan, StagePlan};
use serde_json::{Value, json};
use train::RunDir;

use crate::{Error, Result, answer_logprobs};

/// The folder in the stage's.
pub const REFERENCE_DIR: &str = "reference";
/// Rows of a sample's number (8 bytes) and its log-probability (f32, 4 bytes), little-endian, by number.
const LOGPROBS_FILE: &str = "logprobs.bin";
const ROW_BYTES: usize = 12;
/// Raise it whenever the same inputs would give other numbers.
const REFERENCE_VERSION: u32 = 1;

/// log π_ref(answer | prompt) of each text, by its sample's number.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// The loss reads none: everything is 0.
    Unused,
    /// Sums over the tokens of the answers.
    Sums(BTreeMap<u64, f32>),
}

impl Reference {
    /// Asks a model about every pair that the stage's steps and measurements visit.
    ///
    /// Batches are those of the stage's steps, so that the first step's policy is its reference to the bit.
    pub fn ask(stage: &StagePlan, model: &CausalLm, device: &Device) -> Result<Self> {
        let model = without_autodiff(model);
        let mut sums = BTreeMap::new();
        let dataset = &stage.dataset;
        for step in 0..stage.max_steps {
            for micro in dataset.batch(step).micro_batches(2 * stage.micro_batch) {
                ask_batch(stage, &model, &micro, device, &mut sums)?;
            }
        }
        let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
        for batch in dataset.eval_batches(stage.micro_batch, max_rows) {
            ask_batch(stage, &model, &batch, device, &mut sums)?;
        }
        Ok(Self::Sums(sums))
    }

    /// What it says of a batch whose rows are chosen and rejected texts in turn. The lengths are the policy's: both come
    /// from one mask.
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

    /// How many texts it knows.
    pub fn n_texts(&self) -> usize {
        match self {
            Self::Unused => 0,
            Self::Sums(sums) => sums.len(),
        }
    }

    /// Writes it as a checksummed folder, which must not exist.
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

    /// Reads what `save` wrote under the same key; None where nothing lies there. The error is the reason why what lies
    /// there is of no use.
    pub fn load(dir: &Path, key: &str) -> std::result::Result<Option<Self>, String> {
        if std::fs::symlink_metadata(dir).is_err() {
            return Ok(None);
        }
        let manifest = fsio::verify_dir(dir).map_err(|error| error.to_string())?;
        if manifest.extra.get("key").and_then(Value::as_str) != Some(key) {
            return Err(format!("{}: of other weights or data", dir.display()));
        }
        let path = dir.join(LOGPROBS_FILE);
        let bytes = MappedFile::open(&path).map_err(|error| error.to_string())?;
        let (rows, rest) = bytes.as_chunks::<ROW_BYTES>();
        if !rest.is_empty() {
            return Err(format!("{}: cut short", path.display()));
        }
        let sums = rows.iter().map(|row| {
            let (sample, logprob) = row.split_at(8);
            let sample = sample.try_into().map_or(0, u64::from_le_bytes);
            (sample, logprob.try_into().map_or(f32::NAN, f32::from_le_bytes))
        });
        Ok(Some(Self::Sums(sums.collect())))
    }
}

fn ask_batch(
    stage: &StagePlan,
    model: &CausalLm,
    batch: &Batch,
    device: &Device,
    sums: &mut BTreeMap<u64, f32>,
) -> Result<()> {
    // A pair that comes again in a later epoch has its answer.
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
    let place = stage.dataset.place(sample);
    place.map_or_else(|| format!("sample {sample}"), |place| place.to_string())
}

/// A hash of everything that the numbers depend on: the starting weights, the texts as ids, which of them are visited.
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

/// The hashes of a folder's weights by file name; an adapter's record of its base counts as such.
fn weight_hashes(dir: &Path) -> Result<Value> {
    let unread = |source| Error::Read { path: dir.to_owned(), source };
    let mut hashes = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_weights = name.ends_with(".safetensors") && name != train::OPTIMIZER_FILE;
        if is_weights || name == plan::BASE_FILE {
            hashes.insert(name, fsio::sha256_file(entry.path())?);
        }
    }
    Ok(json!(hashes))
}
