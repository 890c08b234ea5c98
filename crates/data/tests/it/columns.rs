//! Columns and fields with meaning: they reach the sample, or the row is refused; `describe_source` names the rest.

use data::{SampleKind, SourceSpec, conversations, describe_source};
use recipe::{ChatTargets, Columns, Learn, RoleName};
use tokenizer::ChatTemplate;

use crate::layouts::show_chats_with;
use crate::support::{file, folder, shown};

/// Reads reasoning, tool calls and tools; writes each message on one line.
fn template() -> ChatTemplate {
    ChatTemplate::from_source(
        "test",
        "{% if tools %}{{ tools | tojson }}|{% endif %}\
         {% for m in messages %}{{ m.role[0] }}:\
         {% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{{ m.content or '' }}\
         {% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}\
         {{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}",
    )
    .unwrap()
}

fn chats_with(rows: &str, targets: ChatTargets, change: impl Fn(&mut SourceSpec)) -> String {
    let folder = folder();
    let mut spec = SourceSpec::file(file(folder.path(), "x.jsonl", rows));
    change(&mut spec);
    let root = format!("{}/", folder.path().display());
    match show_chats_with(folder.path(), spec, &template(), targets) {
        Ok(chats) => chats,
        Err(error) => shown(&error).replace(&root, ""),
    }
}

fn chats(rows: &str) -> String {
    chats_with(rows, ChatTargets::default(), |_| {})
}

#[test]
fn system_prompts_history_and_context() {
    let alpaca = r#"{"instruction": "And its capital?", "input": "", "output": "Lisbon.", "system": "Teach.", "history": [["A country?", "Portugal."]]}"#;
    insta::assert_snapshot!(chats(alpaca), @"1: s:Teach.|u:A country?|a:[Portugal.|] u:And its capital?|a:[Lisbon.|]");
    let dolly = r#"{"instruction": "Which river?", "context": "Ostra lies on the Mell.", "response": "The Mell.", "category": "qa"}"#;
    insta::assert_snapshot!(chats(dolly), @"
    1: u:Which river?

    Ostra lies on the Mell.|a:[The Mell.|]
    ");
    let question = r#"{"question": "Which river?", "context": "Ostra lies on the Mell.", "answer": "The Mell."}"#;
    insta::assert_snapshot!(chats(question), @"
    1: u:Which river?

    Ostra lies on the Mell.|a:[The Mell.|]
    ");
    let ignore = |spec: &mut SourceSpec| spec.ignore_columns = vec!["context".into()];
    insta::assert_snapshot!(chats_with(question, ChatTargets::default(), ignore), @"1: u:Which river?|a:[The Mell.|]");
    let as_system = |spec: &mut SourceSpec| {
        spec.columns = Some(Columns { system: Some("context".into()), ..Columns::default() });
    };
    insta::assert_snapshot!(chats_with(question, ChatTargets::default(), as_system), @"1: s:Ostra lies on the Mell.|u:Which river?|a:[The Mell.|]");
    let sharegpt = r#"{"system": "Pirate.", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Arr!"}]}"#;
    insta::assert_snapshot!(chats(sharegpt), @"1: s:Pirate.|u:Hello|a:[Arr!|]");
    let twice = r#"{"system": "Pirate.", "messages": [{"role": "system", "content": "Sailor."}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}"#;
    insta::assert_snapshot!(chats(twice), @r#"
    x.jsonl:1: column `system` has a system prompt, and the messages begin with another one
      hint: `on_bad_row = "skip"` in the stage's section skips such rows and counts them
    "#);
    let ignore = |spec: &mut SourceSpec| spec.ignore_columns = vec!["system".into()];
    insta::assert_snapshot!(chats_with(twice, ChatTargets::default(), ignore), @"1: s:Sailor.|u:u|a:[a|]");
    let named = |spec: &mut SourceSpec| {
        spec.columns = Some(Columns { system: Some("persona".into()), ..Columns::default() });
    };
    let persona = r#"{"persona": "Poet.", "prompt": "u", "completion": "a"}"#;
    insta::assert_snapshot!(chats_with(persona, ChatTargets::default(), named), @"1: s:Poet.|u:u|a:[a|]");
    let empty_instruction = r#"{"instruction": "", "input": "Name a metal.", "output": "Tin."}"#;
    insta::assert_snapshot!(chats(empty_instruction), @"1: u:Name a metal.|a:[Tin.|]");
}

#[test]
fn tools_and_fields_of_messages() {
    let calls = r#"{"messages": [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "w", "arguments": "{\"city\":\"R\"}"}}]}, {"role": "tool", "tool_call_id": "c1", "content": "12"}, {"role": "assistant", "content": "12 degrees.", "reasoning_content": "It says 12."}], "tools": [{"name": "w"}]}"#;
    insta::assert_snapshot!(chats(calls), @r#"1: [{"name": "w"}]|u:Weather?|a:[w{"city": "R"}|] t:12|a:[(It says 12.)12 degrees.|]"#);
    let text = calls.replace(r#"[{"name": "w"}]"#, r#""[{\"name\": \"w\"}]""#);
    assert_eq!(chats(&text), chats(calls), "tools as JSON text");
    // Nothing within a text of JSON is lost or rounded.
    for (city, problem) in [
        (r#"{\"city\":\"R\",\"city\":\"S\"}"#, "the key `city` occurs twice"),
        (r#"{\"city\":12345678901234567890123}"#, "`city` has an integer of more than 64 bits"),
    ] {
        let shown = chats(&calls.replace(r#"{\"city\":\"R\"}"#, city));
        assert!(shown.contains(problem), "{shown}");
    }
    // `thinking` is another name for what this template calls `reasoning_content`.
    assert_eq!(chats(&calls.replace("reasoning_content", "thinking")), chats(calls));
    // A template that does not write a field with meaning refuses it.
    let folder = folder();
    let spec = SourceSpec::file(file(folder.path(), "x.jsonl", calls));
    let chatml = ChatTemplate::builtin("chatml").unwrap();
    let refused = |spec: SourceSpec| {
        let error = show_chats_with(folder.path(), spec, &chatml, ChatTargets::default());
        shown(&error.unwrap_err()).replace(&format!("{}/", folder.path().display()), "")
    };
    insta::assert_snapshot!(refused(spec.clone()), @r#"
    x.jsonl:1: chat template `chatml` does not write `tools`
      hint: choose a template that writes it, or leave it out with `ignore_columns = ["tools"]` in the source
    "#);
    let without = SourceSpec { ignore_columns: vec!["tools".into()], ..spec };
    insta::assert_snapshot!(refused(without), @r#"
    x.jsonl:1: chat template `chatml` does not write `tool_calls`
      hint: choose a template that writes it, or leave it out with `ignore_columns = ["tool_calls"]` in the source
    "#);
}

#[test]
fn roles_of_the_data_can_be_mapped() {
    let rows = r#"{"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}"#;
    assert!(chats(rows).contains("message 1 has role `developer`"));
    let mapped = |spec: &mut SourceSpec| {
        spec.roles.insert("developer".into(), RoleName::System);
    };
    insta::assert_snapshot!(chats_with(rows, ChatTargets::default(), mapped), @"1: s:Be brief.|u:u|a:[a|]");
}

#[test]
fn flags_and_keys_decide_targets() {
    let chat = |flag: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "u"}}, {{"role": "assistant", "content": "wrong"{flag}}}, {{"role": "user", "content": "v"}}, {{"role": "assistant", "content": "right"}}]}}"#
        )
    };
    insta::assert_snapshot!(chats(&chat("")), @"1: u:u|a:[wrong|] u:v|a:[right|]");
    for flag in [r#", "weight": 0"#, r#", "train": false"#, r#", "loss": false"#] {
        assert_eq!(chats(&chat(flag)), "1: u:u|a:wrong|u:v|a:[right|]", "{flag}");
    }
    let last = ChatTargets { learn: Learn::Last, split_turns: false };
    insta::assert_snapshot!(chats_with(&chat(""), last, |_| {}), @"1: u:u|a:wrong|u:v|a:[right|]");
    let split = ChatTargets { learn: Learn::All, split_turns: true };
    insta::assert_snapshot!(chats_with(&chat(""), split, |_| {}), @"
    1: u:u|a:[wrong|]
    1: u:u|a:wrong|u:v|a:[right|]
    ");
    insta::assert_snapshot!(chats_with(&chat(r#", "weight": 0"#), split, |_| {}), @"1: u:u|a:wrong|u:v|a:[right|]");
}

#[test]
fn prompts_and_completions_as_messages() {
    let trl = r#"{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "completion": [{"role": "assistant", "content": "a"}]}"#;
    insta::assert_snapshot!(chats(trl), @"1: s:s|u:u|a:[a|]");
    // TRL trains on the completion alone: an answer in the prompt is context.
    let turns = r#"{"prompt": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}], "completion": "b"}"#;
    insta::assert_snapshot!(chats(turns), @"1: u:u|a:a|u:v|a:[b|]");
}

#[test]
fn empty_answers_are_left_out_or_refused() {
    let row = |answer: &str| format!("{{\"prompt\": \"u\", \"completion\": \"{answer}\"}}\n");
    let few = row("a").repeat(39) + &row("");
    assert_eq!(chats(&few).lines().count(), 39);
    let many = row("a").repeat(3) + &row(" ");
    insta::assert_snapshot!(chats(&many).replace(std::env::temp_dir().to_str().unwrap(), ""), @"
    x.jsonl: 1 of 4 rows have an empty answer
      hint: they would teach the model to say nothing: repair the data, or choose rows with `where`; up to 5 % are left out and counted
    ");
}

/// The two conversations of each row, a message as its role's first letter and its text.
fn pairs(rows: &str) -> String {
    let folder = folder();
    let spec = SourceSpec::file(file(folder.path(), "x.jsonl", rows));
    let rows = conversations(&spec, SampleKind::Pairs).unwrap();
    let lines = rows.map(|row| {
        let chats = row.unwrap().chats;
        let text = |chat: &data::Dialogue| -> String {
            let messages = chat.messages.iter();
            let text = |m: &tokenizer::Message| format!("{}:{}|", &m.role.as_str()[..1], m.content);
            messages.map(text).collect()
        };
        chats.iter().map(text).collect::<Vec<_>>().join("  ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn pairs_of_every_shape_say_the_prompt_once() {
    let conversation = |answer: &str, system: &str| {
        format!(
            r#"[{system}{{"role": "user", "content": "Name a metal."}}, {{"role": "assistant", "content": "{answer}"}}]"#
        )
    };
    let system = r#"{"role": "system", "content": "Be brief."}, "#;
    for (prompt, system) in
        [("Name a metal.", ""), ("Name a metal. ", ""), ("Name a metal.", system)]
    {
        let (tin, wood) = (conversation("Tin.", system), conversation("Wood.", system));
        let row = format!(r#"{{"prompt": "{prompt}", "chosen": {tin}, "rejected": {wood}}}"#);
        let before = if system.is_empty() { "" } else { "s:Be brief.|" };
        assert_eq!(
            pairs(&row),
            format!("{before}u:Name a metal.|a:Tin.|  {before}u:Name a metal.|a:Wood.|")
        );
    }
    let factory = r#"{"conversations": [{"from": "human", "value": "u"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}"#;
    insta::assert_snapshot!(pairs(factory), @"u:u|a:a|  u:u|a:b|");
    let alpaca = r#"{"instruction": "Plural?", "input": "goose", "system": "s", "chosen": "geese", "rejected": "gooses"}"#;
    insta::assert_snapshot!(pairs(alpaca), @"
    s:s|u:Plural?

    goose|a:geese|  s:s|u:Plural?

    goose|a:gooses|
    ");
    let explicit = r#"{"prompt": [{"role": "user", "content": "u"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]}"#;
    insta::assert_snapshot!(pairs(explicit), @"u:u|a:a|  u:u|a:b|");
}

#[test]
fn columns_that_are_no_text_are_refused_and_others_named() {
    let rows = r#"{"images": ["a.png"], "messages": [{"role": "user", "content": "u", "id": 7}, {"role": "assistant", "content": "a"}], "source": "web"}"#;
    insta::assert_snapshot!(chats(rows), @r#"
    x.jsonl:1: column `images` is not text and would be left out
      hint: to train without it, set `ignore_columns = ["images"]` in the source
    "#);
    let folder = folder();
    let mut spec = SourceSpec::file(file(folder.path(), "x.jsonl", rows));
    spec.ignore_columns = vec!["images".into()];
    let report = describe_source(&spec, SampleKind::Chats, Some(&template())).unwrap().unwrap();
    assert_eq!(report.layout, "messages");
    assert_eq!(report.read, ["messages"]);
    assert_eq!(report.unread, ["images", "source"]);
    assert_eq!(report.unread_fields, ["id"]);
}

/// Fields of messages that `temper plan` names as not read.
fn unread_fields(rows: &str, kind: SampleKind, ignored: &[&str]) -> Vec<String> {
    let folder = folder();
    let mut spec = SourceSpec::file(file(folder.path(), "x.jsonl", rows));
    spec.ignore_columns = ignored.iter().map(|name| (*name).to_owned()).collect();
    describe_source(&spec, kind, Some(&template())).unwrap().unwrap().unread_fields
}

#[test]
fn fields_of_messages_that_are_not_read_are_named() {
    let chat = r#"{"messages": [{"role": "user", "content": "u", "note": ""}, {"role": "assistant", "content": "a", "reasoning_content": "r", "weight": 0.5, "tool_calls": [{"function": {"name": "w"}}], "time": 7}]}"#;
    let ignored = ["reasoning_content", "weight", "tool_calls", "other"];
    assert_eq!(
        unread_fields(chat, SampleKind::Chats, &ignored),
        ["reasoning_content", "time", "tool_calls", "weight"]
    );
    let ignore = |spec: &mut SourceSpec| spec.ignore_columns = ignored.map(str::to_owned).to_vec();
    insta::assert_snapshot!(chats_with(chat, ChatTargets::default(), ignore), @"1: u:u|a:[a|]");
    // Those of earlier messages and of both answers of a pair.
    let pair = r#"{"prompt": [{"role": "user", "content": "u", "lang": "en"}], "chosen": [{"role": "assistant", "content": "a", "thinking": "r"}], "rejected": [{"role": "assistant", "content": "b", "model": "m"}]}"#;
    assert_eq!(
        unread_fields(pair, SampleKind::Pairs, &["thinking"]),
        ["lang", "model", "thinking"]
    );
    assert_eq!(unread_fields(pair, SampleKind::Pairs, &[]), ["lang", "model"]);
    let tree = r#"{"message_tree_id": "1", "prompt": {"role": "prompter", "text": "q", "lang": "en", "replies": [{"role": "assistant", "text": "a", "rank": 0, "labels": {}}]}}"#;
    assert_eq!(unread_fields(tree, SampleKind::Chats, &[]), ["lang", "rank"]);
    let root = r#"{"role": "prompter", "text": "q", "message_id": "7", "replies": [{"role": "assistant", "text": "a"}]}"#;
    assert_eq!(unread_fields(root, SampleKind::Chats, &[]), ["message_id"]);
}

#[test]
fn a_field_that_only_later_rows_have_is_named() {
    let plain = r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}"#;
    let late = r#"{"messages": [{"role": "user", "content": "u", "id": 1}, {"role": "assistant", "content": "a"}]}"#;
    let rows = [vec![plain; 500], vec![late]].concat().join("\n");
    assert_eq!(unread_fields(&rows, SampleKind::Chats, &[]), ["id"]);
}

#[test]
fn calls_that_are_left_out_leave_empty_answers() {
    let calls = r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "w"}}]}]}"#;
    let ignore = |spec: &mut SourceSpec| spec.ignore_columns = vec!["tool_calls".into()];
    insta::assert_snapshot!(chats_with(calls, ChatTargets::default(), ignore), @"
    x.jsonl: 1 of 1 rows have an empty answer
      hint: they would teach the model to say nothing: repair the data, or choose rows with `where`; up to 5 % are left out and counted
    ");
}
