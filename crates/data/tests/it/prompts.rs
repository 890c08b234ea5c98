//! Prompts: every format of a row, in full, without an answer, repeated if a step needs more.

use std::collections::BTreeSet;

use data::{
    Content, Dataset, Holdout, RunOptions, SampleKind, SourceSpec, TokenRole, conversations,
};
use recipe::{RowLayout, Rows, SplitBy, Template};
use tokenizer::{ChatTemplate, Message, Role};

use crate::support::{chars, decoded, file, folder, prepared, run, shown};

fn of(name: &str, text: &str, change: impl Fn(&mut SourceSpec), options: &RunOptions) -> Dataset {
    try_of(name, text, change, options).unwrap()
}

fn try_of(
    name: &str,
    text: &str,
    change: impl Fn(&mut SourceSpec),
    options: &RunOptions,
) -> data::Result<Dataset> {
    let folder = folder();
    let mut spec = SourceSpec::file(file(folder.path(), name, text));
    name.clone_into(&mut spec.path);
    change(&mut spec);
    let template = ChatTemplate::builtin("chatml").unwrap();
    let content = Content::Prompts(&template);
    let prepared = prepared(folder.path(), &[spec], &chars(), content)?;
    Dataset::prompts(&prepared, options)
}

/// Prompts in file order, as text.
fn shown_prompts(name: &str, text: &str, change: impl Fn(&mut SourceSpec)) -> Vec<String> {
    let dataset = of(name, text, change, &run(400, 1, 1.0));
    let mut texts: Vec<(u64, String)> = (0..dataset.n_steps())
        .map(|step| {
            let batch = dataset.batch(step);
            (batch.samples[0], decoded(&batch, &chars())[0].clone())
        })
        .collect();
    texts.sort();
    let marks = |text: String| {
        let text = text.strip_prefix("<|endoftext|>").unwrap();
        text.replace("<|im_start|>", "<").replace("<|im_end|>\n", ">")
    };
    texts.into_iter().map(|(_, text)| marks(text)).collect()
}

#[test]
fn a_prompt_is_a_text_or_messages_up_to_the_answer() {
    let same = |_: &mut SourceSpec| {};
    let rows = r#"{"prompt":"Hi","completion":"Ho"}
{"prompt":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}],"completion":""}
{"prompt":"\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Go on\n\nAssistant:","completion":""}
"#;
    assert_eq!(
        shown_prompts("x.jsonl", rows, same),
        [
            "<user\nHi><assistant\n",
            "<system\nBe kind.><user\nHi><assistant\n",
            "<user\nHi><assistant\nYes?><user\nGo on><assistant\n",
        ]
    );
    let rows = r#"{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Ho"},{"role":"user","content":"So?"}]}
{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Ho"}]}
"#;
    assert_eq!(
        shown_prompts("x.jsonl", rows, same),
        ["<user\nHi><assistant\nHo><user\nSo?><assistant\n", "<user\nHi><assistant\n"]
    );
    let rows = "instruction,input,output\nAdd,1 and 2,3\nSing,,la\n";
    assert_eq!(
        shown_prompts("x.csv", rows, same),
        ["<user\nAdd\n\n1 and 2><assistant\n", "<user\nSing><assistant\n"]
    );
    let rows = r#"{"text":"wow","emotions":["joy","love"]}"#;
    let template = |spec: &mut SourceSpec| {
        let prompt = Some(Template::parse("Write a comment that shows {emotions}.").unwrap());
        spec.rows = Some(Rows { prompt, ..Rows::default() });
    };
    assert_eq!(
        shown_prompts("x.jsonl", rows, template),
        ["<user\nWrite a comment that shows joy and love.><assistant\n"]
    );
}

#[test]
fn a_prompt_has_the_ids_and_roles_with_which_generation_starts() {
    let dataset = of("x.jsonl", "{\"prompt\":\"Hi\"}\n", |_| {}, &run(100, 1, 1.0));
    let (tokenizer, template) = (chars(), ChatTemplate::builtin("chatml").unwrap());
    let ids = tokenizer.encode_prompt(&[Message::new(Role::User, "Hi")], &template).unwrap();
    let view = dataset.inspect_row(0).unwrap();
    assert_eq!(view.batch.texts(), [ids.as_slice()]);
    let user: Vec<u32> = (0..view.batch.ids.len())
        .filter(|at| view.roles[*at] == TokenRole::User)
        .map(|at| view.batch.ids[at])
        .collect();
    assert_eq!(tokenizer.decode(&user, false), "Hi");
    assert!(view.batch.targets.iter().all(|target| *target < 0));
    assert_eq!(view.batch.n_targets, 0);
}

/// The padding id may also occur in a prompt, which keeps it.
#[test]
fn padding_is_recognized_by_length() {
    let tokenizer = chars();
    let pad = tokenizer.pad().or(tokenizer.eos()).unwrap();
    let batch = data::Batch::of_texts(&[vec![5, pad], vec![pad], vec![7, pad, 8, pad]], pad);
    assert_eq!(batch.texts(), [&[5, pad][..], &[pad], &[7, pad, 8, pad]]);
    assert_eq!(batch.micro_batches(2).nth(1).unwrap().texts(), [&[7, pad, 8, pad]]);
}

/// Rows with this number of prompts.
fn numbered(n: usize) -> String {
    let row = |n: usize| format!("{{\"prompt\":\"p{n}\"}}\n");
    (0..n).map(row).collect()
}

#[test]
fn a_step_takes_as_many_prompts_as_it_needs() {
    let rows = numbered(5);
    let options = RunOptions { max_steps: Some(6), epochs: None, ..run(100, 8, 1.0) };
    let dataset = of("x.jsonl", &rows, |_| {}, &options);
    assert_eq!((dataset.n_steps(), dataset.n_rows(0)), (6, 5));
    let mut times = [0; 5];
    for step in 0..6 {
        let batch = dataset.batch(step);
        assert_eq!((batch.rows, batch.texts().len(), batch.samples.len()), (8, 8, 8));
        assert_eq!(batch, dataset.batch(step));
        for sample in batch.samples {
            times[sample as usize] += 1;
        }
    }
    // 48 rows are nine epochs of five, plus three.
    assert!(times.iter().all(|n| [9, 10].contains(n)), "{times:?}");
    let other = of("x.jsonl", &rows, |_| {}, &RunOptions { seed: 2, ..options.clone() });
    assert_ne!(dataset.batch(0).samples, other.batch(0).samples);
}

#[test]
fn a_single_prompt_repeats_and_is_used_for_validation() {
    let constant = |spec: &mut SourceSpec| {
        let prompt = Some(Template::parse("Write a comment.").unwrap());
        spec.rows = Some(Rows { prompt, ..Rows::default() });
    };
    let mut options = RunOptions { max_steps: Some(3), epochs: None, ..run(100, 64, 1.0) };
    options.holdout = Some(Holdout { fraction: 0.05, by: SplitBy::Content });
    for (rows, change) in [
        ("{\"prompt\":\"Write a comment.\"}\n", None),
        ("{\"text\":\"a\"}\n{\"text\":\"b\"}\n", Some(constant)),
    ] {
        let dataset = of("x.jsonl", rows, |spec| change.iter().for_each(|c| c(spec)), &options);
        let expected =
            "<|endoftext|><|im_start|>user\nWrite a comment.<|im_end|>\n<|im_start|>assistant\n";
        let texts = decoded(&dataset.batch(2), &chars());
        assert!(texts.len() == 64 && texts.iter().all(|text| text == expected));
        let held_out: Vec<_> = dataset.eval_batches(8, None).collect();
        assert_eq!(decoded(&held_out[0], &chars())[0], expected);
    }
}

#[test]
fn validation_prompts_are_not_in_the_training_set() {
    let rows = numbered(40);
    let mut options = run(100, 4, 1.0);
    for by in [SplitBy::Content, SplitBy::Position] {
        options.holdout = Some(Holdout { fraction: 0.25, by });
        let dataset = of("x.jsonl", &rows, |_| {}, &options);
        let in_order = || dataset.eval_batches(3, None).flat_map(|batch| batch.samples);
        let held_out: BTreeSet<u64> = in_order().collect();
        assert!(!held_out.is_empty() && in_order().is_sorted());
        let trained: BTreeSet<u64> =
            (0..dataset.n_steps()).flat_map(|step| dataset.batch(step).samples).collect();
        assert!(trained.is_disjoint(&held_out));
        assert_eq!(trained.len() + held_out.len(), 40);
    }
}

#[test]
fn a_prompt_that_is_too_long_is_dropped_and_counted() {
    let rows = "{\"prompt\":\"short\"}\n{\"prompt\":\"much too long to be asked here\"}\n";
    let length = decoded_length("short");
    let dataset = of("x.jsonl", rows, |_| {}, &run(length, 1, 1.0));
    assert_eq!((dataset.counts().too_long, dataset.counts().train_samples), (1, 1));
    let cut: Vec<_> = dataset.sample_issues().collect();
    assert_eq!((cut.len(), cut[0].location.as_ref().unwrap().position.number()), (1, 2));
    let error = try_of("x.jsonl", rows, |_| {}, &run(length - 1, 1, 1.0)).unwrap_err();
    assert!(error.to_string().contains("no sample"), "{error}");
}

fn decoded_length(prompt: &str) -> usize {
    let template = ChatTemplate::builtin("chatml").unwrap();
    chars().encode_prompt(&[Message::new(Role::User, prompt)], &template).unwrap().len()
}

#[test]
fn rows_without_a_prompt_are_errors() {
    let error = |rows: &str, layout: RowLayout| {
        let change = |spec: &mut SourceSpec| spec.layout = layout;
        let error = try_of("x.jsonl", rows, change, &run(100, 1, 1.0)).unwrap_err();
        shown(&error).lines().next().unwrap().rsplit_once('/').unwrap().1.to_owned()
    };
    assert_eq!(
        error("{\"body\":\"x\"}", RowLayout::Auto),
        "x.jsonl:1: cannot tell how to read these columns: `body`"
    );
    assert_eq!(
        error(r#"{"messages":[{"role":"assistant","content":"Hi"}]}"#, RowLayout::Messages),
        "x.jsonl:1: conversation has no messages"
    );
}

#[test]
fn prompts_of_a_file_are_conversations_and_texts() {
    let folder = folder();
    let rows = "{\"prompt\":\"Hi\",\"completion\":\"Ho\"}\n";
    let spec = SourceSpec::file(file(folder.path(), "x.jsonl", rows));
    let found: Vec<_> =
        conversations(&spec, SampleKind::Prompts).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(found[0].chats, [vec![Message::new(Role::User, "Hi")].into()]);
    let mut texts = Vec::new();
    data::texts(&[spec], SampleKind::Prompts, &mut |text| texts.push(text)).unwrap();
    assert_eq!(texts, ["Hi"]);
}

/// Answers are stored as the row has them: numbers as text, null and missing columns as none.
#[test]
fn texts_for_rewards_are_stored_next_to_prompts() {
    let rows = r#"{"prompt":"One","answer":"1","unit":"km"}
{"prompt":"Two","answer":2.50}
{"prompt":"Three","answer":null,"unit":"m"}
{"prompt":"Four","unit":"m","answer":"ä\"\n4"}
"#;
    let with = |spec: &mut SourceSpec| {
        spec.answers =
            ["{answer}", "{answer} {unit}"].map(|text| Template::parse(text).unwrap()).to_vec();
    };
    let dataset = of("x.jsonl", rows, with, &run(400, 1, 1.0));
    assert_eq!(dataset.n_source_samples(), 4);
    let answers: Vec<Vec<Option<String>>> = (0..4).map(|sample| dataset.answers(sample)).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(answers[0], [text("1"), text("1 km")]);
    assert_eq!(answers[1], [text("2.5"), None]);
    assert_eq!(answers[2], [None, None]);
    assert_eq!(answers[3], [text("ä\"\n4"), text("ä\"\n4 m")]);
    assert!(dataset.answers(4).is_empty());
    // A batch names its samples, whatever their order.
    for step in 0..dataset.n_steps() {
        let batch = dataset.batch(step);
        let prompt = decoded(&batch, &chars())[0].clone();
        let number = dataset.answers(batch.samples[0])[0].clone();
        assert_eq!(prompt.contains("Two"), number == text("2.5"), "{prompt}");
    }
    let without = of("x.jsonl", rows, |_| {}, &run(400, 1, 1.0));
    assert!(without.answers(0).is_empty());
    // An object has no text.
    let error = try_of("x.jsonl", "{\"prompt\":\"Hi\",\"answer\":{}}\n", with, &run(400, 1, 1.0));
    let error = error.expect_err("an object").to_string();
    assert!(error.contains("x.jsonl:1") && error.contains("answer"), "{error}");
}

/// Rows for which no step has room are prompts of the training split, each as often as the others, and the same at each call.
#[test]
fn spare_rows_are_prompts_of_the_training_split() {
    let rows: Vec<String> = (0..20).map(|n| format!("{{\"prompt\":\"p{n:02}\"}}\n")).collect();
    let holdout = Some(Holdout { fraction: 0.2, by: SplitBy::default() });
    let options = RunOptions { holdout, ..run(400, 4, 1.0) };
    let dataset = of("x.jsonl", &rows.concat(), |_| {}, &options);
    let trained: BTreeSet<u64> =
        (0..dataset.n_steps()).flat_map(|step| dataset.batch(step).samples).collect();
    let n = trained.len();
    assert!(n < 20);
    let spare = |first: u64| dataset.spare_batch(first, n).samples;
    let first = spare(0);
    assert_eq!(first.iter().copied().collect::<BTreeSet<u64>>(), trained);
    assert_eq!(spare(0), first);
    let second = spare(n as u64);
    assert_eq!(second.iter().copied().collect::<BTreeSet<u64>>(), trained);
    assert_ne!(first, second);
    assert_eq!([&first[2..], &second[..2]].concat(), spare(2));
}
