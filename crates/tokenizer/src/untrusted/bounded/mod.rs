//! The parts of a tokenizer.json that run on texts, with a budget per text.
//!
//! The tokenizers library bounds neither the growth of a text in a chain of normalizers nor the steps of a pattern, and it
//! ignores the errors of normalizers. The types here run the same steps with the library's own functions, count growth and
//! time between them, and record the first excess. [`within_budget`] reports it.

mod decoder;
mod normalizer;
mod pattern;
mod pre_tokenizer;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use tokenizers::{ModelWrapper, PostProcessorWrapper, TokenizerImpl};

pub(crate) use decoder::BoundedDecoder;
pub(crate) use normalizer::BoundedNormalizer;
pub(crate) use pre_tokenizer::BoundedPreTokenizer;

/// The library's tokenizer with bounded parts.
pub(crate) type Library = TokenizerImpl<
    ModelWrapper,
    BoundedNormalizer,
    BoundedPreTokenizer,
    PostProcessorWrapper,
    BoundedDecoder,
>;

/// Time for any text, and further time for each MiB of it. Published tokenizers need less than a tenth.
const TIME: Duration = Duration::from_secs(1);
const TIME_PER_MIB: Duration = Duration::from_secs(4);
/// Longest time that counts between two looks at the clock: a stopped process uses none.
const LONGEST_STEP: Duration = Duration::from_millis(500);
/// Size from which a text is watched: a single call on it may take longer than its time.
const WATCHED_BYTES: usize = 128;
/// Bytes that a text may grow to in any case. Compatibility decomposition, the largest growth of a published normalizer,
/// writes at most 11 bytes for one.
const GROWTH: usize = 16;
const FREE_BYTES: usize = 64 << 10;
/// Bytes from which a text may grow to four times its size only: each byte takes 16 more for its alignment.
const LARGE_BYTES: usize = 16 << 20;

/// The rest of the current text's budget.
struct Budget {
    bytes: usize,
    time: Duration,
    last_look: Instant,
    excess: Option<String>,
}

thread_local! {
    static BUDGET: RefCell<Option<Budget>> = const { RefCell::new(None) };
}

/// The largest size of a text of `len` bytes after normalizing or decoding.
fn size_limit(len: usize) -> usize {
    let small = len.saturating_mul(GROWTH).saturating_add(FREE_BYTES).min(LARGE_BYTES);
    small.max(len.saturating_mul(4))
}

/// Runs `f`, the compilation or rendering of a template, within the time for a text of half a MiB: three seconds.
pub(crate) fn within_render_time<T>(name: &str, f: impl FnOnce() -> T) -> Result<T, String> {
    let len = 1 << 19;
    let description = || format!("chat template `{name}` takes too long");
    fsio::watchdog::watched(time_limit(len), description, || with_limits(len, f))
}

/// Runs `f` on `text`; an error names the limit that was exceeded, if one was.
pub(crate) fn within_budget<T>(text: &str, f: impl FnOnce() -> T) -> Result<T, String> {
    let run = || with_limits(text.len(), f);
    if text.len() < WATCHED_BYTES {
        return run();
    }
    let description = || {
        let (len, start) = (text.len(), shown(text));
        format!("tokenizer takes too long on a text of {len} bytes that begins with {start}")
    };
    fsio::watchdog::watched(time_limit(text.len()), description, run)
}

fn time_limit(len: usize) -> Duration {
    TIME + TIME_PER_MIB.mul_f64(len as f64 / f64::from(1 << 20))
}

/// Runs `f` on input of `len` bytes with a budget for it.
pub(crate) fn with_limits<T>(len: usize, f: impl FnOnce() -> T) -> Result<T, String> {
    let budget = Budget {
        bytes: size_limit(len),
        time: time_limit(len),
        last_look: Instant::now(),
        excess: None,
    };
    let outer = BUDGET.with(|slot| slot.replace(Some(budget)));
    let result = f();
    let used = BUDGET.with(|slot| slot.replace(outer));
    match used.and_then(|budget| budget.excess) {
        Some(excess) => Err(excess),
        None => Ok(result),
    }
}

/// Looks at the clock; an error if the text's time is over, or if another limit was exceeded before. Outside of
/// [`within_budget`], nothing is limited.
fn spend_time(step: impl Fn() -> String) -> Result<(), String> {
    with_budget(|budget| {
        let now = Instant::now();
        let spent = now.duration_since(budget.last_look).min(LONGEST_STEP);
        budget.last_look = now;
        budget.time = budget.time.saturating_sub(spent);
        if budget.time.is_zero() {
            return Err(format!("{} takes too long", step()));
        }
        Ok(())
    })
}

/// Looks at the clock during the rendering of a template.
pub(crate) fn spend_render_time() -> Result<(), String> {
    spend_time(|| "the template".to_owned())
}

/// Takes `bytes` of the text's growth; an error if less is left.
fn spend_bytes(bytes: usize, step: impl Fn() -> String) -> Result<(), String> {
    with_budget(|budget| match budget.bytes.checked_sub(bytes) {
        Some(left) => {
            budget.bytes = left;
            Ok(())
        }
        None => Err(format!("{} makes this text too long", step())),
    })
}

/// Bytes that are left for the current text, if it is limited.
fn bytes_left() -> Option<usize> {
    BUDGET.with(|slot| slot.borrow().as_ref().map(|budget| budget.bytes))
}

/// Records an excess, so that a caller that drops the error cannot hide it.
fn exceeded(reason: String) -> String {
    let error = with_budget(|_| Err(reason.clone()));
    error.err().unwrap_or(reason)
}

fn with_budget(f: impl FnOnce(&mut Budget) -> Result<(), String>) -> Result<(), String> {
    BUDGET.with(|slot| {
        let mut slot = slot.borrow_mut();
        let Some(budget) = slot.as_mut() else { return Ok(()) };
        if let Some(excess) = &budget.excess {
            return Err(excess.clone());
        }
        let result = f(budget);
        budget.excess = result.as_ref().err().cloned();
        result
    })
}

/// A text as an error shows it.
fn shown(text: &str) -> String {
    const CHARS: usize = 60;
    let start: String = text.chars().take(CHARS).collect();
    if start.len() < text.len() { format!("`{start}…`") } else { format!("`{start}`") }
}
