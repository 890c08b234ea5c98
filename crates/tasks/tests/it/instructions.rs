//! Instructions of IFEval against lm-evaluation-harness's checker: tests/golden/eval/ifeval.

use serde_json::Value;
use tasks::{Estimate, Response, Task, TaskOptions, summarize};

use crate::golden_dir;

/// A task over a file with IFEval's columns.
fn task(dir: &std::path::Path, rows: &str) -> Task {
    fsio::write_atomic(dir.join("ifeval.jsonl"), rows).unwrap();
    Task::open(std::path::Path::new("ifeval")).unwrap()
}

fn options(dir: &std::path::Path) -> TaskOptions {
    TaskOptions { data_dir: Some(dir.to_path_buf()), ..TaskOptions::default() }
}

#[test]
fn every_instruction_is_checked_as_in_the_harness() {
    let text = std::fs::read_to_string(golden_dir("eval/ifeval/rows.jsonl")).unwrap();
    let references: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    let task = task(dir.path(), &text);
    let items = task.items(&options(dir.path())).unwrap();
    assert_eq!(items.len(), references.len());
    let (mut differences, mut scores) = (Vec::new(), Vec::new());
    for (item, reference) in items.iter().zip(&references) {
        let answer = reference["answer"].as_str().unwrap().to_owned();
        let responses = [Response::Generated(vec![answer])];
        let (score, answers) = task.score(item, &responses);
        let row = task.row_json(item, &responses, &score, &answers);
        for (idx, own) in row["instructions"].as_array().unwrap().iter().enumerate() {
            for key in ["strict", "loose"] {
                if own[key] != reference[key][idx] {
                    let arguments = &reference["kwargs"][idx];
                    differences.push(format!("{key} {own} {arguments} {}", reference["answer"]));
                }
            }
        }
        scores.push(score);
    }
    assert!(differences.is_empty(), "{}\n{}", differences.len(), differences.join("\n"));
    let all = |key: &str| -> Vec<Vec<bool>> {
        let lists = references.iter().map(|row| row[key].as_array().unwrap());
        lists.map(|list| list.iter().map(|value| value == true).collect()).collect()
    };
    for key in ["strict", "loose"] {
        let lists = all(key);
        let n = lists.iter().filter(|list| list.iter().all(|followed| *followed)).count();
        let of = |name: &str| {
            let name = format!("{name}_level_{key}_acc");
            summarize(&scores).into_iter().find(|estimate| estimate.metric == name).unwrap()
        };
        assert_eq!(of("prompt").value, n as f64 / lists.len() as f64);
        let flat = lists.concat();
        let share = flat.iter().filter(|followed| **followed).count() as f64 / flat.len() as f64;
        assert_eq!(of("inst").value, share);
    }
}

/// A prompt with an instruction about the language counts in no metric per prompt; its other instructions count.
#[test]
fn languages_are_not_checked() {
    let dir = tempfile::tempdir().unwrap();
    let row = |names: &str, kwargs: &str| {
        format!("{{\"prompt\": \"P\", \"instruction_id_list\": {names}, \"kwargs\": {kwargs}}}\n")
    };
    let comma = "\"punctuation:no_comma\"";
    let language = "\"language:response_language\"";
    let rows = row(&format!("[{comma}, {language}]"), "[{}, {\"language\": \"de\"}]")
        + &row(&format!("[{comma}]"), "[{\"num_words\": null}]")
        + &row(&format!("[{language}]"), "[{\"language\": \"fr\"}]");
    let task = task(dir.path(), &rows);
    let items = task.items(&options(dir.path())).unwrap();
    let answers = ["No commas", "One, two", "Oui"];
    let scores: Vec<_> = items
        .iter()
        .zip(answers)
        .map(|(item, answer)| task.score(item, &[Response::Generated(vec![answer.to_owned()])]).0)
        .collect();
    let all = summarize(&scores);
    let all: Vec<(&str, f64, usize)> = all
        .iter()
        .map(|Estimate { metric, value, n_rows, .. }| (metric.as_str(), *value, *n_rows))
        .collect();
    assert_eq!(
        all,
        [
            ("prompt_level_strict_acc", 0.0, 1),
            ("inst_level_strict_acc", 0.5, 2),
            ("prompt_level_loose_acc", 0.0, 1),
            ("inst_level_loose_acc", 0.5, 2)
        ]
    );
    for (rows, part) in [
        (row("[\"a:b\"]", "[{}]"), "`a:b`: no such instruction"),
        (row("[]", "[]"), "is empty"),
        (row(&format!("[{comma}]"), "[]"), "1 instructions in `instruction_id_list`, but 0"),
        (row("[\"length_constraints:number_words\"]", "[{\"num_words\": 0}]"), "`num_words`"),
        (
            row(
                "[\"length_constraints:number_words\"]",
                "[{\"num_words\": 5, \"relation\": \"at most\"}]",
            ),
            "`at most`",
        ),
        ("{\"prompt\": \"P\"}\n".to_owned(), "no column `instruction_id_list`"),
    ] {
        fsio::write_atomic(dir.path().join("ifeval.jsonl"), &rows).unwrap();
        let error = task.items(&options(dir.path())).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("ifeval.jsonl:1"), "{error}");
    }
}
