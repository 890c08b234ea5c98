//! Fuzz target of `readers::chat_template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    readers::chat_template(bytes);
});
