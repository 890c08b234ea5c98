//! `temper eval --task` against lm-evaluation-harness, row by row: tests/golden/eval.

use std::collections::BTreeMap;
use std::path::PathBuf;

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::{Outcome, Place, root, trained};

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden/eval").join(name)
}

fn shown(path: PathBuf) -> String {
    path.display().to_string()
}

/// Runs tasks on the golden model.
fn eval(tasks: &[&str], args: &[&str]) -> Outcome {
    let model = shown(golden("model"));
    let files: Vec<String> =
        tasks.iter().map(|task| shown(golden(&format!("tasks/{task}.toml")))).collect();
    let mut all = vec!["eval", &model];
    for file in &files {
        all.extend(["--task", file]);
    }
    all.extend(args);
    Place::new().temper(&all)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// JSON lines by task and number of examples: the rows, then the summary.
fn lines(stdout: &str) -> BTreeMap<(String, u64), Vec<Value>> {
    let mut by_run: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for line in stdout.lines() {
        let value: Value = serde_json::from_str(line).expect("a JSON object");
        let task = value["task"].as_str().expect("a name").to_owned();
        by_run.entry((task, value["shots"].as_u64().expect("a number"))).or_default().push(value);
    }
    by_run
}

fn check_run(name: &str, shots: u64, lines: &[Value]) {
    let path = golden(&format!("{name}.{shots}shot.json"));
    let bytes = std::fs::read(path).expect("reference results");
    let expected: Value = serde_json::from_slice(&bytes).expect("JSON");
    let (summary, rows) = lines.split_last().expect("a summary");
    let references = expected["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), references.len());
    for (row, reference) in rows.iter().zip(references) {
        check_row(row, reference, &format!("{name}, {shots} shots"));
    }
    for (key, value) in summary["results"].as_object().expect("metrics") {
        if key.contains("_stderr") {
            continue;
        }
        let (own, reference) = (number(value), number(&expected["results"][key]));
        // Shares of rows are equal; perplexities have the noise of the log-likelihoods.
        let bound = if key.contains("perplexity") || key.contains("bits") { 2e-5 } else { 0.0 };
        assert!((own / reference - 1.0).abs() <= bound, "{name}, {key}: {own}, not {reference}");
    }
    assert_eq!(summary["rows"], rows.len());
}

fn check_row(row: &Value, reference: &Value, run: &str) {
    let run = format!("{run}, row {}", row["doc_id"]);
    assert_eq!(row["doc_id"], reference["doc_id"]);
    assert_eq!(row["target"], reference["target"], "{run}");
    let requests = row["requests"].as_array().expect("requests");
    let own_references = [reference.clone()];
    let references = reference["requests"].as_array().map_or(&own_references[..], Vec::as_slice);
    assert_eq!(requests.len(), references.len(), "{run}");
    for (own, reference) in requests.iter().zip(references) {
        for key in ["context", "continuation", "text", "prompt", "generation", "is_greedy"] {
            if let Some(expected) = reference.get(key) {
                assert_eq!(&own[key], expected, "{run}, {key}");
            }
        }
        if let Some(expected) = reference.get("loglikelihood") {
            let bound = if reference.get("text").is_some() { 2e-4 } else { 1e-4 };
            let (own, expected) = (number(&own["loglikelihood"]), number(expected));
            assert!((own - expected).abs() < bound, "{run}: {own}, not {expected}");
        }
    }
    for key in ["filtered", "exact_match", "acc", "acc_norm"] {
        match (&row[key], &reference[key]) {
            (Value::Number(own), Value::Number(expected)) => {
                assert_eq!(own.as_f64(), expected.as_f64(), "{run}, {key}");
            }
            (own, expected) => assert_eq!(own, expected, "{run}, {key}"),
        }
    }
}

#[test]
fn every_row_equals_the_harness() {
    let tasks = ["complete", "question", "math", "lastword"];
    let outcome = eval(&tasks, &["--shots", "0,3", "--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let runs = lines(&outcome.stdout);
    assert_eq!(runs.len(), 2 * tasks.len());
    for ((name, shots), lines) in &runs {
        check_run(name, *shots, lines);
    }
}

#[test]
fn pages_are_scored_in_windows() {
    let outcome = eval(&["pages"], &["--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let runs = lines(&outcome.stdout);
    check_run("pages", 0, &runs[&("pages".to_owned(), 0)]);
}

#[test]
fn the_table_lists_runs_and_metrics() {
    let outcome = eval(&["question", "math"], &["--shots", "0,1", "--limit", "10"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_snapshot!(outcome.stdout);
}

#[test]
fn a_plot_has_the_numbers_of_examples() {
    let place = Place::new();
    let (model, task) = (shown(golden("model")), shown(golden("tasks/question.toml")));
    let args = ["eval", &model, "--task", &task, "--limit", "4"];
    let outcome = place.temper(&[&args[..], &["--shots", "0,1,4", "--svg", "shots.svg"]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let svg = std::fs::read_to_string(place.path().join("shots.svg")).expect("a plot");
    assert!(svg.starts_with("<svg") && svg.contains("question acc_norm"), "{svg}");
    assert_eq!(svg.matches("<circle").count(), 2 * 3);
    // Nothing is overwritten.
    let error = place.error(&[&args[..], &["--shots", "0,1", "--svg", "shots.svg"]].concat());
    assert!(error.starts_with("exit 2") && error.contains("`shots.svg` already exists"), "{error}");
    let error = place.error(&[&args[..], &["--svg", "x.svg"]].concat());
    assert!(error.starts_with("exit 2") && error.contains("--shots"), "{error}");
}

#[test]
fn checkpoints_of_a_stage_are_compared() {
    let place = trained();
    place.write("rows.jsonl", "{\"q\": \"The quick\", \"a\": \" brown\"}\n".repeat(2)).write(
        "t.toml",
        "kind = \"loglikelihood\"\ndata = \"rows.jsonl\"\nprompt = \"{{ q }}\"\ntarget = \"{{ a }}\"\n",
    );
    let stage = "runs/tiny/pretrain";
    let outcome = place.temper(&["eval", stage, "--task", "t.toml", "--all-checkpoints", "--json"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let lines: Vec<Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<&str> = lines
        .iter()
        .filter(|line| line.get("results").is_some())
        .filter_map(|line| line["checkpoint"].as_str())
        .collect();
    assert!(names.len() > 1 && names[0].starts_with("step-"), "{names:?}");
    assert_eq!(names.last(), Some(&"model"));
    assert_eq!(lines.len(), names.len() * 3);
    let table = place.temper(&["eval", stage, "--task", "t.toml", "--all-checkpoints"]).stdout;
    assert!(table.lines().next().is_some_and(|head| head.ends_with("checkpoint")), "{table}");
    let error = place.error(&["eval", stage, "--task", "t.toml", "--chat"]);
    assert!(error.starts_with("exit 2\nerror: the model has no chat template"), "{error}");
    let error = place.error(&["eval", "rows.jsonl", "--task", "t.toml", "--all-checkpoints"]);
    assert!(
        error.starts_with("exit 2\nerror: no checkpoints: `rows.jsonl/checkpoints`"),
        "{error}"
    );
}

#[test]
fn mistakes_end_before_the_model_is_read() {
    let place = Place::new();
    place.write("rows.jsonl", "{\"q\": \"Q\"}\n");
    let of = |task: &str| {
        place.write("t.toml", task);
        place.error(&["eval", "no/model", "--task", "t.toml"])
    };
    let task = "kind = \"loglikelihood\"\ndata = \"rows.jsonl\"\nprompt = \"{{ q }}\"\n";
    let all = [
        place.error(&["eval", "no/model", "--task", "arc_esy"]),
        place.error(&["eval", "no/model", "--task", "arc_easy"]),
        of(&format!("{task}targt = \"x\"\n")),
        of(&format!("{task}target = \"{{{{ a }}}}\"\n")),
    ];
    assert_snapshot!(all.join("\n\n"));
    for (args, part) in [
        (&["eval", "no/model"][..], "--task"),
        (&["eval", "no/model", "--file", "rows.jsonl", "--shots", "1"], "cannot be used with"),
        (&["eval", "no/model", "--task", "t.toml", "--stream"], "cannot be used with"),
        (&["eval", "no/model", "--task", "t.toml", "--limit", "0"], "--limit"),
    ] {
        let error = place.error(args);
        assert!(error.starts_with("exit 2\n") && error.contains(part), "{args:?}: {error}");
    }
}
