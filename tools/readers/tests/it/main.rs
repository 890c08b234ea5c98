//! Property tests of every reader: arbitrary bytes and mutated valid files, within bounded time and memory.
//!
//! The valid files are the seeds of the fuzz targets in `fuzz/seeds`.

#![allow(clippy::print_stdout, reason = "the number of inputs tried belongs to the result")]

mod mutation;
mod seeds;

use std::cell::Cell;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use readers::{READERS, Reader};

/// Time for each reader; the readers run in parallel tests.
const BUDGET: Duration = Duration::from_millis(2500);
/// Longest time for a single input, on a busy machine.
const PER_INPUT: Duration = Duration::from_secs(20);
/// Largest resident memory of this process, all tests together.
const PEAK_BYTES: u64 = 1 << 30;

fn reader(name: &str) -> Reader {
    READERS.iter().find(|(known, _)| *known == name).expect("a reader").1
}

/// Peak resident memory of this process, where the system tells it.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// Feeds a reader arbitrary bytes and mutated seeds until its time is over; proptest shrinks what panics.
fn survives(name: &str) {
    let (read, valid) = (reader(name), seeds::of(name));
    for (file, bytes) in &valid {
        assert!(read(bytes), "the valid file {file} is refused");
    }
    let started = Instant::now();
    let n_inputs = Cell::new(0);
    let sources: Vec<Vec<u8>> = valid.into_iter().map(|(_, bytes)| bytes).collect();
    let input = prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..512),
        6 => (prop::sample::select(sources), mutation::edits())
            .prop_map(|(bytes, edits)| mutation::apply(bytes, &edits)),
    ];
    let config = Config { cases: 20_000, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&input, |bytes| {
        if started.elapsed() < BUDGET {
            let one = Instant::now();
            read(&bytes);
            n_inputs.set(n_inputs.get() + 1);
            prop_assert!(one.elapsed() < PER_INPUT, "took {:?}", one.elapsed());
        }
        Ok(())
    });
    println!("{name}: {} inputs", n_inputs.get());
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
    assert!(n_inputs.get() >= 20, "{name}: only {} inputs in {BUDGET:?}", n_inputs.get());
    if let Some(peak) = peak_bytes() {
        assert!(peak < PEAK_BYTES, "{name}: {peak} bytes of memory");
    }
}

#[test]
fn recipe() {
    survives("recipe");
}

#[test]
fn task() {
    survives("task");
}

#[test]
fn config_json() {
    survives("config_json");
}

#[test]
fn tokenizer_json() {
    survives("tokenizer_json");
}

#[test]
fn chat_template() {
    survives("chat_template");
}

#[test]
fn safetensors() {
    survives("safetensors");
}

#[test]
fn gguf() {
    survives("gguf");
}

#[test]
fn jsonl() {
    survives("jsonl");
}

#[test]
fn parquet() {
    survives("parquet");
}
