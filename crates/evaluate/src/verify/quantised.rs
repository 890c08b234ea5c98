//! Replays quantised weights of bitsandbytes: values of codes, a layer with LoRA beside it, and models with an adapter.

use std::path::Path;
use std::sync::Arc;

use arch::{ModelInfo, Quantization};
use burn::tensor::{Device, Tensor, TensorData};
use kernels::{BlockScales, CodeTable, NestedScales, PackedFormat, PackedLayout, codes_tensor};
use model::{Adaptable, CausalLm, load_causal_lm};
use nn::{Adapter, Linear, LoraAdapter, Projection, TokenBatch, Weight};
use train::{Gradients, ParameterNames};

use super::report::{Quantity, Tolerance};
use super::summed_loss::summed_loss;
use super::vectors::{Array, Vectors};
use crate::error::{Error, Result};
use crate::host_values::host_values;

/// Values of codes are exact but for the order of one product.
const VALUES: Tolerance = Tolerance { absolute: 0.0, relative: 1e-6 };
const LAYER: Tolerance = Tolerance { absolute: 1e-6, relative: 3e-6 };
const LOSS: f64 = 1e-5;
/// `llm_int8_threshold` of bitsandbytes where a config.json has none.
const OUTLIERS: f64 = 6.0;
/// The blocks of the references are named by these words.
const WEIGHTS: [(&str, &str); 3] = [("w", "weight"), ("odd", "odd"), ("across", "across")];

/// Codes and scales against the values that bitsandbytes reads from them, and our own packing.
pub(super) fn replay_blocks(path: &Path) -> Result<Vec<Quantity>> {
    let file = Vectors::open(path)?;
    let [mut read, mut packed] = ["dequantised", "quantised"].map(Quantity::new);
    for kind in ["nf4", "fp4"] {
        for (name, block) in [("w", 64), ("w", 128), ("odd", 64), ("across", 64)] {
            for nested in [false, true] {
                let prefix = format!("{kind}.{name}.block{block}");
                if !file.has(&format!("{prefix}.codes")) {
                    continue;
                }
                let (codes, layout) = four_bit(&file, kind, name, block, nested)?;
                let of_scales = if nested { ".double" } else { "" };
                let expected = file.floats(&format!("{prefix}{of_scales}.dequantised"))?;
                let got = kernels::unpack(codes_tensor(codes, &layout, &Device::flex()), &layout);
                let at = format!("{prefix}{of_scales}");
                read.add(&at, &host_values(&got), &expected.values, VALUES);
            }
        }
    }
    let (codes, layout) = int8(&file)?;
    let got = kernels::unpack(codes_tensor(codes, &layout, &Device::flex()), &layout);
    let rows = file.floats("int8_rows.dequantised")?;
    read.add("int8_rows", &host_values(&got), &rows.values, VALUES);

    for (name, weight) in WEIGHTS {
        let array = file.floats(weight)?;
        let dims = matrix_dims(&file, weight, &array)?;
        let weight = Tensor::from_data(TensorData::new(array.values, dims), &Device::flex());
        let (codes, layout) = kernels::pack(weight, PackedFormat::Nf4);
        let expected = file.floats(&format!("nf4.{name}.block64.double.dequantised"))?;
        // Its search for the nearest code of a scale sometimes finds a neighbour.
        let of_scales = Tolerance { absolute: 0.0, relative: 0.01 };
        packed.add(
            name,
            &host_values(&kernels::unpack(codes, &layout)),
            &expected.values,
            of_scales,
        );
    }
    let array = file.floats("weight")?;
    let dims = matrix_dims(&file, "weight", &array)?;
    let weight = Tensor::from_data(TensorData::new(array.values, dims), &Device::flex());
    let (codes, layout) = kernels::pack(weight, PackedFormat::Int8);
    let got = host_values(&kernels::unpack(codes, &layout));
    // The reference packs values rounded to f16, so a code may be the next one, and the scale a little different.
    let steps = layout.scales.values().into_iter().map(|scale| f64::from(scale) / 120.0);
    for (row, step) in steps.enumerate() {
        let part =
            |values: &[f32]| values.get(row * dims[1]..(row + 1) * dims[1]).map(<[f32]>::to_vec);
        let (got, want) = (part(&got).unwrap_or_default(), part(&rows.values).unwrap_or_default());
        packed.add(&format!("int8 row {row}"), &got, &want, Tolerance::absolute(step));
    }
    Ok(vec![read, packed])
}

/// A linear layer of packed weights with LoRA beside it, forward and backward.
pub(super) fn replay_layer(path: &Path) -> Result<Vec<Quantity>> {
    let file = Vectors::open(path)?;
    let blocks = Vectors::open(&path.with_file_name("blocks.safetensors"))?;
    let device = Device::flex().autodiff();
    let tensor = |name: &str| -> Result<Tensor<2>> {
        let array = file.floats(name)?;
        let dims = matrix_dims(&file, name, &array)?;
        Ok(Tensor::from_data(TensorData::new(array.values, dims), &device))
    };
    let mut quantities = ["y", "grad_x", "grad_lora_A", "grad_lora_B"].map(Quantity::new);
    for (name, packed) in [
        ("nf4", four_bit(&blocks, "nf4", "w", 64, false)?),
        ("nf4_double", four_bit(&blocks, "nf4", "w", 64, true)?),
        ("int8", int8(&blocks)?),
    ] {
        let (codes, layout) = packed;
        let codes = codes_tensor(codes, &layout, &Device::flex());
        let mut linear = Linear::new(Tensor::zeros(layout.dims, &device), None);
        linear.weight = Weight::packed(codes, layout, device.clone());
        let lora = LoraAdapter::new(tensor("lora_A")?, tensor("lora_B")?, SCALE, None);
        linear.set_adapter(Some(Adapter::Lora(lora)));
        let x = tensor("x")?.set_require_grad(true);
        let y = linear.forward(x.clone());
        let got_y = host_values(&y);
        let gradients = (y * tensor("upstream")?).sum().backward();
        let Some(Adapter::Lora(lora)) = linear.adapter() else { continue };
        let factor = |factor: &nn::LoraFactor| factor.weight.val().grad(&gradients);
        let gradient = |x: Option<Tensor<2>>| x.map(|x| host_values(&x)).unwrap_or_default();
        let got = [
            got_y,
            gradient(x.grad(&gradients)),
            gradient(factor(&lora.lora_A)),
            gradient(factor(&lora.lora_B)),
        ];
        for (quantity, got) in quantities.iter_mut().zip(got) {
            let of = format!("{name}.{}", quantity.name);
            quantity.add(name, &got, &file.floats(&of)?.values, LAYER);
        }
    }
    Ok(quantities.to_vec())
}

/// The references' scale of B·A.
const SCALE: f64 = 2.0;

/// A model of packed weights, and training an adapter on it.
pub(super) fn replay_model(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let mut model = load_causal_lm(dir, device)?;
    let io = Vectors::open(&dir.join("io.safetensors"))?;
    let ids = io.ids_for(model.config(), "input_ids")?;
    let mask = io.mask("attention_mask", &ids.shape)?;
    let rows = ids.shape.first().copied().unwrap_or(0);
    let tokens = TokenBatch::padded(&ids.values, &mask, rows, device);
    let compare = |name: &str, model: &CausalLm| -> Result<Quantity> {
        let mut shape = ids.shape.clone();
        shape.push(model.config().vocab_size());
        let real = |values: &[f32]| -> Vec<f32> {
            let rows = values.chunks(model.config().vocab_size()).zip(&mask);
            rows.filter(|(_, is_real)| **is_real).flat_map(|(row, _)| row.to_vec()).collect()
        };
        let mut quantity = Quantity::new(name);
        let got = host_values(&model.logits(model.forward(&tokens).hidden_btd));
        quantity.add("", &real(&got), &real(&io.floats_of(name, &shape)?), Tolerance::LOGITS);
        Ok(quantity)
    };
    let mut quantities = Vec::new();
    if ModelInfo::read(dir)?.quantization == Some(Quantization::BitsAndBytes8) {
        // Logits in training, where the reference multiplies by inputs as they are, like Temper. In evaluation it rounds
        // them, and so does this replay.
        if io.has("training_logits") {
            quantities.push(compare("training_logits", &model)?);
        }
        for (_, layer) in model.backbone_mut().projections_mut() {
            layer.weight_mut().round_inputs(OUTLIERS);
        }
    }
    quantities.push(compare("logits", &model)?);
    let adapter = dir.join("adapter");
    if !adapter.exists() {
        return Ok(quantities);
    }
    let base = load_causal_lm(dir, &device.clone().autodiff())?;
    let (adapted, _) = lora::load(base, &adapter)?;
    quantities.push(compare("qlora.logits", &burn::module::Module::valid(&adapted.model))?);
    let targets = io.targets(adapted.model.config(), "labels", &ids.shape)?;
    let n_targets = targets.iter().filter(|target| **target >= 0).count() as u64;
    let loss = summed_loss(&adapted.model, &tokens, &targets, n_targets).mean_over(n_targets);
    let value = f64::from(loss.clone().inner().into_scalar::<f32>());
    let expected = io.floats_of("qlora.loss", &[1])?;
    let expected = expected.first().map_or(f64::NAN, |loss| f64::from(*loss));
    quantities.push(Quantity::number("qlora.loss", value, expected, LOSS));
    let names = ParameterNames::of(&adapted.model);
    let mut gradients = Gradients::new(&names);
    gradients.accumulate(&adapted.model, || loss.backward());
    let mut quantity = Quantity::new("qlora.gradients");
    for name in lora::adapter_names(&adapted.model) {
        let got = gradients.get(&name).map(host_values).unwrap_or_default();
        let expected = io.floats(&format!("qlora.grad.{name}"))?;
        quantity.add(&name, &got, &expected.values, Tolerance::GRADIENTS);
    }
    quantities.push(quantity);
    let (merged, _) = lora::merge(adapted.model)?;
    let merged = compare("qlora.logits", &merged)?;
    quantities.push(Quantity { name: "qlora.merged_logits".to_owned(), ..merged });
    Ok(quantities)
}

/// Codes of a 4-bit weight of the references, with plain or nested scales.
fn four_bit(
    file: &Vectors,
    kind: &str,
    name: &str,
    block: usize,
    nested: bool,
) -> Result<(Vec<u8>, PackedLayout)> {
    let prefix = format!("{kind}.{name}.block{block}");
    let dims = {
        let dequantised = format!("{prefix}.dequantised");
        let array = file.floats(&dequantised)?;
        matrix_dims(file, &dequantised, &array)?
    };
    let table = file.floats(&format!("{kind}.table"))?.values;
    let table =
        table.try_into().map_err(|_| file.bad(format!("`{kind}.table` has not 16 values")))?;
    let scales = if nested {
        let prefix = format!("{prefix}.double");
        let offset = file.floats(&format!("{prefix}.absmax_offset"))?.values;
        BlockScales::Nested(Arc::new(NestedScales {
            codes: file.bytes(&format!("{prefix}.absmax_codes"))?,
            scales: file.floats(&format!("{prefix}.nested_absmax"))?.values,
            block: 256,
            offset: offset.first().copied().unwrap_or(f32::NAN),
            table: file.floats("double.table")?.values,
        }))
    } else {
        BlockScales::Plain(file.floats(&format!("{prefix}.absmax"))?.values.into())
    };
    let layout = PackedLayout { dims, table: CodeTable::FourBit(table), block, scales };
    Ok((file.bytes(&format!("{prefix}.codes"))?, layout))
}

fn int8(file: &Vectors) -> Result<(Vec<u8>, PackedLayout)> {
    let array = file.floats("int8_rows.dequantised")?;
    let dims = matrix_dims(file, "int8_rows.dequantised", &array)?;
    let scales = BlockScales::Plain(file.floats("int8_rows.absmax")?.values.into());
    let layout = PackedLayout { dims, table: CodeTable::Int8, block: dims[1], scales };
    Ok((file.bytes("int8_rows.codes")?, layout))
}

fn matrix_dims(file: &Vectors, name: &str, array: &Array<f32>) -> Result<[usize; 2]> {
    let wrong = || -> Error { file.bad(format!("tensor `{name}` is not a matrix")) };
    array.shape.as_slice().try_into().map_err(|_| wrong())
}
