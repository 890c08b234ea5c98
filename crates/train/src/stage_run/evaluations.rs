//! When a stage evaluates its model, and which evaluation is the best.

use plan::BestMetric;

use super::StageRun;
use crate::Result;
use crate::metrics::EvalRow;
use crate::progress::Event;

/// Number of updates of PPO and GRPO between logged samples, without `sample_every_steps`.
const SAMPLE_TABLE_STEPS: u64 = 10;

impl StageRun<'_> {
    /// Whether this replica evaluates the model before the first update, as the start that later evaluations are compared
    /// with: the leader of a new stage with validation data does.
    pub fn first_eval_due(&self) -> bool {
        let is_new = self.state.step == 0 && self.state.first_eval.is_none();
        is_new
            && self.settings.validates
            && self.settings.keys.eval.is_some()
            && self.replicas.is_leader()
    }

    /// Logs the evaluation before the first update. It is no candidate for the best one, and does not count for early
    /// stopping.
    pub fn log_first_eval(&mut self, row: EvalRow) -> Result<()> {
        if let Some(logs) = &mut self.logs {
            self.guard.check()?;
            logs.eval(&row)?;
        }
        self.warn_of_trackers();
        if let Some(health) = &mut self.health {
            // A start is no symptom.
            health.eval(&row);
        }
        self.state.first_eval = Some(row.clone());
        self.progress.event(&Event::Eval { row: row.clone(), is_best: false });
        self.warn_of_not_finite(&row);
        self.start_row();
        Ok(())
    }

    /// The evaluation before the first update.
    pub fn first_eval(&self) -> Option<&EvalRow> {
        self.state.first_eval.as_ref()
    }

    /// Whether this replica evaluates the model now: the leader does, every `eval.every_steps` and at the last step.
    pub fn eval_due(&self) -> bool {
        let Some(eval) = &self.settings.keys.eval else { return false };
        if !self.replicas.is_leader() {
            return false;
        }
        let every =
            eval.every_steps.is_some_and(|every| self.state.step.is_multiple_of(every.max(1)));
        every || self.state.step >= self.settings.max_steps
    }

    /// Whether this replica logs answers to `sample_prompts` before the first update: the leader of a new stage does.
    pub fn first_samples_due(&self) -> bool {
        self.state.step == 0
            && self.replicas.is_leader()
            && !self.settings.keys.sample_prompts.is_empty()
    }

    /// Whether this replica logs samples now: the leader does, at each evaluation. `sample_prompts` are answered at the last
    /// step too, and `sample_every_steps` is a schedule of its own.
    pub fn samples_due(&self) -> bool {
        let keys = &self.settings.keys;
        if keys.sample_prompts.is_empty() && keys.sample_every_steps.is_none() {
            return self.eval_due();
        }
        let of_eval = keys.eval.as_ref().and_then(|eval| eval.every_steps);
        let every = keys.sample_every_steps.or(of_eval);
        let is_due = every.is_some_and(|every| self.state.step.is_multiple_of(every.max(1)));
        self.replicas.is_leader() && (is_due || self.state.step >= self.settings.max_steps)
    }

    /// Whether a stage that answers prompts logs the answers to the first of them now.
    pub fn sample_table_due(&self) -> bool {
        let every = self.settings.keys.sample_every_steps.unwrap_or(SAMPLE_TABLE_STEPS);
        self.replicas.is_leader() && self.state.step.is_multiple_of(every.max(1))
    }

    /// Logs an evaluation and counts it for early stopping. Returns whether it is the best so far.
    pub fn log_eval(&mut self, row: EvalRow) -> Result<bool> {
        if let Some(logs) = &mut self.logs {
            self.guard.check()?;
            logs.eval(&row)?;
        }
        self.warn_of_trackers();
        let cost = self.cost(&row);
        let best = self.best().and_then(|best| self.cost(best));
        let is_best = cost.is_some_and(|cost| best.is_none_or(|best| cost < best));
        if is_best {
            self.state.best = Some(row.clone());
            self.state.evals_without_gain = 0;
            self.best_is_new = true;
        } else if self.value(&row).is_some() {
            self.state.evals_without_gain += 1;
        }
        self.state.last_eval = Some(row.clone());
        if let Some(patience) = self.patience() {
            self.state.stopped_early |= self.state.evals_without_gain >= patience;
        }
        let found = self.health.as_mut().map(|health| health.eval(&row));
        // The best of bad ones is not called so.
        let first = self.state.first_eval.as_ref().and_then(|first| self.cost(first));
        let is_gain = first.is_none_or(|first| cost.is_some_and(|cost| cost < first));
        self.progress.event(&Event::Eval { row: row.clone(), is_best: is_best && is_gain });
        self.warn_of_not_finite(&row);
        self.warn_of(&found.unwrap_or_default());
        // Evaluation time does not count in tokens per second.
        self.start_row();
        Ok(is_best)
    }

    /// The best evaluation so far. An earlier version could take one that is not finite for it.
    pub(super) fn best(&self) -> Option<&EvalRow> {
        self.state.best.as_ref().filter(|best| self.cost(best).is_some())
    }

    /// The number by which evaluations are compared, lower is better; `None` without validation data and `eval.metric`, and
    /// for one that is not finite, which is never the best.
    fn cost(&self, row: &EvalRow) -> Option<f64> {
        let is_negated =
            self.settings.best_metric.as_ref().is_some_and(|metric| metric.higher_is_better);
        let value = self.value(row).filter(|value| value.is_finite())?;
        Some(if is_negated { -value } else { value })
    }

    /// The metric by which evaluations are compared.
    fn value(&self, row: &EvalRow) -> Option<f64> {
        match &self.settings.best_metric {
            Some(BestMetric { name, .. }) => row.extra.get(name).copied(),
            None => row.eval_loss,
        }
    }

    /// Warns once of each metric that is not finite.
    fn warn_of_not_finite(&mut self, row: &EvalRow) {
        let loss = row.eval_loss.map(|loss| ("eval_loss", loss));
        let metrics = row.extra.iter().map(|(name, value)| (name.as_str(), *value));
        for (name, value) in loss.into_iter().chain(metrics) {
            if !value.is_finite() && self.not_finite.insert(name.to_owned()) {
                let step = row.step;
                let message = format!(
                    "the metric `{name}` is {value} at step {step}, so it compares nothing"
                );
                self.warn(message);
            }
        }
    }

    /// Warns at the end of a stage that should export its best weights and has measured none.
    pub(super) fn warn_without_best(&mut self) {
        let is_measured = self.state.last_eval.is_some() && self.replicas.is_leader();
        if is_measured && self.exports_best() && self.best().is_none() {
            let name = match &self.settings.best_metric {
                Some(metric) => metric.name.as_str(),
                None => "the validation loss",
            };
            let message = format!(
                "[{}] has no best evaluation: {name} was never a finite number, so the weights of the last step, {}, are \
                 exported",
                self.settings.stage, self.state.step
            );
            self.warn(message);
        }
    }

    /// The best evaluation as a name and a value.
    pub(crate) fn measured(&self, row: &EvalRow) -> String {
        let name = self.settings.best_metric.as_ref().map_or("loss", |metric| metric.name.as_str());
        self.value(row).map_or_else(|| name.to_owned(), |value| format!("{name} {value:.4}"))
    }
}
