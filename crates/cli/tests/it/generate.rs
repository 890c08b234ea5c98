//! `temper generate` with templates, output files and reward models.

use serde_json::Value;

use crate::support::Place;

const CHATS: &str = "{\"prompt\":\"Say a.\",\"completion\":\"a a\"}\n{\"prompt\":\"Say b.\",\"completion\":\"b\"}\n\
    {\"prompt\":\"Say c.\",\"completion\":\"c c c\"}\n{\"prompt\":\"Say d.\",\"completion\":\"d\"}\n";
const PAIRS: &str = "{\"prompt\":\"Say a.\",\"chosen\":\"a a\",\"rejected\":\"b\"}\n\
    {\"prompt\":\"Say b.\",\"chosen\":\"b\",\"rejected\":\"c c\"}\n";
const RECIPE: &str = "seed = 3\n[tokenizer]\ntrain = { kind = \"byte-bpe\", vocab_size = 300 }\n\
    [model]\nfamily = \"llama\"\nhidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
    intermediate_size = 48\nmax_position_embeddings = 128\n\
    [sft]\ndata = [{ path = \"chats.jsonl\" }]\nchat_template = \"plain\"\nsequence_length = 48\n\
    tokens_per_step = 96\nmax_steps = 60\noptimizer = { lr = 1e-2 }\n\
    [reward]\nstart = \"sft\"\ndata = [{ path = \"pairs.jsonl\" }]\nsequence_length = 48\npairs_per_step = 2\n\
    max_steps = 20\noptimizer = { lr = 1e-2 }\n";

/// A directory with a chat model and a reward model.
fn place() -> Place {
    let place = Place::new();
    place.write("chats.jsonl", CHATS).write("pairs.jsonl", PAIRS).write("r.toml", RECIPE);
    let run = place.temper(&["run", "r.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    place
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn templates_pairs_and_interrupted_files() {
    let place = place();
    let out = |name: &str| std::fs::read_to_string(place.path().join(name)).expect(name);
    let succeeds = |args: &[&str]| {
        let outcome = place.temper(args);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome
    };

    // Columns fill the template; the row keeps its columns and gets the completion.
    let many = (0..70).fold(String::new(), |text, n| {
        text + &format!("{{\"task\":\"Say {}.\",\"id\":{n}}}\n", ["a", "b", "c", "d"][n % 4])
    });
    place.write("tasks.jsonl", many);
    let templated = [
        "generate",
        "runs/r/sft",
        "--prompts",
        "tasks.jsonl",
        "--template",
        "{task}",
        "--chat",
        "--as",
        "answer",
        "--max-new-tokens",
        "8",
    ];
    let stdout = succeeds(&templated).stdout;
    let written = [&templated[..], &["--out", "answers.jsonl"]].concat();
    succeeds(&written);
    assert_eq!(out("answers.jsonl"), stdout, "a file has what stdout has");
    let found = rows(&stdout);
    assert_eq!(found.len(), 70);
    for (n, row) in found.iter().enumerate() {
        let keys: Vec<&String> = row.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["task", "id", "answer"]);
        assert_eq!(row["id"], n);
    }

    // A row is refused if one of its values would be lost, and its numbers stay as they are.
    place.write("twice.jsonl", "{\"task\":\"a\",\"task\":\"b\"}\n");
    let twice = ["generate", "runs/r/sft", "--prompts", "twice.jsonl", "--template", "{task}"];
    let error = place.error(&twice);
    assert!(error.contains("exit 2") && error.contains("twice.jsonl:1: not valid JSON"), "{error}");
    place.write("long.jsonl", "{\"task\":\"a\",\"id\":12345678901234567890123}\n");
    let long = ["generate", "runs/r/sft", "--prompts", "long.jsonl", "--template", "{task}"];
    let stdout = succeeds(&[&long[..], &["--max-new-tokens", "2"]].concat()).stdout;
    assert_eq!(rows(&stdout)[0]["id"], "12345678901234567890123");

    let name = "x".repeat(250);
    let error = place.error(&[&templated[..], &["--out", &name]].concat());
    assert!(error.contains("error: a name of more than 249 bytes: `xxx"), "{error}");

    // An existing file is not overwritten. Parts of an interrupted command are used.
    let error = place.error(&written);
    assert!(
        error.contains("exit 2") && error.contains("already exists: `answers.jsonl`"),
        "{error}"
    );
    let again = [&templated[..], &["--out", "again.jsonl"]].concat();
    succeeds(&again);
    fsio::rename(place.path().join("again.jsonl"), place.path().join("whole.jsonl"))
        .expect("moved");
    // As if it had been interrupted after the first part of 32 rows, whose text shows that it is not made again.
    let parts = place.path().join("again.jsonl.parts");
    let killed = place.temper(&[&again[..], &["--device", "cuda:7"]].concat());
    assert_ne!(killed.code, Some(0));
    assert!(!parts.exists(), "nothing is begun by a command that cannot run");
    let stale =
        [&templated[..8], &["other", "--max-new-tokens", "8", "--out", "again.jsonl"]].concat();
    let key = |args: &[&str]| {
        // A file in the way of the third part ends the command after two.
        place.write("again.jsonl.parts/000002.jsonl/x", "x");
        let outcome = place.temper(args);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        fsio::remove_dir_all(parts.join("000002.jsonl")).expect("removed");
    };
    key(&again);
    let lines = "{\"kept\":1}\n";
    place.write(
        "again.jsonl.parts/000000.jsonl",
        format!("{}\n{{}}\n", fsio::sha256_hex(lines.as_bytes())),
    );
    let error = place.error(&again);
    assert!(error.contains("000000.jsonl: checksum differs: the part is damaged"), "{error}");
    let with_hash = format!("{}\n{lines}", fsio::sha256_hex(lines.as_bytes()));
    place.write("again.jsonl.parts/000000.jsonl", with_hash);
    let error = place.error(&stale);
    assert!(error.contains("was begun with another model, prompts or options"), "{error}");
    // While another command writes the parts, this one ends before it reads the model.
    let lock = fsio::DirLock::acquire(&parts).expect("a directory");
    let error = place.error(&[&again[..], &["--device", "cuda:7"]].concat());
    assert!(
        error.contains("exit 2")
            && error.contains("another command is writing `again.jsonl.parts`"),
        "{error}"
    );
    assert!(lock.is_some() && parts.join("key").exists());
    drop(lock);
    succeeds(&again);
    let rest: String = out("whole.jsonl").split_inclusive('\n').skip(32).collect();
    assert_eq!(out("again.jsonl"), format!("{lines}{rest}"));
    assert!(!parts.exists());
    // Parts beside a complete file are left of a command that was killed at its very end.
    place.write("again.jsonl.parts/key", fsio::sha256_hex(b"a command"));
    place.write("again.jsonl.parts/000001.jsonl", "x");
    let error = place.error(&again);
    assert!(error.contains("already exists: `again.jsonl`"), "{error}");
    assert!(!parts.exists());
    // A directory of somebody else is neither used nor removed.
    for key in ["of a door".to_owned(), fsio::sha256_hex(b"a command")] {
        place.write("again.jsonl.parts/key", key);
        place.write("again.jsonl.parts/notes/mine", "x");
        place.error(&again);
        assert_eq!(out("again.jsonl.parts/notes/mine"), "x");
    }
    let foreign = [&templated[..], &["--out", "foreign.jsonl"]].concat();
    place.write("foreign.jsonl.parts/notes/mine", "x");
    let error = place.error(&foreign);
    assert!(
        error.contains("exit 2")
            && error.contains("`foreign.jsonl.parts` exists and has other files"),
        "{error}"
    );
    assert_eq!(out("foreign.jsonl.parts/notes/mine"), "x");

    // Rows without the column, with the output's column already, and templates without columns.
    let error = |template: &str, column: &str| {
        let args = ["--prompts", "tasks.jsonl", "--template", template, "--as", column];
        place.error(&[&["generate", "runs/r/sft"][..], &args].concat())
    };
    insta::assert_snapshot!(
        "templates",
        [
            error("{tsk}", "answer"),
            error("{task}", "id"),
            error("Say a.", "answer"),
            error("{task", "x")
        ]
        .join("\n\n")
    );

    // Best and worst of 8, scored as `temper score` scores them; DPO reads the file.
    let pairs = [
        "generate",
        "runs/r/sft",
        "--prompts",
        "tasks.jsonl",
        "--template",
        "{task}",
        "--chat",
        "--n",
        "8",
        "--max-new-tokens",
        "8",
        "--reward",
        "runs/r/reward",
        "--pairs",
        "--out",
        "best.jsonl",
    ];
    succeeds(&pairs);
    let best = rows(&out("best.jsonl"));
    assert!(best.len() > 10, "{} pairs", best.len());
    let scored = rows(&succeeds(&["score", "runs/r/reward", "--pairs", "best.jsonl"]).stdout);
    for (pair, scored) in best.iter().zip(&scored) {
        assert_ne!(pair["chosen"], pair["rejected"]);
        let of = |value: &Value| value.as_f64().expect("a number");
        assert!(of(&pair["chosen_score"]) > of(&pair["rejected_score"]), "{pair}");
        for (own, other) in [("chosen_score", "chosen"), ("rejected_score", "rejected")] {
            assert!((of(&pair[own]) - of(&scored[other])).abs() < 1e-4, "{pair} {scored}");
        }
    }
    let dpo = "[dpo]\nstart = \"runs/r/sft\"\ndata = [{ path = \"best.jsonl\" }]\nsequence_length = 48\n\
               pairs_per_step = 4\nmax_steps = 2\noptimizer = { lr = 1e-3 }\n";
    place.write("dpo.toml", dpo);
    succeeds(&["run", "dpo.toml"]);

    // A reward model scores chats, and a pair needs two completions.
    let raw = ["generate", "runs/r/sft", "--prompt", "a", "--reward", "runs/r/reward"];
    let error = place.error(&raw);
    assert!(error.contains("exit 2") && error.contains("add --chat"), "{error}");
    let single = [&raw[..], &["--chat", "--pairs"]].concat();
    let error = place.error(&single);
    assert!(error.contains("exit 2") && error.contains("one completion is no pair"), "{error}");
    let scored = succeeds(&[&raw[..], &["--chat", "--max-new-tokens", "4"]].concat()).stdout;
    assert!(rows(&scored)[0]["score"].is_f64(), "{scored}");
}
