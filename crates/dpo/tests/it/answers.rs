//! An answer's log-probability sums over its own tokens and its end token once, independent of their surroundings
//! (OpenRLHF#393, trl PR #4908, trl#1400: a start or end token too many on DPO answers; prompts counted as answers).

use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use data::Batch;
use dpo::{Reading, answer_logprobs};
use loss::{PairLogprobs, SequenceLogprobs};
use model::CausalLm;
use nn::TokenBatch;
use testkit::{Tolerance, assert_close};
use tokenizer::{Message, Role};

use crate::support::{Place, stage};

fn host(answers: &SequenceLogprobs) -> (Vec<f32>, Vec<f32>) {
    let values = |x: burn::tensor::Tensor<1>| x.into_data().iter::<f32>().collect();
    (values(answers.sums()), values(answers.n_tokens()))
}

/// Chosen and rejected in turn.
fn sums(pairs: &PairLogprobs) -> Vec<f32> {
    let ((chosen, _), (rejected, _)) = (host(&pairs.chosen), host(&pairs.rejected));
    chosen.into_iter().zip(rejected).flat_map(|(chosen, rejected)| [chosen, rejected]).collect()
}

fn model(place: &Place) -> (plan::Plan, CausalLm) {
    let plan = place.plan("answers", &[]);
    let model = CausalLm::init(&stage(&plan).config, 5, &Device::flex());
    (plan, model)
}

#[test]
fn an_answer_is_its_words_and_one_end_token() {
    let place = Place::new();
    let (plan, model) = model(&place);
    let stage = stage(&plan);
    let template = stage.tokenizer.chat_template().expect("a template");
    let end = stage.tokenizer.end_token(template).expect("an end token");
    let batch = stage.dataset.batch(0);
    let device = Device::flex();
    let found = answer_logprobs(&model, &batch.trimmed(), Reading::default(), &device).pairs;
    let counted: Vec<f32> = {
        let (chosen, rejected) = (host(&found.chosen).1, host(&found.rejected).1);
        chosen.into_iter().zip(rejected).flat_map(|(c, r)| [c, r]).collect()
    };

    let rows = place.path().join("pairs.jsonl");
    let rows = std::fs::read_to_string(rows).expect("pairs");
    let rows: Vec<serde_json::Value> =
        rows.lines().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    let (mut wanted, mut n_wanted) = (Vec::new(), Vec::new());
    for sample in &batch.samples {
        // The oracle: prompt and answer rendered apart, each token of the answer looked up by hand.
        let row = &rows[*sample as usize / 2];
        let text = |key: &str| row[key].as_str().expect("a text");
        let prompt = [Message::new(Role::User, text("prompt"))];
        let mut ids = stage.tokenizer.encode_prompt(&prompt, template).expect("ids");
        let n_prompt = ids.len();
        let answer = text(if sample % 2 == 0 { "chosen" } else { "rejected" });
        ids.extend(
            stage.tokenizer.encode(answer).expect("ids").into_iter().filter(|id| *id != end),
        );
        ids.push(end);
        let (sum, n) = by_hand(&model, &ids, n_prompt, &device);
        wanted.push(sum);
        n_wanted.push(n as f32);
    }
    assert_eq!(counted, n_wanted, "tokens of the answers, the end token among them");
    assert_close("log-probabilities", &sums(&found), &wanted, Tolerance::absolute(2e-5));
    assert_eq!(batch.n_targets as f32, n_wanted.iter().sum::<f32>());
}

/// Σ log p of the ids from `n_prompt` on, one text alone, by a softmax over all logits.
fn by_hand(model: &CausalLm, ids: &[u32], n_prompt: usize, device: &Device) -> (f32, usize) {
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let tokens = TokenBatch::new(ids, &positions, &vec![0; ids.len()], 1, ids.len(), device);
    let logits = model.logits(model.forward(&tokens).hidden_btd);
    let [_, t, v] = logits.dims();
    let logprobs: Vec<f32> = log_softmax(logits, 2).into_data().iter::<f32>().collect();
    let sum =
        (n_prompt..t).map(|at| f64::from(logprobs[(at - 1) * v + ids[at] as usize])).sum::<f64>();
    (sum as f32, t - n_prompt)
}

#[test]
fn padding_partners_and_what_is_no_answer_change_nothing() {
    let place = Place::new();
    let (plan, model) = model(&place);
    let stage = stage(&plan);
    let device = Device::flex();
    let batch = stage.dataset.batch(0);
    let together = sums(&answer_logprobs(&model, &batch, Reading::default(), &device).pairs);
    let narrow =
        sums(&answer_logprobs(&model, &batch.trimmed(), Reading::default(), &device).pairs);
    assert_close("trimmed", &narrow, &together, Tolerance::absolute(2e-5));
    let alone: Vec<f32> = batch
        .micro_batches(2)
        .flat_map(|pair| {
            sums(&answer_logprobs(&model, &pair.trimmed(), Reading::default(), &device).pairs)
        })
        .collect();
    assert_close("alone", &alone, &together, Tolerance::absolute(2e-5));

    // With the end token as padding, and with any other.
    let template = stage.tokenizer.chat_template().expect("a template");
    let end = stage.tokenizer.end_token(template).expect("an end token");
    for pad in [end, 0, 5] {
        let padded = repadded(&batch, pad);
        let found = sums(&answer_logprobs(&model, &padded, Reading::default(), &device).pairs);
        assert_close("padded", &found, &together, Tolerance::absolute(1e-6));
    }
}

fn repadded(batch: &Batch, pad: u32) -> Batch {
    let mut batch = batch.clone();
    for (id, segment) in batch.ids.iter_mut().zip(&batch.segments) {
        if *segment < 0 {
            *id = pad;
        }
    }
    batch
}
