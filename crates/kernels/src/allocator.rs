//! Settings of the C library's allocator for large, short-lived buffers, and an allocator that counts, for measurements.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Keeps freed buffers in the process instead of returning them to the operating system.
///
/// glibc maps every block over 32 MiB separately and unmaps it when freed, so each use page-faults again, 4 KiB at a
/// time; without that, filling large tensors is 4 to 7 times faster. Call it once at the start of `main`. It has no
/// effect with other C libraries.
pub fn configure_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: mallopt only sets two thresholds of the allocator and takes no pointers; it may be called at any time, and
    // a refused value changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// The system's allocator with a count of the bytes in use and their maximum, for measurements: install it as
/// `#[global_allocator]`. A process has one count.
#[derive(Debug)]
pub struct CountingAllocator;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

impl CountingAllocator {
    /// Bytes in use.
    pub fn in_use() -> usize {
        IN_USE.load(Ordering::Relaxed)
    }

    /// The maximum of bytes in use since [`Self::start`].
    pub fn peak() -> usize {
        PEAK.load(Ordering::Relaxed)
    }

    /// Resets the maximum to the bytes in use.
    pub fn start() {
        PEAK.store(Self::in_use(), Ordering::Relaxed);
    }

    fn add(n: usize) {
        let in_use = IN_USE.fetch_add(n, Ordering::Relaxed) + n;
        PEAK.fetch_max(in_use, Ordering::Relaxed);
    }

    fn remove(n: usize) {
        IN_USE.fetch_sub(n, Ordering::Relaxed);
    }
}

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system's allocator unchanged; counting touches none of its memory.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps the contract of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::remove(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, n: usize) -> *mut u8 {
        Self::add(n);
        Self::remove(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, n) }
    }
}
