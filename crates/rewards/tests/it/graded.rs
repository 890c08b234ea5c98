//! Rewards that a judge or a program computes: scores in replies, lines of JSON, and programs that fail.

use std::path::Path;

use recipe::{CommandKeys, RewardKind};
use rewards::{Completion, GradedText, Part, command_files, run_command};

use crate::support::one;

#[test]
fn the_last_number_of_a_reply_is_its_score() {
    let rewards = one(r#"{"kind":"judge","start":"x","template":"{completion}"}"#);
    for (reply, value) in [
        ("8", Some(8.0)),
        ("I first thought 3, but it is a 7.5.", Some(7.5)),
        ("Score: 8/10", Some(8.0)),
        ("I give it 9 out of 10.", Some(9.0)),
        ("10", Some(10.0)),
        ("11", None),
        ("-1", None),
        ("good", None),
        ("", None),
    ] {
        let part = rewards.reply_score(0, reply);
        assert_eq!(part.value, value, "{reply}: {}", part.why);
        assert!(!part.why.is_empty());
    }
}

#[test]
fn a_pattern_names_the_score() {
    let keys = r#"{"kind":"judge","start":"x","template":"{completion}","pattern":"Score: ([0-9]+)","range":[1,5]}"#;
    let rewards = one(keys);
    for (reply, value) in [
        ("Score: 4. 2 words.", Some(4.0)),
        ("4", None),
        ("Score: 6", None),
        ("Score: 1", Some(1.0)),
    ] {
        assert_eq!(rewards.reply_score(0, reply).value, value, "{reply}");
    }
}

#[test]
fn graded_rewards_have_no_value_until_they_are_set() {
    let rewards = one(r#"{"kind":"command","argv":["x"],"answer":"{a}"}"#);
    let graded: Vec<(usize, &str)> =
        rewards.graded().map(|(idx, kind)| (idx, kind.name())).collect();
    assert_eq!(graded, [(0, "command")]);
    let values = [Some("5".to_owned())];
    assert_eq!(rewards.answer(0, &values), Some("5"));
    assert_eq!(rewards.applies(&values), [true]);
    assert_eq!(rewards.applies(&[None]), [false]);
    let completion = Completion { text: "x", n_tokens: 1 };
    let mut scored = rewards.score(&values, &completion);
    assert_eq!(scored.total(), None);
    scored.set(0, Part { value: Some(0.5), why: "half".to_owned() });
    assert_eq!(scored.total(), Some(0.5));
}

/// A program of the shell's language that runs in a temporary directory.
fn keys(script: &str, more: &str) -> CommandKeys {
    let script = serde_json::to_string(script).expect("JSON");
    let text = format!("{{\"kind\":\"command\",\"argv\":[\"sh\",\"-c\",{script}]{more}}}");
    let kind = serde_json::from_str(&text).expect("keys");
    let RewardKind::Command(keys) = kind else { panic!("{kind:?}") };
    keys
}

fn texts() -> Vec<GradedText> {
    let text = |completion: &str| GradedText {
        prompt: "say \"it\"\n".to_owned(),
        completion: completion.to_owned(),
        answer: Some("5".to_owned()),
    };
    ["one", "bad", "three", "bad", "five"].map(text).to_vec()
}

fn values(script: &str, more: &str) -> rewards::Result<(Vec<Option<f64>>, usize)> {
    let texts = texts();
    let all: Vec<&GradedText> = texts.iter().collect();
    let dir = tempfile::tempdir().expect("a folder");
    let values = run_command(&keys(script, more), dir.path(), &all)?;
    Ok((values.parts.iter().map(|part| part.value).collect(), values.n_failed))
}

/// Reads lines until one has the word `bad`, which ends the program.
const FRAGILE: &str = r#"while read -r line; do case "$line" in *bad*) exit 1;; *) echo '{"reward": 0.25, "why": "fine"}';; esac; done"#;

#[test]
fn a_program_answers_each_line_in_order() {
    let script = r#"n=0; while read -r line; do n=$((n + 1)); echo "{\"reward\": $n}"; done"#;
    let (found, n_failed) = values(script, "").expect("values");
    assert_eq!(found, [1.0, 2.0, 3.0, 4.0, 5.0].map(Some));
    assert_eq!(n_failed, 0);
    // The program reads a line of JSON.
    let script = r#"while read -r line; do [ "$line" = '{"prompt":"say \"it\"\n","completion":"one","answer":"5"}' ] && echo '{"reward": 1}' || echo '{"reward": null}'; done"#;
    let (found, _) = values(script, "").expect("values");
    assert_eq!(found, [Some(1.0), None, None, None, None]);
}

#[test]
fn a_completion_at_which_a_program_fails_has_no_value_and_the_others_have_theirs() {
    let (found, n_failed) = values(FRAGILE, "").expect("values");
    assert_eq!(found, [Some(0.25), None, Some(0.25), None, Some(0.25)]);
    assert_eq!(n_failed, 2);
    let slow = FRAGILE.replace("exit 1", "sleep 60");
    let (found, n_failed) = values(&slow, ",\"timeout_s\":0.5").expect("values");
    assert_eq!((found, n_failed), (vec![Some(0.25), None, Some(0.25), None, Some(0.25)], 2));
}

#[test]
fn nonsense_is_no_value() {
    for answer in [
        "1",
        "{}",
        "{\"reward\": \"1\"}",
        "{\"reward\": 1e308}",
        "{\"reward\": -4e38}",
        "{\"reward\": 1, \"x\": 2}",
        "{\"reward\": 1, \"why\": 2}",
        "no",
    ] {
        let script = FRAGILE.replace("exit 1", &format!("echo '{answer}'"));
        let (found, n_failed) = values(&script, "").expect("values");
        assert_eq!((found[1], n_failed), (None, 2), "{answer}");
        assert_eq!(found[2], Some(0.25));
    }
}

#[test]
fn a_program_that_fails_at_everything_is_an_error() {
    let error = values("echo 'no table' >&2; exit 3", "").expect_err("a failure").to_string();
    assert!(error.contains("exit status: 3") && error.contains("no table"), "{error}");
    let huge = "while read -r line; do echo '{\"reward\": 1e308}'; done";
    let error = values(huge, "").expect_err("a failure").to_string();
    assert!(error.contains("wrote the reward 1e308, which is out of range"), "{error}");
    let error = values("while read -r line; do echo 1; done", "").expect_err("a failure");
    assert!(error.to_string().contains("and not {\"reward\": NUMBER}"), "{error}");
}

#[test]
fn the_files_of_a_command_are_the_program_and_named_files() {
    let dir = tempfile::tempdir().expect("a folder");
    fsio::write_atomic(dir.path().join("grade.py"), "").expect("a file");
    let argv = ["sh", "grade.py", "--fast"].map(str::to_owned);
    let files = command_files(&argv, dir.path()).expect("files");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["sh", "grade.py"]);
    assert!(files[0].1.is_absolute() && files[1].1 == dir.path().join("grade.py"));
    for missing in ["./grade", "no-such-program-anywhere"] {
        let error = command_files(&[missing.to_owned()], Path::new("/")).expect_err("missing");
        assert!(error.to_string().contains("there is no such program"), "{error}");
    }
}

#[test]
fn a_program_that_writes_more_lines_than_it_is_sent_is_an_error() {
    for script in [
        r#"while read -r line; do echo '{"reward": 1}'; echo '{"reward": 2}'; done"#,
        r#"echo '{"reward": 1}'; while read -r line; do echo '{"reward": 2}'; done"#,
        r#"while read -r line; do case "$line" in *five*) echo '{"reward": 1}';; esac; echo '{"reward": 2}'; done"#,
    ] {
        let error = values(script, "").expect_err("answers that cannot be told apart");
        assert!(error.to_string().contains("wrote more lines than it was sent"), "{error}");
    }
}
