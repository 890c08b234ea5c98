//! Fuzz target of `readers::tokenizer_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    readers::tokenizer_json(bytes);
});
