//! Fuzz target of `readers::safetensors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    readers::safetensors(bytes);
});
