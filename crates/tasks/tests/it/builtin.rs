//! Built-in tasks: prompts byte for byte and metrics of lm-evaluation-harness's own task definitions, on rows of ours in
//! tests/golden/eval/builtin.

use std::path::Path;

use crate::golden_dir;
use serde_json::Value;
use tasks::{Estimate, Item, Request, Response, Task, TaskOptions, Turn, builtin_names, summarize};

fn expected(name: &str) -> Value {
    let path = golden_dir(&format!("eval/builtin/{name}"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn items(task: &Task, shots: usize) -> Vec<Item> {
    let data_dir = Some(golden_dir("eval/builtin"));
    task.items(&TaskOptions { data_dir, shots, limit: None }).unwrap()
}

fn responses(row: &Value) -> Vec<Response> {
    if let Some(text) = row["generation"].as_str() {
        return vec![Response::Generated(vec![text.to_owned()])];
    }
    let of = |request: &Value| Response::LogLikelihood {
        sum: request["loglikelihood"].as_f64().unwrap(),
        is_greedy: request["is_greedy"] == true,
    };
    row["requests"].as_array().unwrap().iter().map(of).collect()
}

/// Asserts that an item's texts are those of the reference's row.
fn check(item: &Item, row: &Value, run: &str) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let expected: Vec<Request> = match row["prompt"].as_str() {
        Some(prompt) => vec![Request::Generate { prompt: prompt.to_owned() }],
        None => {
            let of = |request: &Value| Request::LogLikelihood {
                context: text(&request["context"]),
                continuation: text(&request["continuation"]),
            };
            row["requests"].as_array().unwrap().iter().map(of).collect()
        }
    };
    assert_eq!(item.requests, expected, "{run}, row {}", item.doc_id);
}

#[test]
fn prompts_and_metrics_equal_the_harness() {
    let expected = expected("expected.json");
    let mut n_runs = 0;
    for name in builtin_names() {
        let task = Task::open(Path::new(name)).unwrap();
        // These have tests of their own.
        if ["mmlu", "ifeval", "rewardbench"].contains(&name) {
            continue;
        }
        for (shots, run) in expected["tasks"][name].as_object().unwrap() {
            let label = format!("{name}, {shots} shots");
            let rows = run["rows"].as_array().unwrap();
            let items = items(&task, shots.parse().unwrap());
            assert_eq!(items.len(), rows.len(), "{label}");
            let mut scores = Vec::new();
            for (item, row) in items.iter().zip(rows) {
                check(item, row, &label);
                let (score, answers) = task.score(item, &responses(row));
                for (filter, answer) in answers {
                    assert_eq!(Some(answer.as_str()), row["filtered"][&filter].as_str(), "{label}");
                }
                scores.push(score);
            }
            check_estimates(&summarize(&scores), &run["results"], &label);
            n_runs += 1;
        }
    }
    assert_eq!(n_runs, 9 * 3);
}

fn check_estimates(estimates: &[Estimate], results: &Value, run: &str) {
    assert!(!estimates.is_empty());
    for Estimate { metric, filter, value, stderr, .. } in estimates {
        let reference =
            |key: String| results[&key].as_f64().unwrap_or_else(|| panic!("{run}: {key}"));
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12 * b.abs().max(1.0);
        assert!(near(*value, reference(format!("{metric},{filter}"))), "{run}: {metric}");
        // The harness estimates the error of a perplexity with random resamples.
        if *metric != "perplexity" {
            let expected = reference(format!("{metric}_stderr,{filter}"));
            assert!(near(stderr.unwrap(), expected), "{run}: {metric}, {stderr:?}, not {expected}");
        }
    }
}

/// One file with two subjects gives what the harness's two tasks give.
#[test]
fn mmlu_has_examples_of_the_same_subject() {
    let expected = expected("expected.json");
    let task = Task::open(Path::new("mmlu")).unwrap();
    for shots in [0, 2, 5] {
        let items = items(&task, shots);
        assert_eq!(items.len(), 8);
        for (subject, first) in [("abstract_algebra", 0), ("anatomy", 1)] {
            let run = &expected["tasks"][format!("mmlu_{subject}")][shots.to_string()];
            let rows = run["rows"].as_array().unwrap();
            assert_eq!(rows.len(), 4);
            for (item, row) in items.iter().skip(first).step_by(2).zip(rows) {
                check(item, row, &format!("mmlu {subject}, {shots} shots"));
            }
        }
    }
}

#[test]
fn default_shots_and_generation_are_those_of_the_harness() {
    let task = Task::open(Path::new("gsm8k")).unwrap();
    assert_eq!(task.default_shots(), 5);
    let generation = task.generation().unwrap();
    assert_eq!(generation.until, ["Question:", "</s>", "<|im_end|>"]);
    assert_eq!((generation.max_new_tokens, generation.votes), (256, 1));
}

/// The reference's chat template was `^[role]text…[assistant]`.
#[test]
fn chats_have_the_messages_of_the_harness() {
    let expected = expected("expected.chat.json");
    let render = |turns: &[Turn]| {
        let turns: Vec<String> =
            turns.iter().map(|turn| format!("[{}]{}\n", turn.role, turn.text)).collect();
        let turns = turns.concat();
        Ok(format!("^{turns}[assistant]"))
    };
    let mut n_runs = 0;
    for (name, runs) in expected["tasks"].as_object().unwrap() {
        let (task, subject) = match name.strip_prefix("mmlu_") {
            Some(subject) => ("mmlu", subject),
            None => (name.as_str(), ""),
        };
        let task = Task::open(Path::new(task)).unwrap();
        for (shots, run) in runs.as_object().unwrap() {
            let data_dir = Some(golden_dir("eval/builtin"));
            let options = TaskOptions { data_dir, shots: shots.parse().unwrap(), limit: None };
            let items = task.items_as_chat(&options, &render).unwrap();
            // Rows of the two subjects of mmlu alternate, and this is the first.
            let step = if subject.is_empty() { 1 } else { 2 };
            let rows = run["rows"].as_array().unwrap();
            assert_eq!(items.len(), rows.len() * step);
            for (item, row) in items.iter().step_by(step).zip(rows) {
                check(item, row, &format!("{name} as a chat, {shots} shots"));
            }
            n_runs += 1;
        }
    }
    assert_eq!(n_runs, 11);
}
