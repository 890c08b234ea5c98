//! `temper init`: a recipe for a model and a data file that runs as it is written.

use crate::support::{Place, TEXT, tiny_recipe};

/// A directory with a finished run, `runs/tiny`, whose model reads 128 tokens.
fn trained() -> Place {
    let place = Place::new();
    let recipe = tiny_recipe("{ path = \"text.txt\" }", "");
    let recipe = recipe.replace("sequence_length = 32", "sequence_length = 128");
    let recipe = recipe.replace("tokens_per_step = 64", "tokens_per_step = 256");
    let recipe = recipe.replace("max_position_embeddings = 32", "max_position_embeddings = 128");
    place.write("text.txt", TEXT.repeat(40)).write("tiny.toml", recipe);
    let run = place.temper(&["run", "tiny.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    place
}

/// Chats of several lengths, the last one longer than all others.
fn chats(n: usize) -> String {
    let rows: Vec<String> = (0..n)
        .map(|idx| {
            let question = "why? ".repeat(1 + idx % 3);
            let answer = if idx + 1 == n { "because ".repeat(12) } else { "so".to_owned() };
            format!("{{\"prompt\": \"{question}\", \"completion\": \"{answer}\"}}\n")
        })
        .collect();
    rows.concat()
}

#[test]
fn a_recipe_is_written_planned_and_run() {
    let place = trained();
    place.write("chats.jsonl", chats(40));
    let model = "runs/tiny/pretrain";
    let arguments =
        ["init", "sft", "--model", model, "--data", "chats.jsonl", "--out", "mine.toml"];
    let init = place.temper(&arguments);
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let text = std::fs::read_to_string(place.path().join("mine.toml")).expect("the recipe");
    assert!(init.stdout.starts_with(&format!("wrote mine.toml\n\n{text}")), "{}", init.stdout);
    assert!(init.stdout.contains("ready: temper run mine.toml"), "{}", init.stdout);
    for part in ["name = \"mine\"", "[sft]", "start = \"runs/tiny/pretrain\"", "chats: median "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A small model is trained whole, and the steps are few enough for a step of one row.
    assert!(!text.contains("lora"), "{text}");
    let run = place.temper(&["run", "mine.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);

    // Nothing is replaced.
    let again = place.error(&arguments);
    assert!(again.contains("`mine.toml` exists"), "{again}");
    let now = std::fs::read_to_string(place.path().join("mine.toml")).expect("the recipe");
    assert_eq!(now, text);
}

#[test]
fn labelled_answers_become_kto() {
    let place = trained();
    let row = |idx: usize| {
        format!(
            "{{\"prompt\": \"why {idx}?\", \"completion\": \"so\", \"label\": {}}}\n",
            idx.is_multiple_of(2)
        )
    };
    // Few rows: steps are halved as long as KTO permits.
    for n_rows in [9, 60] {
        let rows: String = (0..n_rows).map(row).collect();
        place.write("labelled.jsonl", rows);
        let out = format!("kto{n_rows}.toml");
        let init = place.temper(&[
            "init",
            "kto",
            "--model",
            "runs/tiny/pretrain",
            "--data",
            "labelled.jsonl",
            "--out",
            &out,
        ]);
        assert_eq!(init.code, Some(0), "{}", init.stderr);
        let run = place.temper(&["run", &out, "--set", "kto.max_steps=1"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
}

#[test]
fn a_recipe_that_cannot_be_written_is_refused_before_anything_is_read() {
    let place = Place::new();
    let long = "a".repeat(300);
    for (out, part) in [
        ("none/x.toml", "none: cannot read: No such file or directory"),
        (long.as_str(), "cannot read: File name too long"),
    ] {
        let args = ["init", "sft", "--model", "none", "--data", "none.jsonl", "--out", out];
        let error = place.error(&args);
        assert!(error.starts_with("exit 2") && error.contains(part), "{error}");
        assert!(error.contains("hint: write to a file in a directory that exists"), "{error}");
    }
}

#[test]
fn paths_lead_from_the_recipe_to_model_and_data() {
    let place = trained();
    place.write("chats.jsonl", chats(40));
    std::fs::create_dir(place.path().join("recipes")).expect("a directory");
    let init = place.temper(&[
        "init",
        "sft",
        "--model",
        "runs/tiny/pretrain",
        "--data",
        "chats.jsonl",
        "--out",
        "recipes/mine.toml",
        "--no-probe",
    ]);
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let plan = place.temper(&["plan", "recipes/mine.toml", "--no-probe"]);
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
}

#[test]
fn what_is_missing_is_named_and_nothing_is_written() {
    let place = trained();
    place.write("chats.jsonl", chats(4)).write("notes.txt", "no chats\n");
    for (model, data, part) in [
        ("runs/none", "chats.jsonl", "runs/none"),
        ("runs/tiny/pretrain", "none.jsonl", "none.jsonl"),
        ("runs/tiny/pretrain", "notes.txt", "notes.txt"),
    ] {
        let error = place.error(&["init", "sft", "--model", model, "--data", data]);
        assert!(error.contains(part), "{error}");
        assert!(!place.path().join("sft.toml").exists());
    }
}

#[test]
fn problems_with_right_answers_become_grpo() {
    let place = trained();
    let row =
        |n: usize| format!("{{\"question\": \"{n} + 1\", \"answer\": \"so #### {}\"}}\n", n + 1);
    let rows: String = (0..30).map(row).collect();
    place.write("problems.jsonl", rows.replace("question", "prompt"));
    let arguments = ["init", "grpo", "--model", "runs/tiny/pretrain", "--data", "problems.jsonl"];
    let init = place.temper(&arguments);
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let text = std::fs::read_to_string(place.path().join("grpo.toml")).expect("the recipe");
    for part in ["rewards = [{ kind = \"number\", answer = \"{answer}\" }]", "num_generations = 8"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let run = place.temper(&[
        "run",
        "grpo.toml",
        "--set",
        "grpo.max_steps=1",
        "--set",
        "grpo.max_new_tokens=4",
    ]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);

    place.write("none.jsonl", "{\"prompt\": \"4\", \"reply\": \"5\"}\n");
    let error = place.error(&[
        "init",
        "grpo",
        "--model",
        "runs/tiny/pretrain",
        "--data",
        "none.jsonl",
        "--out",
        "x.toml",
    ]);
    assert!(
        error.contains("none.jsonl:1: no column has the right answer; columns: `prompt`, `reply`"),
        "{error}"
    );
}

#[test]
fn prompts_and_a_reward_model_become_ppo() {
    let place = trained();
    let pair = |n: usize| {
        format!("{{\"prompt\": \"{n}\", \"chosen\": \"yes {n}\", \"rejected\": \"no\"}}\n")
    };
    let pairs: String = (0..30).map(pair).collect();
    place.write("pairs.jsonl", pairs);
    let model = ["--model", "runs/tiny/pretrain", "--data", "pairs.jsonl", "--no-probe"];
    let init = place.temper(&[&["init", "reward"][..], &model].concat());
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let run = place.temper(&["run", "reward.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let without = place.error(&[&["init", "ppo"][..], &model].concat());
    assert!(without.contains("--reward"), "{without}");
    let reward = ["--reward", "runs/reward/reward"];
    let init = place.temper(&[&["init", "ppo"][..], &model, &reward].concat());
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let run = place.temper(&[
        "run",
        "ppo.toml",
        "--set",
        "ppo.max_steps=1",
        "--set",
        "ppo.max_new_tokens=4",
    ]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let misplaced = place.error(&[&["init", "sft"][..], &model, &reward].concat());
    assert!(misplaced.contains("--reward does not apply"), "{misplaced}");
}

#[test]
fn chats_and_pairs_become_a_chain() {
    let place = trained();
    let pair = |n: usize| {
        format!("{{\"prompt\": \"{n}\", \"chosen\": \"yes {n}\", \"rejected\": \"no\"}}\n")
    };
    place
        .write("chats.jsonl", chats(40))
        .write("pairs.jsonl", (0..30).map(pair).collect::<String>())
        .write("prompts.jsonl", "{\"prompt\": \"why?\"}\n".repeat(30));
    let model = ["--model", "runs/tiny/pretrain", "--data", "chats.jsonl", "--no-probe"];
    let chain = [&["init", "chain", "--pairs", "pairs.jsonl"][..], &model].concat();
    let init = place.temper(&chain);
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let text = std::fs::read_to_string(place.path().join("chain.toml")).expect("the recipe");
    for part in [
        "# Stages that continue each other: sft, reward, ppo.",
        "start = \"runs/tiny/pretrain\"",
        "data = [{ path = \"chats.jsonl\" }]",
        "data = [{ path = \"pairs.jsonl\" }]",
        "policy = { start = \"sft\" }",
        "reward = \"reward\" ",
        "prompts = [{ path = \"chats.jsonl\" }]       # the chats without their answers",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(init.stdout.contains("ready: temper run chain.toml"), "{}", init.stdout);
    let short = ["sft", "reward", "ppo"].map(|stage| format!("{stage}.max_steps=1"));
    let mut run = vec!["run", "chain.toml", "--set", "ppo.max_new_tokens=4"];
    run.extend(short.iter().flat_map(|set| ["--set", set]));
    let run = place.temper(&run);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("runs/chain/ppo"), "{}", run.stdout);

    let out = ["--prompts", "prompts.jsonl", "--out", "own.toml"];
    let init = place.temper(&[&chain[..], &out].concat());
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    assert!(init.stdout.contains("prompts = [{ path = \"prompts.jsonl\" }]\n"), "{}", init.stdout);

    let init = place.temper(&[&chain[..], &["--align", "dpo", "--out", "dpo.toml"]].concat());
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let run = ["run", "dpo.toml", "--set", "sft.max_steps=1", "--set", "dpo.max_steps=1"];
    let run = place.temper(&run);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("runs/dpo/dpo"), "{}", run.stdout);
}

#[test]
fn options_of_other_recipes_are_refused() {
    let place = trained();
    place.write("chats.jsonl", chats(40));
    let refused = |kind: &str, rest: &[&str]| {
        let model = ["init", kind, "--model", "runs/tiny/pretrain", "--data", "chats.jsonl"];
        place.error(&[&model[..], rest].concat())
    };
    for (kind, rest, part) in [
        ("chain", &[][..], "--pairs"),
        ("sft", &["--pairs", "p.jsonl"], "--pairs does not apply to `init sft`"),
        ("sft", &["--align", "dpo"], "--align does not apply to `init sft`"),
        (
            "chain",
            &["--pairs", "p.jsonl", "--align", "dpo", "--prompts", "p.jsonl"],
            "--prompts does not apply to `init chain`",
        ),
    ] {
        let error = refused(kind, rest);
        assert!(error.starts_with("exit 2") && error.contains(part), "{error}");
    }
    assert!(!place.path().join("chain.toml").exists());
}
