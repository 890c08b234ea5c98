//! Completions without a reward: their judge or program gave no value, and no other reward has one.

use super::StageRun;

/// Names of the counters among those of the stage.
const COMPLETIONS: &str = "completions_without_reward";
const UPDATES: &str = "updates_without_reward";

impl StageRun<'_> {
    /// Counts the completions of an update that have no reward, `n` of `n_all`, and warns of the first of them and of the
    /// first update that has nothing else. `names` are the stage's rewards.
    pub fn count_unrewarded(&mut self, n: usize, n_all: usize, names: &[String]) {
        if n == 0 {
            return;
        }
        let (step, rewards) = (self.state.step, quoted(names));
        let mut count = |name: &str, n: usize| {
            let counter = self.state.extra.entry(name.to_owned()).or_default();
            *counter += n as f64;
            *counter == n as f64
        };
        let is_first = count(COMPLETIONS, n);
        if n < n_all {
            if is_first {
                self.warn(format!(
                    "step {step}: {n} of {n_all} completions have no reward ({rewards} gave no value), and nothing is learned \
                     from them"
                ));
            }
        } else if count(UPDATES, 1) {
            self.warn(format!(
                "step {step}: no completion has a reward ({rewards} gave no value), so nothing is learned from them: look at \
                 the reasons with `temper data inspect`"
            ));
        }
    }

    /// Warns at the end of a stage of the completions that had no reward.
    pub fn warn_of_unrewarded(&mut self, names: &[String]) {
        let counter = |name: &str| self.state.extra.get(name).copied().unwrap_or(0.0) as u64;
        let (completions, updates) = (counter(COMPLETIONS), counter(UPDATES));
        if completions == 0 {
            return;
        }
        let (stage, steps, rewards) = (&self.settings.stage, self.state.step, quoted(names));
        self.warn(if updates >= steps {
            format!(
                "[{stage}] nothing was learned: no completion of any update had a reward ({rewards} gave no value)"
            )
        } else {
            format!(
                "[{stage}] {completions} completions had no reward ({rewards} gave no value), among them all of {updates} of \
                 {steps} updates; nothing was learned from them"
            )
        });
    }

    /// Warns once that no completion of the validation prompts has a reward.
    pub fn warn_unrewarded_eval(&mut self, names: &[String]) {
        if self.not_finite.insert("reward".to_owned()) {
            let (step, rewards) = (self.state.step, quoted(names));
            self.warn(format!(
                "the evaluation at step {step} has no reward: {rewards} gave no value for any completion of the validation \
                 prompts"
            ));
        }
    }
}

/// Names for a message.
fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
