//! Detection of NCCL, NVIDIA's library for sums across GPUs. burn calls it.

/// Whether the dynamic linker finds `libnccl.so`, the name that burn's CUDA backend opens.
///
/// Packages for users may contain only `libnccl.so.2`, which burn does not open.
pub fn has_nccl() -> bool {
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)]
    // SAFETY: the name is a C string; the library is closed again, and its initialisers are the ones that run when burn
    // opens it.
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
