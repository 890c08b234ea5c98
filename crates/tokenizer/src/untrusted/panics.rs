//! Turns panics of third-party libraries into errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::{Error, Result};

thread_local! {
    /// Number of `catch_panic` calls on this thread's stack.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

static HOOK: Once = Once::new();

/// Runs `f` and turns a panic into [`Error::Backend`], without a message on stderr.
///
/// The tokenizers library indexes and unwraps values of a tokenizer.json, and its regex engine
/// panics when a pattern exceeds its retry limit.
pub(crate) fn catch_panic<T>(doing: &'static str, f: impl FnOnce() -> T) -> Result<T> {
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.with(Cell::get) == 0 {
                previous(info);
            }
        }));
    });
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    let outcome = panic::catch_unwind(AssertUnwindSafe(f));
    DEPTH.with(|depth| depth.set(depth.get() - 1));
    outcome.map_err(|payload| Error::Backend { doing, reason: message(&*payload) })
}

/// Runs `f` and turns its error or panic into [`Error::Backend`].
pub(crate) fn catch<T, E: std::fmt::Display>(
    doing: &'static str,
    f: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<T> {
    catch_panic(doing, f)?.map_err(|e| Error::Backend { doing, reason: e.to_string() })
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "it panicked".to_owned()
    }
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
