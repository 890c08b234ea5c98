//! The divergence is the mean log-ratio of the step's prompts with other rows' answers, by hand from single texts.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use data::Batch;
use kto::{Reference, answer_logprobs};
use model::CausalLm;
use nn::TokenBatch;
use testkit::{Tolerance, assert_close, values};

use crate::support::{Place, kto_plan, stage};

/// Σ log p of the ids from `n_prompt` on, one text alone, by a softmax over all logits.
fn by_hand(model: &CausalLm, ids: &[u32], n_prompt: usize, device: &Device) -> f64 {
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let tokens = TokenBatch::new(ids, &positions, &vec![0; ids.len()], 1, ids.len(), device);
    let logits = model.logits(model.forward(&tokens).hidden_btd);
    let [_, t, v] = logits.dims();
    let logprobs: Vec<f32> = log_softmax(logits, 2).into_data().iter::<f32>().collect();
    (n_prompt..t).map(|at| f64::from(logprobs[(at - 1) * v + ids[at] as usize])).sum()
}

/// Prompt and answer of each row.
fn parts(batch: &Batch) -> Vec<(Vec<u32>, Vec<u32>)> {
    let targets = batch.targets.chunks(batch.sequence_length);
    let split = |(text, targets): (&[u32], &[i32])| {
        let n_prompt = targets.iter().position(|target| *target >= 0).expect("an answer") + 1;
        (text[..n_prompt].to_vec(), text[n_prompt..].to_vec())
    };
    batch.texts().into_iter().zip(targets).map(split).collect()
}

#[test]
fn it_is_the_mean_of_prompts_with_other_answers() {
    let place = Place::new();
    let plan = place.plan("divergence", &[]);
    let stage = stage(&plan);
    let device = Device::flex();
    let [policy, initial] = [5, 6].map(|seed| CausalLm::init(&stage.config, seed, &device));
    let batch = stage.dataset.batch(0);
    let parts = parts(&batch);
    let n = parts.len();
    let ratios: Vec<f32> = (0..n)
        .map(|row| {
            let (prompt, answer) = (&parts[row].0, &parts[(row + n - 1) % n].1);
            let ids = [prompt.as_slice(), answer].concat();
            let of = |model| by_hand(model, &ids, prompt.len(), &device);
            (of(&policy) - of(&initial)) as f32
        })
        .collect();
    let mismatched = batch.mismatched();
    let logprobs: Tensor<1> = answer_logprobs(&policy, &mismatched.trimmed(), &device);
    let objective = kto::objective(&kto_plan(&plan).section);
    let computed = Reference::compute(stage, &objective, &initial, &device).expect("computed");
    // 64 rows of two epochs in steps of 8, each also with another answer, and the validation rows in both ways.
    let n_train = stage.dataset.counts().train_samples as usize;
    let n_eval = stage.dataset.n_eval_rows() as usize;
    assert_eq!(n_train + n_eval, 80);
    assert!(computed.len() > 2 * n_eval + 2 * n_train, "{}", computed.len());
    assert!(computed.len() <= 2 * n_eval + 3 * n_train, "{}", computed.len());
    let reference = Reference(computed).of(stage, &mismatched, &logprobs).expect("known");
    let found = values(&(logprobs - reference));
    assert_close("log-ratios", &found, &ratios, Tolerance::absolute(5e-5));
}

/// A sample's own answer and another one after the same prompt are different texts.
#[test]
fn answers_of_other_rows_are_texts_of_their_own() {
    let place = Place::new();
    let plan = place.plan("texts", &[("kto.loss", "apo_zero_unpaired")]);
    let stage = stage(&plan);
    let objective = kto::objective(&kto_plan(&plan).section);
    let model = CausalLm::init(&stage.config, 5, &Device::flex());
    let computed = Reference::compute(stage, &objective, &model, &Device::flex());
    let computed = computed.expect("computed");
    assert_eq!(computed.len(), 80, "a loss without divergence evaluates the rows alone");
    assert!(computed.keys().all(|[prompt, answer]| prompt == answer));
    let other = Reference(computed).of(
        stage,
        &stage.dataset.batch(0).mismatched(),
        &Tensor::zeros([1], &Device::flex()),
    );
    let error = other.expect_err("not computed").to_string();
    assert!(error.contains("rows.jsonl:") && error.contains(" with "), "{error}");
}
