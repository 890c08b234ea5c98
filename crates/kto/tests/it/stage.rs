//! The stage as a whole: its first loss, its micro-batches, what it learns, what it logs and leaves, cut and resumed.

use serde_json::Value;
use train::Outcome;

use crate::support::{Place, kto_plan, metric, stage};

const REFERENCE: &str = "reference/logprobs.bin";
const MODEL: &str = "model/model.safetensors";

fn evals(rows: &[Value]) -> Vec<&Value> {
    rows.iter().filter(|row| row.get("eval_loss").is_some()).collect()
}

#[test]
fn the_first_loss_is_known_and_the_labels_are_learnt() {
    for loss in ["kto", "apo_zero_unpaired"] {
        let place = Place::new();
        let weight = [("kto.undesirable_weight", "0.8"), ("kto.loss", loss), ("kto.epochs", "6")];
        place.run(loss, &weight, None);
        let rows = place.metrics(loss);
        let first = rows.iter().find(|row| row.get("loss").is_some()).expect("a row");
        let labels = stage(&place.plan(loss, &weight)).dataset.batch(0).labels;
        let n_desirable = labels.iter().filter(|label| **label).count() as f64;
        let wanted = 0.5 * (n_desirable + 0.8 * (8.0 - n_desirable)) / 8.0;
        assert!((metric(first, "loss") - wanted).abs() < 1e-6, "{first}");
        assert_eq!(metric(first, "kl"), 0.0, "{first}");
        assert!(metric(first, "rewards/margins").abs() < 1e-6, "{first}");
        let evals = evals(&rows);
        let (start, last) = (evals.first().expect("one"), evals.last().expect("one"));
        assert!(metric(last, "eval_loss") < 0.9 * metric(start, "eval_loss"), "{start} {last}");
        assert!(metric(last, "eval_rewards/margins") > 0.3, "{last}");
        assert!(metric(last, "eval_logps/chosen") > metric(start, "eval_logps/chosen"), "{last}");
        let kl = metric(last, "eval_kl");
        assert!(if loss == "kto" { kl >= 0.0 } else { kl == 0.0 }, "{last}");
        let finished = place.bytes(loss, "finished.json");
        let finished: Value = serde_json::from_slice(&finished).expect("JSON");
        assert_eq!(finished["result"]["eval_rewards/margins"], last["eval_rewards/margins"]);
        assert!(place.stage_dir(loss).join("model/config.json").is_file());
    }
}

/// The estimate of a step does not depend on how the step is split, nor does anything else.
#[test]
fn micro_batches_change_nothing() {
    let place = Place::new();
    let run = |micro: &str| {
        // Steps of eight in threes leave two for the last micro-batch.
        let limits = [("kto.max_steps", "6"), ("kto.beta", "0.5")];
        place.run(micro, &[&limits[..], &[("kto.micro_batch", micro)]].concat(), None);
        place.metrics(micro)
    };
    let (whole, threes, ones) = (run("8"), run("3"), run("1"));
    let steps = whole.iter().filter(|row| row.get("loss").is_some());
    assert!(steps.clone().any(|row| metric(row, "kl") > 0.0), "the divergence is estimated");
    for (idx, row) in whole.iter().enumerate() {
        let keys: &[&str] = if row.get("loss").is_some() {
            &["loss", "grad_norm", "kl", "rewards/margins", "logps/chosen"]
        } else {
            &["eval_loss", "eval_kl", "eval_rewards/margins"]
        };
        for key in keys {
            let wanted = metric(row, key);
            for split in [&threes[idx], &ones[idx]] {
                let gap = (metric(split, key) - wanted).abs();
                assert!(gap < 5e-4 * wanted.abs().max(0.02), "{key}: {split} not {row}");
            }
        }
    }
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let place = Place::new();
    let whole = place.run("whole", &[], None);
    assert_eq!(whole.told("reference log-probabilities"), 1);
    let cut = place.run("cut", &[], Some(3));
    assert_eq!(cut.outcome, Some(Outcome::Stopped { step: 3 }));
    let resumed = place.run("cut", &[], Some(5));
    assert_eq!(resumed.told("precomputed"), 0, "it is read");
    // Removed, it is computed again by the initial weights.
    fsio::remove_dir_all(place.stage_dir("cut").join(train::REFERENCE_DIR)).expect("removed");
    assert_eq!(place.run("cut", &[], None).told("precomputed"), 1);
    assert_eq!(place.bytes("cut", REFERENCE), place.bytes("whole", REFERENCE));
    assert_eq!(place.bytes("cut", MODEL), place.bytes("whole", MODEL));
    // Other weights of the rows change no reference, another seed or loss does.
    let key = |set: &[(&str, &str)]| {
        let plan = place.plan("keys", set);
        let run_dir = train::RunDir::open(&plan.paths.run_dir).expect("the run's directory");
        kto::reference_key(&plan, stage(&plan), kto_plan(&plan), &run_dir).expect("a key")
    };
    let usual = key(&[]);
    assert_eq!(usual, key(&[("kto.undesirable_weight", "2.0"), ("kto.beta", "0.7")]));
    for change in [
        ("seed", "4"),
        ("kto.loss", "apo_zero_unpaired"),
        ("kto.rows_per_step", "4"),
        ("kto.overlong", "cut"),
    ] {
        assert_ne!(usual, key(&[change]), "{change:?}");
    }
}

/// With an adapter, the reference is the model without it; its dropout is drawn again after a cut.
#[test]
fn an_adapter_is_trained_and_resumed() {
    let place = Place::new();
    place.run("base", &[("kto.epochs", "0.5")], None);
    place.start_with_lora("base");
    place.run("whole", &[], None);
    let first = place.metrics("whole").remove(1);
    // Its second factors are zero, so dropout changes nothing yet.
    assert!((metric(&first, "loss") - 0.5).abs() < 1e-6, "{first}");
    place.run("cut", &[], Some(3));
    assert_eq!(place.run("cut", &[], None).told("precomputed"), 0);
    let adapter = "model/adapter_model.safetensors";
    assert_eq!(place.bytes("cut", adapter), place.bytes("whole", adapter));
}
