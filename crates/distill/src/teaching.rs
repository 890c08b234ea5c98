//! Source of the teacher's distributions: the model in memory, or its most probable tokens, which are computed once before
//! the first update and saved.

use std::time::Instant;

use burn::tensor::Device;
use data::Batch;
use loss::HostTopTokens;
use plan::{DistillPlan, Plan, StagePlan};
use serde_json::json;
use train::{Collective, Error, LeaderFirst, RunDir, StageRun, StopFlag, model_hashes, start_dir};

use crate::samples::is_on_policy;
use crate::saved_top::{PartWriter, SavedTop, TEACHER_DIR, Text, texts};
use crate::{Objective, Result, Teacher, TeacherTargets};

/// Raise it whenever the same inputs give other numbers.
const TOP_VERSION: u32 = 1;

/// Source of the teacher's distributions.
#[derive(Debug)]
pub struct Teaching<'a> {
    stage: &'a StagePlan,
    objective: Objective,
    device: Device,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Probabilities of all tokens.
    All(Teacher),
    /// The `k` most probable tokens: saved ones for the data; those of the teacher, if it is in memory, for other texts.
    Top { k: usize, saved: SavedTop, teacher: Option<Teacher> },
}

/// The inputs of a distillation that its teacher depends on.
#[derive(Clone, Copy)]
pub struct TeachingInputs<'a> {
    /// The plan of the pipeline.
    pub plan: &'a Plan,
    /// The stage.
    pub stage: &'a StagePlan,
    /// Its own part of the plan.
    pub distill: &'a DistillPlan,
    /// The run directory.
    pub run_dir: &'a RunDir,
    /// The device of the student.
    pub device: &'a Device,
}

impl<'a> Teaching<'a> {
    /// Reads the teacher's weights, or the saved tokens of `top_k`. Tokens that are missing are computed first, by the leader;
    /// the other replicas read them. `None` if `stop` was requested before they were complete; those that were computed are
    /// saved.
    pub fn open(
        inputs: TeachingInputs<'a>,
        run: &mut StageRun<'_>,
        replicas: &dyn Collective,
        stop: &StopFlag,
    ) -> Result<Option<Self>> {
        let TeachingInputs { stage, distill, run_dir, device, .. } = inputs;
        let open = || Teacher::open(stage, distill, run_dir, device);
        let source = match distill.section.top_k {
            None => Source::All(open()?),
            Some(k) => {
                let turn = LeaderFirst::wait(replicas)?;
                // Replicas that wait for the leader cannot be told that it has stopped.
                let may_stop = || replicas.world_size() == 1 && stop.is_requested();
                let saved = saved_top(inputs, k, run, may_stop)?;
                turn.end()?;
                let Some(saved) = saved else { return Ok(None) };
                let has_own_answers = distill.section.on_policy > 0.0;
                let teacher = if has_own_answers { Some(open()?) } else { None };
                Source::Top { k, saved, teacher }
            }
        };
        let (objective, device) = (Objective::of(stage, distill), device.clone().inner());
        Ok(Some(Self { stage, objective, device, source }))
    }

    /// The teacher's distributions at the targets of a batch.
    ///
    /// Errors: the batch is not one of the data, and the teacher is not in memory.
    pub fn targets(&self, batch: &Batch) -> Result<TeacherTargets<'_>> {
        match &self.source {
            Source::All(teacher) => Ok(TeacherTargets::of(teacher, batch)),
            Source::Top { k, saved, teacher } => {
                let texts = texts(batch);
                let top = match (texts.iter().find(|text| !saved.has(text)), teacher) {
                    (None, _) => {
                        let mut top = HostTopTokens::default();
                        for text in &texts {
                            saved.read(text, &mut top);
                        }
                        top
                    }
                    (Some(_), Some(teacher)) => self.objective.top_tokens(teacher, batch, *k),
                    (Some(text), None) => {
                        return Err(Error::NotOfTeacher { place: place(self.stage, text) }.into());
                    }
                };
                Ok(TeacherTargets::Top(Box::new(top.to_device(*k, &self.device))))
            }
        }
    }
}

/// The saved tokens, completed by the teacher if some are missing; `None` if `may_stop` said so before.
fn saved_top(
    inputs: TeachingInputs<'_>,
    k: usize,
    run: &mut StageRun<'_>,
    may_stop: impl Fn() -> bool,
) -> Result<Option<SavedTop>> {
    let TeachingInputs { plan, stage, distill, run_dir, device } = inputs;
    let dir = run.dir().path().join(TEACHER_DIR);
    let (key, guard) = (teacher_key(inputs, k)?, run_dir.guard());
    let (mut saved, rejected) = SavedTop::open(&dir, &key, k, &guard)?;
    if let Some(reason) = rejected {
        run.warn(format!("{reason}; the teacher's tokens are computed again from there on"));
    }
    let n_steps = stage.max_steps;
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    let n_eval = stage.dataset.eval_batches(stage.micro_batch, max_rows).count() as u64;
    let next = saved.next_batch();
    if next >= n_steps + n_eval {
        return Ok(Some(saved));
    }
    let start = Instant::now();
    let teacher = Teacher::open(stage, distill, run_dir, device)?;
    let objective = Objective::of(stage, distill);
    let of_data = |step: &u64| !is_on_policy(plan, stage, distill.section.on_policy, *step);
    let steps = (next..n_steps).map(|step| {
        let data = Some(step).filter(of_data);
        data.map_or_else(Batch::default, |step| stage.dataset.batch(step))
    });
    let evals = stage.dataset.eval_batches(stage.micro_batch, max_rows);
    let batches = steps.chain(evals.skip(next.saturating_sub(n_steps) as usize));
    let mut writer = PartWriter::after(&saved, &dir, &key, &guard);
    let mut n_targets = 0;
    for batch in batches {
        for micro in batch.micro_batches(stage.micro_batch) {
            let micro = micro.trimmed();
            let texts = texts(&micro);
            let is_new = |text: &Text| !saved.has(text) && !writer.has(text);
            if !texts.iter().any(is_new) {
                continue;
            }
            let top = objective.top_tokens(&teacher, &micro, k);
            let mut from = 0;
            for text in texts {
                let to = from + text.n_targets;
                let ids = top.ids.get(from * k..to * k);
                let logprobs = top.logprobs.get(from * (k + 1)..to * (k + 1));
                from = to;
                let (ids, logprobs) = (ids.unwrap_or_default(), logprobs.unwrap_or_default());
                if !logprobs.iter().all(|logprob| logprob.is_finite()) {
                    return Err(Error::TeacherNotFinite { place: place(stage, &text) }.into());
                }
                if !saved.has(&text) && !writer.has(&text) {
                    writer.add(&text, ids, logprobs);
                    n_targets += text.n_targets;
                }
            }
        }
        writer.end_batch(&mut saved)?;
        if may_stop() {
            writer.write(&mut saved)?;
            return Ok(None);
        }
    }
    writer.write(&mut saved)?;
    run.note(format!(
        "computed the teacher's {k} most probable tokens at {n_targets} targets in {:.1} s; saved {:.1} MB",
        start.elapsed().as_secs_f64(),
        saved.n_bytes() as f64 / 1e6,
    ));
    Ok(Some(saved))
}

fn place(stage: &StagePlan, text: &Text) -> String {
    let place = stage.dataset.location(text.sample);
    place.map_or_else(|| format!("sample {}", text.sample), |place| place.to_string())
}

/// A hash of everything that the saved tokens depend on: the teacher's files, the precision, data and tokenizer, and the
/// rows that the stage visits.
fn teacher_key(inputs: TeachingInputs<'_>, k: usize) -> Result<String> {
    let TeachingInputs { plan, stage, distill, run_dir, .. } = inputs;
    let dir = start_dir(stage, &distill.teacher, run_dir)?;
    let teacher = dir.map(|dir| model_hashes(&dir)).transpose()?;
    let eval = stage.keys.eval.as_ref();
    let section = &distill.section;
    let inputs = json!({
        "version": TOP_VERSION,
        "teacher": teacher,
        "precision": plan.precision.name(),
        "data": stage.inputs,
        "stage": stage.name,
        "seed": plan.seed,
        "sequence_length": stage.sequence_length,
        "rows_per_step": stage.rows_per_step,
        "micro_batch": stage.micro_batch,
        "steps": stage.max_steps,
        "eval": eval.map(|eval| json!([eval.holdout, eval.by, eval.max_rows])),
        "samples": [json!(section.samples), json!(section.packing), json!(section.overlong), json!(section.learn)],
        "n_ids": Objective::of(stage, distill).n_ids,
        "temperature": section.temperature,
        "on_policy": section.on_policy,
        "top_k": k,
    });
    Ok(fsio::sha256_hex(inputs.to_string().as_bytes()))
}
