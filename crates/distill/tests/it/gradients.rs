//! Gradients of a micro-batch in several chunks against those of one graph.

use arch::ModelConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use data::Batch;
use distill::{Objective, Teacher, TeacherTargets};
use loss::{Distillation, HostTopTokens, LossSum};
use model::CausalLm;
use nn::TokenBatch;
use testkit::{Tolerance, assert_close, values};
use train::{Gradients, ParameterNames};

const VOCAB: usize = 90;
const LENGTH: usize = 64;

fn model(tied: bool, seed: u64, device: &Device) -> CausalLm {
    let mut config = testkit::tiny_llama(VOCAB);
    config["tie_word_embeddings"] = tied.into();
    let config = ModelConfig::from_json(&config, std::path::Path::new("x")).expect("a config");
    CausalLm::init(&config, seed, device)
}

/// 24 prompts with their answers: about 1,400 targets, more than the 1,024 of a chunk.
fn batch() -> Batch {
    let id = |n: usize| (n * 37 % VOCAB) as u32;
    let prompts: Vec<Vec<u32>> = (0..24).map(|row| vec![id(row), id(row + 7)]).collect();
    let answers: Vec<Vec<u32>> = (0..24)
        .map(|row| (0..LENGTH - 3 - row % 4).map(|at| id(row * 11 + at)).collect())
        .collect();
    Batch::of_answers(&(0..24).collect::<Vec<u64>>(), &prompts, &answers, LENGTH, 0)
}

/// Hidden states at the targets of the batch.
fn hidden(model: &CausalLm, batch: &Batch, device: &Device) -> Tensor<2> {
    let (b, t) = (batch.rows, batch.sequence_length);
    let tokens = TokenBatch::new(&batch.ids, &batch.positions, &batch.segments, b, t, device);
    let hidden_nd = model.forward(&tokens).hidden_nd();
    let places: Vec<i64> =
        (0..batch.targets.len()).filter(|at| batch.targets[*at] >= 0).map(|at| at as i64).collect();
    let n = places.len();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [n]), &hidden_nd.device());
    hidden_nd.select(0, places)
}

#[test]
fn chunks_add_up_to_the_gradients_of_one_graph() {
    let device = Device::flex();
    let batch = batch();
    assert!(batch.n_targets > 1024, "{} targets are one chunk", batch.n_targets);
    let teacher_model = model(false, 3, &device);
    let teacher = Teacher::of(&teacher_model);
    for (tied, beta, top_k) in [(false, 0.5, None), (true, 0.0, None), (true, 0.5, Some(6))] {
        let objective =
            Objective { divergence: Distillation { beta, temperature: 0.02 }, n_ids: VOCAB };
        let student = model(tied, 5, &device.clone().autodiff());
        let names = ParameterNames::of(&student);
        let targets = match top_k {
            None => TeacherTargets::of(&teacher, &batch),
            Some(k) => {
                let top = objective.top_tokens(&teacher, &batch, k);
                TeacherTargets::Top(Box::new(top.to_device(k, &device)))
            }
        };
        let mut found = Gradients::new(&names);
        let device = device.clone().autodiff();
        let loss = objective.accumulate(&student, &targets, &batch, &device, &mut found);
        assert_eq!(loss.n_targets, batch.n_targets as u64);

        let teacher_mv = teacher_model.logits(hidden(&teacher_model, &batch, &device));
        let student_mv = student.logits(hidden(&student, &batch, &device));
        let whole: LossSum = match top_k {
            None => objective.divergence.loss(student_mv, &teacher_mv),
            Some(k) => {
                let logprobs_mv = objective.divergence.log_probabilities(teacher_mv);
                let top = HostTopTokens::select(&logprobs_mv, k).to_device(k, &Device::flex());
                objective.divergence.loss_of_top(student_mv, &top)
            }
        };
        let value = whole.value();
        assert!((loss.sum - value).abs() < 1e-4 * value, "{} not {value}", loss.sum);
        let measured = objective.measure(
            &generate::without_autodiff(&student),
            &targets,
            &batch,
            &Device::flex(),
        );
        assert!((measured - loss.sum).abs() < 1e-5 * value, "{measured} not {}", loss.sum);
        let mut wanted = Gradients::new(&names);
        wanted.accumulate(&student, || whole.sum.backward());
        for name in names.iter() {
            let of = |gradients: &Gradients| values(gradients.get(name).expect(name));
            let near = Tolerance { absolute: 1e-5, of_largest: 2e-4 };
            assert_close(name, &of(&found), &of(&wanted), near);
        }
    }
}
