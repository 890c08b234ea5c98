//! Throughput of preparing a source, compared with the batch encoding of the tokenizers crate on the same rows.
//!
//! ```text
//! cargo build --release -p data --example throughput
//! throughput DATA_DIR rows           # once: writes the rows to a temporary file
//! throughput DATA_DIR reference      # encode_batch over all cores, texts in memory
//! throughput DATA_DIR prepare        # reading, hashing, tokenising and writing the cache
//! ```
//! Each measurement is a separate process, so that neither inherits the heap of the other. Measure on an idle machine.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::print_stderr)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use data::{Content, PrepareOptions, SourceSpec, prepare};
use recipe::OnBadRow;
use tokenizer::Tokenizer;

const BOOKS: [&str; 3] = ["moby-dick.txt.gz", "pride-and-prejudice.txt.gz", "frankenstein.txt.gz"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, data_dir, mode] = arguments.as_slice() else {
        return Err("usage: throughput DATA_DIR rows|reference|prepare".into());
    };
    let data_dir = Path::new(data_dir);
    let dir = std::env::temp_dir().join("temper-throughput");
    let rows_path = dir.join("rows.jsonl");
    if mode == "rows" {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(&rows_path, rows(data_dir)?)?;
        return Ok(());
    }
    let spec = SourceSpec::file(&rows_path);
    let tokenizer_dir = data_dir.join("tokenizers/gpt2");
    let mut texts = Vec::new();
    data::texts(std::slice::from_ref(&spec), data::SampleKind::Documents, &mut |text| {
        texts.push(text);
    })?;
    let n_bytes: usize = texts.iter().map(String::len).sum();
    let seconds = if mode == "reference" {
        let reference = tokenizers::Tokenizer::from_file(tokenizer_dir.join("tokenizer.json"))
            .map_err(|error| error.to_string())?;
        let started = Instant::now();
        reference.encode_batch(texts, false).map_err(|error| error.to_string())?;
        started.elapsed().as_secs_f64()
    } else {
        let tokenizer = Tokenizer::from_dir_or_file(tokenizer_dir)?;
        let cache_dir = dir.join("cache");
        let _ = std::fs::remove_dir_all(&cache_dir);
        let options = PrepareOptions {
            cache_dir: &cache_dir,
            tokenizer: &tokenizer,
            content: Content::Documents,
            on_bad_row: OnBadRow::Stop,
            max_bad_rows: 0,
            check_prompts: false,
        };
        let started = Instant::now();
        prepare(&[spec], &options, &mut |_| {})?;
        started.elapsed().as_secs_f64()
    };
    println!("{mode}: {:.2} MB/s of text", n_bytes as f64 / 1e6 / seconds);
    Ok(())
}

/// Paragraphs of three books as JSON lines, repeated eight times.
fn rows(data_dir: &Path) -> Result<String, Box<dyn Error>> {
    let mut lines = String::new();
    for book in BOOKS {
        let spec = SourceSpec::file(data_dir.join("pretrain").join(book));
        let mut text = String::new();
        data::texts(&[spec], data::SampleKind::Documents, &mut |piece| text.push_str(&piece))?;
        for row in text.split("\r\n\r\n").filter(|row| !row.is_empty()) {
            lines.push_str(&format!("{}\n", serde_json::json!({ "text": row })));
        }
    }
    Ok(lines.repeat(8))
}
