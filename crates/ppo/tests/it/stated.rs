//! Rewards that need no model: with and without a reward model, in training, validation and resuming.

use burn::tensor::Device;
use ppo::first_episodes;
use train::RunDir;

use crate::support::{Place, ppo_plan, stage};

/// Rewards in place of a model. Answers of the tiny policy are up to six characters.
const ROLES: &str = "policy = { start = \"sft\", lora = { rank = 2 } }\n\
    value = { start = \"sft\", lora = { rank = 2 } }\n\
    rewards = [{ kind = \"number\", answer = \"{answer}\", weight = 2.0 }, \
    { kind = \"regex\", pattern = \"[0-9]\" }, { kind = \"length\", cache_tokens = 3, weight = 0.5 }]\n";
/// The same beside a model.
const WITH_MODEL: &str = "policy = { start = \"sft\", lora = { rank = 2 } }\n\
    rewards = [{ kind = \"model\", start = \"reward\", weight = 0.25 }, \
    { kind = \"regex\", pattern = \"[0-9]\", weight = -1.0 }]\n";

/// A directory whose prompts have an answer, but for every fourth.
fn place(roles: &str) -> Place {
    let place = Place::new();
    place.roles(roles);
    let row = |n: usize| match n % 4 {
        0 => format!("{{\"prompt\":\"Say {n}!\"}}\n"),
        _ => format!("{{\"prompt\":\"Say {n}!\",\"answer\":{}}}\n", n % 10),
    };
    let rows: String = (0..30).map(row).collect();
    fsio::write_atomic(place.path().join("prompts.jsonl"), rows).expect("prompts");
    place
}

fn episodes(place: &Place) -> ppo::Episodes {
    let plan = place.plan("x");
    let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
    let device = Device::flex().autodiff();
    first_episodes(&plan, stage(&plan), ppo_plan(&plan), &run_dir, 8, &device).expect("episodes")
}

#[test]
fn scores_are_the_weighted_sum_of_the_rewards() {
    let place = place(ROLES);
    let shown = episodes(&place);
    let stated = shown.stated.expect("rewards without a model");
    assert_eq!(stated.names, ["number", "regex", "length"]);
    let plan = place.plan("x");
    let tokenizer = &stage(&plan).tokenizer;
    let mut n_skipped = 0;
    let episodes = shown.scored.rollouts.episodes.iter().zip(&shown.scored.episodes);
    for ((rollout, episode), scored) in episodes.zip(&stated.episodes) {
        let [number, regex, length] = scored.parts.as_slice() else { panic!("three rewards") };
        let prompt = tokenizer.decode(rollout.prompt(), false);
        let n: String = prompt.chars().filter(char::is_ascii_digit).collect();
        let n: usize = n.parse().expect("the number of the prompt");
        assert_eq!(number.value.is_none(), n.is_multiple_of(4), "{prompt}");
        n_skipped += usize::from(number.value.is_none());
        let text = tokenizer.decode(rollout.response(), true);
        let has_digit = text.contains(|c: char| c.is_ascii_digit());
        assert_eq!(regex.value, Some(f64::from(u8::from(has_digit))), "{text}");
        // Three of six tokens are free.
        let late = rollout.response().len().saturating_sub(3) as f64 / 3.0;
        assert!((length.value.expect("a length") + late).abs() < 1e-12, "{text}");
        let penalty = if rollout.span().end == rl::EndReason::Length { 1.0 } else { 0.0 };
        let expected =
            2.0 * number.value.unwrap_or(0.0) + regex.value.unwrap_or(0.0) - 0.5 * late - penalty;
        assert!((f64::from(episode.score) - expected).abs() < 1e-6, "{text}: {}", episode.score);
        assert!(episode.model_scores.is_empty());
    }
    assert!(n_skipped < stated.episodes.len());
}

#[test]
fn a_reward_model_is_one_term_of_the_sum() {
    let place = place(WITH_MODEL);
    let shown = episodes(&place);
    let stated = shown.stated.expect("a reward without a model");
    for (episode, scored) in shown.scored.episodes.iter().zip(&stated.episodes) {
        let model = f64::from(episode.model_scores[0]);
        let penalty = if episode.logprobs.len() == 6 { 1.0 } else { 0.0 };
        let regex = scored.parts[0].value.expect("always");
        let without = 0.25 * model - regex;
        let score = f64::from(episode.score);
        let is_close = |expected: f64| (score - expected).abs() < 1e-6;
        assert!(is_close(without) || is_close(without - penalty), "{score} {without}");
    }
}

#[test]
fn a_cut_and_resumed_run_ends_the_same_and_logs_each_reward() {
    let place = place(ROLES);
    place.run("whole", None).expect("a run");
    place.run("cut", Some(2)).expect("a run");
    place.run("cut", None).expect("resumed");
    for file in ["model/adapter_model.safetensors", "checkpoints/step-000004/value.safetensors"] {
        assert!(place.bytes("cut", file) == place.bytes("whole", file), "{file}");
    }
    let rows = place.rows("whole", "metrics.jsonl");
    assert_eq!(rows, place.rows("cut", "metrics.jsonl"));
    let steps = rows.iter().filter(|row| row.get("loss").is_some());
    let evals = rows.iter().filter(|row| row.get("eval_loss").is_some());
    for row in steps.chain(evals) {
        for name in ["number", "regex", "length"] {
            let mean = row[format!("rewards/{name}/mean")].as_f64().expect("a mean");
            let std = row[format!("rewards/{name}/std")].as_f64().expect("a deviation");
            assert!((-1.0..=1.0).contains(&mean) && (0.0..=1.0).contains(&std), "{row}");
        }
        assert!(row.get("rewards/model/mean").is_none());
    }
    // Scores of prompts differ, so the rewards moved the policy.
    let place = self::place(WITH_MODEL);
    place.run("x", None).expect("a run");
    for row in place.rows("x", "metrics.jsonl").iter().filter(|row| row.get("loss").is_some()) {
        assert!(row["rewards/model/mean"].is_f64() && row["rewards/regex/std"].is_f64(), "{row}");
    }
}
