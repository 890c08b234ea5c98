//! A whole run: cut and resumed it is the run that was never cut, and its reference is what the policy was at first.

use burn::tensor::Device;
use ppo::{Error, check_kl, first_episodes, orders};
use train::{Outcome, RunDir};

use crate::support::{Place, WHOLE_ROLES, ppo_plan, stage};

const LAST: &str = "checkpoints/step-000004";

/// Asserts that a run that was cut ended as the whole one did.
fn assert_same(place: &Place, cut: &str, policy: &str) {
    let files = [
        format!("model/{policy}"),
        format!("{LAST}/{policy}"),
        format!("{LAST}/value.safetensors"),
        format!("{LAST}/optimizer.safetensors"),
    ];
    for file in files {
        assert!(place.bytes(cut, &file) == place.bytes("whole", &file), "{cut}: {file}");
    }
    for log in ["metrics.jsonl", "samples.jsonl"] {
        assert_eq!(place.rows(cut, log), place.rows("whole", log), "{cut}: {log}");
    }
    // The reference samples the answers before the first update again: it has not changed.
    assert_eq!(place.result(cut), place.result("whole"));
}

/// Policy, value model, moments, the coefficient that follows its target, the draws: all of it.
#[test]
fn adapters_that_are_cut_and_resumed_end_the_same() {
    let place = Place::new();
    let outcome = place.run("whole", None).expect("a run");
    assert!(matches!(outcome, Outcome::Finished(finished) if finished.steps == 4));
    for until in [1, 2, 3] {
        let cut = format!("cut-{until}");
        let outcome = place.run(&cut, Some(until)).expect("a run");
        assert_eq!(outcome, Outcome::Stopped { step: until });
        place.run(&cut, None).expect("resumed");
        assert_same(&place, &cut, "adapter_model.safetensors");
    }
    // The coefficient moved away from the recipe's, update after update, over the cuts.
    let rows = place.rows("cut-2", "metrics.jsonl");
    let coefs: Vec<f64> =
        rows.iter().filter_map(|row| row.get("objective/kl_coef")?.as_f64()).collect();
    assert_eq!((coefs.len(), coefs[0]), (4, 0.1));
    for pair in coefs.windows(2) {
        // The divergence is far below its target: each update lowers the coefficient by 0.2 · 8 / 80 of it.
        assert!((pair[1] - 0.98 * pair[0]).abs() < 1e-9, "{coefs:?}");
    }
}

#[test]
fn whole_weights_that_are_cut_and_resumed_end_the_same() {
    let place = Place::new();
    place.roles(&format!("{WHOLE_ROLES}sample_prompts = [\"Say 3!\"]\n"));
    place.run("whole", None).expect("a run");
    place.run("cut", Some(3)).expect("a run");
    place.run("cut", None).expect("resumed");
    assert_same(&place, "cut", "model.safetensors");
}

#[test]
fn blocks_that_are_computed_again_change_no_bit_of_a_run_cut_and_resumed() {
    let place = Place::new();
    place.run("whole", None).expect("a run");
    place.recomputing();
    place.run("cut", Some(2)).expect("a run");
    place.run("cut", None).expect("resumed");
    assert_same(&place, "cut", "adapter_model.safetensors");
}

/// peft#493, unsloth-zoo PR #830: a reference that moves. trl#1066, #235: a KL that is not 0 before anything is learned.
#[test]
fn the_reference_is_what_the_policy_was_whatever_was_learned_since() {
    let place = Place::new();
    let first = || {
        let plan = place.plan("x");
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        let device = Device::flex().autodiff();
        first_episodes(&plan, stage(&plan), ppo_plan(&plan), &run_dir, 5, &device)
            .expect("episodes")
            .scored
    };
    let before = first();
    assert_eq!(before.episodes.len(), 5);
    for episode in &before.episodes {
        assert!(episode.kl.iter().all(|kl| *kl == 0.0), "{:?}", episode.kl);
        assert_eq!(episode.logprobs, episode.ref_logprobs);
    }
    place.run("x", None).expect("a run");
    let after = first();
    for (now, then) in after.episodes.iter().zip(&before.episodes) {
        assert_eq!(now.ref_logprobs, then.ref_logprobs);
        assert_eq!(now.score.to_bits(), then.score.to_bits());
    }
    // Something was learned, and the divergence shows it.
    let rows = place.rows("x", "metrics.jsonl");
    let kls: Vec<f64> = rows.iter().filter_map(|row| row.get("objective/kl")?.as_f64()).collect();
    assert_eq!((kls.len(), kls[0]), (4, 0.0));
    assert!(kls[1..].iter().all(|kl| *kl != 0.0), "{kls:?}");
}

#[test]
fn a_step_logs_the_figures_of_its_update_and_samples_say_what_was_before() {
    let place = Place::new();
    place.run("x", None).expect("a run");
    let rows = place.rows("x", "metrics.jsonl");
    let steps: Vec<_> = rows.iter().filter(|row| row.get("loss").is_some()).collect();
    let evals: Vec<_> = rows.iter().filter(|row| row.get("eval_loss").is_some()).collect();
    assert_eq!((steps.len(), evals.len(), &evals[0]["step"]), (4, 3, &0.into()));
    for row in &steps {
        let metric = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}"));
        let wanted = metric("loss/policy_avg") + 0.1 * metric("loss/value_avg");
        assert!((metric("loss") - wanted).abs() < 1e-12, "{row}");
        assert!((1.0..=6.0).contains(&metric("val/response_length")), "{row}");
        assert!((metric("val/ratio") - 1.0).abs() < 0.5, "{row}");
    }
    for row in &evals {
        assert_eq!(row["eval_loss"].as_f64(), row["score"].as_f64().map(|score| -score));
        assert_eq!(row["n_targets"], 256);
    }
    let result = place.result("x");
    assert_eq!(result["step"], 4);
    assert_eq!(result["before"]["kl"], 0.0);
    assert!(result["example"]["prompt"].as_str().expect("a prompt").contains("Say "));
    for row in place.rows("x", "samples.jsonl") {
        assert!(row["before"].is_string() && row["score"].is_f64(), "{row}");
    }
}

/// trl#235, LlamaFactory#1833: −233 nats, and then a model that says nothing.
#[test]
fn a_divergence_far_below_zero_stops_the_run() {
    for fine in [0.0, 12.0, -0.3, -5.0] {
        check_kl(7, fine).expect("the estimate may be slightly negative");
    }
    let error = check_kl(7, -233.4).expect_err("a fault");
    assert!(matches!(error, Error::NegativeKl { step: 7, .. }));
    assert!(
        error.to_string().contains("step 7") && error.to_string().contains("`-233.40`"),
        "{error}"
    );
    assert!(error.hint().is_some());
}

/// verl-omni#561: draws that share a seed.
#[test]
fn episodes_are_seen_once_an_epoch_in_an_order_of_seed_update_and_epoch() {
    let some = orders(3, "ppo", 5, 64, 4);
    assert_eq!(some.len(), 4);
    for order in &some {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..64).collect::<Vec<_>>());
    }
    assert_eq!(some, orders(3, "ppo", 5, 64, 4));
    let mut all = some;
    all.extend(orders(4, "ppo", 5, 64, 1));
    all.extend(orders(3, "ppo", 6, 64, 1));
    all.extend(orders(3, "other", 5, 64, 1));
    let n = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), n, "two epochs saw the same order");
    assert_eq!(orders(3, "ppo", 5, 1, 2), [[0], [0]]);
}
