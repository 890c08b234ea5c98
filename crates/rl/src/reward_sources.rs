//! The models and programs that compute rewards.

use std::path::PathBuf;

use burn::tensor::Device;
use model::{CausalLm, ScalarModel};
use plan::{RewardsPlan, StagePlan, Start};
use recipe::RewardKind;
use rewards::{GradedText, Part, Rewards, run_command};
use train::{BaseModelCache, Collective, RunDir, start_dir};

use crate::batch::model_scores;
use crate::judge::Judge;
use crate::rollout::Rollout;
use crate::{Error, Result};

/// Reason of a value that another replica computed.
const ELSEWHERE: &str = "computed by another replica";

/// The models and programs that compute rewards. All are frozen.
#[derive(Debug)]
pub struct RewardSources {
    models: Vec<ScalarModel>,
    weights: Vec<f32>,
    judges: Vec<Judge>,
    program_dir: PathBuf,
}

/// Values that a judge or a program computed.
pub(crate) struct Graded {
    /// One for each completion that has this reward.
    pub(crate) parts: Vec<Option<Part>>,
    /// Number of completions at which a program failed.
    pub(crate) n_failed: Option<usize>,
}

impl RewardSources {
    /// Reads the models that the plan names; those on the same base share its weights. Judges write `at_once` replies
    /// together.
    ///
    /// Errors: weights or a tokenizer that cannot be read.
    pub fn open(
        plan: &RewardsPlan,
        stage: &StagePlan,
        run_dir: &RunDir,
        bases: &mut BaseModelCache,
        at_once: usize,
    ) -> Result<Self> {
        let dir = |start: &Start| -> Result<PathBuf> {
            start_dir(stage, start, run_dir)?.ok_or(Error::NoRewardModel)
        };
        let mut models = Vec::with_capacity(plan.models.len());
        for planned in &plan.models {
            let reward: ScalarModel = bases.open(&dir(&planned.start)?)?;
            models.push(model::train_only(reward, &|_| false));
        }
        let mut judges = Vec::with_capacity(plan.judges.len());
        let keys = plan.stated.graded().filter_map(|(_, kind)| {
            let RewardKind::Judge(keys) = kind else { return None };
            Some(keys)
        });
        for (planned, keys) in plan.judges.iter().zip(keys) {
            let dir = dir(&planned.start)?;
            let model: CausalLm = bases.open(&dir)?;
            let model = generate::without_autodiff(&model).into_owned();
            judges.push(Judge::new(model, &dir, keys, at_once)?);
        }
        let weights = plan.models.iter().map(|model| model.weight as f32).collect();
        Ok(Self { models, weights, judges, program_dir: plan.program_dir.clone() })
    }

    /// The reward models.
    pub fn models(&self) -> &[ScalarModel] {
        &self.models
    }

    /// Factor of each reward model's score.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The scores of the reward model at `idx`: each replica computes its share and receives all.
    pub fn model_scores(
        &self,
        idx: usize,
        episodes: &[Rollout],
        device: &Device,
        replicas: &dyn Collective,
    ) -> Result<Vec<f32>> {
        let Some(model) = self.models.get(idx) else { return Ok(Vec::new()) };
        let mine = episodes.get(replicas.share().of(episodes.len())).unwrap_or_default();
        let scores = model_scores(mine, model, &device.clone().inner());
        let all = replicas.all_gather(scores.into_iter().map(f64::from).collect())?;
        Ok(all.into_iter().flatten().map(|score| score as f32).collect())
    }

    /// The values of the reward at `place` of `rewards` for the completions that have it. Each replica computes those of its
    /// share and receives all.
    pub(crate) fn grade(
        &self,
        rewards: &Rewards,
        place: usize,
        kind: &RewardKind,
        texts: &[Option<GradedText>],
        replicas: &dyn Collective,
    ) -> Result<Graded> {
        let share = replicas.share().of(texts.len());
        let mine = texts.get(share.clone()).unwrap_or_default();
        let known: Vec<&GradedText> = mine.iter().flatten().collect();
        let (parts, n_failed) = match kind {
            RewardKind::Judge(_) => {
                let is_judge = |(at, kind): &(usize, &RewardKind)| {
                    *at < place && matches!(kind, RewardKind::Judge(_))
                };
                let idx = rewards.graded().filter(is_judge).count();
                let judge = self.judges.get(idx).ok_or(Error::NoRewardModel)?;
                let score = |reply: std::result::Result<String, String>| match reply {
                    Ok(reply) => rewards.reply_score(place, &reply),
                    Err(why) => Part { value: None, why },
                };
                (judge.replies(&known)?.into_iter().map(score).collect(), None)
            }
            RewardKind::Command(keys) => {
                let values = run_command(keys, &self.program_dir, &known)?;
                (values.parts, Some(values.n_failed))
            }
            RewardKind::Number(_)
            | RewardKind::Choice(_)
            | RewardKind::Exact(_)
            | RewardKind::Regex(_)
            | RewardKind::Format(_)
            | RewardKind::Length(_)
            | RewardKind::Repetition(_)
            | RewardKind::JsonSchema(_)
            | RewardKind::Model(_) => (Vec::new(), None),
        };
        let mut parts = parts.into_iter();
        let mine: Vec<Option<Part>> =
            mine.iter().map(|text| text.as_ref().and_then(|_| parts.next())).collect();
        gathered(mine, n_failed, share.start, texts.len(), replicas)
    }
}

/// The parts of all replicas in the order of completions: reasons of this replica's own, values of all.
fn gathered(
    mine: Vec<Option<Part>>,
    n_failed: Option<usize>,
    first: usize,
    n: usize,
    replicas: &dyn Collective,
) -> Result<Graded> {
    if replicas.world_size() == 1 {
        return Ok(Graded { parts: mine, n_failed });
    }
    let number =
        |part: &Option<Part>| part.as_ref().and_then(|part| part.value).unwrap_or(f64::NAN);
    let mut numbers: Vec<f64> = mine.iter().map(number).collect();
    // Whether a completion has this reward at all, and the number of failures.
    numbers.extend(mine.iter().map(|part| f64::from(u8::from(part.is_some()))));
    numbers.push(n_failed.unwrap_or(0) as f64);
    let mut parts: Vec<Option<Part>> = Vec::with_capacity(n);
    let mut total = 0;
    for of_replica in replicas.all_gather(numbers)? {
        let Some((failed, numbers)) = of_replica.split_last() else { continue };
        total += *failed as usize;
        let (values, has_part) = numbers.split_at(numbers.len() / 2);
        parts.extend(values.iter().zip(has_part).map(|(value, has)| {
            let value = Some(*value).filter(|value| !value.is_nan());
            (*has > 0.0).then(|| Part { value, why: ELSEWHERE.to_owned() })
        }));
    }
    let place = first..first + mine.len();
    for (part, own) in parts.get_mut(place).unwrap_or_default().iter_mut().zip(mine) {
        *part = own;
    }
    Ok(Graded { parts, n_failed: n_failed.map(|_| total) })
}
