//! One flipped bit in a model, an adapter, a reward model or a cache is named before it is used, with exit code 2.
//!
//! `TEMPER_FLIPS` sets the number of places per directory, `TEMPER_SEED` repeats a failed run.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Place, number_from, say, tiny_recipe};

const STAGES: &str = "
[sft]
start = \"pretrain\"
lora = { rank = 2 }
data = [{ path = \"chats.jsonl\" }]
chat_template = \"plain\"
sequence_length = 32
tokens_per_step = 64
max_steps = 2
optimizer = { lr = 1e-3 }
[reward]
start = \"pretrain\"
data = [{ path = \"pairs.jsonl\" }]
chat_template = \"plain\"
sequence_length = 32
pairs_per_step = 2
max_steps = 2
optimizer = { lr = 1e-3 }
[dpo]
start = \"pretrain\"
data = [{ path = \"pairs.jsonl\" }]
chat_template = \"plain\"
sequence_length = 32
pairs_per_step = 2
max_steps = 2
optimizer = { lr = 1e-3 }
";

const PPO: &str = "
[ppo]
policy = { start = \"sft\" }
reward = \"reward\"
prompts = [{ path = \"chats.jsonl\" }]
max_prompt_tokens = 26
max_new_tokens = 4
episodes_per_step = 4
max_steps = 2
save_every_steps = 1
optimizer = { lr = 1e-3 }
";

/// A run of the stages `pretrain`, `sft` with an adapter, `reward` and `dpo`.
fn trained() -> Place {
    let place = Place::new();
    let chat = |c: char| format!("{{\"prompt\": \"Is {c}?\", \"completion\": \"It is {c}.\"}}\n");
    let pair = |c: char| {
        format!("{{\"prompt\": \"Say {c}\", \"chosen\": \"Yes {c}\", \"rejected\": \"No {c}\"}}\n")
    };
    place
        .write("text.txt", "The quick brown fox jumps over the lazy dog.\n".repeat(40))
        .write("chats.jsonl", ('a'..='t').map(chat).collect::<String>())
        .write("pairs.jsonl", ('a'..='t').map(pair).collect::<String>())
        .write("t.toml", tiny_recipe("{ path = \"text.txt\" }", STAGES));
    let outcome = place.temper(&["run", "t.toml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    place
}

/// The files below a directory, sorted.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Flips one bit in random files of `dir`, again and again, and runs a command that reads them all.
fn flip_bits(place: &Place, dir: &str, args: &[&str], rng: &mut seed::Rng) {
    let outcome = place.temper(args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let files: Vec<PathBuf> = files_below(&place.path().join(dir))
        .into_iter()
        // Locks, and hashes of data files, which are valid only for unchanged time stamps.
        .filter(|path| !path.iter().any(|part| part == "locks" || part == "file-hashes"))
        .collect();
    for _ in 0..number_from("TEMPER_FLIPS", 12) {
        let path = &files[rng.below(files.len() as u64) as usize];
        let healthy = std::fs::read(path).expect("a file");
        if healthy.is_empty() {
            continue;
        }
        let bit = rng.below(8 * healthy.len() as u64) as usize;
        let mut damaged = healthy.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fsio::write_atomic(path, &damaged).expect("damaged");
        let outcome = place.temper(args);
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let case = format!("bit {bit} of {}: {}", path.display(), outcome.stderr);
        assert_eq!(outcome.code, Some(2), "{case}");
        assert!(outcome.stderr.contains(name), "{case}");
        assert!(outcome.stdout.is_empty(), "{case}{}", outcome.stdout);
        fsio::write_atomic(path, &healthy).expect("restored");
    }
    let outcome = place.temper(args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn a_flipped_bit_is_named_before_it_is_used() {
    let place = trained();
    let seed = number_from("TEMPER_SEED", u64::from(std::process::id()));
    say(&format!("TEMPER_SEED={seed}"));
    let mut rng = seed::Rng::new(seed);
    let prompt = ["--prompt", "The", "--max-new-tokens", "1"];
    let generate = |model: &'static str| [&["generate", model][..], &prompt].concat();
    flip_bits(&place, "runs/t/pretrain/model", &generate("runs/t/pretrain"), &mut rng);
    flip_bits(&place, "runs/t/sft/model", &generate("runs/t/sft"), &mut rng);
    let score = ["score", "runs/t/reward", "--pairs", "pairs.jsonl"];
    flip_bits(&place, "runs/t/reward/model", &score, &mut rng);
    flip_bits(&place, "runs/.cache", &["plan", "t.toml", "--no-probe"], &mut rng);
}

/// The weights that a stage starts from, and the base of an adapter.
#[test]
fn damaged_weights_train_nothing() {
    let place = trained();
    let weights = place.path().join("runs/t/pretrain/model/model.safetensors");
    let healthy = std::fs::read(&weights).expect("weights");
    let mut damaged = healthy.clone();
    let last = damaged.len() - 2;
    damaged[last] ^= 1;
    for stage in ["sft", "reward", "dpo"] {
        fsio::remove_dir_all(place.path().join("runs/t").join(stage)).expect("removed");
    }
    fsio::write_atomic(&weights, &damaged).expect("damaged");
    let commands: [&[&str]; 6] = [
        &["run", "t.toml", "--stage", "sft"],
        &["run", "t.toml", "--stage", "reward"],
        &["run", "t.toml", "--stage", "dpo"],
        &["eval", "runs/t/pretrain", "--file", "text.txt"],
        &["export", "runs/t/pretrain", "--to", "out"],
        &["export", "runs/t/pretrain", "--gguf", "f32", "--to", "out.gguf"],
    ];
    for args in commands {
        let error = place.error(args);
        assert!(error.starts_with("exit 2\n"), "{args:?}: {error}");
        let named = "runs/t/pretrain/model: model.safetensors: checksum differs";
        assert!(error.contains(named), "{args:?}: {error}");
    }
    for path in ["out", "out.gguf", "runs/t/sft/model", "runs/t/reward/model", "runs/t/dpo/model"] {
        assert!(!place.path().join(path).exists(), "{path}");
    }
    fsio::write_atomic(&weights, &healthy).expect("restored");
    let outcome = place.temper(&["run", "t.toml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

/// Every model that a stage reads, replaced by an undamaged one of another run: resuming is refused, and the key is named.
#[test]
fn models_that_were_replaced_are_refused() {
    let place = trained();
    let recipe = std::fs::read_to_string(place.path().join("t.toml")).expect("the recipe");
    let recipe = recipe
        .replace("lora = { rank = 2 }\n", "")
        .replace("max_steps = 2", "max_steps = 2\nsave_every_steps = 1");
    place.write("p.toml", recipe + PPO);
    for (name, seed) in [("p", "1"), ("q", "2")] {
        let outcome =
            place.temper(&["run", "p.toml", "--name", name, "--set", &format!("seed={seed}")]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
    let run = place.path().join("runs/p");
    let hash = |stage: &str| {
        fsio::sha256_file(run.join(stage).join("model/model.safetensors")).expect("weights")
    };
    let before = ["dpo", "ppo"].map(hash);
    for stage in ["dpo", "ppo"] {
        // As if it had been interrupted after its first step.
        fsio::remove_file(run.join(stage).join("finished.json")).expect("finished");
        fsio::remove_dir_all(run.join(stage).join("model")).expect("a model");
        fsio::remove_dir_all(run.join(stage).join("checkpoints/step-000002"))
            .expect("a checkpoint");
    }
    for (stage, model, key) in [
        ("dpo", "pretrain", "dpo.start"),
        ("ppo", "reward", "ppo.reward"),
        ("ppo", "sft", "ppo.policy.start"),
        ("ppo", "reward", "ppo.value.start"),
    ] {
        let (own, other) =
            (run.join(model).join("model"), place.path().join("runs/q").join(model).join("model"));
        fsio::rename(&own, place.path().join("aside")).expect("moved");
        fsio::rename(&other, &own).expect("replaced");
        let error =
            place.error(&["run", "p.toml", "--name", "p", "--set", "seed=1", "--stage", stage]);
        assert!(error.starts_with("exit 2\n"), "{key}: {error}");
        assert!(error.contains(&format!("\n  weights of {key} (in ")), "{key}: {error}");
        let file = format!("\n  weights of {key}: model.safetensors (in ");
        assert!(error.contains(&file), "{key}: {error}");
        assert!(run.join(stage).join("checkpoints/step-000001").is_dir(), "{key}");
        fsio::rename(&own, &other).expect("moved back");
        fsio::rename(place.path().join("aside"), &own).expect("moved back");
    }
    let outcome = place.temper(&["run", "p.toml", "--name", "p", "--set", "seed=1"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(["dpo", "ppo"].map(hash), before);
    // A reward model with as many tokens, of which two have changed places, would score other texts.
    for entry in std::fs::read_dir(run.join("reward/model")).expect("files") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut bytes = std::fs::read(&path).expect("a file");
        if name == "tokenizer.json" {
            let mut json: Value = serde_json::from_slice(&bytes).expect("JSON");
            let vocab = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
            let (a, b) = (vocab["a"].clone(), vocab["b"].clone());
            vocab["a"] = b;
            vocab["b"] = a;
            bytes = json.to_string().into_bytes();
        }
        if name != "MANIFEST" {
            place.write(&format!("other/{name}"), bytes);
        }
    }
    let error = place.error(&[
        "plan",
        "p.toml",
        "--no-probe",
        "--name",
        "z",
        "--set",
        "ppo.reward=\"other\"",
    ]);
    assert!(
        error.starts_with("exit 2\n") && error.contains("must have the policy's tokens"),
        "{error}"
    );
}

/// The checkpoints of a finished stage may have other weights than its model, so they do not replace it.
#[test]
fn a_finished_stage_without_its_model_is_an_error() {
    let place = trained();
    let model = place.path().join("runs/t/pretrain/model");
    let args =
        ["generate", "runs/t/pretrain", "--prompt", "The", "--max-new-tokens", "2", "--greedy"];
    let (config, aside) = (model.join("config.json"), place.path().join("aside"));
    for (from, to) in [(&config, &aside), (&model, &aside)] {
        fsio::rename(from, to).expect("moved");
        let error = place.error(&args);
        assert!(error.starts_with("exit 2\n"), "{error}");
        assert!(error.contains("the stage has finished, and its model is missing"), "{error}");
        fsio::rename(to, from).expect("moved back");
    }
    // Of a stage that has not finished, the newest checkpoint is used, and said.
    fsio::rename(&model, &aside).expect("moved");
    fsio::remove_file(place.path().join("runs/t/pretrain/finished.json")).expect("removed");
    let outcome = place.temper(&args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("has not finished its training: its newest checkpoint, runs/t/pretrain/checkpoints/step-"),
        "{}",
        outcome.stderr
    );
}

/// A judge reads its prompts with its own tokenizer, so its files are inputs of the stage.
#[test]
fn a_judge_with_another_tokenizer_is_refused() {
    let place = trained();
    let export = place.temper(&["export", "runs/t/pretrain", "--to", "judge"]);
    assert_eq!(export.code, Some(0), "{}", export.stderr);
    fsio::remove_file(place.path().join("judge/MANIFEST")).expect("its MANIFEST");
    place.write(
        "g.toml",
        "[grpo]\npolicy = { start = \"runs/t/pretrain\" }\nprompts = [{ path = \"chats.jsonl\" }]\n\
         rewards = [{ kind = \"judge\", start = \"judge\", template = \"{completion}\", chat = false, max_new_tokens = 2 }, \
         { kind = \"repetition\", n = 2 }]\nmax_prompt_tokens = 26\nmax_new_tokens = 4\nprompts_per_step = 2\n\
         num_generations = 2\nmax_steps = 2\nsave_every_steps = 1\noptimizer = { lr = 1e-3 }\n[checks]\ngradients = false\n",
    );
    // A template that leaves no room for a question is found before training, unless an earlier stage brings the tokenizer.
    let good = std::fs::read_to_string(place.path().join("g.toml")).expect("a recipe");
    let long = good.replacen("{completion}", &format!("{}{{completion}}", "word ".repeat(2000)), 1);
    place.write("long.toml", &long);
    let error = place.error(&["plan", "long.toml"]);
    assert!(error.starts_with("exit 2\n") && error.contains("the template alone has "), "{error}");
    place
        .write("staged.toml", long.replacen("start = \"judge\"", "start = \"runs/t/pretrain\"", 1));
    let error = place.error(&["run", "staged.toml"]);
    assert!(
        error.contains(" the template alone has ")
            || error.contains("about a completion of one letter: "),
        "{error}"
    );
    let run = place.temper(&["run", "g.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let stage = place.path().join("runs/g/grpo");
    fsio::remove_file(stage.join("finished.json")).expect("finished");
    fsio::remove_dir_all(stage.join("model")).expect("a model");
    fsio::remove_dir_all(stage.join("checkpoints/step-000002")).expect("a checkpoint");
    let path = place.path().join("judge/tokenizer_config.json");
    let config = std::fs::read_to_string(&path).expect("a configuration");
    place.write("judge/tokenizer_config.json", config.replacen('{', "{ ", 1));
    let error = place.error(&["resume", "g"]);
    assert!(error.starts_with("exit 2\n"), "{error}");
    assert!(error.contains("weights of grpo.rewards[0].start: tokenizer_config.json"), "{error}");
    place.write("judge/tokenizer_config.json", config);
    let resumed = place.temper(&["resume", "g"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
}

/// What a newer version wrote is no failure of the run, wherever it is read.
#[test]
fn a_newer_format_is_an_input_that_cannot_be_read() {
    let place = trained();
    let dpo = place.path().join("runs/t/dpo");
    fsio::remove_file(dpo.join("finished.json")).expect("finished");
    fsio::remove_dir_all(dpo.join("model")).expect("a model");
    fsio::remove_dir_all(dpo.join("checkpoints")).expect("checkpoints");
    let manifest = dpo.join("reference/MANIFEST");
    let text = std::fs::read_to_string(&manifest).expect("a MANIFEST");
    let (json, _) = text.rsplit_once("sha256 ").expect("a hash");
    let newer = json.replace("\"format\": 1", "\"format\": 99");
    assert_ne!(newer, json);
    let hash = fsio::sha256_hex(newer.as_bytes());
    fsio::write_atomic(&manifest, format!("{newer}sha256 {hash}\n")).expect("written");
    let error = place.error(&["resume", "t"]);
    assert!(error.starts_with("exit 2\n") && error.contains("made by a newer Temper"), "{error}");
    fsio::write_atomic(&manifest, text).expect("restored");
    // So is a file in the place of the directory.
    fsio::rename(dpo.join("reference"), dpo.join("kept")).expect("renamed");
    fsio::write_atomic(dpo.join("reference"), "").expect("a file");
    let error = place.error(&["resume", "t"]);
    assert!(error.starts_with("exit 2\n") && error.contains("reference"), "{error}");
    fsio::remove_file(dpo.join("reference")).expect("removed");
    fsio::rename(dpo.join("kept"), dpo.join("reference")).expect("restored");
    let resumed = place.temper(&["resume", "t"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
}

/// `launch.json` says how to resume a run, and on which day.
#[test]
fn a_launch_of_a_newer_version_and_a_damaged_one_are_refused() {
    let place = crate::support::trained();
    let path = place.path().join("runs/tiny/launch.json");
    let text = std::fs::read_to_string(&path).expect("a file");
    let launch: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(launch["format"], 1);
    let refused = |content: &str, reason: &str| {
        place.write("runs/tiny/launch.json", content);
        for args in [&["resume", "tiny"][..], &["run", "tiny.toml"], &["plan", "tiny.toml"]] {
            let error = place.error(args);
            assert!(error.starts_with("exit 2\n") && error.contains(reason), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), content);
    };
    refused("{\"format\": 2, \"way\": []}", "made by a newer Temper: format `2`");
    refused("{\"format\": \"b\"}", "made by another version of Temper");
    refused("{", "continues the run, on the same day");
    refused(&text.replace("\"date\": \"2", "\"date\": \"x"), "the file is damaged");
    // As the hint says, and as older versions wrote it.
    for content in ["{\"date\": \"2001-02-03\"}", "{\"recipe\": \"tiny.toml\"}"] {
        place.write("runs/tiny/launch.json", content);
        let run = place.temper(&["run", "tiny.toml", "--name", "tiny"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let written = std::fs::read_to_string(&path).expect("a file");
        assert_eq!(written.contains("2001-02-03"), content.contains("2001-02-03"), "{written}");
    }
    place.write("runs/tiny/launch.json", "{\"recipe\": \"tiny.toml\"}");
    assert_eq!(place.temper(&["resume", "tiny"]).code, Some(0));
}

/// A plan opens every tokenizer, and compares every config.json with the weights beside it.
#[test]
fn models_that_do_not_fit_together_are_refused_before_a_run_starts() {
    let place = crate::support::trained();
    let export = place.temper(&["export", "runs/tiny/pretrain", "--to", "m"]);
    assert_eq!(export.code, Some(0), "{}", export.stderr);
    fsio::remove_file(place.path().join("m/MANIFEST")).expect("its MANIFEST");
    let ending = "max_steps = 1\noptimizer = { lr = 1e-3 }\n";
    place
        .write("c.jsonl", "{\"prompt\": \"Hi\", \"completion\": \"Ho\"}\n".repeat(4))
        .write(
            "judge.toml",
            format!(
                "[grpo]\npolicy = {{ start = \"runs/tiny/pretrain\" }}\nprompts = [{{ path = \"c.jsonl\" }}]\n\
                 rewards = [{{ kind = \"judge\", start = \"m\", template = \"{{completion}}\", chat = false, \
                 max_new_tokens = 2 }}]\nchat_template = \"plain\"\nmax_prompt_tokens = 26\nmax_new_tokens = 4\n\
                 prompts_per_step = 2\nnum_generations = 2\n{ending}"
            ),
        )
        .write(
            "start.toml",
            format!(
                "[pretrain]\nstart = \"m\"\ndata = [{{ path = \"text.txt\" }}]\nsequence_length = 32\n\
                 tokens_per_step = 64\n{ending}"
            ),
        );
    for recipe in ["judge.toml", "start.toml"] {
        let plan = place.temper(&["plan", recipe, "--no-probe"]);
        assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    }
    let refused = |recipes: &[&str], file: &str, change: &dyn Fn(&str) -> String, reason: &str| {
        let path = place.path().join(file);
        let text = std::fs::read_to_string(&path).expect("a file");
        let changed = change(&text);
        assert_ne!(changed, text);
        place.write(file, changed);
        for recipe in recipes {
            for args in [&["plan", *recipe, "--no-probe"][..], &["run", *recipe]] {
                let error = place.error(args);
                assert!(
                    error.starts_with("exit 2\n") && error.contains(reason),
                    "{args:?}: {error}"
                );
            }
        }
        place.write(file, text);
    };
    let cut = |text: &str| text.chars().take(text.len() / 2).collect();
    refused(&["judge.toml"], "m/tokenizer.json", &cut, "m/tokenizer.json");
    let larger = |text: &str| text.replace("\"vocab_size\": 300", "\"vocab_size\": 301");
    refused(
        &["judge.toml", "start.toml"],
        "m/config.json",
        &larger,
        "has shape [300, 16], not [301, 16]",
    );
    let deeper = |text: &str| text.replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2");
    refused(&["judge.toml", "start.toml"], "m/config.json", &deeper, "model.layers.1.");
}

#[test]
fn a_finished_stage_without_its_model_is_not_skipped() {
    let place = trained();
    fsio::remove_dir_all(place.path().join("runs/t/pretrain/model")).expect("a model");
    let error = place.error(&["resume", "t"]);
    assert!(error.starts_with("exit 2\n") && error.contains("runs/t/pretrain/model"), "{error}");
}

/// A file that is missing is named, too: without it, other tokens or another template would be used.
#[test]
fn a_listed_file_that_is_missing_is_named() {
    let place = trained();
    let model = place.path().join("runs/t/pretrain/model");
    for path in files_below(&model) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if name == "MANIFEST" {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        fsio::remove_file(&path).expect("removed");
        let error = place.error(&["generate", "runs/t/pretrain/model", "--prompt", "The"]);
        assert!(error.starts_with("exit 2\n"), "{name}: {error}");
        // Without config.json the directory is no model.
        assert!(error.contains(name) || name == "model.safetensors", "{name}: {error}");
        fsio::write_atomic(&path, bytes).expect("restored");
    }
}
