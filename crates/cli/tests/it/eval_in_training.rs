//! `eval.tasks`: tasks on the schedule of a stage.

use std::path::Path;

use serde_json::Value;

use crate::support::{Place, TEXT, tiny_recipe};

const TASKS: &str = "eval = { tasks = [\"words.toml\"], every_steps = 2, task_rows = 3, metric = \"words/perplexity\", \
    export_best = true }\nsave_every_steps = 2\nmax_steps = 6\n";

fn place(keys: &str) -> Place {
    let place = Place::new();
    let recipe = tiny_recipe("{ path = \"text.txt\" }", keys).replace("max_steps = 3\n", "");
    place
        .write("text.txt", TEXT.repeat(40))
        .write("tiny.toml", recipe)
        .write(
            "words.toml",
            "kind = \"loglikelihood\"\ndata = \"words.jsonl\"\nprompt = \"{{ q }}\"\ntarget = \"{{ a }}\"\n",
        )
        .write("words.jsonl", "{\"q\": \"The quick\", \"a\": \" brown\"}\n".repeat(4));
    place
}

/// Rows of the log without speeds, which depend on the machine.
fn rows(place: &Place, run: &str) -> Vec<Value> {
    let path = place.path().join("runs").join(run).join("pretrain/metrics.jsonl");
    let text = std::fs::read_to_string(path).expect("a log");
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).expect("JSON");
        row.as_object_mut().expect("an object").remove("tokens_per_s");
        row
    };
    text.lines().map(row).collect()
}

fn weights(place: &Place, path: &str) -> Vec<u8> {
    std::fs::read(place.path().join("runs").join(path).join("model.safetensors")).expect("weights")
}

fn run(place: &Place, args: &[&str]) -> String {
    let outcome = place.temper(args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout + &outcome.stderr
}

#[expect(clippy::disallowed_methods, reason = "a test changes a run's directory")]
fn remove(path: &Path) {
    if path.is_dir() {
        std::fs::remove_dir_all(path).expect("removed");
    } else {
        std::fs::remove_file(path).expect("removed");
    }
}

#[test]
fn tasks_are_planned_logged_and_resumed() {
    let place = place(TASKS);
    let plan = run(&place, &["plan", "tiny.toml", "--no-probe"]);
    let note = "tasks: words (3 rows, 0 examples); 3 requests in each of 3 evaluations; the best evaluation is that with \
                the best words/perplexity";
    assert!(plan.contains(note), "{plan}");

    let shown = run(&place, &["run", "tiny.toml", "--name", "whole"]);
    assert!(shown.contains("words/acc 0.0000  words/perplexity"), "{shown}");
    let logged = rows(&place, "whole");
    let evals: Vec<&Value> = logged.iter().filter(|row| row.get("loss").is_none()).collect();
    assert_eq!(evals.len(), 3);
    for row in &evals {
        assert!(row.get("eval_loss").is_none() && row.get("n_targets").is_none(), "{row}");
        assert!(row["task/words/perplexity"].as_f64().expect("a number") > 1.0, "{row}");
        // Three equal rows; their mean is rounded.
        assert!(row["task/words/perplexity_stderr"].as_f64().expect("a number") < 1e-9, "{row}");
    }
    // The same numbers as those of the command.
    let last = run(
        &place,
        &[
            "eval",
            "runs/whole/pretrain/checkpoints/step-000006",
            "--task",
            "words.toml",
            "--limit",
            "3",
            "--json",
        ],
    );
    let summary: Value =
        serde_json::from_str(last.lines().last().expect("a line")).expect("a summary");
    assert_eq!(summary["results"]["perplexity,none"], evals[2]["task/words/perplexity"]);

    // Evaluations change no weights.
    place.write(
        "plain.toml",
        tiny_recipe("{ path = \"text.txt\" }", "save_every_steps = 2\n")
            .replace("max_steps = 3", "max_steps = 6"),
    );
    run(&place, &["run", "plain.toml"]);
    let at = "pretrain/checkpoints/step-000006";
    assert!(weights(&place, &format!("whole/{at}")) == weights(&place, &format!("plain/{at}")));

    // A run that lost its last checkpoint resumes to the same bits.
    run(&place, &["run", "tiny.toml", "--name", "cut"]);
    let stage = place.path().join("runs/cut/pretrain");
    for part in ["model", "finished.json", "checkpoints/step-000006"] {
        remove(&stage.join(part));
    }
    run(&place, &["resume", "cut"]);
    assert_eq!(rows(&place, "cut"), logged);
    assert!(weights(&place, "cut/pretrain/model") == weights(&place, "whole/pretrain/model"));
}

/// Tasks beside a validation set, and a task whose rows changed after the checkpoint.
#[test]
fn tasks_are_inputs_of_a_run() {
    let place = place(
        "eval = { holdout = 0.1, by = \"position\", tasks = [\"words.toml\"] }\nsave_every_steps = 2\nmax_steps = 4\n",
    );
    let shown = run(&place, &["run", "tiny.toml"]);
    assert!(shown.contains("val loss") && shown.contains("words/acc"), "{shown}");
    let logged = rows(&place, "tiny");
    let eval = logged.last().expect("a row");
    assert!(eval["eval_loss"].is_f64() && eval["task/words/acc"].is_f64(), "{eval}");
    let stage = place.path().join("runs/tiny/pretrain");
    for part in ["model", "finished.json", "checkpoints/step-000004"] {
        remove(&stage.join(part));
    }
    place.write("words.jsonl", "{\"q\": \"The lazy\", \"a\": \" dog\"}\n");
    let error = place.error(&["resume", "tiny"]);
    assert!(error.starts_with("exit 2") && error.contains("task words"), "{error}");
}

#[test]
fn rows_that_are_trained_on_are_named() {
    let place = place("eval = { tasks = [\"words.toml\"] }\nmax_steps = 4\n");
    // The training text repeats this sentence of 12 words.
    let sentence = TEXT.trim();
    place.write("words.jsonl", format!("{{\"q\": \"{sentence} {sentence}\", \"a\": \" x\"}}\n"));
    for _ in 0..2 {
        let plan = run(&place, &["plan", "tiny.toml", "--no-probe"]);
        let expected = "warning: 1 of 1 rows of words occur in 1 rows of the training data (runs of 13 words): text.txt has \
                        words.jsonl:1";
        assert!(plan.replace("./", "").contains(expected), "{plan}");
    }
    place.write("words.jsonl", "{\"q\": \"The quick\", \"a\": \" brown\"}\n");
    let plan = run(&place, &["plan", "tiny.toml", "--no-probe"]);
    let expected = "no row of words occurs in the training data (runs of 13 words); 1 are too short to compare";
    assert!(plan.contains(expected), "{plan}");
}

#[test]
fn mistakes_are_named_before_training() {
    let of = |keys: &str| place(&format!("max_steps = 4\n{keys}\n")).error(&["plan", "tiny.toml"]);
    let all = [
        of("eval = { every_steps = 2 }"),
        of("eval = { holdout = 0.1, task_rows = 2 }"),
        of("eval = { tasks = [\"words.toml\"], every_steps = 2, export_best = true }"),
        of("eval = { tasks = [\"words.toml\", \"arc_esy\"] }"),
        of("eval = { tasks = [\"words.toml\", \"words.toml\"] }"),
        of("eval = { tasks = [\"words.toml\"], metric = \"words/acc_norm\" }"),
        of("eval = { tasks = [\"none.toml\"] }"),
        of("eval = { tasks = [\"words.toml\"], task_chat = true }"),
        of("eval = { tasks = [\"arc_easy\"] }"),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn a_stage_that_ends_worse_than_it_started_says_so() {
    let place = Place::new();
    let row = |n: usize| format!("{{\"text\": \"{n} {}\"}}\n", TEXT.trim());
    let eval = "eval = { holdout = 0.05 }\n";
    let recipe = tiny_recipe("{ path = \"text.jsonl\" }", eval);
    place.write("text.jsonl", (0..40).map(row).collect::<String>()).write("tiny.toml", recipe);
    let run = |rest: &[&str]| {
        let outcome = place.temper(&[&["run", "tiny.toml", "--log", "plain"], rest].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome
    };
    let worse = run(&["--name", "worse", "--set", "optimizer.lr=10", "--set", "max_steps=8"]);
    let warning = "warning: [pretrain] ended worse than it started: its validation loss is ";
    assert!(worse.stderr.contains(warning), "{}", worse.stderr);
    assert!(worse.stdout.contains(": worse than before training"), "{}", worse.stdout);
    // A finished run is no warning, and its table still says so.
    let again = run(&["--name", "worse", "--set", "optimizer.lr=10", "--set", "max_steps=8"]);
    assert!(again.stdout.contains(": worse than before training"), "{}", again.stdout);
    let better = run(&["--name", "better"]);
    assert!(!better.stderr.contains("ended worse"), "{}", better.stderr);
    assert!(!better.stdout.contains("worse"), "{}", better.stdout);
    // Few rows of validation data are named by `run` and by `plan`.
    let few = "of 40 documents";
    assert!(better.stderr.contains("warning: [pretrain] validates on "), "{}", better.stderr);
    assert!(better.stderr.contains(few), "{}", better.stderr);
    let plan = place.temper(&["plan", "tiny.toml", "--no-probe"]);
    assert!(plan.stdout.contains(&format!("{few} held out in ")), "{}", plan.stdout);
}

/// Rows of samples.jsonl: step, prompt, and whether the answer before training is known.
fn samples(place: &Place, run: &str) -> Vec<(u64, String, bool)> {
    let path = place.path().join("runs").join(run).join("pretrain/samples.jsonl");
    let text = std::fs::read_to_string(path).expect("a log");
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let step = row["step"].as_u64().expect("a step");
        (step, row["prompt"].as_str().expect("a prompt").to_owned(), row["before"].is_string())
    };
    text.lines().map(row).collect()
}

#[test]
fn prompts_of_the_recipe_are_shown_with_their_answers() {
    let keys =
        "sample_prompts = [\"The quick\", \"\\n\"]\nsample_max_new_tokens = 4\nmax_steps = 4\n";
    let place = place(keys);
    let text = run(&place, &["run", "tiny.toml", "--name", "x", "--log", "plain"]);
    assert!(text.contains("pretrain   step 0  \"The quick\" → \""), "{text}");
    assert!(text.contains("pretrain   step 4  \"The quick\" → \""), "{text}");
    let wanted =
        [(0, "The quick", false), (0, "\n", false), (4, "The quick", true), (4, "\n", true)];
    assert_eq!(
        samples(&place, "x"),
        wanted.map(|(step, prompt, known)| (step, prompt.to_owned(), known))
    );
    run(&place, &["run", "tiny.toml", "--name", "y", "--set", "pretrain.sample_prompts=[\"A\"]"]);
    let model = |name: &str| weights(&place, &format!("{name}/pretrain/model"));
    assert!(model("x") == model("y"), "samples change no weights");
}

/// A text without words has an infinite perplexity of words, as in lm-evaluation-harness: it is named, compares nothing, and
/// the run can be resumed.
#[test]
fn a_metric_may_be_infinite() {
    let place = place(
        "eval = { tasks = [\"roll.toml\"], every_steps = 2, metric = \"roll/word_perplexity\", export_best = true }\n\
         save_every_steps = 2\nmax_steps = 6\n",
    );
    place
        .write(
            "roll.toml",
            "kind = \"loglikelihood_rolling\"\ndata = \"roll.jsonl\"\ntarget = \"{{ t }}\"\n",
        )
        .write("roll.jsonl", format!("{{\"t\": \"{}\"}}\n", "lazydog".repeat(400)));
    let shown = run(&place, &["run", "tiny.toml"]);
    for part in [
        "the metric `task/roll/word_perplexity` is inf at step 2",
        "[pretrain] has no best evaluation: task/roll/word_perplexity was never a finite number",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let logged = rows(&place, "tiny");
    assert!(logged.iter().any(|row| row["task/roll/word_perplexity"].is_null()));
    let stage = place.path().join("runs/tiny/pretrain");
    let whole = weights(&place, "tiny/pretrain/model");
    for part in ["model", "finished.json", "checkpoints/step-000006"] {
        remove(&stage.join(part));
    }
    run(&place, &["resume", "tiny"]);
    assert_eq!(rows(&place, "tiny"), logged);
    assert!(weights(&place, "tiny/pretrain/model") == whole);
}
