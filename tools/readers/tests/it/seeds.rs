//! The valid files in `fuzz/seeds`, one directory per reader.

// The ignored test writes the seeds that cannot be edited by hand.
#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};

fn dir(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds")).join(name)
}

/// Names and bytes of a reader's seeds; there is at least one.
pub(crate) fn of(name: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(dir(name)).expect("a directory of seeds");
    let mut seeds: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a seed")))
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds for {name}");
    seeds
}

#[test]
#[ignore = "writes fuzz/seeds"]
fn write_generated_seeds() {
    let put = |reader: &str, file: &str, bytes: &[u8]| {
        std::fs::create_dir_all(dir(reader)).unwrap();
        std::fs::write(dir(reader).join(file), bytes).unwrap();
    };
    let columns: [(&str, arrow::array::ArrayRef); 2] = [
        ("text", Arc::new(StringArray::from(vec![Some("one"), None, Some("three")]))),
        ("label", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    put("parquet", "small.parquet", &bytes);

    let text = "the cat sat on the mat and the dog ate the hat. ".repeat(20);
    let special = tokenizer::default_special_tokens();
    let byte_bpe =
        tokenizer::Tokenizer::train_byte_bpe(std::iter::once(text.clone()), 300, &special);
    let char = tokenizer::Tokenizer::train_char(std::iter::once(text.clone()), &special);
    for (name, tokenizer) in [("byte-bpe.json", byte_bpe.unwrap()), ("char.json", char.unwrap())] {
        let files = tokenizer.files().unwrap();
        let (_, json) = files.iter().find(|(name, _)| name == "tokenizer.json").unwrap();
        put("tokenizer_json", name, json);
    }
}
