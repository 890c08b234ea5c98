//! Writes tokenizers and their outputs, which tests/interop/check_tokenizer.py compares with transformers.
//!
//! Runs only if TEMPER_INTEROP names a directory.

use std::path::Path;

use serde_json::{Value, json};
use tokenizer::{ChatTemplate, Message, Role, Tokenizer, default_special_tokens};

use crate::{published, support};

const TEXTS: [&str; 24] = [
    "",
    " ",
    "\n",
    "a",
    "Hello, world!",
    " leading and trailing ",
    "two  spaces\tand\ttabs\r\nand lines\n\n\nend",
    "don't can't I'LL we'Ve",
    "1234567890 3.14 1,000,000",
    "naïve café — “quoted” … ½",
    "e\u{301}cole \u{feff}bom \u{200b}zero",
    "你好，世界。こんにちは 안녕하세요",
    "🙂 👩‍👩‍👧‍👦 🇩🇪 👍🏽",
    "مرحبا नमस्ते สวัสดี",
    "<|endoftext|>",
    "a<|endoftext|>b <|im_start|>user\nx<|im_end|>",
    "<|im_end|><|pad|> <|unk|>",
    "<s>text</s> [INST] x [/INST]",
    "fn main() {\n    println!(\"{}\", 1 + 2);\n}",
    "\u{0}\u{1}\u{7f} control",
    "ＦＵＬＬ ｗｉｄｔｈ ﬁ ligature Å Å",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                                                      x",
    "Ġ Ċ ▁ Ã©",
];

fn conversations() -> Vec<Vec<Message>> {
    let message = |role, content: &str| Message::new(role, content);
    let (system, user, assistant) = (Role::System, Role::User, Role::Assistant);
    vec![
        vec![message(user, "What is 2+2?"), message(assistant, "It is 4.")],
        vec![
            message(system, "Be careful. 你好"),
            message(user, "What is <b>2+2</b>?\n\nSay \"it\"."),
            message(assistant, "It is 4.\nYes 🙂"),
            message(user, "And 3+3?"),
            message(assistant, "Six."),
        ],
        vec![message(user, "a"), message(assistant, "b"), message(user, "c")],
        vec![message(user, "only a question")],
    ]
}

fn as_json(messages: &[Message]) -> Value {
    let message = |m: &Message| json!({"role": m.role.as_str(), "content": m.content});
    messages.iter().map(message).collect()
}

fn save(dir: &Path, tokenizer: &Tokenizer) {
    fsio::create_dir_all(dir).expect("a directory");
    for (name, bytes) in tokenizer.files().expect("files") {
        fsio::write_atomic(dir.join(name), &bytes).expect("written");
    }
}

fn cases_of(tokenizer: &Tokenizer) -> Value {
    TEXTS
        .iter()
        .map(|text| {
            let ids = tokenizer.encode(text).expect("ids");
            json!({
                "text": text,
                "ids": ids,
                "plain": tokenizer.encode_plain(text).expect("ids"),
                "decoded": tokenizer.decode(&ids, false),
                "decoded_without_special": tokenizer.decode(&ids, true),
            })
        })
        .collect()
}

fn chats_of(tokenizer: &Tokenizer, template: &ChatTemplate) -> Value {
    conversations()
        .iter()
        .map(|messages| {
            let encoded = tokenizer.encode_chat(messages, template).expect("encodes");
            json!({
                "messages": as_json(messages),
                "text": tokenizer.render_chat(messages, template, false).expect("renders"),
                "prompt": tokenizer.render_chat(messages, template, true).expect("renders"),
                "ids": encoded.ids,
                "prompt_ids": tokenizer.encode_prompt(messages, template).expect("encodes"),
            })
        })
        .collect()
}

/// Renderings of published templates with the arguments of transformers: `tools` and `documents` are None.
fn renderings() -> Value {
    let dir = support::data("chat-templates/llamacpp").expect("templates");
    let mut sources: Vec<String> = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("UTF-8"))
        .collect();
    let list = support::text("chat-templates/huggingfacejs-cases.json").expect("templates");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let texts = list.as_array().expect("cases").iter();
    sources.extend(texts.map(|case| case["template"].as_str().expect("a text").to_owned()));
    let mut out = Vec::new();
    for source in sources {
        // The time may differ between the two programs.
        if source.contains("strftime_now") {
            continue;
        }
        let template = ChatTemplate::from_source("published", source.clone()).expect("parses");
        for messages in conversations() {
            for add_generation_prompt in [false, true] {
                let context = json!({
                    "messages": as_json(&messages), "tools": null, "documents": null,
                    "add_generation_prompt": add_generation_prompt,
                    "bos_token": "<s>", "eos_token": "</s>",
                });
                out.push(json!({
                    "template": source, "messages": as_json(&messages),
                    "add_generation_prompt": add_generation_prompt,
                    "text": template.render(&context).ok(),
                }));
            }
        }
    }
    out.into()
}

#[test]
fn write_cases_for_python() {
    let Some(dir) = std::env::var_os("TEMPER_INTEROP") else { return };
    let dir = Path::new(&dir);
    let corpus = support::text("tokenizers/bpe-train-reference/corpus.en").expect("a corpus");
    let specials = default_special_tokens();
    let texts = || [corpus.clone(), TEXTS.concat()].into_iter();
    let own = [
        ("byte-bpe", Tokenizer::train_byte_bpe(texts(), 1000, &specials).expect("trains")),
        ("char", Tokenizer::train_char(texts(), &specials).expect("trains")),
    ];
    let mut all = Vec::new();
    for (name, tokenizer) in own {
        for builtin in ["chatml", "plain"] {
            let template = ChatTemplate::builtin(builtin).expect("a builtin");
            let tokenizer = tokenizer.with_chat_template(template.clone());
            let name = format!("{name}-{builtin}");
            save(&dir.join(&name), &tokenizer);
            // AutoTokenizer reads the model's type too, if there is a config.
            let config = dir.join(&name).join("config.json");
            fsio::write_atomic(config, br#"{"model_type": "llama"}"#).expect("written");
            let chats = chats_of(&tokenizer, &template);
            all.push(json!({"name": name, "cases": cases_of(&tokenizer), "chats": chats}));
        }
    }
    for name in [
        "gpt2",
        "gpt-neox-20b",
        "qwen2",
        "phi-3-mini",
        "bert-base-uncased",
        "t5-small",
        "oasst-collator",
        "torchtune-small",
    ] {
        let tokenizer = published::load(name).expect("a tokenizer");
        save(&dir.join(name), &tokenizer);
        all.push(json!({"name": name, "cases": cases_of(&tokenizer), "chats": []}));
    }
    let cases = json!({"tokenizers": all, "renderings": renderings()});
    fsio::write_atomic(dir.join("cases.json"), cases.to_string().as_bytes()).expect("written");
}
