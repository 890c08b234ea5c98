//! Fuzz target of `readers::config_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    readers::config_json(bytes);
});
