//! Loss, perplexity and bits per byte of a model over batches: one sum, one count, one division.

use burn::tensor::{Device, Int, Tensor, TensorData};
use data::Batch;
use generate::without_autodiff;
use loss::NextTokenLoss;
use model::CausalLm;
use nn::TokenBatch;
use tokenizer::Tokenizer;

use crate::error::{Error, Result};
use crate::token_bytes::TokenBytes;

/// Sums over all batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Sum of -ln p(target) over all targets.
    pub loss_sum: f64,
    /// The number of targets; never 0.
    pub n_targets: u64,
    /// The number of targets of which no other token is more probable.
    pub n_correct: u64,
    /// Bytes of the targets' text; special tokens have none.
    pub n_bytes: u64,
}

/// The loss of a model over batches, with the same weight for every target.
///
/// No graph is built, even for a model in training. `device` is the model's, with or without autodiff.
///
/// Errors: no targets, or a loss that is not finite.
pub fn measure(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    batches: impl IntoIterator<Item = Batch>,
    device: &Device,
) -> Result<Measured> {
    let model = without_autodiff(model);
    let mut measured = Measured { loss_sum: 0.0, n_targets: 0, n_correct: 0, n_bytes: 0 };
    let mut token_bytes = TokenBytes::new(tokenizer);
    for batch in batches.into_iter().filter(|batch| batch.n_targets > 0) {
        let targets = batch.targets.iter().filter_map(|&target| u32::try_from(target).ok());
        let ids: Vec<u32> = batch.ids.iter().copied().chain(targets).collect();
        tokenizer.check_ids(&ids)?;
        let predicted = predict(&model, &batch, device);
        measured.loss_sum += predicted.loss.value();
        measured.n_correct += predicted.n_correct.into_scalar::<f32>() as u64;
        measured.n_targets += batch.n_targets as u64;
        let targets = batch.targets.iter().filter_map(|&target| u32::try_from(target).ok());
        measured.n_bytes += targets.map(|id| token_bytes.of(id) as u64).sum::<u64>();
    }
    if measured.n_targets == 0 {
        return Err(Error::NoTargets);
    }
    if !measured.loss_sum.is_finite() {
        return Err(Error::NotFinite(measured.loss()));
    }
    Ok(measured)
}

impl Measured {
    /// The mean loss per target, in nats.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.n_targets as f64
    }

    /// The share of targets of which no other token is more probable; TRL's name for it.
    pub fn mean_token_accuracy(&self) -> f64 {
        self.n_correct as f64 / self.n_targets as f64
    }

    /// exp of the mean loss.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }

    /// Bits per byte of the targets' text; `None` if they have no text.
    ///
    /// The loss of special tokens is included although they have no bytes: the end of a text is information.
    pub fn bits_per_byte(&self) -> Option<f64> {
        let n_bits = self.loss_sum / std::f64::consts::LN_2;
        (self.n_bytes > 0).then(|| n_bits / self.n_bytes as f64)
    }
}

fn predict(model: &CausalLm, batch: &Batch, device: &Device) -> NextTokenLoss {
    let Batch { rows, sequence_length: t, ids, positions, segments, targets, .. } = batch;
    let tokens = TokenBatch::new(ids, positions, segments, *rows, *t, device);
    let n = rows * t;
    let hidden_nd = model.forward(&tokens).hidden_nd();
    let targets = TensorData::new(targets.clone(), [n]);
    let targets_n = Tensor::<1, Int>::from_data(targets, &device.clone().inner());
    loss::next_token(hidden_nd, model.head(), targets_n, batch.n_targets as u64)
}
