//! The tasks of tests/golden/eval: every prompt byte for byte, and the metrics that lm-evaluation-harness computed from its
//! log-likelihoods and completions.

use crate::golden_dir;
use serde_json::Value;
use tasks::{Item, Request, Response, Task, TaskOptions, summarize};

/// Task, number of examples.
const RUNS: &[(&str, usize)] = &[
    ("complete", 0),
    ("complete", 3),
    ("question", 0),
    ("question", 3),
    ("math", 0),
    ("math", 3),
    ("lastword", 0),
    ("lastword", 3),
    ("pages", 0),
];

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

/// Requests and responses of a row of the reference.
fn reference(row: &Value) -> (Vec<Request>, Vec<Response>) {
    let pair = |of: &Value| {
        let (context, continuation) = (text(&of["context"]), text(&of["continuation"]));
        let (sum, is_greedy) = (number(&of["loglikelihood"]), of["is_greedy"] == true);
        let response = Response::LogLikelihood { sum, is_greedy };
        (Request::LogLikelihood { context, continuation }, response)
    };
    if row.get("requests").is_some() {
        return list(&row["requests"]).iter().map(pair).unzip();
    }
    if row.get("prompt").is_some() {
        let prompt = Request::Generate { prompt: text(&row["prompt"]) };
        return (vec![prompt], vec![Response::Generated(vec![text(&row["generation"])])]);
    }
    let response = Response::Rolling { sum: number(&row["loglikelihood"]) };
    (vec![Request::Rolling { text: text(&row["text"]) }], vec![response])
}

#[test]
fn prompts_and_metrics_equal_the_harness() {
    for &(name, shots) in RUNS {
        let path = golden_dir(&format!("eval/{name}.{shots}shot.json"));
        let expected: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let task = Task::open(&golden_dir(&format!("eval/tasks/{name}.toml"))).unwrap();
        let options = TaskOptions { shots, ..TaskOptions::default() };
        let items = task.items(&options).unwrap();
        assert_eq!(items.len(), list(&expected["rows"]).len());
        let mut scores = Vec::new();
        for (item, row) in items.iter().zip(list(&expected["rows"])) {
            scores.push(check_row(&task, item, row, &format!("{name}, {shots} shots")));
        }
        let estimates = summarize(&scores);
        assert!(!estimates.is_empty());
        for estimate in estimates {
            let key = format!("{},{}", estimate.metric, estimate.filter);
            let reference = number(&expected["results"][&key]);
            let distance = (estimate.value / reference - 1.0).abs();
            assert!(
                distance < 1e-12,
                "{name}, {shots} shots, {key}: {estimate:?}, not {reference}"
            );
        }
    }
}

fn check_row(task: &Task, item: &Item, row: &Value, run: &str) -> Vec<tasks::RowScore> {
    let run = format!("{run}, row {}", item.doc_id);
    assert_eq!(number(&row["doc_id"]) as usize, item.doc_id);
    let (requests, responses) = reference(row);
    assert_eq!(item.requests, requests, "{run}");
    let (scores, answers) = task.score(item, &responses);
    let shown = task.row_json(item, &responses, &scores, &answers);
    assert_eq!(shown["target"], row["target"], "{run}");
    for score in &scores {
        let own = &shown[&score.metric()];
        let own = if score.filter == "none" { own } else { &own[&score.filter] };
        let reference = &row[score.metric()];
        if reference.is_array() {
            // The sum of a log-likelihood with the number of words or bytes.
            assert_eq!(own, reference, "{run}, {}", score.metric());
            continue;
        }
        let of_score = if reference.is_object() { &reference[&score.filter] } else { reference };
        assert!((number(own) - number(of_score)).abs() < 1e-12, "{run}, {}", score.metric());
    }
    for (filter, answer) in answers {
        assert_eq!(answer, text(&row["filtered"][&filter]), "{run}, {filter}");
    }
    scores
}

#[test]
fn a_limit_takes_the_first_rows() {
    let task = Task::open(&golden_dir("eval/tasks/question.toml")).unwrap();
    let all = task.items(&TaskOptions { shots: 2, ..TaskOptions::default() }).unwrap();
    let options = TaskOptions { shots: 2, limit: Some(5), ..TaskOptions::default() };
    assert_eq!(task.items(&options).unwrap(), all[..5]);
}
