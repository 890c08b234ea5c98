//! Signs that training goes wrong, found in the metrics: one warning for each, with the keys to change.
//!
//! A warning changes nothing. The thresholds are wide: noise of small batches is no sign.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::metrics::{EvalRow, StepRow};

/// Values at the start of a metric that later ones are compared with.
const FIRST: usize = 5;
/// Values that are averaged.
const WINDOW: usize = 20;
/// Growth of the gradient norm.
const NORM_GROWTH: f64 = 1000.0;
/// KL divergence from the reference model, in nats per token. Sampled text of a trained policy has about 0.1.
const MAX_KL_PER_TOKEN: f64 = 1.0;
/// Share of its first entropy below which a policy gives one answer.
const LEAST_ENTROPY: f64 = 0.1;

/// A sign that training goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symptom {
    /// The gradient norm is a thousand times that of the first updates.
    GradNorm,
    /// The training loss is above that of the first update.
    LossAboveStart,
    /// The validation loss is above that before training.
    EvalLossAboveStart,
    /// The reward is lower than at the start.
    RewardCollapse,
    /// The policy is far from the reference model.
    KlRunaway,
    /// The policy gives one answer.
    EntropyCollapse,
}

/// A symptom with the value now and that of the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// The symptom.
    pub symptom: Symptom,
    /// The value now; a mean over the latest updates.
    pub now: f64,
    /// The value of the first updates, or the bound.
    pub start: f64,
}

/// The first and the latest values of a metric.
#[derive(Clone, Debug, Default, PartialEq)]
struct Track {
    first: Vec<f64>,
    last: VecDeque<f64>,
    n: usize,
}

impl Track {
    fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.first.len() < FIRST {
            self.first.push(value);
        }
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(value);
        self.n += 1;
    }

    /// The latest third of all values, at most [`WINDOW`]. `None` while there are few; the last update has to do with less.
    fn window(&self, is_last: bool) -> Option<Vec<f64>> {
        let least = if is_last { 3 } else { WINDOW };
        let size = (self.n / 3).clamp(1, WINDOW);
        let skipped = self.last.len().saturating_sub(size);
        (self.n >= least).then(|| self.last.iter().skip(skipped).copied().collect())
    }
}

/// The metrics of a stage so far, as far as symptoms depend on them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    tracks: BTreeMap<&'static str, Track>,
    first_eval: Option<f64>,
    last_eval: Option<f64>,
    is_policy: bool,
}

impl History {
    /// Adds an update.
    pub fn step(&mut self, row: &StepRow) {
        let first_of = |names: [&str; 2]| names.into_iter().find_map(|name| row.extra.get(name));
        let reward = first_of(["objective/scores", "reward"]).copied();
        self.is_policy |= reward.is_some();
        let per_answer = row.extra.get("objective/kl").zip(row.extra.get("val/response_length"));
        let of_ppo = per_answer.map(|(kl, length)| kl / length.max(1.0));
        let kl = of_ppo.or(row.extra.get("kl").copied()).filter(|_| self.is_policy);
        let values = [
            ("loss", Some(row.loss)),
            ("grad_norm", Some(row.grad_norm)),
            ("reward", reward),
            ("kl", kl),
            ("entropy", first_of(["policy/entropy_avg", "entropy"]).copied()),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                self.tracks.entry(name).or_default().push(value);
            }
        }
    }

    /// Adds an evaluation; that before the first update is the start of the others.
    pub fn eval(&mut self, row: &EvalRow) {
        // The log has null for every number that is not finite, so a resumed stage could not tell them apart.
        let loss = row.eval_loss.filter(|loss| loss.is_finite());
        match row.step {
            0 => self.first_eval = loss,
            _ => self.last_eval = loss,
        }
    }

    /// The symptoms of what was added. `is_last` is true after the last update, which may be one of few.
    pub fn symptoms(&self, is_last: bool) -> Vec<Finding> {
        let found = [
            self.grad_norm(is_last),
            self.loss(is_last),
            self.eval_loss(),
            self.reward(is_last),
            self.kl(is_last),
            self.entropy(is_last),
        ];
        found.into_iter().flatten().collect()
    }

    fn track(&self, name: &str) -> Option<&Track> {
        self.tracks.get(name)
    }

    fn grad_norm(&self, is_last: bool) -> Option<Finding> {
        let track = self.track("grad_norm")?;
        // The first gradient is that of the initial weights. One step alone may be an odd batch.
        let start = track.first.iter().copied().fold(f64::INFINITY, f64::min);
        let latest: Vec<f64> = track.last.iter().rev().take(3).copied().collect();
        let now = median(&latest)?;
        let is_late = is_last || track.n > FIRST;
        let symptom = Symptom::GradNorm;
        (is_late && now > NORM_GROWTH * start.max(1e-6)).then_some(Finding { symptom, now, start })
    }

    /// The loss of a policy says nothing about its quality.
    fn loss(&self, is_last: bool) -> Option<Finding> {
        let track = self.track("loss").filter(|_| !self.is_policy)?;
        let window = track.window(is_last)?;
        let start = *track.first.first()?;
        let (now, deviation) = mean_and_deviation(&window)?;
        let least = window.iter().copied().fold(f64::INFINITY, f64::min);
        // Above the spread of batches; or every one of them is far above, the farther the fewer they are.
        let is_above = window.len() > 4 && now > start + 0.1 * start.abs() + 3.0 * deviation;
        let factor = 0.5 + 3.0 / window.len() as f64;
        let is_far_above = least > start + factor * start.abs();
        let symptom = Symptom::LossAboveStart;
        (is_above || is_far_above).then_some(Finding { symptom, now, start })
    }

    fn eval_loss(&self) -> Option<Finding> {
        // That of a policy is its negated reward.
        let (start, now) = (self.first_eval.filter(|_| !self.is_policy)?, self.last_eval?);
        let symptom = Symptom::EvalLossAboveStart;
        (now > start + 0.02 * start.abs()).then_some(Finding { symptom, now, start })
    }

    fn reward(&self, is_last: bool) -> Option<Finding> {
        let track = self.track("reward")?;
        let window = track.window(is_last)?;
        let (start, spread) = mean_and_deviation(&track.first)?;
        let (now, deviation) = mean_and_deviation(&window)?;
        let symptom = Symptom::RewardCollapse;
        let is_below = now < start - 0.1 * start.abs() - 2.0 * spread.max(deviation);
        (is_below && track.n > FIRST).then_some(Finding { symptom, now, start })
    }

    fn kl(&self, is_last: bool) -> Option<Finding> {
        let (now, _) = mean_and_deviation(&self.track("kl")?.window(is_last)?)?;
        let (symptom, start) = (Symptom::KlRunaway, MAX_KL_PER_TOKEN);
        (now > MAX_KL_PER_TOKEN).then_some(Finding { symptom, now, start })
    }

    fn entropy(&self, is_last: bool) -> Option<Finding> {
        let track = self.track("entropy")?;
        let start = *track.first.first()?;
        let (now, _) = mean_and_deviation(&track.window(is_last)?)?;
        let symptom = Symptom::EntropyCollapse;
        let is_low = start > 0.05 && now < LEAST_ENTROPY * start;
        is_low.then_some(Finding { symptom, now, start })
    }
}

/// Mean and standard deviation; `None` without values.
fn mean_and_deviation(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    Some((mean, variance.sqrt()))
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// The text of a warning in a stage whose learning rate is `lr`.
pub fn warning(finding: &Finding, stage: &str, lr: f64) -> String {
    let Finding { symptom, now, start } = *finding;
    let lower = format!("lower {stage}.optimizer.lr (now {lr})");
    let closer = if stage == "grpo" { "grpo.beta".to_owned() } else { format!("{stage}.kl.coef") };
    match symptom {
        Symptom::GradNorm => format!(
            "the gradient norm is {now:.3e}; in the first updates it was {start:.3e}: {lower}, or \
             {stage}.optimizer.max_grad_norm"
        ),
        Symptom::LossAboveStart => format!(
            "the loss is {now:.4}, and was {start:.4} at the start: {lower}, or raise \
             {stage}.schedule.warmup_steps"
        ),
        Symptom::EvalLossAboveStart => format!(
            "the validation loss is {now:.4}, and was {start:.4} before training: {lower}, or make \
             fewer steps ({stage}.max_steps, {stage}.epochs)"
        ),
        Symptom::RewardCollapse => format!(
            "the mean reward is {now:.3}, and was {start:.3} at the start: {lower}, or raise {closer}"
        ),
        Symptom::KlRunaway => format!(
            "the KL divergence from the reference model is {now:.2} nats per token: raise {closer}, \
             or {lower}"
        ),
        Symptom::EntropyCollapse => format!(
            "the entropy of the policy is {now:.3} nats per token, and was {start:.3} at the start, \
             so its answers become one: raise {closer}, or {lower}"
        ),
    }
}

/// The text of a warning at the end of a stage whose loss ended above that of the start.
pub fn ending(finding: &Finding, stage: &str) -> String {
    let Finding { symptom, now, start } = *finding;
    let name = if symptom == Symptom::EvalLossAboveStart { "validation loss" } else { "loss" };
    format!(
        "[{stage}] ended worse than it started: its {name} is {now:.4}, and was {start:.4} before training"
    )
}

/// The history of a stage with the symptoms of which it has warned.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Health {
    history: History,
    told: BTreeSet<Symptom>,
}

impl Health {
    /// Adds a row of an earlier process, which has warned of it.
    pub(crate) fn replay(&mut self, line: &str) {
        if let Ok(row) = serde_json::from_str::<StepRow>(line) {
            self.history.step(&row);
        } else if let Ok(row) = serde_json::from_str::<EvalRow>(line) {
            self.history.eval(&row);
        }
        self.untold(false);
    }

    /// Symptoms that an update adds.
    pub(crate) fn step(&mut self, row: &StepRow, is_last: bool) -> Vec<Finding> {
        self.history.step(row);
        self.untold(is_last)
    }

    /// Symptoms that an evaluation adds.
    pub(crate) fn eval(&mut self, row: &EvalRow) -> Vec<Finding> {
        self.history.eval(row);
        self.untold(false)
    }

    /// The loss, if it ended above that of the start: of the validation data, or else of training.
    pub(crate) fn ended_above_start(&self) -> Option<Finding> {
        let found = self.history.symptoms(true);
        let of = |symptom: Symptom| found.iter().copied().find(|of| of.symptom == symptom);
        let has_validation = self.history.last_eval.is_some() && self.history.first_eval.is_some();
        of(Symptom::EvalLossAboveStart)
            .or_else(|| of(Symptom::LossAboveStart).filter(|_| !has_validation))
    }

    /// Symptoms that were not reported before.
    fn untold(&mut self, is_last: bool) -> Vec<Finding> {
        let found = self.history.symptoms(is_last);
        found.into_iter().filter(|finding| self.told.insert(finding.symptom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64, loss: f64, extra: &[(&str, f64)]) -> StepRow {
        let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        StepRow { step, loss, grad_norm: 1.0, extra, ..StepRow::default() }
    }

    /// A number between −½ and ½ that looks random.
    fn noise(step: u64) -> f64 {
        let mixed = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        mixed as f64 / (1u64 << 24) as f64 - 0.5
    }

    /// The symptoms of a run of `n` updates, in the order of their warnings.
    fn symptoms(n: u64, of: impl Fn(u64) -> StepRow) -> Vec<Symptom> {
        let mut health = Health::default();
        let found = (1..=n).flat_map(|step| health.step(&of(step), step == n)).collect::<Vec<_>>();
        found.into_iter().map(|finding| finding.symptom).collect()
    }

    #[test]
    fn a_loss_that_ends_above_its_start_is_named() {
        let eval =
            |step: u64, loss: f64| EvalRow { step, eval_loss: Some(loss), ..EvalRow::default() };
        let ended = |losses: [f64; 2], evals: &[f64]| {
            let mut health = Health::default();
            for step in 1..=40 {
                let loss = if step < 4 { losses[0] } else { losses[1] };
                health.step(&row(step, loss, &[]), step == 40);
            }
            for (step, loss) in (0..).zip(evals) {
                health.eval(&eval(step, *loss));
            }
            health.ended_above_start().map(|finding| ending(&finding, "sft"))
        };
        assert_eq!(ended([5.0, 4.0], &[]), None);
        assert_eq!(ended([5.0, 4.0], &[5.0, 4.5]), None);
        // Validation counts where there is one.
        assert_eq!(ended([5.0, 50.0], &[5.0, 4.5]), None);
        for (losses, evals, text) in [
            ([5.0, 50.0], &[][..], "its loss is 50.0000, and was 5.0000"),
            ([5.0, 4.0], &[5.0, 6.0], "its validation loss is 6.0000, and was 5.0000"),
        ] {
            let ended = ended(losses, evals).expect("a warning");
            assert!(ended.starts_with("[sft] ended worse") && ended.contains(text), "{ended}");
        }
    }

    #[test]
    fn healthy_runs_have_none() {
        let falling = |step: u64| row(step, 2.0 + 6.0 / step as f64 + 0.5 * noise(step), &[]);
        assert_eq!(symptoms(300, falling), []);
        // Fine-tuning of a good model on batches of few rows; the first one is easy.
        let flat = |step: u64| row(step, if step == 1 { 0.8 } else { 1.2 + noise(step) }, &[]);
        assert_eq!(symptoms(200, flat), []);
        for n in 1..6 {
            assert_eq!(symptoms(n, flat), [], "{n} updates");
        }
        let policy = |step: u64| {
            let x = step as f64;
            row(
                step,
                noise(step) + x / 100.0,
                &[
                    ("objective/scores", noise(step) + x / 50.0),
                    ("objective/kl", 6.0),
                    ("val/response_length", 28.0),
                    ("policy/entropy_avg", 2.5 - x / 100.0),
                ],
            )
        };
        assert_eq!(symptoms(100, policy), []);
    }

    #[test]
    fn a_loss_above_its_start_is_reported_once() {
        // The learning rate is far too large: the loss explodes after the first update.
        let exploding =
            |step: u64| row(step, if step == 1 { 6.2 } else { 80.0 + 90.0 * noise(step) }, &[]);
        assert_eq!(symptoms(200, exploding), [Symptom::LossAboveStart]);
        assert_eq!(symptoms(3, exploding), [Symptom::LossAboveStart]);
        let rising = |step: u64| row(step, 3.0 + step as f64 / 50.0 + 0.2 * noise(step), &[]);
        assert_eq!(symptoms(100, rising), [Symptom::LossAboveStart]);
    }

    #[test]
    fn validation_is_compared_with_that_before_training() {
        let eval = |step, loss| EvalRow { step, eval_loss: Some(loss), ..EvalRow::default() };
        let mut health = Health::default();
        assert!(health.eval(&eval(0, 2.0)).is_empty() && health.eval(&eval(10, 1.5)).is_empty());
        let found = health.eval(&eval(20, 2.5));
        let finding = Finding { symptom: Symptom::EvalLossAboveStart, now: 2.5, start: 2.0 };
        assert_eq!(found, [finding]);
        assert!(health.eval(&eval(30, 2.6)).is_empty());
        // A run without validation before training, as of an older version.
        let mut health = Health::default();
        assert!(health.eval(&eval(10, 1.5)).is_empty() && health.eval(&eval(20, 9.5)).is_empty());
    }

    #[test]
    fn policies() {
        let of = |name: &'static str, value: fn(f64) -> f64| {
            move |step: u64| {
                let reward = if name == "reward" { 0.0 } else { 1.0 };
                let mut row = row(step, 0.0, &[("reward", reward)]);
                row.extra.insert(name.to_owned(), value(step as f64) + 0.1 * noise(step));
                row
            }
        };
        let reward = of("reward", |x| if x < 20.0 { 1.0 } else { -1.0 });
        assert_eq!(symptoms(60, reward), [Symptom::RewardCollapse]);
        assert_eq!(symptoms(60, of("kl", |x| x / 20.0)), [Symptom::KlRunaway]);
        let entropy = of("entropy", |x| 2.0 * (-x / 5.0).exp());
        assert_eq!(symptoms(60, entropy), [Symptom::EntropyCollapse]);
        let norm = |step: u64| StepRow {
            grad_norm: 10f64.powf(step as f64 / 10.0),
            ..row(step, 1.0, &[])
        };
        assert_eq!(symptoms(60, norm), [Symptom::GradNorm]);
    }

    #[test]
    fn a_resumed_stage_does_not_repeat_warnings() {
        let rising = |step: u64| row(step, 3.0 + step as f64, &[]);
        let mut health = Health::default();
        for step in 1..=40 {
            health.replay(&serde_json::to_string(&rising(step)).unwrap());
        }
        assert_eq!(health.told, BTreeSet::from([Symptom::LossAboveStart]));
        assert!(health.step(&rising(41), true).is_empty());
        health.replay("not a row");
    }

    #[test]
    fn warnings_name_the_keys() {
        let finding = |symptom| Finding { symptom, now: 12.5, start: 0.5 };
        let all = [
            Symptom::GradNorm,
            Symptom::LossAboveStart,
            Symptom::EvalLossAboveStart,
            Symptom::RewardCollapse,
            Symptom::KlRunaway,
            Symptom::EntropyCollapse,
        ];
        for symptom in all {
            let text = warning(&finding(symptom), "ppo", 10.0);
            assert!(text.contains("ppo.optimizer.lr (now 10)"), "{text}");
        }
        let text = warning(&finding(Symptom::KlRunaway), "grpo", 1e-3);
        assert!(text.contains("grpo.beta"), "{text}");
    }
}
