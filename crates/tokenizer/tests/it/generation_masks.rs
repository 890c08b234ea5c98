//! Loss masks of templates with `{% generation %}` blocks, compared with transformers.
//!
//! tests/golden/tokenizers/generation-masks.json is written by tests/interop/make_generation_masks.py from the templates
//! beside it. TEMPER_GENERATION_MASKS names another file of that script, such as one of TRL's training templates.

use std::path::Path;
use std::str::FromStr;

use serde_json::{Map, Value};
use tokenizer::{ChatTemplate, Clock, Conversation, Error, Message, Role, Tokenizer};

use crate::support::directory;

/// 2025-07-10 12:00:00, the time of the vectors.
const NOW: Clock = Clock::Fixed(1_752_148_800);

/// Cases of the committed file, and those refused because of a field.
const COMMITTED: (usize, usize) = (26, 10);

fn vectors(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("vectors")).expect("JSON")
}

fn message(value: &Value) -> Message {
    let text = |key: &str| value[key].as_str().expect("a text");
    let mut message = Message::new(Role::from_str(text("role")).expect("a role"), text("content"));
    let fields: Map<String, Value> = value.as_object().expect("an object").clone();
    let fields = fields.into_iter().filter(|(key, _)| key != "role" && key != "content");
    message.fields.extend(fields);
    message
}

#[test]
fn masks_of_generation_blocks_equal_those_of_transformers() {
    let path = "../../tests/golden/tokenizers/generation-masks.json";
    let counts = compare(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    assert_eq!(counts, COMMITTED);
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says so, and a run says its counts")]
fn masks_of_other_templates_equal_those_of_transformers() {
    let Some(path) = std::env::var_os("TEMPER_GENERATION_MASKS") else {
        println!("skipped: TEMPER_GENERATION_MASKS names no file");
        return;
    };
    let (n_cases, n_not_rendered) = compare(Path::new(&path));
    println!("{n_cases} cases; the template leaves out a field in {n_not_rendered}");
    assert!(n_cases > n_not_rendered, "nothing was compared");
}

/// Panics where ids or mask differ. Returns the number of cases, and of those that are refused because the template leaves
/// out a field of a message, which transformers renders without the field.
fn compare(path: &Path) -> (usize, usize) {
    let vectors = vectors(path);
    let dir = directory(&[
        ("tokenizer.json", vectors["tokenizer"].to_string()),
        ("tokenizer_config.json", r#"{"bos_token": "<s>", "eos_token": "</s>"}"#.to_owned()),
    ]);
    let tokenizer = Tokenizer::from_dir_or_file(dir.path()).expect("loads");
    let cases = vectors["cases"].as_array().expect("cases");
    let (mut report, mut n_not_rendered) = (Vec::new(), 0);
    for case in cases {
        let (name, chat) = (case["template"].as_str(), case["chat"].as_str());
        let (name, chat) = (name.expect("a name"), chat.expect("a name"));
        let source = vectors["templates"][name].as_str().expect("a template");
        let template = ChatTemplate::from_source(name, source).expect("parses");
        let template = template.with_clock(NOW).expect("parses");
        let given = &vectors["chats"][chat];
        let messages = given["messages"].as_array().expect("messages");
        let messages: Vec<Message> = messages.iter().map(message).collect();
        let tools = given["tools"].as_array().cloned().unwrap_or_default();
        let conversation = Conversation { messages: &messages, tools: &tools };
        match tokenizer.encode_chat(conversation, &template) {
            Ok(encoded) => {
                let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
                let ranges: Vec<[usize; 2]> =
                    serde_json::from_value(case["mask"].clone()).expect("ranges");
                let mask: Vec<bool> = (0..ids.len())
                    .map(|idx| ranges.iter().any(|[from, to]| (*from..*to).contains(&idx)))
                    .collect();
                if encoded.ids != ids {
                    let ours = tokenizer.decode(&encoded.ids, false);
                    let theirs = tokenizer.decode(&ids, false);
                    report.push(format!("{name}, {chat}: ids\n{ours:?}\n{theirs:?}"));
                } else if encoded.loss_mask != mask {
                    let of = |mask: &[bool]| {
                        let kept = ids.iter().zip(mask).filter(|(_, is_target)| **is_target);
                        tokenizer.decode(&kept.map(|(id, _)| *id).collect::<Vec<u32>>(), false)
                    };
                    let (ours, theirs) = (of(&encoded.loss_mask), of(&mask));
                    report.push(format!("{name}, {chat}: mask\n{ours:?}\n{theirs:?}"));
                }
            }
            // transformers renders these chats without the reasoning, tools or calls.
            Err(Error::FieldNotRendered { field, .. }) => {
                assert_eq!(template.field_name(&field), None, "{name}, {chat}");
                n_not_rendered += 1;
            }
            Err(error) => report.push(format!("{name}, {chat}: {error}")),
        }
    }
    assert!(report.is_empty(), "{} of {}:\n{}", report.len(), cases.len(), report.join("\n"));
    (cases.len(), n_not_rendered)
}
