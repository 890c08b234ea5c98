//! A whole run: cut and resumed it is the run that was never cut.

use burn::tensor::Device;
use grpo::{first_groups, order};
use train::{Outcome, RunDir};

use crate::support::{Place, grpo_plan, stage};

const LAST: &str = "checkpoints/step-000004";

/// Asserts that a run that was cut ended as the whole one did.
fn assert_same(place: &Place, cut: &str, policy: &str) {
    let files = [
        format!("model/{policy}"),
        format!("{LAST}/{policy}"),
        format!("{LAST}/optimizer.safetensors"),
    ];
    for file in files {
        assert!(place.bytes(cut, &file) == place.bytes("whole", &file), "{cut}: {file}");
    }
    for log in ["metrics.jsonl", "samples.jsonl"] {
        assert_eq!(place.rows(cut, log), place.rows("whole", log), "{cut}: {log}");
    }
    assert_eq!(place.result(cut), place.result("whole"));
}

#[test]
fn runs_that_are_cut_and_resumed_end_the_same() {
    for (keys, lora, policy) in [
        ("beta = 0.05", true, "adapter_model.safetensors"),
        ("sample_prompts = [\"Say 3!\"]\nsample_max_new_tokens = 4", false, "model.safetensors"),
        ("advantage = \"leave_one_out\"", false, "model.safetensors"),
        ("dynamic_sampling_max_tries = 2", false, "model.safetensors"),
        (
            "beta = 0.5\nsync_ref_model = true\nref_model_mixup_alpha = 0.3\nref_model_sync_steps = 1",
            false,
            "model.safetensors",
        ),
        (
            "beta = 0.5\nsync_ref_model = true\nref_model_mixup_alpha = 1.0\nref_model_sync_steps = 2",
            true,
            "adapter_model.safetensors",
        ),
        (
            "top_entropy_quantile = 0.5\nloss_type = \"grpo\"\nconventions = \"trl\"",
            false,
            "model.safetensors",
        ),
    ] {
        let place = Place::new(keys, lora);
        let outcome = place.run("whole", None).expect("a run");
        assert!(matches!(outcome, Outcome::Finished(finished) if finished.steps == 4));
        for until in [1, 3] {
            let cut = format!("cut-{until}");
            let outcome = place.run(&cut, Some(until)).expect("a run");
            assert_eq!(outcome, Outcome::Stopped { step: until });
            place.run(&cut, None).expect("resumed");
            assert_same(&place, &cut, policy);
        }
    }
}

#[test]
fn a_step_logs_its_rewards_and_the_result_has_those_before() {
    let place = Place::new("beta = 0.05", false);
    place.run("x", None).expect("a run");
    let rows = place.rows("x", "metrics.jsonl");
    let steps: Vec<_> = rows.iter().filter(|row| row.get("loss").is_some()).collect();
    let evals: Vec<_> = rows.iter().filter(|row| row.get("eval_loss").is_some()).collect();
    assert_eq!((steps.len(), evals.len(), &evals[0]["step"]), (4, 3, &0.into()));
    for row in &steps {
        let metric = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}"));
        // Rewards whose completions all have a value, by their weights; `number` has one for some.
        let sum = metric("rewards/regex/mean")
            + 0.5 * metric("rewards/length/mean")
            + 0.1 * metric("rewards/model/mean")
            + metric("rewards/missing_eos/mean");
        let number = row["rewards/number/mean"].as_f64().unwrap_or_default();
        let rest = metric("reward") - sum;
        assert!((-1e-6..=2.0 * number + 1e-6).contains(&rest), "{row}");
        assert!((1.0..=6.0).contains(&metric("completions/mean_length")), "{row}");
        assert!(metric("entropy") > 0.0 && metric("kl") >= 0.0, "{row}");
    }
    // Before the first optimizer step the policy is its reference.
    assert!(steps[0]["kl"].as_f64().expect("a divergence") < steps[3]["kl"].as_f64().expect("one"));
    for row in &evals {
        assert_eq!(row["eval_loss"].as_f64(), row["reward"].as_f64().map(|reward| -reward));
        assert_eq!(row["n_targets"], 256);
    }
    let result = place.result("x");
    assert!(result["before"]["reward"].is_f64(), "{result}");
    assert!(result["example"]["prompt"].as_str().expect("a prompt").contains("Say "));
    for row in place.rows("x", "samples.jsonl") {
        assert!(row["before"].is_string() && row["score"].is_f64(), "{row}");
    }
}

#[test]
fn the_first_groups_are_those_of_the_first_update() {
    let place = Place::new("beta = 0.05", true);
    let groups = |n: usize| {
        let plan = place.plan("x");
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let device = Device::flex().autodiff();
        first_groups(&plan, stage(&plan), grpo_plan(&plan), &run_dir, n, &device).expect("groups")
    };
    let shown = groups(2).scored;
    assert_eq!(shown.episodes.len(), 8);
    for (group, rollouts) in shown.episodes.chunks(4).zip(shown.rollouts.episodes.chunks(4)) {
        assert!(rollouts.iter().all(|rollout| rollout.prompt() == rollouts[0].prompt()));
        let sum: f32 = group.iter().map(|episode| episode.advantage).sum();
        assert!(sum.abs() < 1e-4, "{sum}");
        for episode in group {
            assert_eq!(episode.logprobs, episode.ref_logprobs);
        }
    }
    place.run("x", None).expect("a run");
    // Those of the first prompt alone are the same, and are what the run logged.
    let rewards: Vec<f64> = shown.episodes.iter().map(|episode| episode.reward).collect();
    let again: Vec<f64> = groups(1).scored.episodes.iter().map(|episode| episode.reward).collect();
    assert_eq!(again, rewards[..4]);
    let logged = place.rows("x", "metrics.jsonl")[1]["reward"].as_f64().expect("a reward");
    assert!((rewards.iter().sum::<f64>() / 8.0 - logged).abs() < 1e-9);
}

#[test]
fn completions_are_seen_in_an_order_of_seed_and_update() {
    let mut sorted = order(3, "grpo", 5, 64);
    let some = sorted.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..64).collect::<Vec<_>>());
    assert_eq!(some, order(3, "grpo", 5, 64));
    for other in [order(4, "grpo", 5, 64), order(3, "grpo", 6, 64), order(3, "other", 5, 64)] {
        assert_ne!(some, other);
    }
}

/// With a reward that is almost always equal, most groups are replaced; what remains has no signal or comes from other prompts.
#[test]
fn groups_with_equal_rewards_are_replaced_by_others() {
    let rare = "rewards = [{ kind = \"regex\", pattern = \"00\" }]";
    let of = |keys: &str| {
        let place = Place::with_rewards(rare, keys);
        place.run("x", None).expect("a run");
        let rows = place.rows("x", "metrics.jsonl");
        rows.into_iter().filter(|row| row.get("loss").is_some()).collect::<Vec<_>>()
    };
    let (without, with) = (of(""), of("dynamic_sampling_max_tries = 20"));
    let metric = |row: &serde_json::Value, name: &str| {
        row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}"))
    };
    let share = |rows: &[serde_json::Value]| -> f64 {
        rows.iter().map(|row| metric(row, "frac_reward_zero_std")).sum()
    };
    assert!(share(&without) > share(&with), "{} {}", share(&without), share(&with));
    let mut n_replaced = 0.0;
    for row in &with {
        let [sampled, equal, replaced] = ["sampled", "equal", "replaced"]
            .map(|name| metric(row, &format!("dynamic_sampling/{name}_groups")));
        n_replaced += replaced;
        // Two prompts a step; of what was sampled, the groups in the update are the rest and those without a substitute.
        let left = metric(row, "frac_reward_zero_std") * 2.0;
        assert!(equal >= replaced + left && sampled - equal >= 2.0 - left, "{row}");
        assert!(left == 0.0 || sampled > 20.0, "{row}");
    }
    assert!(n_replaced > 0.0);
    assert!(without.iter().all(|row| row.get("dynamic_sampling/equal_groups").is_none()));
}

/// The reference model of a checkpoint is the stated mixture of the policies so far.
#[test]
fn the_reference_model_follows_the_policy_by_the_stated_share() {
    use tensor_file::TensorFile;
    let keys =
        "beta = 0.5\nsync_ref_model = true\nref_model_mixup_alpha = 0.25\nref_model_sync_steps = 2";
    let place = Place::new(keys, false);
    place.run("x", None).expect("a run");
    let read = |file: std::path::PathBuf, name: &str| -> Vec<f32> {
        let file = TensorFile::map(&file).expect("a file");
        file.tensor(name).expect("a tensor").values().expect("values")
    };
    let checkpoint = |step: u64| place.stage_dir("x").join(format!("checkpoints/step-{step:06}"));
    for name in ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"] {
        let mut expected = read(place.path().join("sft/model.safetensors"), name);
        let first = expected.clone();
        for step in [2, 4] {
            let policy = read(checkpoint(step).join("model.safetensors"), name);
            for (reference, policy) in expected.iter_mut().zip(policy) {
                *reference = 0.75 * *reference + 0.25 * policy;
            }
            let saved = read(checkpoint(step).join("reference.safetensors"), name);
            testkit::assert_close(name, &saved, &expected, testkit::Tolerance::absolute(1e-6));
            assert_ne!(saved, first, "{name}");
        }
    }
    // A reference that stays has no file.
    let place = Place::new("beta = 0.5", false);
    place.run("x", None).expect("a run");
    assert!(!place.stage_dir("x").join(LAST).join("reference.safetensors").exists());
}

/// Two reward models, of which the second has its own weight, and a judge whose replies have no score.
#[test]
fn several_models_reward_an_answer() {
    let rewards = "rewards = [{ kind = \"model\", start = \"judge\" }, { kind = \"model\", start = \"judge\", weight = -0.5 }, \
        { kind = \"judge\", start = \"sft\", template = \"{completion}\", range = [0, 9], max_new_tokens = 3 }]";
    let place = Place::with_rewards(rewards, "");
    let shown = {
        let plan = place.plan("x");
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let device = Device::flex().autodiff();
        first_groups(&plan, stage(&plan), grpo_plan(&plan), &run_dir, 2, &device).expect("groups")
    };
    let table = &shown.scored.rewards;
    assert_eq!(table.names[..3], ["model", "model-2", "judge"]);
    for (row, episode) in table.values.iter().zip(&shown.scored.episodes) {
        assert_eq!(row[0], row[1]);
        let judged = if row[2].is_nan() { 0.0 } else { row[2] };
        let total: f64 = 0.5 * row[0] + judged + row[3];
        assert!((episode.reward - total).abs() < 1e-5, "{row:?} {}", episode.reward);
    }
    // A tiny model writes digits at times: some replies have a score.
    let stated = shown.stated.expect("the judge's values");
    assert!(stated.episodes.iter().all(|scored| !scored.parts[0].why.is_empty()));
    place.run("whole", None).expect("a run");
    place.run("cut", Some(3)).expect("a run");
    place.run("cut", None).expect("resumed");
    assert_same(&place, "cut", "model.safetensors");
}
