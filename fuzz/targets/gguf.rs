//! Fuzz target of `readers::gguf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    readers::gguf(bytes);
});
