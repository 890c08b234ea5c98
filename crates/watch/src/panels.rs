//! The curves of a stage in order of importance.

use crate::run_view::StageView;
use crate::series::Series;

/// A curve, named by the first of its metrics that the stage has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    names: &'static [&'static str],
    evals: &'static [&'static str],
}

const fn panel(
    title: &'static str,
    names: &'static [&'static str],
    evals: &'static [&'static str],
) -> Panel {
    Panel { title, names, evals }
}

const LOSS: Panel = panel("loss", &["loss"], &["eval_loss"]);
/// The loss of a policy's evaluation is its negated reward.
const POLICY_LOSS: Panel = panel("loss", &["loss"], &[]);
const REWARD: Panel = panel("reward", &["objective/scores", "reward"], &["score", "reward"]);
const KL: Panel = panel("KL", &["objective/kl", "kl"], &["kl"]);
const ENTROPY: Panel = panel("entropy", &["policy/entropy_avg", "entropy"], &[]);
const LENGTH: Panel = panel(
    "answer length",
    &["val/response_length", "completions/mean_length"],
    &["completions/mean_length"],
);
const ACCURACY: Panel = panel("accuracy", &["rewards/accuracies", "accuracy"], &["accuracy"]);
const MARGIN: Panel = panel("margin", &["rewards/margins", "margin"], &["margin"]);
const NORM: Panel = panel("gradient norm", &["grad_norm"], &[]);
const RATE: Panel = panel("learning rate", &["lr"], &[]);
const SPEED: Panel = panel("tokens/s", &["tokens_per_s"], &[]);
const VALUE_LOSS: Panel = panel("value loss", &["loss/value_avg"], &[]);
const EQUAL: Panel = panel("equal rewards", &["frac_reward_zero_std"], &[]);
const CLIPPED: Panel = panel("clipped", &["policy/clipfrac_avg", "clip_ratio/region_mean"], &[]);
const BUSIEST: Panel = panel("busiest expert", &["experts/max_load"], &[]);

/// The policy's loss says little, so its reward is first.
const OF_POLICY: &[Panel] = &[
    REWARD,
    KL,
    ENTROPY,
    LENGTH,
    POLICY_LOSS,
    NORM,
    RATE,
    SPEED,
    VALUE_LOSS,
    EQUAL,
    CLIPPED,
    BUSIEST,
];
const OF_OTHERS: &[Panel] = &[LOSS, NORM, RATE, ACCURACY, MARGIN, KL, SPEED, BUSIEST];

/// The panels of a stage that have values; the first one is the largest.
pub(crate) fn panels(stage: &StageView) -> Vec<Panel> {
    let is_policy = REWARD.curve(stage).is_some();
    let all = if is_policy { OF_POLICY } else { OF_OTHERS };
    let has_values = |panel: &&Panel| panel.curve(stage).or(panel.marks(stage)).is_some();
    all.iter().filter(has_values).copied().collect()
}

impl Panel {
    /// Values of updates.
    pub(crate) fn curve(self, stage: &StageView) -> Option<&Series> {
        stage.curve(self.names).filter(|series| series.last().is_some())
    }

    /// Values of evaluations.
    pub(crate) fn marks(self, stage: &StageView) -> Option<&Series> {
        stage.eval_curve(self.evals).filter(|series| series.last().is_some())
    }

    /// Whether its marks are the validation loss.
    pub(crate) fn is_loss(self) -> bool {
        self.title == LOSS.title
    }
}
