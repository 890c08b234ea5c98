//! PEFT directories: its logits, its names, its bytes; what is written is read again bit by bit.

use std::path::Path;

use arch::{Dtype, ModelConfig};
use burn::module::Module;
use fsio::DirWriter;
use lora::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, LoraConfig, Targets, attach, export, load};
use model::{Adaptable, ScalarModel};
use serde_json::Value;
use testkit::{Tolerance, assert_close, values};

use super::support::{
    adapter_base, adapter_case, adapter_cases, device, io_of, logits, names, settings, tiny_gpt2,
    tiny_llama, variants, weights, with_trained_waves, with_waves,
};

fn write<M: Adaptable>(model: &M, config: &LoraConfig, dtype: Dtype, dir: &Path) {
    let mut writer = DirWriter::begin(dir).expect("a directory");
    export(model, config, Some("some/base"), dtype, &mut writer).expect("exported");
    writer.commit(Value::Null).expect("committed");
}

#[test]
fn pefts_logits_and_its_very_bytes() {
    for (dir, base) in adapter_cases() {
        let case = dir.display().to_string();
        let (adapted, peft) = load(base, &dir).expect("loaded");
        let (tokens, expected) = io_of(&dir);
        let model = &adapted.model;
        let plain = model.valid();
        let got = values(&plain.logits(plain.forward(&tokens).hidden_btd));
        // PEFT's own logits differ by up to 1.5e-5 from those in f64, where factors are scaled by α / √r.
        let tolerance = Tolerance { absolute: 2e-5, ..Tolerance::LOGITS };
        let largest = assert_close(&case, &got, &expected, tolerance);
        println!("{case}: logits differ by at most {largest:.1e}");

        let out = tempfile::tempdir().expect("a directory");
        let to = out.path().join("adapter");
        write(model, &peft.lora, Dtype::F32, &to);
        let read = |dir: &Path, file| std::fs::read(dir.join(file)).expect("a file");
        assert_eq!(read(&to, ADAPTER_WEIGHTS), read(&dir, ADAPTER_WEIGHTS), "{case}");
        let json =
            |dir| -> Value { serde_json::from_slice(&read(dir, ADAPTER_CONFIG)).expect("JSON") };
        let (ours, theirs) = (json(&to), json(&dir));
        for (key, value) in ours.as_object().expect("an object") {
            let same = *value == theirs[key] || key == "base_model_name_or_path";
            assert!(same, "{case}: {key}: {value} {}", theirs[key]);
        }
    }
}

/// Each variant starts as no change; what it trains is saved under PEFT's names, and read again bit by bit.
#[test]
fn every_variant_is_written_and_read_again() {
    let out = tempfile::tempdir().expect("a directory");
    for (idx, (config, base)) in variants().into_iter().enumerate() {
        let case = format!("{config:?}");
        let before = logits(&base);
        let adapted = attach(base.clone(), &config, 7).expect("attached");
        let close = Tolerance { absolute: 2e-5, of_largest: 1e-5 };
        assert_close(&case, &logits(&adapted.model), &before, close);
        let layout = lora::layout_of(&base, &config).expect("a layout");
        let mut trained: Vec<String> = model::named_parameters(&adapted.model)
            .into_iter()
            .filter(|parameter| parameter.requires_grad)
            .map(|parameter| parameter.name)
            .collect();
        let mut planned: Vec<String> = layout.trained().into_iter().map(|(name, _)| name).collect();
        planned.sort();
        trained.sort();
        assert_eq!(trained, planned, "{case}");

        let model = with_trained_waves(adapted.model, &config);
        let changed = logits(&model);
        assert!(changed.iter().zip(&before).any(|(a, b)| (a - b).abs() > 1e-3), "{case}");
        let dir = out.path().join(format!("{idx}"));
        write(&model, &config, Dtype::F32, &dir);
        let (read, peft) = load(base.clone(), &dir).expect(&case);
        assert_eq!(weights(&read.model), weights(&model), "{case}");
        assert_eq!(logits(&read.model), changed, "{case}");
        assert_eq!(read.layers, adapted.layers, "{case}");
        if config.targets != Targets::AllLinear {
            assert_eq!(peft.lora, config);
        }
        let (merged, _) = lora::merge(read.model).expect(&case);
        let close = Tolerance { absolute: 1e-4, of_largest: 3e-5 };
        assert_close(&case, &logits(&merged), &changed, close);
        assert!(lora::adapter_names(&merged).is_empty());
        // Merged weights are a model of its own that is read again.
        let mut bytes = Vec::new();
        merged.write_safetensors(&mut bytes, Dtype::F32).expect(&case);
        assert_eq!(merged.config().tied(), base.config().tied() && !layout.unties, "{case}");
    }
}

/// Families with default targets in `TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING` of PEFT 0.21.2.
const DEFAULTS: [(&str, &[&str]); 8] = [
    ("gemma2", &["q_proj", "v_proj"]),
    ("gemma3_text", &["q_proj", "v_proj"]),
    ("gpt2", &["c_attn"]),
    ("llama", &["q_proj", "v_proj"]),
    ("mistral", &["q_proj", "v_proj"]),
    ("mixtral", &["q_proj", "v_proj"]),
    ("qwen2", &["q_proj", "v_proj"]),
    ("qwen3", &["q_proj", "v_proj"]),
];

/// A file whose `target_modules` is null or absent is read with PEFT's targets for the family, or refused where PEFT has
/// none.
#[test]
fn without_targets_a_file_has_those_of_its_family() {
    let out = tempfile::tempdir().expect("a directory");
    let models = testkit::tiny_decoders(300).into_iter();
    let models = models.chain([testkit::tiny_gpt2(300, true), testkit::tiny_llama(300)]);
    let mut with_default = std::collections::BTreeSet::new();
    for (idx, keys) in models.enumerate() {
        let family = keys["model_type"].as_str().expect("a name").to_owned();
        let config = ModelConfig::from_json(&keys, Path::new("tiny")).expect("a config");
        let base = model::CausalLm::init(&config, 3, &device());
        let targets =
            DEFAULTS.iter().find(|(name, _)| *name == family).map(|(_, targets)| *targets);
        let targets = targets.unwrap_or(&["o_proj"]);
        let named = settings(Targets::Names(targets.iter().map(|t| (*t).to_owned()).collect()));
        let adapted = attach(base.clone(), &named, 7).expect("attached");
        let model = with_trained_waves(adapted.model, &named);
        let dir = out.path().join(format!("{idx}"));
        write(&model, &named, Dtype::F32, &dir);
        let file = dir.join(ADAPTER_CONFIG);
        let text = std::fs::read(&file).expect("a file");
        let mut json: Value = serde_json::from_slice(&text).expect("JSON");
        json["target_modules"] = Value::Null;
        fsio::remove_file(dir.join(fsio::MANIFEST)).expect("removed");
        fsio::write_atomic(&file, json.to_string()).expect("written");
        let read = load(base.clone(), &dir);
        if !DEFAULTS.iter().any(|(name, _)| *name == family) {
            let message = read.expect_err("refused").to_string();
            assert!(message.contains(&format!("PEFT has no default for `{family}`")), "{message}");
            continue;
        }
        let (read, peft) = read.expect("loaded");
        assert_eq!(logits(&read.model), logits(&model), "{family}");
        assert_eq!(read.layers, adapted.layers, "{family}");
        // Written again, it names them.
        let again = out.path().join(format!("{idx}-again"));
        write(&read.model, &peft.lora, Dtype::F32, &again);
        let (_, peft) = load(base, &again).expect("loaded");
        assert_ne!(peft.lora.targets, Targets::FamilyDefault);
        with_default.insert(family);
    }
    assert!(DEFAULTS.iter().map(|(name, _)| *name).eq(with_default.iter().map(String::as_str)));
}

#[test]
fn what_is_written_is_read_again() {
    let out = tempfile::tempdir().expect("a directory");
    for (idx, (base, targets)) in [
        (tiny_llama(&device()), names(&["o_proj", "gate_proj"])),
        (tiny_llama(&device()), Targets::Pattern(r"model\.layers\.1\..*_proj".to_owned())),
        (tiny_gpt2(&device()), Targets::AllLinear),
    ]
    .into_iter()
    .enumerate()
    {
        let config = LoraConfig { dropout: 0.1, alpha: 1.5, rslora: true, ..settings(targets) };
        let adapted = attach(base, &config, 7).expect("attached");
        let model = with_waves(adapted.model);
        let (base, _) = lora::detach(model.clone());
        let dir = out.path().join(format!("{idx}"));
        write(&model, &config, Dtype::F32, &dir);
        let (read, peft) = load(base, &dir).expect("loaded");
        assert_eq!(weights(&read.model), weights(&model));
        assert_eq!(peft.base.as_deref(), Some("some/base"));
        assert_eq!(peft.lora.scale(), config.scale());
        assert_eq!(peft.lora.dropout, 0.1);
        assert_eq!(read.layers, adapted.layers);
        if idx < 2 {
            assert_eq!(peft.lora, config);
        }
    }
}

/// PiSSA and OLoRA leave as plain LoRA of twice the rank on the unchanged base model.
#[test]
fn factors_taken_out_of_the_weights_are_converted() {
    let out = tempfile::tempdir().expect("a directory");
    for (idx, (config, base)) in variants().into_iter().enumerate() {
        let model = attach(base.clone(), &config, 7).expect("attached").model;
        let model = with_trained_waves(model, &config);
        let (changed, as_it_is) = (logits(&model), weights(&model));
        let (plain, converted) =
            lora::as_plain_lora(model, base.clone(), &config).expect("converted");
        if config.init == lora::LoraInit::Default || config.use_dora {
            assert_eq!((weights(&plain), converted), (as_it_is, config));
            continue;
        }
        assert_eq!((converted.rank, converted.scale()), (2 * config.rank, config.scale()));
        let dir = out.path().join(format!("{idx}"));
        write(&plain, &converted, Dtype::F32, &dir);
        let (read, peft) = load(base, &dir).expect("loaded");
        assert_eq!(peft.lora.init, lora::LoraInit::Default);
        let close = Tolerance { absolute: 1e-4, of_largest: 3e-5 };
        assert_close("converted", &logits(&read.model), &changed, close);
    }
}

#[test]
fn each_format_is_read_by_its_header() {
    let out = tempfile::tempdir().expect("a directory");
    let config = settings(names(&["q_proj"]));
    let model = attach(tiny_llama(&device()), &config, 7).expect("attached").model;
    let model = with_waves(model);
    let (base, _) = lora::detach(model.clone());
    let exact = weights(&model);
    for (dtype, error) in [(Dtype::F32, 0.0), (Dtype::F16, 2e-4), (Dtype::Bf16, 2e-3)] {
        let dir = out.path().join(dtype.name());
        write(&model, &config, dtype, &dir);
        let read = load(base.clone(), &dir).expect("loaded").0.model;
        for (name, values) in weights(&read) {
            assert_close(&name, &values, &exact[&name], Tolerance::absolute(error));
        }
    }
}

#[test]
fn a_score_head_travels_with_its_adapter() {
    let out = tempfile::tempdir().expect("a directory");
    let scalar = || {
        let lm = tiny_llama(&device());
        let config = lm.config().clone();
        ScalarModel::from_backbone(lm.backbone, &config, 5)
    };
    let config = settings(names(&["q_proj"]));
    let model = attach(scalar(), &config, 7).expect("attached").model;
    // Only factors and head are in the file.
    let trained = with_waves(model);
    let (base, _) = lora::detach(trained.clone());
    let fresh_head = ScalarModel::from_backbone(base.backbone, trained.config(), 6);
    let dir = out.path().join("reward");
    write(&trained, &config, Dtype::F32, &dir);
    let (read, peft) = load(fresh_head, &dir).expect("loaded");
    assert!(peft.saves_head);
    assert_eq!(weights(&read.model), weights(&trained));
    // A language model has no place for it.
    let error = load(tiny_llama(&device()), &dir).expect_err("refused");
    assert!(error.to_string().contains("`modules_to_save`"), "{error}");
}

#[test]
fn loading_changes_the_logits_only_by_the_adapter() {
    let dir = adapter_case("lora");
    let base = adapter_base(&device());
    let before = logits(&base);
    let (adapted, _) = load(base, &dir).expect("loaded");
    assert_ne!(logits(&adapted.model), before);
    assert_eq!(logits(&lora::detach(adapted.model).0), before);
}
