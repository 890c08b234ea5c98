//! The stage as a whole.

use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use data::Share;
use distill::{Objective, Teacher, TeacherTargets, sampled};
use model::CausalLm;
use nn::TokenBatch;
use serde_json::Value;
use train::{Outcome, RunDir};

use crate::support::{Place, distill_plan, metric, stage};

const MODEL: &str = "model/model.safetensors";

fn evals(rows: &[Value]) -> Vec<&Value> {
    rows.iter().filter(|row| row.get("eval_loss").is_some()).collect()
}

/// ln p of all tokens at each position, `[n][v]`, at the recipe's temperature.
fn logprobs(model: &CausalLm, batch: &data::Batch) -> Vec<Vec<f64>> {
    let (b, t) = (batch.rows, batch.sequence_length);
    let device = Device::flex();
    let tokens = TokenBatch::new(&batch.ids, &batch.positions, &batch.segments, b, t, &device);
    let logits = model.logits(model.forward(&tokens).hidden_btd);
    let v = logits.dims()[2];
    let values: Vec<f64> =
        log_softmax(logits.div_scalar(0.05), 2).into_data().iter::<f64>().collect();
    values.chunks(v).map(<[f64]>::to_vec).collect()
}

#[test]
fn the_loss_is_the_divergence_at_the_targets() {
    let place = Place::new();
    let plan = place.plan("loss", &[]);
    let (stage, device) = (stage(&plan), Device::flex());
    let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's directory");
    let teacher = Teacher::open(stage, distill_plan(&plan), &run_dir, &device).expect("a teacher");
    let teacher_model =
        model::load_causal_lm(&place.path().join("teacher"), &device).expect("read");
    let student = CausalLm::init(&stage.config, 5, &device);
    let batch = stage.dataset.batch(0);
    let (t, s) = (logprobs(&teacher_model, &batch), logprobs(&student, &batch));
    let kl =
        |p: &[f64], q: &[f64]| -> f64 { p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum() };
    let targets = batch.targets.iter().enumerate().filter(|(_, target)| **target >= 0);
    let wanted: f64 = targets
        .map(|(at, _)| {
            let m: Vec<f64> = t[at]
                .iter()
                .zip(&s[at])
                .map(|(t, s)| f64::midpoint(t.exp(), s.exp()).ln())
                .collect();
            f64::midpoint(kl(&t[at], &m), kl(&s[at], &m))
        })
        .sum();
    let targets = TeacherTargets::of(&teacher, &batch);
    let objective = Objective::of(stage, distill_plan(&plan));
    let found = objective.measure(&student, &targets, &batch, &device);
    assert!((found - wanted).abs() < 5e-4 * wanted, "{found} not {wanted}");
}

#[test]
fn a_student_learns_its_teacher() {
    let place = Place::new();
    for (name, beta) in [("forward", "0.0"), ("jsd", "0.5"), ("reverse", "1.0")] {
        place.run(name, &[("distill.beta", beta), ("distill.max_steps", "60")], None);
        let rows = place.metrics(name);
        let first =
            metric(rows.iter().find(|row| row.get("loss").is_some()).expect("a row"), "loss");
        let evals = evals(&rows);
        let last = evals.last().expect("an evaluation");
        assert!(metric(last, "eval_loss") < 0.8 * first, "{name}: {first} {last}");
        assert!(metric(last, "perplexity") > 1.0 && metric(last, "cross_entropy") > 0.0, "{last}");
        let finished = place.bytes(name, "finished.json");
        let finished: Value = serde_json::from_slice(&finished).expect("JSON");
        assert_eq!(finished["result"]["eval_loss"], last["eval_loss"]);
    }
}

/// A student with the weights of its teacher has no loss.
#[test]
fn a_teacher_has_no_loss_to_itself() {
    let place = Place::new();
    let plan = place.plan("self", &[]);
    let (stage, device) = (stage(&plan), Device::flex());
    let model = model::load_causal_lm(&place.path().join("teacher"), &device).expect("read");
    let (batch, teacher) = (stage.dataset.batch(0), Teacher::of(&model));
    let targets = TeacherTargets::of(&teacher, &batch);
    let objective = Objective::of(stage, distill_plan(&plan));
    let found = objective.measure(&model, &targets, &batch, &device);
    assert!(found.abs() < 1e-3, "{found}");
}

#[test]
fn micro_batches_change_nothing() {
    let place = Place::new();
    let run = |micro: &str| {
        let set = [("distill.max_steps", "3"), ("distill.micro_batch", micro)];
        place.run(micro, &set, None);
        place.metrics(micro)
    };
    let (whole, ones) = (run("4"), run("1"));
    for (row, split) in whole.iter().zip(&ones) {
        let keys: &[&str] =
            if row.get("loss").is_some() { &["loss", "grad_norm"] } else { &["eval_loss"] };
        for key in keys {
            let wanted = metric(row, key);
            assert!(
                (metric(split, key) - wanted).abs() < 1e-3 * wanted,
                "{key}: {split} not {row}"
            );
        }
    }
}

#[test]
fn own_answers_follow_the_prompts_of_the_data() {
    let place = Place::new();
    let plan = place.plan("own", &[]);
    let stage = stage(&plan);
    let student = CausalLm::init(&stage.config, 5, &Device::flex());
    let batch = stage.dataset.batch(0);
    let of = |share: Share| {
        let plan = (&plan, stage, distill_plan(&plan));
        sampled(plan.0, plan.1, plan.2, &student, &batch, 0, share).expect("answers")
    };
    let whole = of(Share::WHOLE);
    assert_eq!(whole.samples, batch.samples, "one row for each sample");
    let texts = whole.texts();
    for (row, (text, targets)) in texts.iter().zip(whole.targets.chunks(96)).enumerate() {
        let first = targets.iter().position(|target| *target >= 0).expect("an answer");
        let prompt = stage.tokenizer.decode(&text[..=first], true);
        assert!(
            prompt.starts_with("User:\nSay ") && prompt.ends_with("Assistant:\n"),
            "{prompt:?}"
        );
        let n_answer = text.len() - first - 1;
        assert!((1..=12).contains(&n_answer), "row {row} has an answer of {n_answer} tokens");
        assert_eq!(targets.iter().filter(|target| **target >= 0).count(), n_answer);
    }
    // Shares of replicas are parts of the same answers.
    let halves = [0, 1].map(|rank| of(Share { rank, world_size: 2 }));
    let joined: Vec<u64> = halves.iter().flat_map(|half| half.samples.clone()).collect();
    assert_eq!(joined, whole.samples);
    let joined: Vec<u32> = halves.iter().flat_map(|half| half.ids.clone()).collect();
    assert_eq!(joined, whole.ids);
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let place = Place::new();
    let set = [("distill.on_policy", "0.5")];
    place.run("whole", &set, None);
    let rows = place.metrics("whole");
    let own = rows.iter().filter_map(|row| row["on_policy"].as_f64()).sum::<f64>();
    assert!((2.0..=10.0).contains(&own), "{own} of 12 steps are on the student's answers");
    let cut = place.run("cut", &set, Some(5));
    assert_eq!(cut.outcome, Some(Outcome::Stopped { step: 5 }));
    place.run("cut", &set, None);
    assert_eq!(place.bytes("cut", MODEL), place.bytes("whole", MODEL));
}

#[test]
fn documents_are_distilled_too() {
    let place = Place::new();
    let text =
        (0..60).fold(String::new(), |text, n| text + &format!("{{\"text\":\"I like {n}.\"}}\n"));
    fsio::write_atomic(place.path().join("texts.jsonl"), text).expect("texts");
    let recipe = std::fs::read_to_string(place.path().join("r.toml")).expect("a recipe");
    let recipe = recipe
        .replace("chats.jsonl", "texts.jsonl")
        .replace("chat_template = \"plain\"", "samples = \"documents\"");
    fsio::write_atomic(place.path().join("r.toml"), recipe).expect("a recipe");
    place.run("documents", &[], None);
    assert!(!evals(&place.metrics("documents")).is_empty());
}

#[test]
fn teachers_that_do_not_fit_are_refused() {
    let place = Place::new();
    let error =
        place.refused(&[("distill.sequence_length", "160"), ("distill.tokens_per_step", "640")]);
    assert!(error.contains("positions"), "{error}");
    let recipe = std::fs::read_to_string(place.path().join("r.toml")).expect("a recipe");
    let recipe = recipe.replace("load = \"teacher\"", "train = { kind = \"char\" }");
    fsio::write_atomic(place.path().join("r.toml"), recipe).expect("a recipe");
    let error = place.refused(&[]);
    assert!(error.contains("its tokenizer differs from the student's: id "), "{error}");
}
