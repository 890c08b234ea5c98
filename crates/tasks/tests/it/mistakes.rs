//! Messages about wrong task files and rows.

use std::path::Path;

use insta::assert_snapshot;
use tasks::{Error, Task, TaskOptions};

const TASK: &str = "kind = 'multiple_choice'\ndata = 'rows.jsonl'\nprompt = '{{ q }}'\n\
                    choices = '{{ c }}'\nanswer = '{{ a }}'\n";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(task: &str, rows: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fsio::write_atomic(dir.path().join("t.toml"), task).unwrap();
        if !rows.is_empty() {
            fsio::write_atomic(dir.path().join("rows.jsonl"), rows).unwrap();
        }
        Self { dir }
    }

    fn open(&self) -> Result<Task, Error> {
        Task::open(&self.dir.path().join("t.toml"))
    }

    fn shown(&self, error: &Error) -> String {
        let text = match error.hint() {
            Some(hint) => format!("{error}\n  hint: {hint}"),
            None => error.to_string(),
        };
        text.replace(&self.dir.path().display().to_string(), "DIR")
    }
}

/// The error of a task file.
fn of_file(task: &str) -> String {
    let place = Place::new(task, "");
    place.shown(&place.open().unwrap_err())
}

/// The error of rows.
fn of_rows(task: &str, rows: &str, shots: usize) -> String {
    let place = Place::new(task, rows);
    let task = place.open().unwrap();
    let error = task.items(&TaskOptions { shots, ..TaskOptions::default() }).unwrap_err();
    place.shown(&error)
}

#[test]
fn wrong_files() {
    let all = [
        of_file("kind = 'multiple_choice'\ndata = 'x'\nprompts = 1\n"),
        of_file("kind = 'choice'\ndata = 'x'\n"),
        of_file("kind = 'loglikelihood'\ndata = 'x'\npromt = ''\n"),
        of_file("kind = 'loglikelihood'\ndata = 'x'\nprompt = ''\n"),
        of_file("kind = 'loglikelihood'\ndata = 'x'\nprompt = '{% if x %}'\ntarget = ''\n"),
        of_file("kind = 'multiple_choice'\ndata = 'x'\nprompt = ''\nanswer = 0\n"),
        of_file(&format!("{TASK}metrics = ['perplexity']\n")),
        of_file(&format!("{TASK}[generation]\nvotes = 2\n")),
        of_file(
            "kind = 'generate_until'\ndata = 'x'\nprompt = ''\ntarget = ''\n[generation]\nvotes = 2\n",
        ),
        of_file(
            "kind = 'generate_until'\ndata = 'x'\nprompt = ''\ntarget = ''\n[exact_match]\nignore = ['(?=a)']\n",
        ),
        of_file("kind = 'loglikelihood'\ndata = []\nprompt = ''\ntarget = 'x'\n"),
    ];
    assert_snapshot!(all.join("\n\n"));
}

#[test]
fn filters_with_one_name_are_refused() {
    let filter = "[[filters]]\nname = 'a'\nsteps = []\n";
    let task = "kind = 'generate_until'\ndata = 'x'\nprompt = ''\ntarget = ''\n";
    let error = of_file(&format!("{task}{filter}{filter}"));
    assert!(error.contains("`filters`: two have the name `a`"), "{error}");
}

#[test]
fn wrong_rows() {
    let row = |answer: &str| format!("{{\"q\": \"Q\", \"c\": [\"x\", \"y\"], \"a\": {answer}}}\n");
    let good = row("1");
    let all = [
        of_rows(TASK, "", 0),
        of_rows(TASK, "{\"q\": \"Q\", \"a\": 0}\n", 0),
        of_rows(TASK, &(good.clone() + &row("2")), 0),
        of_rows(TASK, &row("\"z\""), 0),
        of_rows(TASK, "{\"q\": \"Q\", \"c\": [\"x\"], \"a\": 0}\n", 0),
        of_rows(TASK, &(good.clone() + "{"), 0),
        of_rows(TASK, &good, 1),
        of_rows(&format!("{TASK}[few_shot]\nsame = 's'\n"), &good.repeat(2), 1),
        of_rows(
            "kind = 'loglikelihood_rolling'\ndata = 'rows.jsonl'\ntarget = '{{ q }}'\n",
            &good,
            1,
        ),
    ];
    assert_snapshot!(all.join("\n\n"));
}

#[test]
fn unknown_names_and_missing_data() {
    let shown = |error: Error| format!("{error}\n  hint: {}", error.hint().unwrap_or_default());
    let unknown = Task::open(Path::new("arc-easy")).unwrap_err();
    let task = Task::open(Path::new("arc_easy")).unwrap();
    let no_dir = task.items(&TaskOptions::default()).unwrap_err();
    let empty = tempfile::tempdir().unwrap();
    let data_dir = Some(empty.path().to_path_buf());
    let no_file = task.items(&TaskOptions { data_dir, ..TaskOptions::default() }).unwrap_err();
    let text = [unknown, no_dir, no_file].map(shown).join("\n\n");
    assert_snapshot!(text.replace(&empty.path().display().to_string(), "DIR"));
}

/// An example of the row itself is left out, with its copies; an answer can be a text, and examples can be in the file.
#[test]
fn examples_are_other_rows() {
    let row = |q: &str| format!("{{\"q\": \"{q}\", \"c\": [\"x\", \"y\"], \"a\": \"y\"}}\n");
    let rows = row("Q0").repeat(2) + &row("Q1").repeat(2);
    let place = Place::new(TASK, &rows);
    let items = place.open().unwrap().items(&TaskOptions { shots: 2, ..TaskOptions::default() });
    for (item, (own, other)) in
        items.unwrap().iter().zip([("Q0", "Q1"), ("Q0", "Q1"), ("Q1", "Q0"), ("Q1", "Q0")])
    {
        let tasks::Request::LogLikelihood { context, continuation } = &item.requests[0] else {
            panic!("{item:?}")
        };
        assert_eq!(*context, format!("{other} y\n\n{other} y\n\n{own}"));
        assert_eq!(continuation, " x");
    }
    let own = format!(
        "{TASK}[few_shot]\nrows = 'first'\nexamples = [{{ q = 'E', c = ['a', 'b'], a = 0 }}]\n"
    );
    let place = Place::new(&own, &rows);
    let items = place.open().unwrap().items(&TaskOptions { shots: 1, ..TaskOptions::default() });
    let tasks::Request::LogLikelihood { context, .. } = &items.unwrap()[0].requests[0] else {
        panic!("not a log-likelihood")
    };
    assert_eq!(context, "E a\n\nQ0");
}

/// A prompt far beyond any context would take hundreds of megabytes to turn into tokens.
#[test]
fn a_prompt_of_megabytes_is_refused() {
    let row =
        |n: usize| format!("{{\"q\": \"{}\", \"c\": [\"a\", \"b\"], \"a\": 0}}\n", "x".repeat(n));
    let error = of_rows(TASK, &(row(10) + &row(1 << 21)), 0);
    assert!(error.contains("rows.jsonl:2: a prompt of more than 1048576 bytes"), "{error}");
}
