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
    assert_snapshot!(encoded.stdout, @"
    [8,9]
    []
    [8,5,9]
    [7,8,7,6,9]
    [2]
    ");
    let decoded = place.temper_with_input(&["tokenizer", "decode", "model"], &encoded.stdout);
    assert_snapshot!(decoded.stdout, @r#"
    "ab"
    ""
    "a\nb"
    "\"a\" b"
    "<|im_end|>"
    "#);
    // The output of decode is valid input of encode.
    let again = place.temper_with_input(&["tokenizer", "encode", "model"], &decoded.stdout);
    assert_eq!(again.stdout, encoded.stdout);

    place.write("texts.txt", "ab\n");
    let file = ["tokenizer", "encode", "model/tokenizer.json", "--file", "texts.txt"];
    let special = place.temper(&[&file[..], &["--add-special-tokens"]].concat());
    assert_snapshot!(special.stdout, @"[0,8,9]");
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
    assert_snapshot!(decode("ids.txt"), @"
    exit 2
    error: ids.txt:2: not a JSON array of token ids: invalid value: integer `-1`, expected u32 at line 1 column 6
      hint: write one array per line, such as [1, 2, 3]
    ");
    assert_snapshot!(decode("large.txt"), @"
    exit 2
    error: large.txt:2: not a JSON array of token ids: EOF while parsing a value at line 1 column 0
      hint: write one array per line, such as [1, 2, 3]
    ");
    assert_snapshot!(decode("blank.txt"), @"
    exit 2
    error: blank.txt:2: the tokenizer has no token with the id `4000`
      hint: ids are below 34; check that the ids are from this tokenizer
    ");
    let encode = |dir, file| place.error(&["tokenizer", "encode", dir, "--file", file]);
    assert_snapshot!(encode("model", "bytes.txt"), @"
    exit 2
    error: bytes.txt:2: cannot read: stream did not contain valid UTF-8
      hint: the input must be a file of UTF-8 text
    ");
    assert_snapshot!(encode("model", "none.txt"), @"
    exit 2
    error: none.txt: cannot read: No such file or directory (os error 2)
      hint: the input must be a file of UTF-8 text
    ");
    assert_snapshot!(encode("nowhere", "ids.txt"), @"
    exit 2
    error: no such file or directory: `nowhere`
      hint: name a tokenizer.json, tokenizer.model or .tiktoken file, or a directory that contains one, or vocab.json and merges.txt
    ");
    let render = || place.error(&["tokenizer", "render", "model", "--messages", "chat.json"]);
    assert_snapshot!(render(), @"
    exit 2
    error: chat.json: not a list
      hint: write a JSON list of messages: [{...}, ...]
    ");
    place.write("chat.json", "[]");
    fsio::remove_file(place.path().join("model/chat_template.jinja")).expect("removed");
    let config = "model/tokenizer_config.json";
    let text = std::fs::read_to_string(place.path().join(config)).expect("a config");
    place.write(config, text.replace("\"chat_template\"", "\"other_template\""));
    assert_snapshot!(render(), @"
    exit 2
    error: model: the tokenizer has no chat template
      hint: use the directory of a chat model, with a chat_template.jinja or a template in tokenizer_config.json
    ");
}

#[test]
fn train_saves_a_tokenizer_that_encodes() {
    let place = place();
    place.write("more/train.txt", "the cat and the hat ".repeat(20));
    place.write("more/test.txt", "zzz").write("a.jsonl", "{\"text\": \"the dog\"}\n");
    let train = ["tokenizer", "train", "more", "a.jsonl"];
    let bpe = [&train[..], &["--kind", "byte-bpe", "--vocab-size", "264", "--to", "out/bpe"]];
    let trained = place.temper(&bpe.concat());
    assert_eq!(trained.stdout, "out/bpe: 264 tokens\n", "{}", trained.stderr);
    let encode = |dir| place.temper_with_input(&["tokenizer", "encode", dir], "the cat\n").stdout;
    let n_ids = |line: &str| serde_json::from_str::<Vec<u32>>(line).expect("ids").len();
    assert!(n_ids(&encode("out/bpe")) < "the cat".len());
    assert_snapshot!(place.error(&bpe.concat()), @"
    exit 2
    error: `out/bpe` already exists
      hint: choose a new directory; nothing is overwritten
    ");

    // Only the training split is read: `z` is not a character of the vocabulary.
    let char =
        [&train[..], &["--kind", "char", "--special-token", "<|endoftext|>", "--to", "out/c"]];
    let trained = place.temper(&char.concat());
    assert_snapshot!(trained.stdout, @"out/c: 12 tokens");
    assert_snapshot!(place.temper_with_input(&["tokenizer", "encode", "out/c"], "zog").stdout, @"[1,10,7]");

    let error = |args: &[&str]| place.error(&[&train[..], args, &["--to", "x"]].concat());
    assert_snapshot!(error(&["--kind", "char", "--vocab-size", "300"]), @"
    exit 2
    error: --vocab-size does not apply to --kind char, which has a token per character
      hint: remove --vocab-size
    ");
    assert_snapshot!(error(&["--kind", "byte-bpe", "--vocab-size", "10"]), @"
    exit 2
    error: cannot train a tokenizer: `vocab_size` is `10`, but bytes and special tokens need 260
      hint: set vocab_size to 260 or more
    ");
    assert_snapshot!(place.error(&["tokenizer", "train", "no.txt", "--kind", "char", "--to", "x"]), @"
    exit 2
    error: no such file or directory: `no.txt`
      hint: relative paths start at the recipe's directory, `data:` paths at the data directory (--data-dir, TEMPER_DATA, `data_dir`)
    ");
}
