//! Choices, exact texts, patterns, tags, lengths, repetition, and the sum of several rewards.

use recipe::Reward;
use rewards::{Completion, Rewards};

use crate::support::{one, value};

#[test]
fn choices_are_letters_of_their_own() {
    let cases = [
        ("last", "B", "B", 1.0),
        ("last", "B", "b", 1.0),
        ("last", "(B)", "B", 1.0),
        ("last", "B", "(b)", 1.0),
        ("last", "B", "The answer is B.", 1.0),
        ("last", "B", "The answer is (B).", 1.0),
        ("last", "B", "**B**", 1.0),
        ("last", "B", "B) 12 km", 1.0),
        ("last", "B", "A is wrong, so the answer is B", 1.0),
        ("last", "A", "A is right", 1.0),
        ("last", "A", "The answer is A", 1.0),
        ("last", "A", "The answer is A because dogs bark", 1.0),
        ("last", "B", "The answer is B. A dog barks.", 1.0),
        ("last", "A", "A dog barks.", 0.0),
        ("last", "B", "The answer is C", 0.0),
        ("last", "B", "B, no: C", 0.0),
        ("last", "B", "A or B", 0.0),
        ("last", "B", "B or A", 0.0),
        ("last", "B", "A, B", 0.0),
        ("last", "B", "Both A and B", 0.0),
        ("last", "B", "A/B", 0.0),
        ("last", "B", "Banana", 0.0),
        ("last", "B", "Vitamin B12", 0.0),
        ("last", "B", "B's", 0.0),
        ("last", "B", "", 0.0),
        ("last", "B", "F", 0.0),
        ("tag:answer", "B", "<answer>B</answer>", 1.0),
        ("tag:answer", "B", "<answer>b</answer>", 1.0),
        ("tag:answer", "B", "A? <answer>(B) 12 km</answer>", 1.0),
        ("tag:answer", "B", "<answer>B</answer><answer>C</answer>", 0.0),
        ("tag:answer", "B", "<answer>B or C</answer>", 0.0),
        ("tag:answer", "B", "<answer>B", 0.0),
        ("tag:answer", "B", "<answer>C</answer> B", 0.0),
        ("boxed", "B", "\\boxed{B}", 1.0),
        ("boxed", "B", "\\boxed{\\text{B}}", 1.0),
        ("boxed", "B", "\\boxed{C}", 0.0),
        ("####", "B", "#### B", 1.0),
    ];
    for (place, gold, text, expected) in cases {
        let keys = serde_json::json!({ "kind": "choice", "answer": "{a}", "extract": place });
        let (found, why) = value(&one(&keys.to_string()), gold, text);
        assert_eq!(found, Some(expected), "{place} {gold} {text:?}: {why}");
    }
    let rewards = one(r#"{ "kind": "choice", "answer": "{a}" }"#);
    for gold in ["", "F", "AB", "the first"] {
        assert_eq!(value(&rewards, gold, "A").0, None, "{gold}");
    }
}

#[test]
fn exact_texts_ignore_white_space_only() {
    let cases = [
        (r#"{ "kind": "exact", "answer": "{a}" }"#, " Paris\n", 1.0),
        (r#"{ "kind": "exact", "answer": "{a}" }"#, "paris", 0.0),
        (r#"{ "kind": "exact", "answer": "{a}" }"#, "Paris.", 0.0),
        (r#"{ "kind": "exact", "answer": "{a}", "ignore_case": true }"#, "PARIS", 1.0),
        (r#"{ "kind": "exact", "answer": "{a}", "extract": "last" }"#, "Hm.\nParis\n\n", 1.0),
        (r#"{ "kind": "exact", "answer": "{a}", "extract": "last" }"#, "Paris\nHm.", 0.0),
        (r#"{ "kind": "exact", "answer": "{a}", "extract": "tag:a" }"#, "x <a>Paris</a>", 1.0),
        (r#"{ "kind": "exact", "answer": "{a}", "extract": "tag:a" }"#, "<a>Paris", 0.0),
    ];
    for (keys, text, expected) in cases {
        assert_eq!(value(&one(keys), "Paris", text).0, Some(expected), "{keys} {text:?}");
    }
    let keys = r#"{ "kind": "exact", "answer": "{a}" }"#;
    assert_eq!(value(&one(keys), " ", "x").0, None);
}

#[test]
fn patterns_are_matched_in_linear_time() {
    let rewards = one(r#"{ "kind": "regex", "pattern": "^(a+)+$" }"#);
    assert_eq!(value(&rewards, "", "aaa").0, Some(1.0));
    // A backtracking engine would take years.
    assert_eq!(value(&rewards, "", &("a".repeat(5000) + "b")).0, Some(0.0));
    for pattern in ["(", "a(?=b)", r"(a)\1"] {
        let kind = serde_json::json!({ "kind": "regex", "pattern": pattern });
        let kind = serde_json::from_value(kind).expect("keys");
        let (idx, error) = Rewards::new(&[Reward { kind, weight: 1.0 }], 8).expect_err(pattern);
        assert_eq!((idx, error.key()), (0, "pattern"));
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn tags_are_in_order_closed_and_alone() {
    let rewards = one(r#"{ "kind": "format", "tags": ["think", "answer"] }"#);
    let cases = [
        ("<think>a</think><answer>b</answer>", 1.0),
        (" <think>a</think>\n\n<answer>b</answer>\n", 1.0),
        ("<think></think><answer></answer>", 1.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a</think>", 0.0),
        ("<think>a</think><answer>b", 0.0),
        ("<think>a<answer>b</answer>", 0.0),
        ("so <think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think> so <answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer> done", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think>a<think>b</think><answer>c</answer>", 0.0),
        ("<think>a</think><answer><think>b</answer>", 0.0),
        ("", 0.0),
    ];
    for (text, expected) in cases {
        let (found, why) = value(&rewards, "", text);
        assert_eq!(found, Some(expected), "{text}: {why}");
    }
}

/// The numbers of TRL's `get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)`.
#[test]
fn the_overlong_penalty_is_daposs() {
    let rewards = one(r#"{ "kind": "length", "max_tokens": 100, "cache_tokens": 20 }"#);
    let cases =
        [(0, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (101, -1.0), (500, -1.0), (85, -0.25)];
    for (n_tokens, expected) in cases {
        let scored = rewards.score(&[], &Completion { text: "", n_tokens });
        assert_eq!(scored.total(), Some(expected), "{n_tokens}");
    }
}

/// The numbers of open-r1's cosine-scaled reward with its defaults and `max_len` 1000.
#[test]
fn the_cosine_reward_depends_on_the_answer() {
    let list = r#"[
        { "kind": "number", "answer": "{a}", "weight": 0.0001 },
        { "kind": "length", "shape": "cosine", "max_tokens": 1000 }
    ]"#;
    let list: Vec<Reward> = serde_json::from_str(list).expect("rewards");
    let rewards = Rewards::new(&list, 8).expect("valid");
    let cases = [
        ("7", 0, 1.0),
        ("7", 500, 0.75),
        ("7", 1000, 0.5),
        ("7", 2000, 0.5),
        ("8", 0, -1.0),
        ("8", 500, -0.75),
        ("8", 1000, -0.5),
    ];
    for (text, n_tokens, expected) in cases {
        let scored = rewards.score(&[Some("7".to_owned())], &Completion { text, n_tokens });
        let found = scored.parts[1].value.expect("a value");
        assert!((found - expected).abs() < 1e-12, "{text} {n_tokens}: {found}");
    }
    // Without an answer to compare with, neither reward has a value.
    let scored = rewards.score(&[None], &Completion { text: "7", n_tokens: 3 });
    assert_eq!((scored.total(), rewards.applies(&[None])), (None, vec![false, false]));
}

/// The numbers of open-r1's repetition penalty with `max_penalty` -1.
#[test]
fn repetition_is_the_share_of_repeated_ngrams() {
    let rewards = one(r#"{ "kind": "repetition", "n": 2 }"#);
    let cases = [
        ("", 0.0),
        ("one", 0.0),
        ("one two three", 0.0),
        ("one two one two", -1.0 / 3.0),
        ("One two ONE two", -1.0 / 3.0),
        ("a a a a a", -0.75),
    ];
    for (text, expected) in cases {
        let found = value(&rewards, "", text).0.expect("a value");
        assert!((found - expected).abs() < 1e-12, "{text}: {found}");
    }
}

#[test]
fn a_sum_leaves_out_what_a_prompt_lacks() {
    let list = r#"[
        { "kind": "number", "answer": "{a}", "weight": 2.0 },
        { "kind": "number", "answer": "{b}", "weight": 3.0, "extract": "all" },
        { "kind": "regex", "pattern": "^7", "weight": -0.5 }
    ]"#;
    let list: Vec<Reward> = serde_json::from_str(list).expect("rewards");
    let rewards = Rewards::new(&list, 8).expect("valid");
    assert_eq!(rewards.names().collect::<Vec<_>>(), ["number", "number-2", "regex"]);
    let answers = |a: Option<&str>, b: Option<&str>| [a.map(str::to_owned), b.map(str::to_owned)];
    let completion = Completion { text: "7", n_tokens: 1 };
    let total = |answers: [Option<String>; 2]| rewards.score(&answers, &completion).total();
    assert_eq!(total(answers(Some("7"), Some("7"))), Some(4.5));
    assert_eq!(total(answers(Some("7"), Some("8"))), Some(1.5));
    assert_eq!(total(answers(None, Some("8"))), Some(-0.5));
    assert_eq!(total(answers(None, None)), Some(-0.5));
}
