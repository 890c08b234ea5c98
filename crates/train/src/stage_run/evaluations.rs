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
            logs.eval(&row)?;
        }
        self.warn_of_trackers();
        if let Some(health) = &mut self.health {
            // A start is no symptom.
            health.eval(&row);
        }
        self.state.first_eval = Some(row.clone());
        self.progress.event(&Event::Eval { row, is_best: false });
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
            logs.eval(&row)?;
        }
        self.warn_of_trackers();
        let cost = self.cost(&row);
        let best = self.state.best.as_ref().and_then(|best| self.cost(best));
        let is_best = cost.is_some_and(|cost| best.is_none_or(|best| cost < best));
        if is_best {
            self.state.best = Some(row.clone());
            self.state.evals_without_gain = 0;
            self.best_is_new = true;
        } else if cost.is_some() {
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
        self.progress.event(&Event::Eval { row, is_best: is_best && is_gain });
        self.warn_of(&found.unwrap_or_default());
        // Evaluation time does not count in tokens per second.
        self.start_row();
        Ok(is_best)
    }

    /// The number by which evaluations are compared, lower is better; `None` without validation data and `eval.metric`.
    fn cost(&self, row: &EvalRow) -> Option<f64> {
        let Some(BestMetric { name, higher_is_better }) = &self.settings.best_metric else {
            return row.eval_loss;
        };
        let value = *row.extra.get(name)?;
        Some(if *higher_is_better { -value } else { value })
    }

    /// The best evaluation as a name and a value.
    pub(crate) fn measured(&self, row: &EvalRow) -> String {
        let (name, value) = match &self.settings.best_metric {
            Some(metric) => (metric.name.as_str(), row.extra.get(&metric.name).copied()),
            None => ("loss", row.eval_loss),
        };
        value.map_or_else(|| name.to_owned(), |value| format!("{name} {value:.4}"))
    }
}
