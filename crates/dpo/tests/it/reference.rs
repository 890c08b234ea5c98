//! The reference is what the starting weights said: the same numbers to the bit at the first step and the last, after a
//! cut, after damage (peft#493, peft PR #736, unsloth-zoo PR #830: reference log-probabilities that moved in training).

use burn::tensor::Device;
use dpo::{Objective, Reference};
use model::CausalLm;
use train::{
    BaseModelCache, ModelSource, Outcome, REFERENCE_DIR, ReferenceLogprobs, RunDir, SavedReference,
    Weights, load_reference, save_reference,
};

use crate::support::{Place, dpo_plan, metric, stage};

const FILE: &str = "reference/logprobs.bin";
const MODEL: &str = "model/model.safetensors";

#[test]
fn it_is_computed_once_by_the_initial_weights() {
    let place = Place::new();
    let whole = place.run("whole", &[], None);
    assert_eq!(whole.told("reference log-probabilities of 40 pairs"), 1);
    let plan = place.plan("whole", &[]);
    let dir = place.stage_dir("whole").join(REFERENCE_DIR);
    let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
    let key = dpo::reference_key(&plan, stage(&plan), dpo_plan(&plan), &run_dir).expect("a key");
    let SavedReference::<1>::Usable(saved) = load_reference(&dir, &key).expect("read") else {
        panic!("the saved reference")
    };
    let first = train::first_weights(
        &plan,
        ModelSource::of(stage(&plan)),
        &run_dir,
        &mut BaseModelCache::new(&Device::flex()),
    );
    let first: Weights<CausalLm> = first.expect("weights");
    // Those that the weights of step 0 give now, to the bit, and every pair of steps and measurements among them.
    let now =
        Reference::compute(stage(&plan), &Objective::default(), &first.model, &Device::flex())
            .expect("computed");
    assert_eq!(saved, now);
    assert_eq!(saved.len(), 80);
    // The weights did move.
    let last = model::load_causal_lm(&place.stage_dir("whole").join("model"), &Device::flex());
    let moved = Reference::compute(
        stage(&plan),
        &Objective::default(),
        &last.expect("a model"),
        &Device::flex(),
    )
    .expect("computed");
    assert_ne!(saved, moved);
}

#[test]
fn a_resumed_run_reads_it() {
    let place = Place::new();
    place.run("whole", &[], None);
    let cut = place.run("cut", &[], Some(3));
    assert_eq!(cut.outcome, Some(Outcome::Stopped { step: 3 }));
    let before = place.bytes("cut", FILE);
    let resumed = place.run("cut", &[], None);
    assert_eq!(resumed.told("precomputed"), 0);
    assert_eq!(place.bytes("cut", FILE), before);
    assert_eq!(before, place.bytes("whole", FILE));
    assert_eq!(place.bytes("cut", MODEL), place.bytes("whole", MODEL));
}

#[test]
fn a_damaged_or_missing_one_is_computed_again_by_the_initial_weights() {
    let place = Place::new();
    place.run("whole", &[], None);
    let wanted = place.bytes("whole", FILE);
    place.run("cut", &[], Some(3));
    let path = place.stage_dir("cut").join(FILE);
    let mut bytes = wanted.clone();
    bytes[9] ^= 1;
    fsio::write_atomic(&path, bytes).expect("damaged");
    let resumed = place.run("cut", &[], Some(5));
    assert_eq!((resumed.told("checksum"), resumed.told("precomputed")), (1, 1));
    assert_eq!(place.bytes("cut", FILE), wanted);
    fsio::remove_dir_all(place.stage_dir("cut").join(REFERENCE_DIR)).expect("removed");
    let resumed = place.run("cut", &[], None);
    assert_eq!(resumed.told("precomputed"), 1);
    assert_eq!(place.bytes("cut", FILE), wanted);
    assert_eq!(place.bytes("cut", MODEL), place.bytes("whole", MODEL));
}

#[test]
fn none_is_written_into_the_directory_of_another_run() {
    let place = Place::new();
    place.run("cut", &[], Some(3));
    fsio::remove_dir_all(place.stage_dir("cut").join(REFERENCE_DIR)).expect("removed");
    let error = place.loses_its_directory("cut", &[]).to_string();
    assert!(error.contains("the run's directory was removed, moved or replaced"), "{error}");
    assert!(!place.stage_dir("cut").join(REFERENCE_DIR).exists());
}

#[test]
fn one_of_other_weights_or_data_is_not_read() {
    let place = Place::new();
    let key = |set: &[(&str, &str)]| {
        let plan = place.plan("keys", set);
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        dpo::reference_key(&plan, stage(&plan), dpo_plan(&plan), &run_dir).expect("a key")
    };
    let usual = key(&[]);
    assert_eq!(usual, key(&[]));
    // Keys that change neither weights nor texts nor the visited pairs change no number.
    assert_eq!(usual, key(&[("dpo.optimizer.lr", "1e-4")]));
    for change in [
        ("seed", "4"),
        ("precision", "bf16"),
        ("model.hidden_size", "64"),
        ("dpo.sequence_length", "60"),
        ("dpo.chat_template", "chatml"),
        ("dpo.epochs", "1"),
        ("dpo.pairs_per_step", "4"),
        ("dpo.overlong", "cut"),
        ("dpo.eval.holdout", "0.1"),
    ] {
        assert_ne!(usual, key(&[change]), "{change:?}");
    }
    let dir = place.path().join("saved");
    let logprobs: ReferenceLogprobs<1> = [([0], -1.5), ([1], -2.5)].into();
    save_reference(&logprobs, &dir, &usual).expect("saved");
    let read = load_reference(&dir, &usual).expect("whole");
    assert_eq!(read, SavedReference::Usable(logprobs));
    let other = load_reference::<1>(&dir, "another").expect("read");
    let SavedReference::Unusable(reason) = other else { panic!("of other weights: {other:?}") };
    assert!(reason.contains("belongs to other weights or data"), "{reason}");
    let nowhere = load_reference::<1>(&place.path().join("nowhere"), &usual).expect("read");
    assert_eq!(nowhere, SavedReference::Nothing);
    // A directory that cannot be read is left alone: it may be whole.
    std::os::unix::fs::symlink("logprobs.bin", dir.join("link")).expect("a link");
    load_reference::<1>(&dir, &usual).expect_err("added to");
}

#[test]
fn weights_in_a_folder_are_told_apart_by_their_bytes() {
    let place = Place::new();
    let mut plan = place.plan("weights", &[]);
    let dir = place.path().join("start");
    plan.stages[0].start = plan::Start::Directory(dir.clone());
    let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
    let key = || dpo::reference_key(&plan, stage(&plan), dpo_plan(&plan), &run_dir).expect("a key");
    fsio::create_dir_all(&dir).expect("a folder");
    fsio::write_atomic(dir.join("model.safetensors"), "one").expect("a file");
    let one = key();
    fsio::write_atomic(dir.join("optimizer.safetensors"), "moments").expect("a file");
    assert_eq!(one, key(), "moments are no weights");
    fsio::write_atomic(dir.join("model.safetensors"), "two").expect("a file");
    let two = key();
    assert_ne!(one, two);
    for (name, text) in
        [("config.json", "rope"), ("config.json", "other rope"), ("tokenizer.json", "ids")]
    {
        let before = key();
        fsio::write_atomic(dir.join(name), text).expect("a file");
        assert_ne!(before, key(), "{name}");
    }
}

/// peft#493: with an adapter the reference is the model without it, and stays that.
#[test]
fn beside_an_adapter_it_is_what_the_base_says() {
    let place = Place::new();
    place.run("base", &[("dpo.epochs", "0.5")], None);
    let base = model::load_causal_lm(&place.stage_dir("base").join("model"), &Device::flex());
    place.start_with_lora("base");
    place.run("whole", &[], None);
    let first = place.metrics("whole").remove(1);
    assert!((metric(&first, "loss") - std::f64::consts::LN_2).abs() < 1e-6, "{first}");
    let plan = place.plan("whole", &[]);
    let key = {
        let run_dir = RunDir::open(&plan.paths.run_dir).expect("the run's folder");
        dpo::reference_key(&plan, stage(&plan), dpo_plan(&plan), &run_dir).expect("a key")
    };
    let saved = load_reference(&place.stage_dir("whole").join(REFERENCE_DIR), &key);
    let computed = Reference::compute(
        stage(&plan),
        &Objective::default(),
        &base.expect("a model"),
        &Device::flex(),
    );
    assert_eq!(saved.expect("read"), SavedReference::Usable(computed.expect("computed")));
    // Cut and resumed, with the masks of its dropout, it is the same adapter.
    place.run("cut", &[], Some(3));
    assert_eq!(place.run("cut", &[], None).told("precomputed"), 0);
    let adapter = "model/adapter_model.safetensors";
    assert_eq!(place.bytes("cut", adapter), place.bytes("whole", adapter));
}

/// Tokens that the stage adds have rows in the policy and in its reference; cut and resumed, it is the same adapter.
#[test]
fn of_a_stage_that_adds_tokens_it_has_their_rows() {
    let place = Place::new();
    place.run("base", &[("dpo.epochs", "0.5")], None);
    let n = stage(&place.plan("base", &[])).tokenizer.vocab_size();
    let eot = [("dpo.add_special_tokens", "[\"<|eot|>\"]"), ("dpo.eos_token", "\"<|eot|>\"")];
    let adapter = "model/adapter_model.safetensors";
    for (lora, model) in [
        (
            format!("rank = 4, trainable_token_indices = [{n}], modules_to_save = [\"lm_head\"]"),
            adapter,
        ),
        (String::new(), MODEL),
    ] {
        place.start_with(&lora, "base");
        if lora.is_empty() {
            let recipe = std::fs::read_to_string(place.path().join("r.toml")).expect("a recipe");
            let recipe = recipe.replace("lora = {  }\n", "");
            fsio::write_atomic(place.path().join("r.toml"), recipe).expect("a recipe");
        }
        let (whole, cut) = (format!("whole-{}", lora.len()), format!("cut-{}", lora.len()));
        place.run(&whole, &eot, None);
        let first = place.metrics(&whole).remove(1);
        assert!((metric(&first, "loss") - std::f64::consts::LN_2).abs() < 1e-6, "{first}");
        assert_eq!(stage(&place.plan(&whole, &eot)).config.vocab_size(), n + 1);
        place.run(&cut, &eot, Some(4));
        fsio::remove_dir_all(place.stage_dir(&cut).join(REFERENCE_DIR)).expect("removed");
        assert_eq!(place.run(&cut, &eot, None).told("precomputed"), 1);
        assert_eq!(place.bytes(&cut, FILE), place.bytes(&whole, FILE));
        assert_eq!(place.bytes(&cut, model), place.bytes(&whole, model));
        let dir = place.stage_dir(&whole).join("model");
        let opened: model::CausalLm =
            BaseModelCache::new(&Device::flex()).open(&dir).expect("opened");
        assert_eq!(opened.config().vocab_size(), n + 1);
        let tokenizer = tokenizer::Tokenizer::from_dir_or_file(&dir).expect("a tokenizer");
        assert_eq!(tokenizer.eos(), Some(n as u32));
    }
}

/// Computed again after a resume, it is read in the data type of the first time, to the bit.
#[test]
fn on_a_base_in_bf16_it_is_computed_again_in_bf16() {
    let place = Place::new();
    place.run("base", &[("dpo.epochs", "0.5")], None);
    place.start_with("rank = 4, base_dtype = \"bf16\"", "base");
    place.run("cut", &[], Some(3));
    let first = place.bytes("cut", FILE);
    fsio::remove_dir_all(place.stage_dir("cut").join(REFERENCE_DIR)).expect("removed");
    assert_eq!(place.run("cut", &[], None).told("precomputed"), 1);
    assert_eq!(place.bytes("cut", FILE), first);
    // In f32 the numbers differ, so the data type matters here.
    place.start_with("rank = 4", "base");
    place.run("f32", &[], Some(1));
    assert_ne!(place.bytes("f32", FILE), first);
}

#[test]
fn losses_without_reference_compute_none() {
    let place = Place::new();
    for loss in ["simpo", "orpo"] {
        let run = place.run(loss, &[("dpo.loss", loss), ("dpo.epochs", "0.5")], None);
        assert_eq!(run.told("precomputed"), 0);
        assert!(!place.stage_dir(loss).join(REFERENCE_DIR).exists());
    }
}
