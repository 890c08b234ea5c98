//! Whether NVIDIA's library for sums across cards can be found.
//!
//! It deliberately calls nothing in it: that is burn's to do.

/// Whether the dynamic linker finds `libnccl.so`, the name under which burn's CUDA backend looks for NCCL.
///
/// Packages for users may bring `libnccl.so.2` alone, which it does not look for.
pub fn has_nccl() -> bool {
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)]
    // SAFETY: the name is a C string; a library that was opened is closed again, and its initialisers are those that
    // burn's own opening would run.
    unsafe {
        let library = libc::dlopen(c"libnccl.so".as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL);
        if library.is_null() {
            return false;
        }
        libc::dlclose(library);
        true
    }
    #[cfg(not(target_os = "linux"))]
    false
}
