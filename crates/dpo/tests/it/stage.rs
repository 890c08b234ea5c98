//! The stage as a whole: its first loss, its micro-batches, what it learns, what it logs and leaves.

use crate::support::{Place, metric};

#[test]
fn the_first_loss_is_ln_2_and_the_pairs_are_learnt() {
    let place = Place::new();
    let set = [("dpo.epochs", "8"), ("dpo.beta", "0.5")];
    place.run("learns", &set, None);
    let rows = place.metrics("learns");
    let first = rows.iter().find(|row| row.get("loss").is_some()).expect("a row");
    assert!((metric(first, "loss") - std::f64::consts::LN_2).abs() < 1e-6, "{first}");
    assert!(metric(first, "rewards/margins").abs() < 1e-5);
    let evals: Vec<_> = rows.iter().filter(|row| row.get("eval_loss").is_some()).collect();
    let last = evals.last().expect("a measurement");
    assert!(metric(last, "accuracy") > 0.95, "{last}");
    assert!(metric(last, "margin") > 0.5, "{last}");
    assert!(metric(last, "eval_loss") < 0.5 * std::f64::consts::LN_2, "{last}");
    assert!(metric(last, "eval_rewards/chosen") > metric(last, "eval_rewards/rejected"));
    // The finished stage says what the last measurement said.
    let finished = place.bytes("learns", "finished.json");
    let finished: serde_json::Value = serde_json::from_slice(&finished).expect("JSON");
    assert_eq!(finished["result"]["accuracy"], last["accuracy"]);
    assert!(place.stage_dir("learns").join("model/config.json").is_file());
}

/// torchtune PR #1875, transformers PR #35207: a mean of means is not the mean.
#[test]
fn micro_batches_change_nothing() {
    let place = Place::new();
    for loss in ["sigmoid", "hinge", "ipo", "simpo", "orpo"] {
        let row = |micro: &str| {
            let name = format!("{loss}-{micro}");
            // Eight pairs in threes leave two for the last micro-batch.
            let set = [("dpo.loss", loss), ("dpo.micro_batch", micro), ("dpo.max_steps", "2")];
            place.run(&name, &set, None);
            // The second step: the policy has left its reference.
            place.metrics(&name).into_iter().find(|row| row["step"] == 2).expect("a row")
        };
        let (whole, threes, ones) = (row("8"), row("3"), row("1"));
        for key in ["loss", "grad_norm", "rewards/margins", "logps/chosen"] {
            let wanted = metric(&whole, key);
            for split in [&threes, &ones] {
                let gap = (metric(split, key) - wanted).abs();
                assert!(gap < 2e-4 * wanted.abs().max(0.01), "{loss} {key}: {split} not {whole}");
            }
        }
    }
}

#[test]
fn every_loss_moves_the_answers_apart() {
    let place = Place::new();
    for loss in ["hinge", "ipo", "simpo", "orpo"] {
        place.run(loss, &[("dpo.loss", loss), ("dpo.epochs", "6")], None);
        let rows = place.metrics(loss);
        let last = rows.iter().rfind(|row| row.get("eval_loss").is_some()).expect("a measurement");
        assert!(metric(last, "accuracy") > 0.9, "{loss}: {last}");
    }
}
