//! Rows to documents and chats: every layout, its targets, and problems of rows.

use data::{Content, Dataset, PrepareOptions, SourceSpec, prepare};
use recipe::{Columns, OnBadRow, Overlong, RowLayout, Rows, Template};
use tokenizer::ChatTemplate;

use crate::support::{chars, file, folder, prepared, run, shared_data, shown};

/// Every chat of a source as the model reads it, one per line with targets in brackets; or the error.
fn chats(name: &str, bytes: &str, change: impl Fn(&mut SourceSpec)) -> String {
    let folder = folder();
    let mut spec = SourceSpec::file(file(folder.path(), name, bytes));
    change(&mut spec);
    let root = format!("{}/", folder.path().display());
    match show_chats(folder.path(), spec) {
        Ok(shown) => shown,
        Err(error) => shown(&error).replace(&root, ""),
    }
}

fn show_chats(cache: &std::path::Path, spec: SourceSpec) -> data::Result<String> {
    let template = ChatTemplate::from_source(
        "test",
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{{ '<|im_end|>' }}{% endfor %}\
         {% if add_generation_prompt %}a:{% endif %}",
    )
    .unwrap();
    show_chats_with(cache, spec, &template, recipe::ChatTargets::default())
}

/// Every chat of a source, rendered by `template`, with targets in brackets.
pub(crate) fn show_chats_with(
    cache: &std::path::Path,
    spec: SourceSpec,
    template: &ChatTemplate,
    targets: recipe::ChatTargets,
) -> data::Result<String> {
    let tokenizer = chars();
    let prepared = prepared(cache, &[spec], &tokenizer, Content::Chats(template, targets))?;
    let dataset = Dataset::sft(&prepared, &run(4000, 1, 1.0), false, Overlong::Cut)?;
    let mut lines: Vec<(u64, String)> = Vec::new();
    for row in 0..dataset.n_run_rows() {
        let view = dataset.inspect_row(row).unwrap();
        let mut line = String::new();
        let segment = &view.segments[0];
        let spans = view.target_spans();
        for at in segment.range.clone() {
            line.push_str(&tokenizer.decode(&view.batch.ids[at..=at], false));
            if spans.iter().any(|span| span.start == at) {
                line.push('[');
            }
            if spans.iter().any(|span| span.end == at + 1) {
                let last = view.batch.targets[at] as u32;
                line.push_str(&tokenizer.decode(&[last], false));
                line.push(']');
            }
        }
        // The end token closes the span and opens the next message; it is shown once.
        let line = line.replace("<|im_end|>]<|im_end|>", "<|im_end|>] ").replace("<|im_end|>", "|");
        let number = segment.location.as_ref().unwrap().position.number();
        lines.push((segment.sample, format!("{number}: {line}")));
    }
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n"))
}

fn any(_: &mut SourceSpec) {}

#[test]
fn prompts_and_completions() {
    let rows =
        "{\"prompt\": \"hi\", \"completion\": \"ho\"}\n{\"prompt\": \"\", \"completion\": 4}\n";
    insta::assert_snapshot!(chats("x.jsonl", rows, any), @"
    1: u:hi|a:[ho|]
    2: u:|a:[4|]
    ");
    let csv = "Q,A,label\nhow,so,1\n";
    let named = |spec: &mut SourceSpec| {
        let name = |name: &str| Some(name.to_owned());
        spec.columns =
            Some(Columns { prompt: name("Q"), completion: name("A"), ..Columns::default() });
    };
    insta::assert_snapshot!(chats("x.csv", csv, named), @"2: u:how|a:[so|]");
    insta::assert_snapshot!(chats("x.csv", csv, any), @"
    x.csv:2: cannot tell how to read these columns: `Q`, `A`, `label`
      hint: fine-tuning reads `messages`; `prompt` and `completion`; `instruction`, `input` and `output`; or message trees: name other columns with `columns`, or build texts with `rows`
    ");
    let missing = "{\"prompt\": \"hi\", \"completion\": \"ho\"}\n{\"prompt\": \"hi\", \"complete\": \"ho\"}\n";
    insta::assert_snapshot!(chats("x.jsonl", missing, any), @"
    x.jsonl:2: no column `completion`; columns: `prompt`, `complete`
      hint: a similar column: `complete`
    ");
    let wrong = "{\"prompt\": \"hi\", \"completion\": [\"ho\"]}\n";
    insta::assert_snapshot!(chats("x.jsonl", wrong, any), @r#"
    x.jsonl:1: column `completion` is a list, expected a text
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
}

#[test]
fn messages() {
    let rows = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "v"}]}, {"role": "assistant", "content": "b"}]}
{"messages": [{"role": "user", "content": "u"}, {"role": "tool", "content": "t"}, {"role": "assistant", "content": "c"}, {"role": "user", "content": "unanswered"}]}"#;
    insta::assert_snapshot!(chats("x.jsonl", rows, any), @"
    1: s:s|u:u|a:[a|] u:v|a:[b|]
    2: u:u|t:t|a:[c|]
    ");
    let rows = r#"[{"id": 1, "conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}]"#;
    insta::assert_snapshot!(chats("x.json", rows, any), @"1: u:u|a:[a|]");
}

#[test]
fn broken_messages() {
    let row = |messages: &str| format!("{{\"messages\": {messages}}}\n");
    let said = |messages: &str| chats("x.jsonl", &row(messages), any);
    let good = r#"{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}"#;
    insta::assert_snapshot!(said(&format!(r#"[{good}, {{"role": "asistant", "content": "b"}}]"#)), @r#"
    x.jsonl:1: message 3 has role `asistant`; known roles: system, user, assistant, tool
      hint: `roles = { "asistant" = "system" }` in the source maps it; `temper data inspect x.jsonl --line 1` shows it; `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said(r#"[{"from": "gtp", "value": "b"}]"#), @r#"
    x.jsonl:1: message 1 has role `gtp`; known roles: system, human, gpt, tool, function_call, observation
      hint: `roles = { "gtp" = "system" }` in the source maps it; `temper data inspect x.jsonl --line 1` shows it; `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said("[]"), @r#"
    x.jsonl:1: conversation has no messages
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said("[1]"), @r#"
    x.jsonl:1: message 1 is a number, not an object
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said(r#"[{"content": "b"}]"#), @r#"
    x.jsonl:1: message 1 has no `role`
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said(r#"[{"role": "user"}]"#), @r#"
    x.jsonl:1: message 1 has no `content`
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said(r#"[{"role": "user", "content": null}]"#), @r#"
    x.jsonl:1: message 1 has a `content` that is null, not a text
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said(r#"[{"role": "user", "content": [{"type": "image"}]}]"#), @r#"
    x.jsonl:1: message 1 has a `content` that is a list with a part of type `image`; only parts of type `text` are read
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said(r#"[{"role": "assistant", "content": "", "tool_calls": [{}]}]"#), @r#"
    x.jsonl:1: chat template `test` does not write `tool_calls`
      hint: choose a template that writes it, or leave it out with `ignore_columns = ["tool_calls"]` in the source
    "#);
    insta::assert_snapshot!(said("\"text\""), @"
    x.jsonl:1: cannot tell how to read these columns: `messages`
      hint: fine-tuning reads `messages`; `prompt` and `completion`; `instruction`, `input` and `output`; or message trees: name other columns with `columns`, or build texts with `rows`
    ");
}

#[test]
fn instructions() {
    let rows = r#"[{"instruction": "i", "input": "", "output": "o"}, {"instruction": "i", "input": "x", "output": "o"}, {"instruction": "i", "output": "o"}]"#;
    insta::assert_snapshot!(chats("x.json", rows, any), @"
    1: u:i|a:[o|]
    1: u:i

    x|a:[o|]
    1: u:i|a:[o|]
    ");
}

#[test]
fn trees() {
    let rows = r#"{"message_tree_id": "1", "prompt": {"role": "prompter", "text": "q", "replies": [{"role": "assistant", "text": "a1", "replies": [{"role": "prompter", "text": "r", "replies": [{"role": "assistant", "text": "a11", "replies": []}, {"role": "assistant", "text": "gone", "deleted": true, "replies": []}]}]}, {"role": "assistant", "text": "a2"}]}}"#;
    insta::assert_snapshot!(chats("x.jsonl", rows, any), @"
    1: u:q|a:[a1|]
    1: u:q|a:[a1|] u:r|a:[a11|]
    1: u:q|a:[a2|]
    ");
    let root = r#"{"role": "prompter", "text": "q", "replies": [{"role": "assistant", "text": "a", "replies": null}]}"#;
    insta::assert_snapshot!(chats("x.jsonl", root, any), @"1: u:q|a:[a|]");
    insta::assert_snapshot!(chats("x.jsonl", &root.replace("assistant", "asistant"), any), @r#"
    x.jsonl:1: message 2 has role `asistant`; known roles: system, prompter, assistant
      hint: `roles = { "asistant" = "system" }` in the source maps it; `temper data inspect x.jsonl --line 1` shows it; `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(chats("x.jsonl", "{\"prompt\": \"hi\"}", |spec| spec.layout = RowLayout::Tree), @r#"
    x.jsonl:1: message 1 has no `role`
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
}

#[test]
fn templates_over_columns() {
    let rows = "{\"text\": \"wow\", \"emotions\": [\"joy\", \"love\"], \"n\": 3}\n";
    let templates = |prompt: &str, completion: &str| {
        let parse = |text: &str| Some(Template::parse(text).unwrap());
        let rows = Rows {
            text: None,
            prompt: parse(prompt),
            completion: parse(completion),
            ..Rows::default()
        };
        move |spec: &mut SourceSpec| spec.rows = Some(rows.clone())
    };
    let said = |rows: &str, prompt: &str, completion: &str| {
        chats("x.jsonl", rows, templates(prompt, completion))
    };
    insta::assert_snapshot!(said(rows, "Write {n} that show {emotions}. {{}}", "{text}"), @"1: u:Write 3 that show joy and love. {}|a:[wow|]");
    insta::assert_snapshot!(said(rows, "{emotion}", "{text}"), @"
    x.jsonl:1: no column `emotion`; columns: `text`, `emotions`, `n`
      hint: a similar column: `emotions`
    ");
    insta::assert_snapshot!(said("{\"text\": \"a\", \"emotions\": []}", "{emotions}", "{text}"), @r#"
    x.jsonl:1: column `emotions` is an empty list, expected a text or a list of texts
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said("{\"text\": null}", "{text}", "{text}"), @r#"
    x.jsonl:1: column `text` is null, expected a text
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
}

#[test]
fn documents() {
    let said = |name: &str, bytes: &str, change: &dyn Fn(&mut SourceSpec)| {
        let folder = folder();
        let mut spec = SourceSpec::file(file(folder.path(), name, bytes));
        change(&mut spec);
        let root = format!("{}/", folder.path().display());
        let tokenizer = chars();
        match prepared(folder.path(), &[spec.clone()], &tokenizer, Content::Documents) {
            Err(error) => shown(&error).replace(&root, ""),
            Ok(_) => {
                let mut texts = Vec::new();
                data::texts(&[spec], data::SampleKind::Documents, &mut |text| texts.push(text))
                    .unwrap();
                format!("{texts:?}")
            }
        }
    };
    let any: &dyn Fn(&mut SourceSpec) = &|_| {};
    insta::assert_snapshot!(said("x.jsonl", "{\"n\": 1, \"text\": \"a\"}\n{\"text\": \"b\"}", any), @r#"["a", "b"]"#);
    insta::assert_snapshot!(said("x.jsonl", "{\"n\": 1, \"review\": \"a\"}", any), @r#"["a"]"#);
    insta::assert_snapshot!(said("x.csv", "title,body\nt,b\n", any), @"
    x.csv:2: cannot tell how to read these columns: `title`, `body`
      hint: pretraining reads one text per row: name its column with `text`, or build it with `rows`
    ");
    insta::assert_snapshot!(said("x.csv", "title,body\nt,b\n", &|spec| spec.text = Some("bodi".into())), @"
    x.csv:2: no column `bodi`; columns: `title`, `body`
      hint: a similar column: `body`
    ");
    insta::assert_snapshot!(said("x.csv", "title,body\nt,b\n", &|spec| {
        let text = Some(Template::parse("{title}\n{body}").unwrap());
        spec.rows = Some(Rows { text, ..Rows::default() });
    }), @r#"["t\nb"]"#);
    insta::assert_snapshot!(said("x.csv", "text\n", any), @"
    x.csv: no rows
      hint: remove it from the source's `path`, or add rows to it
    ");
    insta::assert_snapshot!(said("x.txt", "a\nb\nc\n", &|spec| spec.limit = Some(2)), @r#"["a\nb\n"]"#);
    insta::assert_snapshot!(said("x.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}", &|spec| spec.limit = Some(1)), @r#"["a"]"#);
    insta::assert_snapshot!(said("x.txt", "a\n\u{fe}b\n", any), @r#"["a\nþb\n"]"#);
}

#[test]
fn bad_rows_stop_or_are_skipped_and_counted() {
    let folder = folder();
    let rows = "{\"text\": \"a\"}\nbad\n{\"txt\": \"b\"}\n{\"text\": \"c\"}\n";
    let spec = SourceSpec::file(file(folder.path(), "x.jsonl", rows));
    let tokenizer = chars();
    let root = format!("{}/", folder.path().display());
    let said = |on_bad_row, max_bad_rows| {
        let options = PrepareOptions {
            cache_dir: folder.path(),
            tokenizer: &tokenizer,
            content: Content::Documents,
            on_bad_row,
            max_bad_rows,
            check_prompts: true,
        };
        let dataset =
            prepare(std::slice::from_ref(&spec), &options, &mut |_| {}).and_then(|prepared| {
                Dataset::pretrain(&prepared, &run(8, 1, 1.0), recipe::Packing::Documents)
            });
        match dataset {
            Ok(dataset) => {
                let counts = dataset.counts();
                format!("{} of {} bad: {:?}", counts.bad, counts.rows, counts.bad_rows)
            }
            Err(error) => shown(&error),
        }
        .replace(&root, "")
    };
    insta::assert_snapshot!(said(OnBadRow::Stop, 10), @r#"
    x.jsonl:2: invalid JSON at column 1: expected value
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    insta::assert_snapshot!(said(OnBadRow::Skip, 1), @"
    2 bad rows, more than the 1 that max_bad_rows allows; the first: x.jsonl:2: invalid JSON at column 1: expected value
      hint: repair the file, or raise `max_bad_rows`
    ");
    insta::assert_snapshot!(said(OnBadRow::Skip, 2), @r#"2 of 4 bad: ["x.jsonl:2: invalid JSON at column 1: expected value", "x.jsonl:3: no column `text`; columns: `txt`"]"#);
    // A cache with skipped rows is not used for a stricter recipe.
    insta::assert_snapshot!(said(OnBadRow::Stop, 10), @r#"
    x.jsonl:2: invalid JSON at column 1: expected value
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    let spec = SourceSpec::file(file(folder.path(), "y.jsonl", "bad\nworse\n"));
    let options = PrepareOptions {
        cache_dir: folder.path(),
        tokenizer: &tokenizer,
        content: Content::Documents,
        on_bad_row: OnBadRow::Skip,
        max_bad_rows: 10,
        check_prompts: true,
    };
    let error = prepare(&[spec], &options, &mut |_| {}).unwrap_err();
    insta::assert_snapshot!(shown(&error).replace(&root, ""), @"
    y.jsonl: all 2 rows are bad; the first: y.jsonl:1: invalid JSON at column 1: expected value
      hint: repair the file, or raise `max_bad_rows`
    ");
}

#[test]
fn real_files_of_every_layout() {
    let Some(data) = shared_data() else {
        println!("skipped: no shared data");
        return;
    };
    let cache = folder();
    let tokenizer = crate::support::bpe();
    let template = ChatTemplate::builtin("chatml").unwrap();
    let mut told = String::new();
    for name in [
        "instruction-data.json",
        "oasst-en-100-trees.jsonl.gz",
        "oasst-en-100-messages.jsonl.gz",
        "fastchat-dummy-conversation.json",
        "chat-tiny.json",
        "instruct-tiny.json",
    ] {
        let spec = SourceSpec::file(data.join("sft").join(name));
        let prepared = prepared(
            cache.path(),
            &[spec],
            &tokenizer,
            Content::Chats(&template, recipe::ChatTargets::default()),
        )
        .unwrap();
        let dataset = Dataset::sft(&prepared, &run(1024, 4, 1.0), true, Overlong::Cut).unwrap();
        let counts = dataset.counts();
        told.push_str(&format!(
            "{name}: {} rows, {} chats, {} without targets\n",
            counts.rows, counts.samples, counts.without_targets
        ));
    }
    insta::assert_snapshot!(told, @"
    instruction-data.json: 1100 rows, 1100 chats, 0 without targets
    oasst-en-100-trees.jsonl.gz: 100 rows, 687 chats, 17 without targets
    oasst-en-100-messages.jsonl.gz: 100 rows, 687 chats, 17 without targets
    fastchat-dummy-conversation.json: 500 rows, 500 chats, 0 without targets
    chat-tiny.json: 1 rows, 1 chats, 0 without targets
    instruct-tiny.json: 2 rows, 2 chats, 0 without targets
    ");
}

/// KTO's rows, as text and as messages: fine-tuning reads the desirable completions.
#[test]
fn rows_with_a_label_are_read_if_it_is_true() {
    let rows = [
        r#"{"prompt": "p", "completion": "good", "label": true}"#,
        r#"{"prompt": "p", "completion": "bad", "label": false}"#,
        r#"{"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "fine"}], "label": true}"#,
    ]
    .join("\n");
    assert_eq!(chats("kto.jsonl", &rows, |_| {}), "1: u:p|a:[good|]\n3: u:q|a:[fine|]");
    let named = rows.replace("label", "liked");
    let read = |spec: &mut SourceSpec| {
        spec.layout = RowLayout::Kto;
        spec.columns = Some(Columns { label: Some("liked".into()), ..Columns::default() });
    };
    assert_eq!(chats("kto.jsonl", &named, read), chats("kto.jsonl", &rows, |_| {}));
    // Without a boolean label the rows are all read; the layout demands one.
    let scored = rows.replace("true", "0.5").replace("false", "0.1");
    assert!(chats("kto.jsonl", &scored, |_| {}).contains("bad"));
    let error = chats("kto.jsonl", &scored, |spec| spec.layout = RowLayout::Kto);
    assert!(error.contains("column `label` is a number, expected true or false"), "{error}");
    let error = chats("kto.jsonl", &rows.replace("true", "false"), |_| {});
    assert!(error.contains("every row has the label false"), "{error}");
    // The others are counted.
    let folder = folder();
    let spec = SourceSpec::file(file(folder.path(), "kto.jsonl", &rows));
    let template = ChatTemplate::builtin("chatml").unwrap();
    let content = Content::Chats(&template, recipe::ChatTargets::default());
    let prepared = prepared(folder.path(), &[spec], &chars(), content).unwrap();
    let dataset = Dataset::sft(&prepared, &run(400, 1, 1.0), false, Overlong::Cut).unwrap();
    assert_eq!((dataset.counts().rows, dataset.counts().undesirable), (3, 1));
}

/// Token ids are read as they are, for documents and for chats.
#[test]
fn token_ids_are_read_with_their_labels() {
    let tokenizer = chars();
    let ids = |text: &str| tokenizer.encode_plain(text).unwrap();
    let end = tokenizer.eos().unwrap();
    let question = ids("ab");
    let answer = [ids("cd"), vec![end]].concat();
    let all = [question.clone(), answer.clone()].concat();
    let labels: Vec<i64> = vec![-100; question.len()]
        .into_iter()
        .chain(answer.iter().map(|id| i64::from(*id)))
        .collect();
    let row = serde_json::json!({
        "input_ids": ([all.clone(), vec![end, end]].concat()),
        "labels": ([labels, vec![-100, -100]].concat()),
        "attention_mask": ([vec![1; all.len()], vec![0, 0]].concat()),
        "text": "not read",
    });
    let folder = folder();
    let source = |name: &str, row: &serde_json::Value| {
        SourceSpec::file(file(folder.path(), name, format!("{row}\n")))
    };
    let template = ChatTemplate::builtin("chatml").unwrap();
    let chats = Content::Chats(&template, recipe::ChatTargets::default());
    let prepare = |spec: SourceSpec, content| prepared(folder.path(), &[spec], &tokenizer, content);
    let prepared = prepare(source("sft.jsonl", &row), chats).unwrap();
    let dataset = Dataset::sft(&prepared, &run(16, 1, 1.0), false, Overlong::Cut).unwrap();
    let view = dataset.inspect_row(0).unwrap();
    assert_eq!(view.batch.ids[..all.len() - 1], all[..all.len() - 1]);
    let spans = view.target_spans();
    assert_eq!(spans.len(), 1);
    assert_eq!(view.target_ids(&spans[0]), answer);
    // A document: the end token that packing adds is there once.
    let document = serde_json::json!({"input_ids": all});
    let prepared = prepare(source("text.jsonl", &document), Content::Documents).unwrap();
    let packing = recipe::Packing::Documents;
    let dataset = Dataset::pretrain(&prepared, &run(8, 1, 1.0), packing).unwrap();
    let view = dataset.inspect_row(0).unwrap();
    let targets: Vec<u32> =
        view.target_spans().iter().flat_map(|span| view.target_ids(span)).collect();
    assert_eq!(targets[targets.len() - all.len()..], all);
    // Ids of another tokenizer and masked documents are refused.
    let error = |row: serde_json::Value, content| {
        shown(&prepare(source("bad.jsonl", &row), content).expect_err("refused"))
    };
    let n = tokenizer.vocab_size();
    let message = error(serde_json::json!({"input_ids": [0, n]}), chats);
    assert!(
        message.contains(&format!(
            "token 1 has the id `{n}`, which is not in the vocabulary of {n} tokens"
        )),
        "{message}"
    );
    let message =
        error(serde_json::json!({"input_ids": [5], "labels": [-100]}), Content::Documents);
    assert!(message.contains("pretraining learns every token"), "{message}");
}

/// A template that rewrites earlier answers is read where only the last answer is a target.
#[test]
fn earlier_answers_may_be_rewritten_if_only_the_last_is_a_target() {
    let folder = folder();
    let row = r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]}"#;
    let template = ChatTemplate::from_source(
        "rewrites",
        "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' and not loop.last %}\
         ...{% endif %}{{ m.content }}{{ '<|im_end|>' }}{% endfor %}\
         {% if add_generation_prompt %}a:{% endif %}",
    )
    .unwrap();
    let spec = SourceSpec::file(file(folder.path(), "pc.jsonl", row));
    let shown = show_chats_with(folder.path(), spec, &template, recipe::ChatTargets::default());
    assert_eq!(shown.unwrap(), "1: u:a|a:...b|u:c|a:[d|]");
}
