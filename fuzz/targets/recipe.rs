//! Fuzz target of `readers::recipe`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    readers::recipe(bytes);
});
