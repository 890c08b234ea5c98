//! Special tokens without a row in the embedding are left out; anything else beyond the rows is not.

use serde_json::json;
use tokenizer::Tokenizer;

/// A tokenizer of two letters, an end-of-text token, and the added tokens with these texts from id 3 on. `<image>` is named in
/// its settings, which makes it a special token.
fn tokenizer(added: &[(&str, bool)], template: &str) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    let token = |(id, (text, special)): (usize, &(&str, bool))| {
        json!({ "id": id, "content": text, "special": special, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false })
    };
    let end = json!([token((2, &("</s>", true)))]);
    let added: Vec<_> = (3..).zip(added).map(token).collect();
    let added = [end.as_array().unwrap().clone(), added].concat();
    let json = json!({
        "version": "1.0", "added_tokens": added, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "</s>": 2 }, "merges": [] },
    });
    let settings =
        json!({ "eos_token": "</s>", "image_token": "<image>", "chat_template": template });
    fsio::write_atomic(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    fsio::write_atomic(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    Tokenizer::from_dir_or_file(dir.path()).unwrap()
}

#[test]
fn special_tokens_without_a_row_are_left_out() {
    let surplus = tokenizer(&[("<image>", true)], "{{ messages[0].content }}");
    assert_eq!(surplus.vocab_size(), 4);
    let (fitting, texts) = surplus.without_surplus(3).unwrap();
    assert_eq!(texts, ["<image>"]);
    assert_eq!(
        (fitting.vocab_size(), fitting.eos(), fitting.token_id("<image>")),
        (3, Some(2), None)
    );
    assert_eq!(fitting.encode("ab").unwrap(), [0, 1]);
    assert!(fitting.chat_template().is_some());
    // What is saved has the tokens that are left, and is read again as such.
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in fitting.files().unwrap() {
        fsio::write_atomic(dir.path().join(name), bytes).unwrap();
    }
    assert_eq!(Tokenizer::from_dir_or_file(dir.path()).unwrap().vocab_size(), 3);
}

#[test]
fn tokens_that_are_needed_stay() {
    let plain = "{{ messages[0].content }}";
    assert!(
        tokenizer(&[("<image>", true)], plain).without_surplus(4).is_none(),
        "all ids have rows"
    );
    assert!(
        tokenizer(&[("<tool>", false)], plain).without_surplus(3).is_none(),
        "no special token"
    );
    assert!(tokenizer(&[("<image>", true)], plain).without_surplus(2).is_none(), "ends texts");
    let writes = "{{ messages[0].content }}<image>";
    assert!(
        tokenizer(&[("<image>", true)], writes).without_surplus(3).is_none(),
        "in the template"
    );
}
