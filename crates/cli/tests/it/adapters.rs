//! Adapters and conversations on the command line: exports, errors and answers.

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::{Place, tiny_recipe};

/// A directory with a run of two stages, the second one an adapter trained on chats.
pub(crate) fn tuned() -> Place {
    let place = Place::new();
    let text = "The quick brown fox jumps over the lazy dog, again and again.\n".repeat(40);
    let chats = "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(8);
    let sft = "\n[sft]\nstart = \"pretrain\"\nlora = { rank = 2 }\ndata = [{ path = \"chats.jsonl\" }]\n\
               chat_template = \"plain\"\nsequence_length = 32\ntokens_per_step = 64\nmax_steps = 3\n\
               optimizer = { lr = 1e-1 }\n";
    // Room for a conversation of two turns.
    let recipe = tiny_recipe("{ path = \"text.txt\" }", sft)
        .replace("max_position_embeddings = 32", "max_position_embeddings = 160");
    place.write("text.txt", text).write("chats.jsonl", chats).write("tiny.toml", recipe);
    let outcome = place.temper(&["run", "tiny.toml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    place
}

const WHOLE: &str = "runs/tiny/pretrain";
const ADAPTER: &str = "runs/tiny/sft";

impl Place {
    fn succeeds(&self, args: &[&str]) -> String {
        let outcome = self.temper(args);
        assert_eq!(outcome.code, Some(0), "{args:?}: {}", outcome.stderr);
        outcome.stdout
    }

    /// Greedy answer of a model to a user message, by `generate`.
    fn says(&self, model: &[&str]) -> String {
        let rest = ["--chat", "--prompt", "Hi?", "--greedy", "--max-new-tokens", "6"];
        let line = self.succeeds(&[&["generate"], model, &rest].concat());
        let row: Value = serde_json::from_str(line.trim()).expect("one JSON line");
        row["completion"].as_str().expect("a text").to_owned()
    }
}

#[test]
fn adapters_are_written_alone_or_merged_and_say_the_same() {
    let place = tuned();
    let said = place.says(&[ADAPTER]);
    // A PEFT export has no base model that would be opened, so `--base` is required.
    place.succeeds(&["export", ADAPTER, "--adapter", "--to", "peft"]);
    for name in ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"] {
        assert!(place.path().join("peft").join(name).is_file(), "{name}");
    }
    assert!(!place.path().join("peft/model.safetensors").exists());
    assert_snapshot!(
        "an_adapter_without_a_base",
        place.error(&["generate", "peft", "--prompt", "a"])
    );
    assert_eq!(place.says(&["peft", "--base", WHOLE]), said);
    // Adapters are merged by default and with `--merge`.
    place.succeeds(&["export", ADAPTER, "--merge", "--to", "merged"]);
    place.succeeds(&["export", ADAPTER, "--to", "merged-too"]);
    let weights = |dir: &str| std::fs::read(place.path().join(dir).join("model.safetensors"));
    let merged = weights("merged").expect("whole weights");
    assert!(merged == weights("merged-too").expect("whole weights"));
    assert!(merged != weights("runs/tiny/pretrain/model").expect("whole weights"));
    assert_eq!(place.says(&["merged"]), said);

    // Whole weights have no adapter and no base model.
    let export = |flag| ["export", WHOLE, flag, "--to", "out"];
    assert_snapshot!("whole_weights_have_no_adapter", place.error(&export("--adapter")));
    assert_snapshot!("whole_weights_have_nothing_to_merge", place.error(&export("--merge")));
    let beside = ["generate", WHOLE, "--base", WHOLE, "--prompt", "a"];
    assert_snapshot!("whole_weights_have_no_base", place.error(&beside));
    let beside = ["export", WHOLE, "--base", WHOLE, "--to", "out"];
    assert_eq!(place.temper(&beside).code, Some(2));
    let both = place.temper(&["export", ADAPTER, "--adapter", "--merge", "--to", "out"]);
    assert_eq!(both.code, Some(2));
    assert!(!place.path().join("out").exists());
    // Other base models than the recorded one are refused.
    let other = ["generate", ADAPTER, "--base", "merged", "--prompt", "a"];
    assert_snapshot!("another_base_than_its_own", place.error(&other));
}

/// An adapter without a record of its base, and one that was copied out of its run, are read on the base that is named.
#[test]
fn adapters_from_elsewhere_are_read_on_a_named_base() {
    let place = tuned();
    place.succeeds(&["export", ADAPTER, "--adapter", "--to", "peft"]);
    std::fs::create_dir(place.path().join("copied")).expect("a directory");
    let model = place.path().join(ADAPTER).join("model");
    for entry in std::fs::read_dir(model).expect("a model").map(|entry| entry.expect("an entry")) {
        let to = place.path().join("copied").join(entry.file_name());
        std::fs::copy(entry.path(), to).expect("a copy");
    }
    place.write("p.jsonl", "{\"prompt\": \"Hi?\"}\n");
    place.write(
        "pairs.jsonl",
        "{\"prompt\": \"Hi?\", \"chosen\": \"Ho!\", \"rejected\": \"No.\"}\n".repeat(4),
    );
    for adapter in ["peft", "copied"] {
        let out = format!("{adapter}.jsonl");
        let prompts = ["--prompts", "p.jsonl", "--max-new-tokens", "2", "--out", &out];
        place.succeeds(&[&["generate", adapter, "--base", WHOLE], &prompts[..]].concat());
        for (stage, keys) in [
            ("dpo", "data = [{ path = \"pairs.jsonl\" }]\npairs_per_step = 2\n"),
            ("sft", "data = [{ path = \"chats.jsonl\" }]\ntokens_per_step = 64\n"),
        ] {
            let recipe = format!(
                "name = \"{stage}-{adapter}\"\n[{stage}]\nstart = \"{WHOLE}\"\n\
                 lora = {{ adapter = \"{adapter}\" }}\n{keys}chat_template = \"plain\"\n\
                 sequence_length = 32\nmax_steps = 1\noptimizer = {{ lr = 1e-3 }}\n"
            );
            place.write("next.toml", recipe);
            place.succeeds(&["run", "next.toml"]);
        }
    }
}

/// The recipe names the base by a path within the working directory; so does the adapter, resumed or not.
#[test]
fn a_resumed_adapter_names_its_base_as_the_recipe_does() {
    let place = tuned();
    let recipe = "name = \"on\"\n[sft]\nstart = \"runs/tiny/pretrain\"\nlora = { rank = 2 }\n\
                  data = [{ path = \"chats.jsonl\" }]\nchat_template = \"plain\"\nsequence_length = 32\n\
                  tokens_per_step = 64\nmax_steps = 3\nsave_every_steps = 1\noptimizer = { lr = 1e-1 }\n";
    place.write("on.toml", recipe);
    place.succeeds(&["run", "on.toml"]);
    let stage = place.path().join("runs/on/sft");
    let files = || {
        let read = |name: &str| std::fs::read(stage.join("model").join(name)).expect("a file");
        ["adapter_config.json", "adapter_model.safetensors", "base.json", "MANIFEST"].map(read)
    };
    let uninterrupted = files();
    let config: Value = serde_json::from_slice(&uninterrupted[0]).expect("JSON");
    assert_eq!(config["base_model_name_or_path"], "runs/tiny/pretrain/model");
    fsio::remove_file(stage.join("finished.json")).expect("finished");
    fsio::remove_dir_all(stage.join("model")).expect("a model");
    fsio::remove_dir_all(stage.join("checkpoints/step-000003")).expect("a checkpoint");
    place.succeeds(&["resume", "on"]);
    assert!(files() == uninterrupted);
}

#[test]
fn a_conversation_on_stdin_is_answered_line_by_line() {
    let place = tuned();
    let chat = |input: &str, model: &str| {
        let args = ["chat", model, "--greedy", "--max-new-tokens", "6"];
        place.temper_with_input(&args, input)
    };
    let one = chat("Hi?\n", ADAPTER);
    assert_eq!(one.code, Some(0), "{}", one.stderr);
    // `chat` escapes the control characters that an untrained model writes.
    let is_escaped = |c: char| c.is_control() && c != '\n' && c != '\t';
    let shown = |c: char| match c {
        c if is_escaped(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    let said: String = place.says(&[ADAPTER]).chars().map(shown).collect();
    assert_eq!(one.stdout, format!("{said}\n"));
    // Without a terminal there is no prompt sign. The last line needs no newline; an empty line ends the chat.
    assert_eq!(chat("Hi?", ADAPTER).stdout, one.stdout);
    assert_eq!(chat("Hi?\n\nMore?\n", ADAPTER).stdout, one.stdout);
    assert_eq!(chat("", ADAPTER).stdout, "");
    let two = chat("Hi?\nHo?\n", ADAPTER);
    assert_eq!(two.code, Some(0), "{}", two.stderr);
    assert!(two.stdout.starts_with(&one.stdout) && two.stdout.len() > one.stdout.len());
    // A conversation longer than the context is refused.
    let long = chat(&"What do you say? ".repeat(40), ADAPTER);
    assert_eq!((long.code, long.stdout.as_str()), (Some(2), ""));
    assert!(long.stderr.contains("the model's context is 160"), "{}", long.stderr);
    assert!(long.stderr.contains("hint:"), "{}", long.stderr);
    // A model that was not trained on chats has no chat template.
    assert_snapshot!("no_chat_template", place.error(&["chat", WHOLE]));
}

#[test]
fn two_models_answer_each_message() {
    let place = tuned();
    let chat = |input: &str, models: &[&str]| {
        let args = [&["chat", "--greedy", "--max-new-tokens", "6"][..], models].concat();
        place.temper_with_input(&args, input)
    };
    let one = chat("Hi?\nHo?\n", &[ADAPTER]).stdout;
    let first = chat("Hi?\n", &[ADAPTER]).stdout;
    let second = one.strip_prefix(&first).expect("the first answer, then the second");
    // Each reads its own answers, so two of one model say what it says alone.
    let both = chat("Hi?\nHo?\n", &[ADAPTER, "--against", ADAPTER]);
    assert_eq!(both.code, Some(0), "{}", both.stderr);
    let twice = |answer: &str| format!("[{ADAPTER}]\n{answer}").repeat(2);
    assert_eq!(both.stdout, twice(&first) + &twice(second));
    let refused = place.error(&["chat", ADAPTER, "--against", WHOLE]);
    assert!(refused.contains(&format!("no chat template: `{WHOLE}`")), "{refused}");
}

#[test]
fn help_lists_every_command_and_what_is_for_adapters() {
    let place = Place::new();
    let all = place.succeeds(&["--help"]);
    let commands = [
        "plan", "run", "resume", "generate", "chat", "eval", "score", "verify", "export", "runs",
        "data",
    ];
    for command in commands {
        assert!(all.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {all}");
    }
    let export = place.succeeds(&["export", "--help"]);
    assert!(
        ["--adapter", "--merge", "--base"].iter().all(|flag| export.contains(flag)),
        "{export}"
    );
    for command in ["generate", "chat", "eval", "score"] {
        assert!(place.succeeds(&[command, "--help"]).contains("--base"), "{command}");
    }
}
