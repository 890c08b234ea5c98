//! Models that learn, and their contents in a checkpoint.

use burn::tensor::Device;
use ppo::VALUE_FILE;
use tensor_file::TensorFile;

use crate::support::{Place, ROLES, WHOLE_ROLES};

/// Names and shapes of the value model's file after one update.
fn value_file(roles: &str) -> Vec<(String, Vec<usize>)> {
    let place = Place::new();
    place.roles(roles);
    place.run("x", Some(1)).expect("a run");
    let path = place.stage_dir("x").join("checkpoints/step-000001").join(VALUE_FILE);
    let file = TensorFile::open(&path).expect("the file");
    file.tensors().map(|tensor| (tensor.name().to_owned(), tensor.shape().to_vec())).collect()
}

/// Factors of seven layers and the head.
fn assert_adapter(file: &[(String, Vec<usize>)], rank: usize) {
    assert_eq!(file.len(), 2 * 7 + 1, "{file:?}");
    for (name, shape) in file {
        if name.ends_with("lora_A.weight") {
            assert_eq!(shape[0], rank, "{name}");
        } else if name.ends_with("lora_B.weight") {
            assert_eq!(shape[1], rank, "{name}");
        } else {
            assert_eq!(name, "score.weight");
        }
    }
}

/// Its dropout, from the reward model's own training, is off: with it the run would stop at the first ratio (trl#4).
#[test]
fn the_value_model_goes_on_with_the_reward_models_adapter() {
    assert_adapter(&value_file(ROLES), 3);
}

#[test]
fn beside_a_whole_reward_model_it_trains_an_adapter_of_the_policys_shape() {
    let roles = ROLES.replace("reward = \"reward\"", "reward = \"judge\"");
    assert_adapter(&value_file(&roles), 2);
}

#[test]
fn where_the_policy_trains_all_weights_so_does_the_value_model() {
    let file = value_file(WHOLE_ROLES);
    // Embedding, two norms and seven matrices of a block, the last norm, the score; no language model's head.
    assert_eq!(file.len(), 1 + 9 + 1 + 1, "{file:?}");
    assert!(file.iter().any(|(name, shape)| name == "score.weight" && *shape == [1, 16]));
    assert!(file.iter().all(|(name, _)| !name.contains("lora_") && !name.contains("lm_head")));
}

#[test]
fn it_may_start_from_the_policys_weights_with_a_new_head() {
    let roles = format!("{ROLES}value = {{ start = \"sft\", lora = {{ rank = 5 }} }}\n");
    assert_adapter(&value_file(&roles), 5);
}

/// trl#1379: a language model as reward model would score with a head of random values.
#[test]
fn a_language_model_is_no_reward_model() {
    let place = Place::new();
    place.roles(&ROLES.replace("reward = \"reward\"", "reward = \"sft\""));
    let error = place.try_plan("x").expect_err("no score");
    assert!(error.to_string().contains("not a reward model: `sft`"), "{error}");
    assert!(error.hint().is_some());
}

/// An adapter that was trained with dropout continues as policy without it.
#[test]
fn a_policy_that_goes_on_drops_nothing() {
    let place = Place::new();
    let base = model::load_causal_lm(&place.path().join("sft"), &Device::flex());
    place.write_adapter(base.expect("a model"), "tuned");
    place.roles(
        "policy = { start = \"tuned\", lora = { adapter = \"tuned\" } }\nreward = \"reward\"\n",
    );
    place.run("x", Some(2)).expect("a first ratio of 1");
    let settings = place.bytes("x", "checkpoints/step-000002/adapter_config.json");
    let settings: serde_json::Value = serde_json::from_slice(&settings).expect("JSON");
    assert_eq!(settings["lora_dropout"], 0.0);
}
