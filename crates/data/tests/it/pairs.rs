//! Pairs: every format of a row, both texts in full and scored at their end, and the pairs that are dropped and counted.

use data::{Batch, Content, Dataset, Holdout, SampleKind, SourceSpec, conversations};
use recipe::{Columns, Overlong, SplitBy};
use tokenizer::{ChatTemplate, Message, Role};

use crate::support::{chars, file, folder, prepared, run, shared_data};

const ROWS: &str = r#"{"prompt":"Hi","chosen":"Hello.","rejected":"No."}
{"prompt":[{"role":"user","content":"Hi"}],"chosen":[{"role":"assistant","content":"Good day."}],"rejected":"Bah"}
{"prompt":"Same","chosen":"Same.","rejected":"Same."}
{"prompt":"Hi","chosen":"A very long answer that goes on, and on, and on, and on.","rejected":"Short."}
"#;

fn pairs(text: &str, length: usize, overlong: Overlong) -> Dataset {
    let folder = folder();
    let spec = SourceSpec::file(file(folder.path(), "pairs.jsonl", text));
    let template = ChatTemplate::builtin("chatml").unwrap();
    let tokenizer = chars();
    let prepared = prepared(folder.path(), &[spec], &tokenizer, Content::Pairs(&template)).unwrap();
    Dataset::pairs(&prepared, &run(length, 2, 1.0), overlong).unwrap()
}

#[test]
fn the_longest_row_of_the_first_pairs() {
    let dataset = pairs(ROWS, 200, Overlong::Drop);
    let longest = |n| dataset.longest_row(n);
    let of_batch = |step| texts(&dataset.batch(step)).iter().map(Vec::len).max();
    assert_eq!(longest(2), of_batch(0));
    assert_eq!(longest(u64::MAX), of_batch(0).max(of_batch(1)));
    assert_eq!(longest(0), None);
}

/// Texts of a batch, by its lengths.
fn texts(batch: &Batch) -> Vec<Vec<u32>> {
    let rows = batch.ids.chunks(batch.sequence_length).zip(batch.lengths());
    rows.map(|(row, length)| row[..length].to_vec()).collect()
}

#[test]
fn a_pair_is_two_rows_each_encoded_for_scoring() {
    let dataset = pairs(ROWS, 200, Overlong::Drop);
    let tokenizer = chars();
    let template = ChatTemplate::builtin("chatml").unwrap();
    let end = tokenizer.end_token(&template).unwrap();
    assert_eq!(
        (dataset.batch_rows(), dataset.n_steps(), dataset.counts().identical_texts),
        (2, 2, 1)
    );
    let mut seen = Vec::new();
    for step in 0..2 {
        let batch = dataset.batch(step);
        assert_eq!(batch, dataset.batch(step));
        assert!(batch.targets.iter().all(|target| *target < 0));
        for text in texts(&batch) {
            // One end token per assistant message, and the score is read at the last one.
            assert_eq!(text.last(), Some(&end));
            seen.push(text);
        }
    }
    let chat = |answer: &str| {
        let messages = [Message::new(Role::User, "Hi"), Message::new(Role::Assistant, answer)];
        tokenizer.encode_for_scoring(&messages, &template).unwrap().ids
    };
    for (chosen, rejected) in [("Hello.", "No."), ("Good day.", "Bah")] {
        let at = seen.iter().position(|text| *text == chat(chosen)).unwrap();
        assert_eq!((at % 2, &seen[at + 1]), (0, &chat(rejected)));
    }
}

fn preferences(text: &str, length: usize, overlong: Overlong) -> Dataset {
    let folder = folder();
    let spec = SourceSpec::file(file(folder.path(), "pairs.jsonl", text));
    let template = ChatTemplate::builtin("chatml").unwrap();
    let prepared = prepared(folder.path(), &[spec], &chars(), Content::Pairs(&template)).unwrap();
    Dataset::preferences(&prepared, &run(length, 2, 1.0), overlong).unwrap()
}

/// OpenRLHF#393, trl PR #4908: duplicated start and end tokens around DPO's answers.
#[test]
fn preference_targets_are_the_answer_and_one_end_token() {
    let rows = r#"{"prompt":"Hi","chosen":"Hello.","rejected":"No."}
{"prompt":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes?"},{"role":"user","content":"Hm"}],"chosen":[{"role":"assistant","content":"Good day."}],"rejected":"Bah"}
{"prompt":"\n\nHuman: A\n\nAssistant: B\n\nHuman: C","chosen":"D","rejected":"EF"}
"#;
    let dataset = preferences(rows, 200, Overlong::Drop);
    let scored = pairs(rows, 200, Overlong::Drop);
    let tokenizer = chars();
    let end = tokenizer.end_token(&ChatTemplate::builtin("chatml").unwrap()).unwrap();
    let mut answers = Vec::new();
    for step in 0..dataset.n_steps() {
        let batch = dataset.batch(step);
        // A reward model reads the same texts, without targets.
        let without =
            Batch { targets: vec![-1; batch.targets.len()], n_targets: 0, ..batch.clone() };
        assert_eq!(without, scored.batch(step));
        let rows = batch.targets.chunks(batch.sequence_length).zip(texts(&batch));
        for (targets, ids) in rows {
            let at: Vec<usize> = (0..targets.len()).filter(|at| targets[*at] >= 0).collect();
            let (first, last) = (at[0], at[at.len() - 1]);
            assert_eq!(at, (first..=last).collect::<Vec<_>>(), "one span");
            assert_eq!(last + 2, ids.len(), "up to the text's last token");
            let answer: Vec<u32> = at.iter().map(|at| targets[*at] as u32).collect();
            assert_eq!(answer, ids[first + 1..]);
            assert_eq!(answer.iter().filter(|id| **id == end).count(), 1);
            assert_eq!(answer.last(), Some(&end));
            answers.push(tokenizer.decode(&answer[..answer.len() - 1], false));
        }
    }
    answers.sort();
    // Earlier assistant messages are part of the prompt.
    assert_eq!(answers, ["Bah", "D", "EF", "Good day.", "Hello.", "No."]);
    // In counts a pair is one target, and the loss is divided by that count.
    assert_eq!((dataset.run_targets(), dataset.counts().epoch_targets), (3, 3));
}

#[test]
fn answers_to_different_prompts_are_dropped_and_counted() {
    let rows = r#"{"chosen":"\n\nHuman: Hi\n\nAssistant: Hello.","rejected":"\n\nHuman: Hi\n\nAssistant: No."}
{"chosen":"\n\nHuman: A\n\nAssistant: B","rejected":"\n\nHuman: Z\n\nAssistant: B!"}
"#;
    let dataset = preferences(rows, 200, Overlong::Drop);
    assert_eq!((dataset.counts().different_prompts, dataset.counts().train_samples), (1, 1));
    let kinds: Vec<_> = dataset.sample_issues().map(|issue| issue.kind).collect();
    assert_eq!(kinds, [data::IssueKind::DifferentPrompts]);
    // A reward model can compare them.
    assert_eq!(pairs(rows, 200, Overlong::Drop).counts().train_samples, 2);
}

/// trl#3927: truncation removed every target, so that nothing was trained.
#[test]
fn a_pair_without_an_answer_after_truncation_is_dropped_and_counted() {
    let rows = r#"{"chosen":"\n\nHuman: Hi\n\nAssistant: Yes.","rejected":"\n\nHuman: Hi\n\nAssistant: No."}
{"chosen":"\n\nHuman: A long question, longer than a row\n\nAssistant: B","rejected":"\n\nHuman: Another long question, longer too\n\nAssistant: C"}
"#;
    let dataset = preferences(rows, 50, Overlong::Cut);
    let counts = dataset.counts();
    assert_eq!((counts.without_targets, counts.train_samples), (1, 1));
    assert!(dataset.batch(0).n_targets > 0);
}

#[test]
fn long_and_identical_texts_are_dropped_and_counted() {
    let dropped = pairs(ROWS, 60, Overlong::Drop);
    assert_eq!((dropped.counts().too_long, dropped.counts().identical_texts), (1, 1));
    assert_eq!(dropped.counts().train_samples, 2);
    let cut = pairs(ROWS, 60, Overlong::Cut);
    assert_eq!(
        (cut.counts().truncated, cut.counts().identical_texts, cut.counts().train_samples),
        (1, 1, 3)
    );
    // A pair whose texts are identical after truncation is dropped.
    let rows = r#"{"prompt":"Hi","chosen":"One way or another","rejected":"One way or the other"}
{"prompt":"Hi","chosen":"Yes","rejected":"No"}
"#;
    let cut = pairs(rows, 30, Overlong::Cut);
    assert_eq!((cut.counts().identical_texts, cut.counts().train_samples), (1, 1));
}

#[test]
fn both_texts_of_a_pair_are_in_the_same_split() {
    let row = |n: usize| {
        format!("{{\"prompt\":\"Hi\",\"chosen\":\"Yes {n}\",\"rejected\":\"No {n}\"}}\n")
    };
    let text: String = (0..40).map(row).collect();
    let folder = folder();
    let spec = SourceSpec::file(file(folder.path(), "pairs.jsonl", text));
    let template = ChatTemplate::builtin("chatml").unwrap();
    let prepared = prepared(folder.path(), &[spec], &chars(), Content::Pairs(&template)).unwrap();
    for by in [SplitBy::Content, SplitBy::Position] {
        let mut options = run(100, 4, 1.0);
        options.holdout = Some(Holdout { fraction: 0.25, by });
        let dataset = Dataset::pairs(&prepared, &options, Overlong::Drop).unwrap();
        assert_eq!(dataset.counts().train_samples + dataset.counts().eval_samples, 40);
        assert!(dataset.n_eval_rows() > 0);
        let held_out: Vec<u64> =
            dataset.eval_batches(3, None).flat_map(|batch| batch.samples).collect();
        assert!(held_out.chunks(2).all(|pair| pair[0] % 2 == 0 && pair[1] == pair[0] + 1));
        let trained = (0..dataset.n_steps()).flat_map(|step| dataset.batch(step).samples);
        assert!(trained.into_iter().all(|sample| !held_out.contains(&sample)));
    }
}

#[test]
fn transcripts_and_repeated_prompts_are_conversations() {
    let rows = r#"{"chosen":"\n\nHuman: Hi\n\nAssistant: Hello.","rejected":"\n\nHuman: Hi\n\nAssistant: No."}
{"chosen":"\n\nHuman: Hi\n\nAssistant: Hm?\n\nHuman: Hi\n\nAssistant: Hello.","rejected":"\n\nHuman: Hi\n\nAssistant: No."}
"#;
    let folder = folder();
    let spec = SourceSpec::file(file(folder.path(), "hh.jsonl", rows));
    let found: Vec<_> =
        conversations(&spec, SampleKind::Pairs).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(found[0].chats[0].messages[0], Message::new(Role::User, "Hi"));
    assert_eq!(found[0].chats[1].messages[1], Message::new(Role::Assistant, "No."));
    assert_eq!(found[1].chats[0].messages.len(), 4);

    let rows = r#"{"prompt":"Hi","chosen":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes"}],"rejected":[{"role":"user","content":"Hi"},{"role":"assistant","content":"No"}]}
{"prompt":"Hi","chosen":[{"role":"user","content":"Hi"}],"rejected":"No"}
"#;
    let spec = SourceSpec::file(file(folder.path(), "messages.jsonl", rows));
    let mut found = conversations(&spec, SampleKind::Pairs).unwrap();
    assert_eq!(found.next().unwrap().unwrap().chats[0].messages.len(), 2);
    let error = found.next().unwrap().unwrap_err().to_string();
    assert!(
        error.contains("is the last one of the conversation, but not from the assistant"),
        "{error}"
    );
}

#[test]
fn a_pair_may_have_a_margin() {
    let rows = r#"{"chosen":"a","rejected":"b","better":0.5}
{"chosen":"cc","rejected":"d","better":"2"}
{"chosen":"eee","rejected":"f","better":-1}
"#;
    let folder = folder();
    let dataset = |rows: &str, margin: Option<&str>| {
        let mut specs = vec![SourceSpec::file(file(folder.path(), "pairs.jsonl", rows))];
        let columns = Columns { margin: margin.map(str::to_owned), ..Columns::default() };
        specs[0].columns = margin.map(|_| columns);
        // Pairs of a source without margins have a margin of 0.
        let other = "{\"chosen\":\"gggg\",\"rejected\":\"h\"}\n";
        specs.push(SourceSpec::file(file(folder.path(), "other.jsonl", other)));
        let template = ChatTemplate::builtin("chatml").unwrap();
        let prepared = prepared(folder.path(), &specs, &chars(), Content::Pairs(&template))?;
        Dataset::pairs(&prepared, &run(100, 4, 1.0), Overlong::Drop)
    };
    let batch = dataset(rows, Some("better")).unwrap().batch(0);
    // The lengths of the chosen texts identify the pairs.
    let of_length = [0.5, 2.0, -1.0, 0.0];
    let shortest = batch.lengths().into_iter().min().unwrap();
    let expected = |batch: &Batch| -> Vec<f32> {
        batch.lengths().iter().step_by(2).map(|length| of_length[length - shortest]).collect()
    };
    assert_eq!(batch.margins.len(), 4);
    assert_eq!(batch.margins, expected(&batch));
    assert_eq!(batch.trimmed().margins, batch.margins);
    for micro in batch.micro_batches(2) {
        assert_eq!(micro.margins, expected(&micro));
    }
    assert!(dataset(rows, None).unwrap().batch(0).margins.is_empty());
    let error = dataset(&rows.replace("-1", "\"much\""), Some("better")).unwrap_err();
    let error = error.to_string();
    assert!(error.ends_with("column `better` is a text, expected a finite number"), "{error}");
}

#[test]
fn published_preferences_are_read() {
    let Some(data) = shared_data() else {
        println!("skipped: the shared data is not on this machine");
        return;
    };
    let file = data.join("preference").join("hh-rlhf-harmless-base-test.jsonl.gz");
    let rows = conversations(&SourceSpec::file(file), SampleKind::Pairs).unwrap();
    let (mut n_rows, mut n_bad) = (0, 0);
    for row in rows {
        match row {
            Ok(row) => assert!(row.chats.iter().all(|chat| chat.messages.len() >= 2)),
            Err(_) => n_bad += 1,
        }
        n_rows += 1;
    }
    println!("{n_rows} pairs, {n_bad} that cannot be read");
    assert!(n_rows > 2000 && n_bad * 100 < n_rows);
}
