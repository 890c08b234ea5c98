//! Turns panics of third-party libraries into errors.

use crate::{Error, Result};

/// Runs `f` and turns a panic into [`Error::Backend`], without a message on stderr.
///
/// The tokenizers library indexes and unwraps values of a tokenizer.json, and its regex engine
/// panics when a pattern exceeds its retry limit.
pub(crate) fn catch_panic<T>(doing: &'static str, f: impl FnOnce() -> T) -> Result<T> {
    fsio::panics::caught(f).map_err(|reason| Error::Backend { doing, reason })
}

/// Runs `f` and turns its error or panic into [`Error::Backend`].
pub(crate) fn catch<T, E: std::fmt::Display>(
    doing: &'static str,
    f: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<T> {
    catch_panic(doing, f)?.map_err(|e| Error::Backend { doing, reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::catch_panic;

    #[test]
    fn a_panic_becomes_an_error_that_carries_its_message() {
        let error = catch_panic("testing", || -> u32 { panic!("index {} out of range", 7) });
        assert_eq!(
            error.err().map(|e| e.to_string()).as_deref(),
            Some("tokenizer failed while testing: index 7 out of range")
        );
    }
}
