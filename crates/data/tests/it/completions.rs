//! Labelled answers: rows of every form with their labels, targets, what is dropped, and prompts with other rows' answers.

use data::{Batch, Content, Dataset, IssueKind, LabelCounts, SourceSpec};
use recipe::{Columns, Overlong, RowLayout};
use tokenizer::{ChatTemplate, Message, Role};

use crate::support::{chars, decoded, file, folder, prepared, run, shown};

const ROWS: &str = r#"{"prompt":"Hi","completion":"Hello.","label":true}
{"prompt":[{"role":"user","content":"Hm"}],"completion":[{"role":"assistant","content":"Bah"}],"label":false}
{"prompt":"Why?","completion":"So.","label":1}
"#;

fn completions_of(
    text: &str,
    length: usize,
    overlong: Overlong,
    change: impl FnOnce(&mut SourceSpec),
) -> data::Result<Dataset> {
    let folder = folder();
    let mut spec = SourceSpec::file(file(folder.path(), "kto.jsonl", text));
    change(&mut spec);
    let template = ChatTemplate::builtin("chatml").unwrap();
    let prepared = prepared(folder.path(), &[spec], &chars(), Content::Completions(&template))?;
    Dataset::completions(&prepared, &run(length, 3, 1.0), overlong)
}

fn completions(text: &str) -> Dataset {
    completions_of(text, 200, Overlong::Drop, |_| {}).unwrap()
}

/// The targets of each row, decoded, with its label; sorted, because rows are shuffled.
fn answers(batch: &Batch) -> Vec<(String, bool)> {
    let rows = batch.targets.chunks(batch.sequence_length);
    let text = |row: &[i32]| {
        let ids: Vec<u32> = row.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        chars().decode(&ids, true)
    };
    let mut answers: Vec<_> = rows.map(text).zip(batch.labels.iter().copied()).collect();
    answers.sort();
    answers
}

fn wanted(answers: &[(&str, bool)]) -> Vec<(String, bool)> {
    answers.iter().map(|(text, label)| ((*text).to_owned(), *label)).collect()
}

#[test]
fn a_row_is_an_answer_with_its_label() {
    let dataset = completions(ROWS);
    assert_eq!((dataset.batch_rows(), dataset.n_steps()), (1, 1));
    let counts = dataset.counts();
    assert_eq!(counts.labels, Some(LabelCounts { desirable: 2, undesirable: 1 }));
    assert_eq!((counts.rows, counts.samples, counts.undesirable), (3, 3, 0));
    let batch = dataset.batch(0);
    let expected = wanted(&[("Bah", false), ("Hello.", true), ("So.", true)]);
    assert_eq!(answers(&batch), expected);
    // Each text is encoded as it is scored: up to one end token, which is a target.
    let (tokenizer, template) = (chars(), ChatTemplate::builtin("chatml").unwrap());
    let end = tokenizer.end_token(&template).unwrap() as i32;
    for (row, text) in batch.targets.chunks(batch.sequence_length).zip(batch.texts()) {
        assert_eq!(row.iter().filter(|target| **target == end).count(), 1);
        assert_eq!(text.last().map(|id| *id as i32), Some(end));
    }
    let messages = [Message::new(Role::User, "Hi"), Message::new(Role::Assistant, "Hello.")];
    let ids = tokenizer.encode_for_scoring(&messages, &template).unwrap().ids;
    assert!(batch.texts().contains(&ids.as_slice()));
    // Labels follow their rows through micro-batches.
    let split: Vec<bool> = batch.micro_batches(2).flat_map(|micro| micro.labels).collect();
    assert_eq!(split, batch.labels);
}

#[test]
fn a_pair_is_two_answers() {
    let pairs = r#"{"prompt":"Hi","chosen":"Hello.","rejected":"No."}
{"prompt":"Hm","chosen":"Yes?","rejected":"Bah"}"#;
    let dataset = completions(pairs);
    let counts = dataset.counts();
    assert_eq!(counts.labels, Some(LabelCounts { desirable: 2, undesirable: 2 }));
    let mut found = answers(&dataset.batch(0));
    found.extend(answers(&dataset.batch(1)));
    found.sort();
    let expected = wanted(&[("Bah", false), ("Hello.", true), ("No.", false), ("Yes?", true)]);
    assert_eq!(found, expected);
}

#[test]
fn columns_have_other_names() {
    let renamed = ROWS.replace("label", "liked").replace("completion", "text");
    let columns = Columns {
        label: Some("liked".into()),
        completion: Some("text".into()),
        ..Columns::default()
    };
    let named = completions_of(&renamed, 200, Overlong::Drop, |spec| {
        spec.columns = Some(columns);
        spec.layout = RowLayout::Kto;
    });
    assert_eq!(named.unwrap().batch(0).labels, completions(ROWS).batch(0).labels);
}

#[test]
fn rows_without_a_label_or_an_answer_are_errors() {
    let refused =
        |text: &str| shown(&completions_of(text, 200, Overlong::Drop, |_| {}).expect_err(text));
    let error = refused(r#"{"prompt":"Hi","completion":"Hello."}"#);
    assert!(error.contains("kto.jsonl:1") && error.contains("`label`"), "{error}");
    let error = refused(r#"{"prompt":"Hi","completion":"Hello.","label":0.5}"#);
    assert!(error.contains("column `label` is a number, expected true or false"), "{error}");
    let error = refused(r#"{"prompt":"Hi","completion":"Hello.","label":null}"#);
    assert!(error.contains("`label`"), "{error}");
    let asks = r#"{"prompt":"Hi","completion":[{"role":"user","content":"?"}],"label":true}"#;
    let error = refused(asks);
    assert!(error.contains("not from the assistant"), "{error}");
    let error = refused(r#"{"text":"Hi"}"#);
    assert!(error.contains("`prompt`, `completion` and `label`"), "{error}");
}

#[test]
fn long_rows_are_dropped_or_cut() {
    let long = format!(
        "{ROWS}{{\"prompt\":\"Hi\",\"completion\":\"{}\",\"label\":false}}\n",
        "and on ".repeat(20)
    );
    let length = 90;
    let of = |overlong| completions_of(&long, length, overlong, |_| {}).unwrap();
    let dropped = of(Overlong::Drop);
    assert_eq!((dropped.counts().too_long, dropped.counts().train_samples), (1, 3));
    let cut = of(Overlong::Cut);
    assert_eq!((cut.counts().truncated, cut.counts().train_samples), (1, 4));
    let prompt = format!(
        "{ROWS}{{\"prompt\":\"{}\",\"completion\":\"x\",\"label\":false}}\n",
        "and on ".repeat(20)
    );
    let lost = completions_of(&prompt, length, Overlong::Cut, |_| {}).unwrap();
    assert_eq!(lost.counts().without_targets, 1);
    assert!(lost.sample_issues().any(|issue| issue.kind == IssueKind::NoTargets));
}

#[test]
fn mismatched_rows_have_the_answer_of_the_row_before() {
    let batch = completions(ROWS).batch(0);
    let mismatched = batch.mismatched();
    assert_eq!((mismatched.rows, mismatched.sequence_length), (3, batch.sequence_length));
    let (tokenizer, n) = (chars(), batch.rows);
    let (own, other) = (decoded(&batch, &tokenizer), decoded(&mismatched, &tokenizer));
    let start = "<|im_start|>assistant\n";
    let halves = |text: &str| {
        let at = text.find(start).unwrap() + start.len();
        (text[..at].to_owned(), text[at..].to_owned())
    };
    for row in 0..n {
        let before = (row + n - 1) % n;
        let expected = halves(&own[row]).0 + &halves(&own[before]).1;
        assert_eq!(other[row], expected);
        assert_eq!(
            mismatched.samples[2 * row..2 * row + 2],
            [batch.samples[row], batch.samples[before]]
        );
    }
    assert_eq!(mismatched.n_targets, batch.n_targets);
    // The targets are those of the answers, moved by one row.
    let targets = |batch: &Batch, row: usize| -> Vec<i32> {
        let row = &batch.targets[row * batch.sequence_length..(row + 1) * batch.sequence_length];
        row.iter().copied().filter(|target| *target >= 0).collect()
    };
    for row in 0..n {
        assert_eq!(targets(&mismatched, row), targets(&batch, (row + n - 1) % n));
    }
    // Samples stay with their rows in micro-batches.
    let split: Vec<u64> = mismatched.micro_batches(2).flat_map(|micro| micro.samples).collect();
    assert_eq!(split, mismatched.samples);
}

#[test]
fn mismatched_rows_fit_their_rows_and_one_row_has_no_other() {
    let rows = r#"{"prompt":"A prompt that fills nearly the whole row","completion":"x","label":true}
{"prompt":"Hi","completion":"A long answer of many letters","label":false}
"#;
    let batch = completions_of(rows, 70, Overlong::Drop, |_| {}).unwrap().batch(0);
    let mismatched = batch.mismatched();
    assert_eq!(mismatched.ids.len(), 2 * 70);
    assert!(mismatched.lengths().contains(&70), "{:?}", mismatched.lengths());
    for row in mismatched.targets.chunks(70) {
        assert!(row.iter().any(|target| *target >= 0));
        assert!(row[69] < 0, "the last position has no next token");
    }
    let single = batch.micro_batches(1).next().unwrap().mismatched();
    assert_eq!((single.rows, single.samples.len()), (0, 0));
}
