//! Reference log-probabilities: those of a stage's initial weights for its texts, computed once before the first update.
//!
//! They are saved in the stage's directory with a checksum and a key over everything that they depend on. A resumed run reads
//! the same numbers; a damaged or stale file is computed again. No second model stays in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use fsio::{DirWriter, MappedFile};
use model::CausalLm;
use plan::{Plan, StagePlan};
use serde_json::{Value, json};

use crate::{
    BaseModelCache, Error, LeaderFirst, Learner, ModelSource, Result, RunDir, StageRun, Weights,
    first_weights, model_hashes, start_dir,
};

/// The directory within the stage's.
pub const REFERENCE_DIR: &str = "reference";
/// Rows of `N` sample indices (8 bytes each) and a log-probability (f32, 4 bytes), little-endian, in the order of indices.
const LOGPROBS_FILE: &str = "logprobs.bin";
/// Raise it whenever the same inputs give other numbers.
const REFERENCE_VERSION: u32 = 1;

/// log π_ref of texts, by the indices of the `N` samples that each text is made of.
pub type ReferenceLogprobs<const N: usize> = BTreeMap<[u64; N], f32>;

/// The log-probabilities in a stage's directory.
#[derive(Clone, Debug, PartialEq)]
pub enum SavedReference<const N: usize> {
    /// Undamaged, and under the expected key.
    Usable(ReferenceLogprobs<N>),
    /// Damaged, or of other inputs; the reason.
    Unusable(String),
    /// There are none.
    Nothing,
}

/// Adds a text's log-probability; one that is there already stays.
///
/// Errors: it is not finite.
pub fn add_reference<const N: usize>(
    logprobs: &mut ReferenceLogprobs<N>,
    stage: &StagePlan,
    samples: [u64; N],
    logprob: f32,
) -> Result<()> {
    if !logprob.is_finite() {
        return Err(Error::ReferenceNotFinite { place: place_of(stage, &samples), logprob });
    }
    logprobs.entry(samples).or_insert(logprob);
    Ok(())
}

/// The precomputed log-probability of a text.
///
/// Errors: there is none.
pub fn reference_of<const N: usize>(
    logprobs: &ReferenceLogprobs<N>,
    stage: &StagePlan,
    samples: [u64; N],
) -> Result<f32> {
    let missing = || Error::NotInReference { place: place_of(stage, &samples) };
    logprobs.get(&samples).copied().ok_or_else(missing)
}

/// Writes a checksummed directory, which must not exist yet.
pub fn save_reference<const N: usize>(
    logprobs: &ReferenceLogprobs<N>,
    dir: &Path,
    key: &str,
) -> Result<()> {
    let mut rows = Vec::with_capacity(logprobs.len() * row_bytes::<N>());
    for (samples, logprob) in logprobs {
        rows.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        rows.extend_from_slice(&logprob.to_le_bytes());
    }
    let mut writer = DirWriter::begin(dir)?;
    writer.write(LOGPROBS_FILE, rows)?;
    writer.commit(json!({ "key": key }))?;
    Ok(())
}

/// Reads a directory that [`save_reference`] wrote under the same key.
///
/// Errors: it cannot be read, or another version wrote it.
pub fn load_reference<const N: usize>(dir: &Path, key: &str) -> Result<SavedReference<N>> {
    let manifest = match fsio::verify_dir(dir) {
        Ok(manifest) => manifest,
        Err(error) if error.is_not_found() => return Ok(SavedReference::Nothing),
        Err(fsio::Error::Damaged { file, damage, .. }) if damage.is_other_content() => {
            let path = dir.join(file);
            return Ok(SavedReference::Unusable(format!("{}: {damage}", path.display())));
        }
        Err(error) => return Err(error.into()),
    };
    if manifest.extra.get("key").and_then(Value::as_str) != Some(key) {
        let reason = format!("{}: belongs to other weights or data", dir.display());
        return Ok(SavedReference::Unusable(reason));
    }
    let path = dir.join(LOGPROBS_FILE);
    let bytes = MappedFile::open(&path)?;
    let rows = bytes.chunks_exact(row_bytes::<N>());
    if !rows.remainder().is_empty() {
        return Ok(SavedReference::Unusable(format!("{}: cut short", path.display())));
    }
    let logprobs = rows.map(|row| {
        let (indices, logprob) = row.split_at(8 * N);
        let mut samples = [0; N];
        for (sample, bytes) in samples.iter_mut().zip(indices.chunks_exact(8)) {
            *sample = bytes.try_into().map_or(0, u64::from_le_bytes);
        }
        (samples, logprob.try_into().map_or(f32::NAN, f32::from_le_bytes))
    });
    Ok(SavedReference::Usable(logprobs.collect()))
}

const fn row_bytes<const N: usize>() -> usize {
    8 * N + 4
}

/// Source of a stage's reference log-probabilities.
#[derive(Clone, Copy)]
pub struct ReferenceSource<'a> {
    /// The plan of the pipeline.
    pub plan: &'a Plan,
    /// The stage.
    pub stage: &'a StagePlan,
    /// The run directory.
    pub run_dir: &'a RunDir,
    /// Hash of everything that the log-probabilities depend on ([`reference_key`]).
    pub key: &'a str,
    /// Name of what the stage compares, in the plural, and the number of texts of each.
    pub unit: (&'static str, usize),
}

impl ReferenceSource<'_> {
    /// Reads the log-probabilities from the stage's directory, or computes them by the initial weights and saves them. The
    /// leader computes; the other replicas read. `model` is the model of the run's present step.
    pub fn load_or_precompute<const N: usize, E: From<Error>>(
        &self,
        run: &mut StageRun<'_>,
        model: &CausalLm,
        learner: &Learner<'_>,
        compute: impl Fn(&CausalLm) -> std::result::Result<ReferenceLogprobs<N>, E>,
    ) -> std::result::Result<ReferenceLogprobs<N>, E> {
        let turn = LeaderFirst::wait(learner.replicas)?;
        let dir = run.dir().path().join(REFERENCE_DIR);
        let logprobs = match load_reference(&dir, self.key)? {
            SavedReference::Usable(logprobs) => logprobs,
            SavedReference::Nothing => self.precompute(run, model, learner, compute)?,
            SavedReference::Unusable(reason) => {
                run.warn(format!("{reason}; reference log-probabilities are computed again"));
                run.check_dir()?;
                fsio::remove_dir_all(&dir).map_err(Error::from)?;
                self.precompute(run, model, learner, compute)?
            }
        };
        turn.end()?;
        Ok(logprobs)
    }

    fn precompute<const N: usize, E: From<Error>>(
        &self,
        run: &mut StageRun<'_>,
        model: &CausalLm,
        learner: &Learner<'_>,
        compute: impl Fn(&CausalLm) -> std::result::Result<ReferenceLogprobs<N>, E>,
    ) -> std::result::Result<ReferenceLogprobs<N>, E> {
        let start = Instant::now();
        let logprobs = if run.step() == 0 {
            compute(model)?
        } else {
            // The policy has been trained, so the initial weights are read again, in the data type of the first time.
            let lora = self.stage.lora.as_ref();
            let mut bases = BaseModelCache::new(learner.device).with_base_dtype(lora);
            let source = ModelSource::of(self.stage);
            let Weights { model, .. } =
                first_weights::<CausalLm>(self.plan, source, self.run_dir, &mut bases)?;
            compute(&model)?
        };
        run.check_dir()?;
        save_reference(&logprobs, &run.dir().path().join(REFERENCE_DIR), self.key)?;
        let (unit, n_texts) = self.unit;
        let n = logprobs.len() / n_texts.max(1);
        let seconds = start.elapsed().as_secs_f64();
        run.note(format!(
            "precomputed the reference log-probabilities of {n} {unit} in {seconds:.1} s"
        ));
        Ok(logprobs)
    }
}

fn place_of(stage: &StagePlan, samples: &[u64]) -> String {
    let place = |sample: &u64| {
        let place = stage.dataset.location(*sample);
        place.map_or_else(|| format!("sample {sample}"), |place| place.to_string())
    };
    // The same sample twice is one text.
    let mut places: Vec<String> = samples.iter().map(place).collect();
    places.dedup();
    places.join(" with ")
}

/// A hash of everything that a stage's reference log-probabilities depend on: the initial model, the precision, the token
/// ids, the texts visited, and `settings`, an object with the settings of the stage that decide what is summed.
pub fn reference_key(
    plan: &Plan,
    stage: &StagePlan,
    run_dir: &RunDir,
    settings: &Value,
) -> Result<String> {
    let adapter = stage.lora.as_ref().and_then(|lora| lora.adapter.as_ref());
    let mut weights = Vec::new();
    for start in std::iter::once(&stage.start).chain(adapter) {
        weights.push(match start_dir(stage, start, run_dir)? {
            None => json!({ "seed": plan.seed, "model": plan.recipe.model }),
            Some(dir) => json!(model_hashes(&dir)?),
        });
    }
    let eval = stage.keys.eval.as_ref();
    let inputs = json!({
        "version": REFERENCE_VERSION,
        "weights": weights,
        "precision": plan.precision.name(),
        "data": stage.inputs,
        "stage": stage.name,
        "seed": plan.seed,
        "sequence_length": stage.sequence_length,
        "rows_per_step": stage.rows_per_step,
        "steps": stage.max_steps,
        "eval": eval.map(|eval| json!([eval.holdout, eval.by, eval.max_rows])),
        "settings": settings,
    });
    Ok(fsio::sha256_hex(inputs.to_string().as_bytes()))
}
