//! A message in place of a silent death by SIGBUS: the signal that reading a mapped file causes when the file has become
//! shorter, or when its disk cannot be read.
//!
//! The handler names the file and ends the process with exit code 1. It only reads atomics and calls `write` and `_exit`,
//! which signal handlers may do.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Mapped files that are known at a time; a file beyond that is not named.
const REGIONS: usize = 1024;

/// A mapped file. `start` is 0 where the entry is free, and 1 while it is being written.
struct Region {
    start: AtomicUsize,
    end: AtomicUsize,
    path: AtomicPtr<u8>,
    path_bytes: AtomicUsize,
}

static MAPPED: [Region; REGIONS] = [const {
    Region {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        path: AtomicPtr::new(std::ptr::null_mut()),
        path_bytes: AtomicUsize::new(0),
    }
}; REGIONS];

/// The entry of a mapped file; dropping it frees the entry.
#[derive(Debug)]
pub(crate) struct Watched {
    idx: Option<usize>,
}

impl Watched {
    /// Names the file of mapped bytes in the message. Drop it after the mapping is gone.
    pub(crate) fn new(path: &Path, bytes: &[u8]) -> Self {
        install();
        let start = bytes.as_ptr() as usize;
        let free = MAPPED.iter().position(|region| {
            let claimed = region.start.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed);
            claimed.is_ok()
        });
        if let Some(region) = free.and_then(|idx| MAPPED.get(idx)) {
            // Never freed, so that the handler can read it at any time: a path per mapped file.
            let path: &'static mut [u8] = Box::leak(path.as_os_str().as_bytes().into());
            region.end.store(start + bytes.len(), Ordering::Relaxed);
            region.path_bytes.store(path.len(), Ordering::Relaxed);
            region.path.store(path.as_mut_ptr(), Ordering::Relaxed);
            region.start.store(start.max(2), Ordering::Release);
        }
        Self { idx: free }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(region) = self.idx.and_then(|idx| MAPPED.get(idx)) {
            region.start.store(0, Ordering::Release);
        }
    }
}

/// Installs the handler, once.
#[allow(unsafe_code)]
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the structure is filled completely, the handler has the type that SA_SIGINFO asks for, and it does only
        // what a signal handler may do. A failure leaves the default action, which is what there was before.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    });
}

/// Names the file that contains the address, and ends the process. Any other address repeats the signal without a handler.
#[allow(unsafe_code)]
extern "C" fn on_bus_error(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid structure to a handler with SA_SIGINFO, and SIGBUS has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    for region in &MAPPED {
        let start = region.start.load(Ordering::Acquire);
        if start > 1 && (start..region.end.load(Ordering::Relaxed)).contains(&address) {
            let path = region.path.load(Ordering::Relaxed);
            let n = region.path_bytes.load(Ordering::Relaxed);
            print(b"\nerror: ".as_ptr(), 8);
            print(path, n);
            let text = b": the file became shorter while it was in use, or its disk cannot be read\n  hint: \
                checkpoints that were saved are intact; remove the directory if it is a cache, and resume\n";
            print(text.as_ptr(), text.len());
            // SAFETY: ends the process without running anything else of it.
            unsafe { libc::_exit(1) }
        }
    }
}

#[allow(unsafe_code)]
fn print(text: *const u8, n_bytes: usize) {
    // SAFETY: both callers pass bytes that live as long as the process. An error cannot be reported.
    let _ = unsafe { libc::write(2, text.cast(), n_bytes) };
}
