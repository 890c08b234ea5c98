//! Which metrics are drawn together, in the order in which a reader wants them.

use crate::metrics::{Metrics, Phase, Series};

/// Metrics that are drawn in one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel<'a> {
    /// Title.
    pub title: String,
    /// Lines.
    pub lines: Vec<PanelLine<'a>>,
}

/// A line of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct PanelLine<'a> {
    /// Name in the legend.
    pub label: String,
    /// Points.
    pub series: &'a Series,
}

use Phase::{Training as T, Validation as V};

/// A line of a template: phase, name of the metric, name in the legend. A name that ends with `*` stands for all metrics that
/// start with the text before it, except those of another template.
type Wanted = (Phase, &'static str, &'static str);

/// Titles with their lines. The first that a stage has is drawn large, so rewards precede the loss, which says little in PPO
/// and GRPO.
const TEMPLATES: &[(&str, &[Wanted])] = &[
    (
        "Score of the reward model",
        &[(T, "objective/scores", "training"), (V, "score", "validation")],
    ),
    ("Reward", &[(T, "reward", "training"), (V, "reward", "validation")]),
    ("Loss", &[(T, "loss", "training"), (V, "eval_loss", "validation")]),
    (
        "Accuracy",
        &[
            (T, "accuracy", "training"),
            (T, "rewards/accuracies", "training"),
            (V, "accuracy", "validation"),
        ],
    ),
    (
        "Margin",
        &[
            (T, "margin", "training"),
            (T, "rewards/margins", "training"),
            (V, "margin", "validation"),
        ],
    ),
    (
        "KL from the reference model",
        &[(T, "objective/kl", "training"), (T, "kl", "training"), (V, "kl", "validation")],
    ),
    ("Entropy per token", &[(T, "policy/entropy_avg", "training"), (T, "entropy", "training")]),
    (
        "Tokens of an answer",
        &[
            (T, "val/response_length", "mean"),
            (T, "completions/mean_length", "mean"),
            (T, "completions/min_length", "shortest"),
            (T, "completions/max_length", "longest"),
            (V, "completions/mean_length", "validation"),
        ],
    ),
    ("Rewards of answers", &[(T, "rewards/chosen", "chosen"), (T, "rewards/rejected", "rejected")]),
    ("Single rewards", &[(T, "rewards/*", "")]),
    (
        "Log-probability of answers",
        &[(T, "logps/chosen", "chosen"), (T, "logps/rejected", "rejected")],
    ),
    ("Policy and value loss", &[(T, "loss/policy_avg", "policy"), (T, "loss/value_avg", "value")]),
    (
        "Clipped share",
        &[
            (T, "policy/clipfrac_avg", "policy"),
            (T, "val/clipfrac_avg", "value"),
            (T, "clip_ratio/region_mean", "ratios"),
            (T, "completions/clipped_ratio", "answers cut off"),
        ],
    ),
    ("Groups with equal rewards", &[(T, "frac_reward_zero_std", "training")]),
    ("Variety of answers", &[(V, "distinct", "distinct answers"), (V, "distinct_2", "distinct-2")]),
    ("Answers that end", &[(V, "ended", "validation")]),
    ("Calibration error", &[(V, "calibration_error", "validation")]),
    ("Cross-entropy of the data", &[(V, "cross_entropy", "validation")]),
    ("Tasks", &[(V, "task/*", "")]),
    ("Learning rate", &[(T, "lr", "last")]),
    ("Gradient norm", &[(T, "grad_norm", "last")]),
    ("Tokens per second", &[(T, "tokens_per_s", "last")]),
    (
        "Load of experts",
        &[(T, "experts/max_load", "busiest over mean"), (T, "experts/idle", "idle share")],
    ),
];

/// Metrics whose range can be drawn on a logarithmic scale. Others, such as margins, pass through zero.
const LOGARITHMIC: [&str; 4] = ["loss", "eval_loss", "grad_norm", "cross_entropy"];

/// Most lines of a picture.
const MOST_LINES: usize = 5;

/// The pictures of a stage.
pub fn panels(metrics: &Metrics) -> Vec<Panel<'_>> {
    let panels = TEMPLATES.iter().map(|(title, wanted)| Panel {
        title: (*title).to_owned(),
        lines: wanted.iter().flat_map(|wanted| lines(metrics, wanted)).take(MOST_LINES).collect(),
    });
    let mut panels: Vec<Panel<'_>> = panels.filter(|panel| !panel.lines.is_empty()).collect();
    // A single evaluation is a number in a table; only the first picture of a stage may be a dot.
    let mut is_first = true;
    panels.retain(|panel| std::mem::take(&mut is_first) || panel.has_curve());
    panels
}

impl Panel<'_> {
    /// Whether a line has more than one point.
    fn has_curve(&self) -> bool {
        self.lines.iter().any(|line| line.series.points.len() > 1)
    }

    /// Whether the values may be drawn on a logarithmic scale.
    pub(crate) fn may_be_logarithmic(&self) -> bool {
        self.lines.iter().all(|line| LOGARITHMIC.contains(&line.series.name.as_str()))
    }
}

fn lines<'a>(metrics: &'a Metrics, (phase, name, label): &Wanted) -> Vec<PanelLine<'a>> {
    // The loss of a policy's evaluation is its negative reward.
    let is_reward = *name == "eval_loss"
        && ["score", "reward"].iter().any(|reward| metrics.get(V, reward).is_some());
    if is_reward {
        return Vec::new();
    }
    let Some(prefix) = name.strip_suffix('*') else {
        let series = metrics.get(*phase, name).filter(|series| series.first().is_some());
        return series
            .map(|series| PanelLine { label: (*label).to_owned(), series })
            .into_iter()
            .collect();
    };
    metrics
        .of_phase(*phase)
        .filter(|series| series.first().is_some())
        .filter(|series| series.name.starts_with(prefix) && !is_named(*phase, &series.name))
        // A standard deviation has another scale than its mean.
        .filter(|series| !series.name.ends_with("/std") && !series.name.ends_with("_stderr"))
        .map(|series| {
            let name = series.name.trim_start_matches(prefix);
            let label = name.strip_suffix("/mean").unwrap_or(name).to_owned();
            PanelLine { label, series }
        })
        .collect()
}

/// Whether a template names this metric.
fn is_named(phase: Phase, name: &str) -> bool {
    let wanted = TEMPLATES.iter().flat_map(|(_, wanted)| *wanted);
    wanted.into_iter().any(|(of, known, _)| *of == phase && *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_precede_the_loss_and_single_ones_share_a_picture() {
        let row = serde_json::from_str(
            "{\"step\":1,\"loss\":1.0,\"reward\":2.0,\"rewards/a/mean\":1.0,\"rewards/a/std\":1.0,\"rewards/b/mean\":1.0,\
             \"lr\":0.1,\"entropy\":null}",
        )
        .unwrap();
        let next = serde_json::from_str(
            "{\"step\":2,\"loss\":1.0,\"reward\":2.0,\"rewards/a/mean\":1.0,\"rewards/b/mean\":1.0,\"lr\":0.1}",
        )
        .unwrap();
        let eval =
            serde_json::from_str("{\"step\":2,\"eval_loss\":-2.0,\"reward\":2.0,\"ended\":1.0}")
                .unwrap();
        let metrics = Metrics::of(&[row, next, eval]);
        let found: Vec<String> = panels(&metrics)
            .iter()
            .map(|panel| {
                let labels: Vec<&str> =
                    panel.lines.iter().map(|line| line.label.as_str()).collect();
                format!("{}: {}", panel.title, labels.join(", "))
            })
            .collect();
        assert_eq!(
            found,
            [
                "Reward: training, validation",
                "Loss: training",
                "Single rewards: a, b",
                "Learning rate: last"
            ]
        );
    }
}
