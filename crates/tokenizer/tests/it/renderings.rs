//! Renderings compared with those of Jinja2 under transformers' settings: 96, 25 and 64 cases.

use serde_json::Value;
use tokenizer::{ChatTemplate, Clock, Error};

use crate::support;

/// 2025-07-10 12:00:00, the time of the expected renderings.
const NOW: Clock = Clock::Fixed(1_752_148_800);

fn render(name: &str, source: &str, context: &Value) -> Result<String, Error> {
    ChatTemplate::from_source(name, source)?.with_clock(NOW)?.render(context)
}

fn cases(path: &str) -> Option<Value> {
    support::text(path).map(|text| serde_json::from_str(&text).expect("test data is JSON"))
}

/// Checks that exactly the cases in `known` differ, and reports every other difference.
fn check(outcomes: Vec<(String, Result<(), String>)>, n: usize, known: &[(&str, &str)]) {
    assert_eq!(outcomes.len(), n);
    let mut report = Vec::new();
    for (name, outcome) in outcomes {
        let expected_to_fail = known.iter().any(|(known, _)| *known == name);
        match outcome {
            Err(how) if !expected_to_fail => report.push(format!("== {name}: {how}")),
            Ok(()) if expected_to_fail => report.push(format!("== {name} passes now")),
            _ => {}
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
}

fn compare(actual: Result<String, Error>, expected: &Value) -> Result<(), String> {
    let expected = expected.as_str().expect("a rendering");
    match actual {
        Ok(text) if text == expected => Ok(()),
        Ok(text) => Err(format!("renders\n{text:?}\ninstead of\n{expected:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn renderings_of_published_templates() {
    let Some(golden) = cases("chat-templates/rendered-goldens.json") else { return };
    let mut outcomes = Vec::new();
    for case in golden["cases"].as_array().expect("cases") {
        let template = case["template"].as_str().expect("a template");
        let context = case["context"].as_str().expect("a context");
        let source = support::text(&format!("chat-templates/{template}")).expect("the template");
        let actual = render(template, &source, &golden["contexts"][context]);
        let outcome = match case.get("error") {
            None => compare(actual, &case["expected"]),
            Some(_) => match actual {
                Ok(text) => Err(format!("renders {text:?} instead of failing")),
                Err(_) => Ok(()),
            },
        };
        outcomes.push((format!("{template} {context}"), outcome));
    }
    let known = [(
        "llamacpp/llama-cpp-deepseek-r1.jinja tool_use",
        "the template passes a generator to tojson, which is an error in Python; here it is a list",
    )];
    check(outcomes, 96, &known);
}

#[test]
fn renderings_of_huggingface_js() {
    let Some(list) = cases("chat-templates/huggingfacejs-cases.json") else { return };
    let outcomes = list.as_array().expect("cases").iter().map(|case| {
        let (name, source) = (case["name"].as_str(), case["template"].as_str());
        let (name, source) = (name.expect("a name"), source.expect("a template"));
        (name.to_owned(), compare(render(name, source, &case["context"]), &case["expected"]))
    });
    check(outcomes.collect(), 25, &[]);
}

#[test]
fn the_language_of_jinja() {
    let Some(list) = cases("chat-templates/jinja-syntax-cases.json") else { return };
    let outcomes = list.as_array().expect("cases").iter().map(|case| {
        let (name, source) = (case["name"].as_str(), case["template"].as_str());
        let (name, source) = (name.expect("a name"), source.expect("a template"));
        (name.to_owned(), compare(render(name, source, &case["context"]), &case["expected"]))
    });
    check(outcomes.collect(), 64, &[]);
}
