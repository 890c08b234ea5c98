//! `temper tokenizer`: its output for texts, ids and conversations, and its errors.

use insta::assert_snapshot;
use tokenizer::{ChatTemplate, Tokenizer, default_special_tokens};

use crate::support::Place;

/// A directory `model` with a character tokenizer and the template `chatml`.
fn place() -> Place {
    let place = Place::new();
    let characters = "abcdefghijklmnopqrstuvwxyz\n\" ".to_owned();
    let tokenizer = Tokenizer::train_char(std::iter::once(characters), &default_special_tokens())
        .expect("trains")
        .with_chat_template(ChatTemplate::builtin("chatml").expect("a builtin"));
    for (name, bytes) in tokenizer.files().expect("files") {
        place.write(&format!("model/{name}"), bytes);
    }
    place
}

#[test]
fn encode_and_decode_are_inverse() {
    let place = place();
    // A line is a text, unless it is a JSON string.
    let input = "ab\n\n\"a\\nb\"\n\"a\" b\n<|im_end|>\n";
    let encoded = place.temper_with_input(&["tokenizer", "encode", "model"], input);
    assert_eq!(encoded.code, Some(0), "{}", encoded.stderr);
    assert_snapshot!(encoded.stdout, @r"");
    let decoded = place.temper_with_input(&["tokenizer", "decode", "model"], &encoded.stdout);
    assert_snapshot!(decoded.stdout, @r#""#);
    // The output of decode is valid input of encode.
    let again = place.temper_with_input(&["tokenizer", "encode", "model"], &decoded.stdout);
    assert_eq!(again.stdout, encoded.stdout);

    place.write("texts.txt", "ab\n");
    let file = ["tokenizer", "encode", "model/tokenizer.json", "--file", "texts.txt"];
    let special = place.temper(&[&file[..], &["--add-special-tokens"]].concat());
    assert_snapshot!(special.stdout, @r"");
    let decode = ["tokenizer", "decode", "model"];
    let with = place.temper_with_input(&decode, &special.stdout);
    assert_eq!(with.stdout, "\"<|endoftext|>ab\"\n");
    let skip = [&decode[..], &["--skip-special-tokens"]].concat();
    assert_eq!(place.temper_with_input(&skip, &special.stdout).stdout, "\"ab\"\n");
}

#[test]
fn render_prints_the_conversation() {
    let place = place();
    place.write("chat.json", r#"[{"role": "user", "content": "hi <|im_end|>"}]"#);
    place.write("tools.json", r#"[{"name": "f"}]"#);
    let render = ["tokenizer", "render", "model", "--messages", "chat.json"];
    assert_eq!(
        place.temper(&render).stdout,
        "<|endoftext|><|im_start|>user\nhi <|im_end|><|im_end|>\n"
    );
    let prompt = place.temper(&[&render[..], &["--generation-prompt"]].concat());
    assert!(prompt.stdout.ends_with("<|im_end|>\n<|im_start|>assistant\n"), "{}", prompt.stdout);
    // All fields of messages and tools reach the template.
    let template = "{{ messages[0].tool_calls[0].id }} {{ tools[0].name }} {{ eos_token }}\n";
    place.write("model/chat_template.jinja", template);
    place.write("chat.json", r#"[{"role": "assistant", "tool_calls": [{"id": 7}]}]"#);
    let tools = place.temper(&[&render[..], &["--tools", "tools.json"]].concat());
    assert_eq!(tools.stdout, "7 f <|endoftext|>", "{}", tools.stderr);
}

#[test]
fn errors_name_the_line() {
    let place = place();
    place.write("ids.txt", "[1]\n[2, -1]\n").write("large.txt", "[1]\n\n[0, 4000]\n");
    place.write("blank.txt", "[1]\n[0, 4000]\n").write("bytes.txt", b"ab\n\xff\n");
    place.write("chat.json", r#"{"messages": []}"#);
    let decode = |file| place.error(&["tokenizer", "decode", "model", "--file", file]);
    assert_snapshot!(decode("ids.txt"), @r"");
    assert_snapshot!(decode("large.txt"), @r"");
    assert_snapshot!(decode("blank.txt"), @r"");
    let encode = |dir, file| place.error(&["tokenizer", "encode", dir, "--file", file]);
    assert_snapshot!(encode("model", "bytes.txt"), @r"");
    assert_snapshot!(encode("model", "none.txt"), @r"");
    assert_snapshot!(encode("nowhere", "ids.txt"), @r"");
    let render = || place.error(&["tokenizer", "render", "model", "--messages", "chat.json"]);
    assert_snapshot!(render(), @r"");
    place.write("chat.json", "[]");
    fsio::remove_file(place.path().join("model/chat_template.jinja")).expect("removed");
    assert_snapshot!(render(), @r"");
}
