//! Fuzz target of `readers::task`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    readers::task(bytes);
});
