//! An error message in place of a bare abort where the system refuses memory.
//!
//! An allocation that fails ends a Rust program with SIGABRT. [`ReportingAllocator`] notes that one was refused, and a
//! handler of the signal then prints an error with a hint and ends the process with exit code 1. The handler only reads
//! atomics and calls `write` and `_exit`, which signal handlers may do. Code that asks whether an allocation succeeds
//! still gets its answer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Bytes of the last refused allocation; 0 where none was refused.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
/// The hint, which is never freed, and its length.
static HINT: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static HINT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Digits of the largest number of bytes.
const DIGITS: usize = 20;

/// The system's allocator, which notes refused allocations: install it as `#[global_allocator]` of a binary, and call
/// [`report_refused_memory`] at the start of `main`.
#[derive(Debug)]
pub struct ReportingAllocator;

impl ReportingAllocator {
    fn noted(block: *mut u8, n_bytes: usize) -> *mut u8 {
        if block.is_null() {
            REFUSED.store(n_bytes, Ordering::Relaxed);
        }
        block
    }
}

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system's allocator unchanged, and its result is returned as it is.
unsafe impl GlobalAlloc for ReportingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this function.
        Self::noted(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        Self::noted(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, n: usize) -> *mut u8 {
        // SAFETY: as above.
        Self::noted(unsafe { System.realloc(block, layout, n) }, n)
    }
}

/// Replaces the abort after a refused allocation by an error with [`set_memory_hint`]'s hint and exit code 1.
///
/// Any other abort stays one. It needs [`ReportingAllocator`] as the global allocator.
#[allow(unsafe_code)]
pub fn report_refused_memory() {
    // SAFETY: the structure is filled completely, the handler has the type of one without SA_SIGINFO, and it does only what a
    // signal handler may do. A failure leaves the default action, which is what there was before.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_abort as *const () as usize;
        action.sa_flags = libc::SA_RESETHAND;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGABRT, &raw const action, std::ptr::null_mut());
    }
}

/// The hint of the error from now on. Each call keeps its text in memory for good, so call it rarely.
pub fn set_memory_hint(text: &str) {
    let text: &'static mut [u8] = Box::leak(text.as_bytes().into());
    // A handler between the two stores sees an empty hint.
    HINT_BYTES.store(0, Ordering::Release);
    let n_bytes = text.len();
    HINT.store(text.as_mut_ptr(), Ordering::Release);
    HINT_BYTES.store(n_bytes, Ordering::Release);
}

/// Prints the error and ends the process if an allocation was refused; returns for any other abort, which goes on.
#[allow(unsafe_code)]
extern "C" fn on_abort(_: i32) {
    let n_bytes = REFUSED.load(Ordering::Relaxed);
    if n_bytes == 0 {
        return;
    }
    print(b"error: out of memory: the system refused ");
    let mut digits = [0; DIGITS];
    print(decimal(n_bytes, &mut digits));
    print(b" bytes\n  hint: ");
    let n_hint_bytes = HINT_BYTES.load(Ordering::Acquire);
    if n_hint_bytes == 0 {
        print(b"close other programs, or raise the limit of this process (`ulimit -v`)");
    } else {
        // SAFETY: pointer and length are of one text that lives as long as the process.
        print(unsafe { std::slice::from_raw_parts(HINT.load(Ordering::Acquire), n_hint_bytes) });
    }
    print(b"\n");
    // SAFETY: ends the process without running anything else of it.
    unsafe { libc::_exit(1) }
}

#[allow(unsafe_code)]
fn print(text: &[u8]) {
    // SAFETY: the bytes live during the call. An error cannot be reported.
    let _ = unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

/// A number's decimal digits, without an allocation.
fn decimal(mut number: usize, digits: &mut [u8; DIGITS]) -> &[u8] {
    let mut first = DIGITS;
    for (idx, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (number % 10) as u8;
        first = idx;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    digits.get(first..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{DIGITS, decimal};

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 4096, 1_234_567, usize::MAX] {
            let mut digits = [0; DIGITS];
            assert_eq!(decimal(number, &mut digits), number.to_string().as_bytes());
        }
    }
}
