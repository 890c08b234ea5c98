//! Replays a language model's directory: hidden states, logits, loss, gradients, continuations, and a KV cache that is fed
//! in pieces. Tolerances are several times the reference's own rounding errors.

use std::path::Path;

use arch::{ModelConfig, ModelInfo};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use generate::Decoder;
use loss::LossSum;
use model::{CausalLm, WeightFiles, load_causal_lm, load_causal_lm_cast_as_a_whole};
use nn::TokenBatch;
use train::{Gradients, ParameterNames};

use super::continuation;
use super::gradients::{self, Covers};
use super::report::{Quantity, Tolerance};
use super::summed_loss::losses;
use super::vectors::{Array, Vectors, WIDENED_LOGITS};
use crate::error::{Error, Result};
use crate::host_values::host_values;

const LOSS: f64 = 1e-5;
/// Tokens per call when a cache is fed several at a time.
const SEVERAL: usize = 7;

/// Replays a model in f32 with all of the reference's results.
pub(super) fn replay(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let trained = load_causal_lm(dir, &device.clone().autodiff())?;
    let io = Io::open(dir, trained.config())?;
    let model = trained.valid();
    let mut quantities = Vec::new();
    io.compare_states(&model, device, &mut quantities)?;
    io.compare_gradients(&trained, dir, device, &mut quantities)?;
    if io.file.has("aux_loss") {
        io.compare_routing(&model, device, &mut quantities)?;
        io.compare_aux_loss(&trained, dir, device, &mut quantities)?;
    }
    let eos_ids = ModelInfo::read(dir)?.token_ids.eos;
    continuation::compare(&model, &dir.join("greedy.safetensors"), &eos_ids, &mut quantities)?;
    compare_long(&model, &dir.join("long.safetensors"), device, &mut quantities)?;
    let legacy = dir.join("config.legacy.json");
    if legacy.exists() {
        let model = load_with(dir, &legacy, device)?;
        io.file.ids_for(model.config(), "input_ids")?;
        quantities.push(io.compare_logits("legacy_logits", &model, device)?);
    }
    Ok(quantities)
}

/// Replays a model with 16-bit weights, for which the reference has only logits.
///
/// The reference's module was cast to bf16 as a whole and then widened, which rounded its RoPE frequencies too, so this
/// replay rounds them. [`load_causal_lm`] and transformers keep them exact when they read a directory.
pub(super) fn replay_widened(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let model = load_causal_lm_cast_as_a_whole(dir, device)?;
    let io = Vectors::open(&dir.join("io.safetensors"))?;
    let ids = io.ids_for(model.config(), "input_ids")?;
    let tokens = TokenBatch::of_rows(&ids.values, rows(&ids), device);
    let mut quantity = Quantity::new("logits");
    let expected = io.floats_of(WIDENED_LOGITS, &shape_of(&ids, model.config().vocab_size()))?;
    quantity.add(
        "",
        &host_values(&model.logits(model.forward(&tokens).hidden_btd)),
        &expected,
        Tolerance::LOGITS,
    );
    Ok(vec![quantity])
}

/// The weights of a directory in a model with another config.json.
fn load_with(dir: &Path, config: &Path, device: &Device) -> Result<CausalLm> {
    let text = fsio::read_text_capped(config, fsio::limits::CONFIG_BYTES)?;
    let value = serde_json::from_str(&text).map_err(|error| Error::BadVectors {
        path: config.to_owned(),
        reason: format!("not valid JSON: {error}"),
    })?;
    let config = ModelConfig::from_json(&value, config)?;
    let parameters = config.parameters();
    let mut files = WeightFiles::open(dir, &config, &parameters, &config.file_parameters())?;
    Ok(CausalLm::from_source(&config, &mut files, device)?)
}

/// The reference's input, padded on the right, and the file of its results.
struct Io {
    file: Vectors,
    ids: Array<u32>,
    mask: Vec<bool>,
    /// The target of each position; -1 for none.
    targets: Vec<i32>,
}

impl Io {
    fn open(dir: &Path, config: &ModelConfig) -> Result<Self> {
        let file = Vectors::open(&dir.join("io.safetensors"))?;
        let ids = file.ids_for(config, "input_ids")?;
        let mask = file.mask("attention_mask", &ids.shape)?;
        let targets = file.targets(config, "labels", &ids.shape)?;
        Ok(Self { file, ids, mask, targets })
    }

    fn tokens(&self, device: &Device) -> TokenBatch {
        TokenBatch::padded(&self.ids.values, &self.mask, rows(&self.ids), device)
    }

    fn compare_states(
        &self,
        model: &CausalLm,
        device: &Device,
        to: &mut Vec<Quantity>,
    ) -> Result<()> {
        let mut quantity = Quantity::new("hidden_states");
        let shape = shape_of(&self.ids, model.config().hidden_size());
        let states = model.backbone.hidden_states(&self.tokens(device));
        for (idx, state) in states.iter().enumerate() {
            let name = format!("hidden_states.{idx}");
            let expected = self.real(&self.file.floats_of(&name, &shape)?);
            quantity.add(&name, &self.real(&host_values(state)), &expected, Tolerance::LOGITS);
        }
        if self.file.has(&format!("hidden_states.{}", states.len())) {
            quantity.add_difference(Some("number of states"), f64::INFINITY, 0.0, 1);
        }
        to.push(quantity);
        to.push(self.compare_logits("logits", model, device)?);
        Ok(())
    }

    fn compare_logits(&self, name: &str, model: &CausalLm, device: &Device) -> Result<Quantity> {
        let shape = shape_of(&self.ids, model.config().vocab_size());
        let expected = self.file.floats_of("logits", &shape)?;
        let got = host_values(&model.logits(model.forward(&self.tokens(device)).hidden_btd));
        let mut quantity = Quantity::new(name);
        quantity.add("", &self.real(&got), &self.real(&expected), Tolerance::LOGITS);
        Ok(quantity)
    }

    fn compare_gradients(
        &self,
        model: &CausalLm,
        dir: &Path,
        device: &Device,
        to: &mut Vec<Quantity>,
    ) -> Result<()> {
        let (loss, n_targets, _) = self.loss(model, device);
        let mean = loss.mean_over(n_targets);
        let value = f64::from(mean.clone().inner().into_scalar::<f32>());
        to.push(Quantity::number("loss", value, self.number("loss")?, LOSS));

        let names = ParameterNames::of(model);
        let mut gradients = Gradients::new(&names);
        gradients.accumulate(model, || mean.backward());
        let path = dir.join("grads.safetensors");
        to.push(gradients::compare("gradients", &gradients, &names, &path, Covers::All)?);
        Ok(())
    }

    /// The probabilities of experts in each sparse block.
    fn compare_routing(
        &self,
        model: &CausalLm,
        device: &Device,
        to: &mut Vec<Quantity>,
    ) -> Result<()> {
        let mut quantity = Quantity::new("router_probabilities");
        let output = model.forward(&self.tokens(device));
        // The reference numbers sparse blocks alone.
        for (idx, routing) in output.routing.iter().enumerate() {
            let [_, n_experts] = routing.probs_ne.dims();
            let name = format!("router_logits.{idx}");
            let logits = self.real(&self.file.floats_of(&name, &shape_of(&self.ids, n_experts))?);
            let expected: Vec<f32> = logits.chunks(n_experts).flat_map(softmax).collect();
            quantity.add(
                &name,
                &self.real(&host_values(&routing.probs_ne)),
                &expected,
                Tolerance::LOGITS,
            );
        }
        to.push(quantity);
        Ok(())
    }

    /// The load-balancing loss, and gradients of its sum with the loss.
    fn compare_aux_loss(
        &self,
        model: &CausalLm,
        dir: &Path,
        device: &Device,
        to: &mut Vec<Quantity>,
    ) -> Result<()> {
        let (loss, n_targets, aux_loss) = self.loss(model, device);
        let Some(aux_loss) = aux_loss else {
            to.push(Quantity::new("aux_loss"));
            return Ok(());
        };
        let experts = model.config().decoder().and_then(|config| config.experts);
        let factor = experts.map_or(1.0, |experts| experts.router_aux_loss_coef);
        let expected = self.number("aux_loss")?;
        let value = f64::from(aux_loss.clone().inner().into_scalar::<f32>());
        to.push(Quantity::number("aux_loss", value / factor, expected, LOSS));
        let with_aux = loss.with_aux_loss(Some(aux_loss), n_targets).mean_over(n_targets);
        let value = f64::from(with_aux.clone().inner().into_scalar::<f32>());
        to.push(Quantity::number("loss_with_aux", value, self.number("loss_with_aux")?, LOSS));
        let names = ParameterNames::of(model);
        let mut gradients = Gradients::new(&names);
        gradients.accumulate(model, || with_aux.backward());
        let path = dir.join("grads_aux.safetensors");
        to.push(gradients::compare("gradients_aux", &gradients, &names, &path, Covers::Some)?);
        Ok(())
    }

    /// The summed loss, its number of targets, and the model's own loss.
    fn loss(&self, model: &CausalLm, device: &Device) -> (LossSum, u64, Option<Tensor<1>>) {
        let n_targets = self.targets.iter().filter(|target| **target >= 0).count() as u64;
        let tokens = self.tokens(device);
        let (loss, aux_loss) = losses(model, &tokens, &self.targets, n_targets);
        (loss, n_targets, aux_loss)
    }

    fn number(&self, name: &str) -> Result<f64> {
        let values = self.file.floats_of(name, &[1])?;
        Ok(values.first().map_or(f64::NAN, |&value| f64::from(value)))
    }

    /// The values at unpadded positions of a tensor `[rows, t, ..]`.
    fn real(&self, values: &[f32]) -> Vec<f32> {
        let width = values.len() / self.mask.len().max(1);
        let positions = values.chunks(width.max(1)).zip(&self.mask);
        positions.filter(|(_, real)| **real).flat_map(|(values, _)| values.to_vec()).collect()
    }
}

/// Compares the logits of a long text: in one pass, and with a cache one token or several tokens at a time.
fn compare_long(
    model: &CausalLm,
    path: &Path,
    device: &Device,
    to: &mut Vec<Quantity>,
) -> Result<()> {
    let file = Vectors::open(path)?;
    let ids = file.ids_for(model.config(), "input_ids")?;
    let (1, Some((first, rest))) = (rows(&ids), ids.values.split_first()) else {
        return Err(file.bad("tensor `input_ids` has more than one row".to_owned()));
    };
    let expected = file.floats_of("logits", &shape_of(&ids, model.config().vocab_size()))?;
    let mut whole = Quantity::new("long_logits");
    let tokens = TokenBatch::of_rows(&ids.values, 1, device);
    whole.add(
        "",
        &host_values(&model.logits(model.forward(&tokens).hidden_btd)),
        &expected,
        Tolerance::LOGITS,
    );
    to.push(whole);
    let mut passes = vec![("cached_one_at_a_time", 1, expected.clone())];
    if model.config().rope_depends_on_length() {
        // The reference has its own logits where keys in the cache keep the angles of the text so far.
        let shape = shape_of(&ids, model.config().vocab_size());
        let mut one_at_a_time = file.floats_of("logits_one_token_at_a_time", &shape)?;
        if let Some(length) = model.config().rereads_at() {
            // From there on, all of the text has been read again.
            let start = (length - 1) * model.config().vocab_size();
            one_at_a_time.splice(start.., expected.iter().skip(start).copied());
        }
        passes = vec![("cached_one_at_a_time", 1, one_at_a_time)];
    } else {
        passes.push(("cached_several_at_a_time", SEVERAL, expected));
    }
    for (name, n_tokens, expected) in passes {
        let (mut decoder, hidden) = Decoder::prefill(model, &[&[*first]], ids.values.len());
        let mut logits = host_values(&model.logits(hidden));
        for ids in rest.chunks(n_tokens) {
            logits.extend(host_values(&model.logits(decoder.feed(ids))));
        }
        let mut quantity = Quantity::new(name);
        quantity.add("", &logits, &expected, Tolerance::LOGITS);
        to.push(quantity);
    }
    if file.has("crossing_sequence") {
        continuation::compare_crossing(model, &file, to)?;
    }
    Ok(())
}

/// The softmax of one row.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / sum).collect()
}

fn rows<T>(array: &Array<T>) -> usize {
    array.shape.first().copied().unwrap_or(0)
}

/// The shape of one vector at each position.
fn shape_of<T>(array: &Array<T>, width: usize) -> Vec<usize> {
    array.shape.iter().copied().chain([width]).collect()
}
