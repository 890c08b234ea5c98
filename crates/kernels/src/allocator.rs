//! Settings of the C library's allocator that suit large, short-lived buffers.
//!
//! It deliberately replaces no allocator in a build that trains: two settings are enough. One that counts is there for
//! measurements.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Keeps freed buffers in the process instead of giving each back to the kernel.
///
/// glibc maps every block over 32 MiB afresh and unmaps it when freed, so each use page-faults it
/// in again, 4 KiB at a time; without that, filling large tensors is 4 to 7 times faster. Call it
/// once at the start of `main`. On other C libraries it does nothing.
pub fn configure_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: mallopt only sets two of the allocator's own thresholds and takes no pointers; it is
    // documented as callable at any time, and a refused value changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// The system's allocator, with a count of the bytes in use and of the most there were: what measurements of memory
/// install as `#[global_allocator]`. A process has one count.
#[derive(Debug)]
pub struct CountingAllocator;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

impl CountingAllocator {
    /// Bytes in use.
    pub fn in_use() -> usize {
        IN_USE.load(Ordering::Relaxed)
    }

    /// The most bytes in use since [`Self::start`].
    pub fn most() -> usize {
        MOST.load(Ordering::Relaxed)
    }

    /// Counts the most anew.
    pub fn start() {
        MOST.store(Self::in_use(), Ordering::Relaxed);
    }

    fn add(n: usize) {
        let in_use = IN_USE.fetch_add(n, Ordering::Relaxed) + n;
        MOST.fetch_max(in_use, Ordering::Relaxed);
    }

    fn remove(n: usize) {
        IN_USE.fetch_sub(n, Ordering::Relaxed);
    }
}

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator as it comes; counting touches no memory of theirs.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps to the contract of this very function.
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
