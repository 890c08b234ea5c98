//! Speed of encoding compared with the tokenizers crate; run by hand, not in CI.
//!
//! cargo test --profile ci -p tokenizer throughput -- --ignored --nocapture

use std::time::{Duration, Instant};

use tokenizer::{ChatTemplate, Message, Role, Tokenizer, default_special_tokens};

use crate::support;

fn fastest(mut f: impl FnMut()) -> Duration {
    let times = (0..5).map(|_| {
        let start = Instant::now();
        f();
        start.elapsed()
    });
    times.min().unwrap_or_default()
}

/// Tiny Shakespeare in documents of 40 lines and as one text.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stderr)]
fn encoding_is_as_fast_as_the_tokenizers_crate() {
    let Some(path) = support::data("pretrain/tinyshakespeare.txt") else { return };
    let text = std::fs::read_to_string(path).expect("UTF-8");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let documents: Vec<String> = lines.chunks(40).map(<[&str]>::concat).collect();
    let specials = default_special_tokens();
    let start = Instant::now();
    let bpe = Tokenizer::train_byte_bpe(documents.iter().cloned(), 4096, &specials);
    let bpe = bpe.expect("trains");
    eprintln!("training 4,096 tokens on {} bytes: {:?}", text.len(), start.elapsed());
    let character = Tokenizer::train_char(documents.iter().cloned(), &specials).expect("trains");
    for (name, tokenizer) in [("byte-bpe", bpe), ("char", character)] {
        let json = tokenizer.files().expect("files").swap_remove(0).1;
        let library = tokenizers::Tokenizer::from_bytes(json).expect("reads");
        for (size, texts) in [("documents", documents.clone()), ("one text", vec![text.clone()])] {
            let ours = fastest(|| {
                tokenizer.encode_batch_plain(&texts).expect("ids");
            });
            let theirs = fastest(|| {
                library.encode_batch(texts.clone(), false).expect("ids");
            });
            let fast = fastest(|| {
                library.encode_batch_fast(texts.clone(), false).expect("ids");
            });
            eprintln!(
                "{name}, {size}: ours {ours:?}, encode_batch {theirs:?}, encode_batch_fast {fast:?}"
            );
            assert!(ours <= theirs);
        }
        let template = ChatTemplate::builtin("chatml").expect("a builtin");
        let chats: Vec<Vec<Message>> = documents
            .chunks(2)
            .filter(|pair| pair.len() == 2)
            .map(|pair| {
                vec![Message::new(Role::User, &pair[0]), Message::new(Role::Assistant, &pair[1])]
            })
            .collect();
        let time = fastest(|| {
            for chat in &chats {
                tokenizer.encode_chat(chat, &template).expect("encodes");
            }
        });
        let render = fastest(|| {
            for chat in &chats {
                tokenizer.render_chat(chat, &template, false).expect("renders");
            }
        });
        let plain = fastest(|| {
            for message in chats.iter().flatten() {
                tokenizer.encode_plain(&message.content).expect("ids");
            }
        });
        eprintln!("{name}: rendering {render:?}, ids of the contents alone {plain:?}");
        eprintln!("{name}: {} chats of {} bytes on one core: {time:?}", chats.len(), text.len());
    }
}
