//! Fuzz target of `readers::jsonl`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    readers::jsonl(bytes);
});
