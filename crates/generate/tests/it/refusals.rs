//! Refused arguments, each with a message that has the value.

use generate::{Error, Sampling, Settings, generate};
use model::{CausalLm, ParameterSource};

use crate::golden_llama;

fn refusal(prompts: &[Vec<u32>], settings: &Settings) -> Error {
    generate(&golden_llama(), prompts, settings, 0, |_| ()).unwrap_err()
}

#[test]
fn prompts_that_cannot_be_read() {
    let settings = Settings::default();
    let good = vec![5; 3];
    for (bad, message) in [
        (vec![], "prompt 1 has no tokens"),
        (vec![1; 128], "prompt 1 does not fit into the model's context of 128: `128`"),
        (vec![1, 320], "prompt 1 has a token outside the model's vocabulary of 320: `320`"),
    ] {
        let error = refusal(&[good.clone(), bad], &settings);
        assert_eq!(error.to_string(), message);
        assert!(error.hint().is_some());
    }
}

#[test]
fn settings_out_of_range() {
    let plain = Settings::default();
    for (settings, message) in [
        (Settings { n: 0, ..plain.clone() }, "n must be at least 1: `0`"),
        (Settings { max_new_tokens: 0, ..plain.clone() }, "max-new-tokens must be at least 1: `0`"),
        (
            Settings { sampling: Sampling { temperature: -1.0, ..Sampling::default() }, ..plain },
            "temperature must be at least 0.0001: `-1`",
        ),
    ] {
        assert_eq!(refusal(&[vec![5]], &settings).to_string(), message);
    }
}

#[test]
fn logits_that_are_not_finite() {
    struct Broken;
    impl ParameterSource for Broken {
        fn values(&mut self, name: &str, shape: &[usize]) -> model::Result<Vec<f32>> {
            let value = if name == "lm_head.weight" { f32::NAN } else { 0.1 };
            Ok(vec![value; shape.iter().product()])
        }
    }
    let config = golden_llama().config().clone();
    let device = kernels::device("cpu").unwrap();
    let model = CausalLm::from_source(&config, &mut Broken, &device).unwrap();
    let error = generate(&model, &[vec![5]], &Settings::default(), 0, |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the logits of prompt 0 after 0 new tokens are not finite");
}
