//! Proofs of exports: `temper verify` accepts what was written, and fails after any damage that changes an answer.

use std::path::Path;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{Outcome, Place, TEXT, tiny_recipe};

/// A directory with a run of three stages: all weights, an adapter on chats, a reward model.
fn trained() -> Place {
    let place = Place::new();
    let shared = "chat_template = \"plain\"\nsequence_length = 32\nmax_steps = 2\noptimizer = { lr = 1e-1 }\n";
    let stages = format!(
        "\n[sft]\nstart = \"pretrain\"\nlora = {{ rank = 2 }}\ndata = [{{ path = \"chats.jsonl\" }}]\n\
         tokens_per_step = 64\n{shared}\n[reward]\nstart = \"pretrain\"\ndata = [{{ path = \"pairs.jsonl\" }}]\n\
         pairs_per_step = 2\n{shared}"
    );
    // Room for prompts of some length, and weights that are large enough for answers to depend on all of them.
    let recipe = tiny_recipe("{ path = \"text.txt\" }", &stages)
        .replace("family = \"llama\"", "family = \"llama\"\ninitializer_range = 0.3")
        .replace("max_position_embeddings = 32", "max_position_embeddings = 160");
    place
        .write("text.txt", TEXT.repeat(40))
        .write("chats.jsonl", "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(8))
        .write(
            "pairs.jsonl",
            "{\"prompt\": \"Hi?\", \"chosen\": \"Ho!\", \"rejected\": \"No.\"}\n".repeat(8),
        )
        .write("tiny.toml", recipe);
    place.done(&["run", "tiny.toml"]);
    place
}

impl Place {
    fn done(&self, args: &[&str]) -> Outcome {
        let outcome = self.temper(args);
        assert_eq!(outcome.code, Some(0), "{args:?}: {}", outcome.stderr);
        outcome
    }

    /// The report of a replay, with whether it passed, which the exit code agrees with.
    fn replay(&self, args: &[&str]) -> (Value, bool) {
        let outcome = self.temper(&[&["verify"], args].concat());
        let line = outcome.stdout.lines().next().unwrap_or_default();
        let report: Value = serde_json::from_str(line).expect("a line of JSON");
        let passed = report["passed"].as_bool().expect("a flag");
        let code = match report["outcome"].as_str() {
            Some("passed") => 0,
            Some("wrong") => 1,
            _ => 2,
        };
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert_eq!(passed, code == 0);
        assert_eq!(report["kind"], json!("proof"));
        (report, passed)
    }

    fn proof(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.path().join(name)).expect("a proof");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Changes one key of a JSON file.
    fn set(&self, file: &str, key: &str, value: &Value) {
        let mut json = self.proof(file);
        json[key] = value.clone();
        self.write(file, json.to_string());
    }

    /// Makes a directory one from elsewhere, whose files are not compared with anything.
    fn forget_manifest(&self, dir: &str) {
        fsio::remove_file(self.path().join(dir).join("MANIFEST")).expect("removed");
    }

    /// Copies a directory of files without its MANIFEST, as a directory from elsewhere: damage is found by its effects.
    fn copy_all(&self, from: &str, to: &str) {
        for entry in std::fs::read_dir(self.path().join(from)).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("UTF-8");
            if name == "MANIFEST" {
                continue;
            }
            self.write(&format!("{to}/{name}"), std::fs::read(entry.path()).expect("a file"));
        }
    }
}

/// Sets the exponent of the first element of a tensor, in f32, to that of a number above 2.
fn damage(path: &Path, tensor: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("weights");
    let n_header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + n_header]).expect("a header");
    let start = header[tensor]["data_offsets"][0].as_u64().expect("an offset") as usize;
    bytes[8 + n_header + start + 3] = 0x41;
    bytes
}

#[test]
fn a_directory_is_replayed_and_damage_fails() {
    let place = trained();
    let outcome = place.done(&["export", "runs/tiny/pretrain", "--to", "out"]);
    assert!(
        outcome.stdout.contains("read back: logits on 5 prompts within 0.0e0"),
        "{}",
        outcome.stdout
    );
    let (report, passed) = place.replay(&["out"]);
    assert!(passed, "{report}");
    assert_eq!(report["note"], Value::Null);
    for quantity in ["prompt_ids", "logits", "greedy_ids"] {
        assert!(report["quantities"][quantity].is_object(), "{report}");
    }
    let proof = place.proof("out/temper_proof.json");
    assert_eq!((&proof["weights"], &proof["tolerance"]), (&json!("f32"), &json!(1e-3)));
    let prompts = proof["prompts"].as_array().expect("prompts");
    assert_eq!(prompts.len(), 5);
    for prompt in prompts {
        let len = |key: &str| prompt[key].as_array().expect("a list").len();
        assert!(len("greedy_ids") > 0 && prompt["text"].is_string());
        assert_eq!(len("top_logits"), len("ids") + len("greedy_ids"));
        assert_eq!(prompt["top_ids"][0].as_array().expect("ids").len(), 5);
        let first = prompt["top_ids"][len("ids") - 1][0].clone();
        assert_eq!(prompt["greedy_ids"][0], first);
    }

    // The same damage beside a MANIFEST is named at once.
    let weights = place.path().join("out/model.safetensors");
    let healthy = std::fs::read(&weights).expect("weights");
    place.write("out/model.safetensors", damage(&weights, "model.norm.weight"));
    let (report, _) = place.replay(&["out"]);
    let error = report["error"].as_str().expect("an error");
    assert!(error.contains("out: model.safetensors: checksum differs"), "{error}");
    place.write("out/model.safetensors", healthy);

    // One weight.
    place.copy_all("out", "weight");
    let bytes = damage(&place.path().join("out/model.safetensors"), "model.norm.weight");
    place.write("weight/model.safetensors", bytes);
    let (report, passed) = place.replay(&["weight"]);
    assert!(!passed && report["quantities"]["logits"]["failed"] == json!(true), "{report}");
    assert!(report["note"].is_string(), "{report}");

    // One value of config.json, in both spellings or in one.
    place.copy_all("out", "config");
    place.set("config/config.json", "rope_theta", &json!(500_000.0));
    let (report, passed) = place.replay(&["config"]);
    let error = report["error"].as_str().expect("an error");
    assert!(!passed && error.contains("`rope_theta` is given twice"), "{report}");
    place.set("config/config.json", "rope_parameters", &Value::Null);
    let (report, passed) = place.replay(&["config"]);
    assert!(!passed && report["quantities"]["logits"]["failed"] == json!(true), "{report}");

    // The tokenizer.
    place.copy_all("out", "tokenizer");
    let path = "tokenizer/tokenizer.json";
    let mut tokenizer = place.proof(path);
    tokenizer["model"]["merges"] = json!([]);
    place.write(path, tokenizer.to_string());
    let (report, passed) = place.replay(&["tokenizer"]);
    assert!(!passed && report["quantities"]["prompt_ids"]["failed"] == json!(true), "{report}");

    // A stored logit.
    place.copy_all("out", "logit");
    let mut proof = place.proof("logit/temper_proof.json");
    let logit = &mut proof["prompts"][2]["top_logits"][3][4];
    *logit = json!(logit.as_f64().expect("a number") + 0.01);
    place.write("logit/temper_proof.json", proof.to_string());
    let (report, passed) = place.replay(&["logit"]);
    let at = &report["quantities"]["logits"]["at"];
    assert!(!passed && *at == json!("prompt 3, position 3"), "{report}");
    // A number beyond an `f32` is none that the parser refuses.
    proof["prompts"][2]["top_logits"][3][4] = json!(1e39);
    place.write("logit/temper_proof.json", proof.to_string());
    let (report, passed) = place.replay(&["logit"]);
    let error = report["error"].as_str().unwrap_or_default();
    assert!(!passed && error.contains("a value of prompt 3 is not a finite number"), "{report}");
    place.write("logit/temper_proof.json", "{}");
    let (report, passed) = place.replay(&["logit"]);
    assert!(!passed && report["error"].is_string(), "{report}");
}

#[test]
fn rounded_weights_shards_and_files_for_llama_cpp() {
    let place = trained();
    let export = |args: &[&str]| place.done(&[&["export", "runs/tiny/sft"], args].concat()).stdout;
    let said = export(&["--to", "bf16", "--dtype", "bf16", "--max-shard-size", "10KB"]);
    assert!(said.contains("of the source (bf16)"), "{said}");
    assert!(place.path().join("bf16/model.safetensors.index.json").is_file());
    let proof = place.proof("bf16/temper_proof.json");
    assert_eq!(proof["tolerance"], json!(3e-2));
    // A model with a template gets conversations as prompts.
    assert!(proof["prompts"][0]["messages"].is_array());
    assert!(place.replay(&["bf16"]).1);

    let mut divergences = Vec::new();
    for (name, tolerance) in [("f32", 1e-3), ("q8_0", 3e-2), ("q4_k_m", 3e-2)] {
        let file = format!("{name}/model.gguf");
        export(&["--to", &file, "--gguf", name]);
        let proof = place.proof(&format!("{name}/model.proof.json"));
        assert_eq!((&proof["weights"], &proof["tolerance"]), (&json!(name), &json!(tolerance)));
        assert!(place.replay(&[&file]).1);
        // Packed weights have the distance from their source, within its bound; it falls with more bits.
        let distance = &proof["from_source"];
        assert_eq!(distance.is_object(), name.starts_with('q'), "{name}: {distance}");
        if distance.is_object() {
            let kl = distance["kl_nats_per_token"].as_f64().expect("a number");
            let largest = distance["largest_logit_difference"].as_f64().expect("a number");
            let bound = if name == "q8_0" { 0.1 } else { 1.0 };
            assert!((0.0..bound).contains(&kl) && kl > 0.0 && largest > 0.0, "{name}: {distance}");
            divergences.push(kl);
        }
        // A directory is searched.
        assert!(place.replay(&[name]).1);
    }
    // Rows as short as these have blocks of 8 bits in both.
    assert!(divergences[0] <= divergences[1], "8 bits, then 4: {divergences:?}");
    // The last tensor ends at the end of the file.
    let path = place.path().join("q8_0/model.gguf");
    let mut bytes = std::fs::read(&path).expect("a file");
    let n = bytes.len();
    bytes[n - 600..].iter_mut().for_each(|byte| *byte ^= 0x55);
    place.write("q8_0/model.gguf", bytes);
    assert!(!place.replay(&["q8_0/model.gguf"]).1);
    // Nothing is overwritten.
    place.write("new/other.proof.json", "{}");
    let again = ["export", "runs/tiny/sft", "--to", "new/other.gguf", "--gguf", "f32"];
    assert_snapshot!(place.error(&again), @r"
    exit 2
    error: `new/other.proof.json` already exists
      hint: it is the proof of a file that is not there: remove it, or choose a new name
    ");
    let sizes = ["export", "runs/tiny/sft", "--to", "x", "--max-shard-size", "0"];
    assert_eq!(place.temper(&sizes).code, Some(2));
}

#[test]
fn an_adapter_is_replayed_on_its_base_model() {
    let place = trained();
    place.done(&["export", "runs/tiny/sft", "--adapter", "--to", "peft"]);
    let proof = place.proof("peft/temper_proof.json");
    assert!(proof["base_sha256"].is_string());
    let base = ["peft", "--base", "runs/tiny/pretrain"];
    let (report, passed) = place.replay(&base);
    assert!(passed, "{report}");
    let (report, _) = place.replay(&["peft"]);
    assert!(report["error"].as_str().expect("an error").contains("needs its base model"));
    place.done(&["export", "runs/tiny/sft", "--to", "merged"]);
    assert!(place.replay(&["merged"]).1);
    let (report, _) = place.replay(&["peft", "--base", "merged"]);
    assert!(report["error"].as_str().expect("an error").contains("other weights"));
    // One factor.
    place.forget_manifest("peft");
    let path = place.path().join("peft/adapter_model.safetensors");
    let tensor = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
    place.write("peft/adapter_model.safetensors", damage(&path, tensor));
    let (report, passed) = place.replay(&base);
    assert!(!passed && report["note"].is_string(), "{report}");
}

#[test]
fn a_reward_model_is_replayed_by_its_scores() {
    let place = trained();
    place.done(&["export", "runs/tiny/reward", "--to", "judge"]);
    let proof = place.proof("judge/temper_proof.json");
    assert_eq!(proof["output"], json!("scores"));
    assert!(proof["prompts"][4]["score"].is_f64());
    let (report, passed) = place.replay(&["judge"]);
    assert!(passed && report["quantities"]["scores"].is_object(), "{report}");
    place.forget_manifest("judge");
    let path = place.path().join("judge/model.safetensors");
    place.write("judge/model.safetensors", damage(&path, "score.weight"));
    let (report, passed) = place.replay(&["judge"]);
    assert!(!passed && report["quantities"]["scores"]["failed"] == json!(true), "{report}");
    // The average of two models has a proof too.
    place.done(&["merge", "runs/tiny/pretrain", "runs/tiny/pretrain", "--to", "average"]);
    assert!(place.replay(&["average"]).1);
    // Models of other tokens have no sum, and a damaged tokenizer of any model is named.
    place.done(&["export", "runs/tiny/pretrain", "--to", "renamed"]);
    place.forget_manifest("renamed");
    let path = place.path().join("renamed/tokenizer.json");
    let text = std::fs::read_to_string(&path).expect("a tokenizer");
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    let vocab = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let [first, second] = [vocab["A"].clone(), vocab["B"].clone()];
    vocab.insert("A".into(), second);
    vocab.insert("B".into(), first.clone());
    place.write("renamed/tokenizer.json", json.to_string());
    let merge = ["merge", "runs/tiny/pretrain", "renamed", "--to", "mixed"];
    let outcome = place.temper(&merge);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    let named = format!(
        "`renamed` has another tokenizer than `runs/tiny/pretrain/model`: id {first} is `B` and not `A`"
    );
    assert!(outcome.stderr.contains(&named), "{}", outcome.stderr);
    place.write("renamed/tokenizer.json", "garbage");
    let outcome = place.temper(&merge);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error: renamed/tokenizer.json: "), "{}", outcome.stderr);
    assert!(!place.path().join("mixed").exists());
    let outcome = place.temper(&["verify", "average", "judge"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("1 passed, 1 with wrong numbers"), "{}", outcome.stderr);
}

#[test]
fn cards_and_sampling_defaults_travel_with_a_model() {
    let place = trained();
    let card = |dir: &str| {
        std::fs::read_to_string(place.path().join(dir).join("README.md")).expect("a card")
    };
    place.done(&["export", "runs/tiny/pretrain", "--to", "out"]);
    let recipe = fsio::sha256_file(place.path().join("runs/tiny/recipe.toml")).expect("a hash");
    let text = card("out").replace(&recipe, "HASH");
    assert_snapshot!(text, @r#"
    ---
    library_name: transformers
    pipeline_tag: text-generation
    tags:
    - temper
    # license: add the licence that your base model and your data allow
    ---

    # out

    A language model, exported from `tiny/pretrain` by Temper.

    ## Training

    | | |
    | --- | --- |
    | stage | pretrain |
    | recipe (sha256) | `HASH` |
    | data | `text.txt` |
    | steps | 3 |
    | tokens | 192 |

    ## Use

    ```python
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("out")
    model = AutoModelForCausalLM.from_pretrained("out")
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))
    ```

    ## Proof

    `temper_proof.json` has the answers of these files to 5 prompts. `temper verify out` computes them again and compares them (tolerance 0.001).
    "#);
    place.done(&["export", "runs/tiny/sft", "--adapter", "--to", "peft"]);
    let text = card("peft");
    assert!(text.contains("library_name: peft") && text.contains("`pretrain`"), "{text}");
    place.done(&["export", "runs/tiny/reward", "--to", "judge"]);
    assert!(card("judge").contains("AutoModelForSequenceClassification"));

    // Training starts from a model with sampling defaults: all weights, then an adapter on the result.
    place.forget_manifest("out");
    place.set("out/generation_config.json", "temperature", &json!(0.6));
    place.set("out/generation_config.json", "do_sample", &json!(true));
    let stage = |start: &str, lora: &str| {
        format!(
            "[sft]\nstart = \"{start}\"\n{lora}data = [{{ path = \"chats.jsonl\" }}]\nchat_template = \"plain\"\n\
             sequence_length = 32\ntokens_per_step = 64\nmax_steps = 1\noptimizer = {{ lr = 1e-3 }}\n"
        )
    };
    place
        .write("whole.toml", stage("out", ""))
        .write("adapter.toml", stage("runs/whole/sft", "lora = { rank = 2 }\n"));
    place.done(&["run", "whole.toml"]);
    place.done(&["run", "adapter.toml"]);
    place.done(&["export", "runs/adapter/sft", "--to", "again"]);
    assert!(card("again").contains("apply_chat_template"));
    for dir in ["runs/whole/sft/model", "again"] {
        let generation = place.proof(&format!("{dir}/generation_config.json"));
        assert_eq!(generation["temperature"], json!(0.6), "{dir}");
        assert_eq!(generation["do_sample"], json!(true), "{dir}");
    }
    assert!(place.replay(&["again"]).1);
}
