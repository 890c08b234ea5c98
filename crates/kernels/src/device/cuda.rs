//! Facts about driver, NVRTC and toolkit, read by opening their libraries at run time.
//!
//! No context is created. Every function called here exists since CUDA 7, so a library that can be
//! opened has it; cudarc panics without the library, so its presence is checked first.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use cudarc::driver::result::{self, DriverError, device};
use cudarc::driver::sys::{self, CUdevice_attribute};
use cudarc::nvrtc;

use crate::cuda_facts::toolkit::{HEADERS, Header, in_python_packages};
use crate::cuda_facts::{CudaFacts, DriverFacts, GpuFacts, HeaderFacts, Version};

/// Sets CUDA_PATH to a toolkit among Python's packages, if there is one and cubecl would find no other.
///
/// cubecl reads the variable when it compiles the first kernel. Nothing is changed in a process with several threads,
/// where C code could read the environment at the same time.
pub(super) fn find_toolkit() {
    if cubecl_cuda::install::cuda_path().is_some() || !is_single_threaded() {
        return;
    }
    let Some(toolkit) = in_python_packages(|name| std::env::var_os(name), names) else { return };
    // A later change of the working directory must not matter.
    let toolkit = std::path::absolute(&toolkit).unwrap_or(toolkit);
    #[allow(unsafe_code)]
    // SAFETY: this is the only thread, so nothing reads the environment meanwhile.
    unsafe {
        std::env::set_var("CUDA_PATH", toolkit);
    }
}

fn is_single_threaded() -> bool {
    names(Path::new("/proc/self/task")).len() == 1
}

/// The names in a directory; none if it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Reads all facts.
pub(super) fn gather() -> CudaFacts {
    let (driver, gpus) = driver();
    let toolkit = cubecl_cuda::install::cuda_path();
    CudaFacts {
        built: true,
        bindings: Version::from_number(sys::CUDA_VERSION),
        driver,
        gpus,
        nvrtc: nvrtc_version(toolkit.as_deref()),
        headers: headers(toolkit),
    }
}

fn driver() -> (DriverFacts, Vec<GpuFacts>) {
    #[allow(unsafe_code)]
    // SAFETY: opens libraries by name and closes them again; only the driver's initialisers run.
    let present = unsafe { sys::is_culib_present() };
    if !present {
        return (DriverFacts::Missing, Vec::new());
    }
    let mut number = 0;
    #[allow(unsafe_code)]
    let answered = result::init().and_then(|()| {
        // SAFETY: the pointer is to a local of the type that the function writes.
        unsafe { sys::cuDriverGetVersion(&raw mut number) }.result()
    });
    if let Err(error) = answered {
        return (refused(error), Vec::new());
    }
    let works = DriverFacts::Works(Version::from_number(u32::try_from(number).unwrap_or(0)));
    let gpus = device::get_count().and_then(|count| (0..count).map(gpu).collect());
    gpus.map_or_else(|error| (refused(error), Vec::new()), |gpus| (works, gpus))
}

fn refused(error: DriverError) -> DriverFacts {
    let words = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| "unknown error".to_owned(), |text| text.to_string_lossy().into_owned())
    };
    let name = error.error_name().map_or_else(
        |_| format!("error {}", error.0 as u32),
        |name| name.to_string_lossy().into_owned(),
    );
    DriverFacts::Refused { name, text: words(error.error_string()) }
}

fn gpu(ordinal: i32) -> Result<GpuFacts, DriverError> {
    use CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = device::get(ordinal)?;
    #[allow(unsafe_code)]
    // SAFETY: the device comes from `get`, as these functions require.
    let (memory, major, minor) = unsafe {
        (
            device::total_mem(device)?,
            device::get_attribute(device, MAJOR)?,
            device::get_attribute(device, MINOR)?,
        )
    };
    let number = |value: i32| u32::try_from(value).unwrap_or(0);
    Ok(GpuFacts {
        name: device::get_name(device)?,
        memory: memory as u64,
        capability: Version::new(number(major), number(minor)),
    })
}

fn nvrtc_version(toolkit: Option<&Path>) -> Option<Version> {
    let (mut major, mut minor) = (0, 0);
    if !nvrtc_is_present() && !toolkit.is_some_and(open_nvrtc_of) {
        return None;
    }
    #[allow(unsafe_code)]
    // SAFETY: the library is present, and the pointers are to locals of the type that the function writes.
    let answered = unsafe {
        nvrtc_is_present()
            && nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor).result().is_ok()
    };
    let number = |value: i32| u32::try_from(value).unwrap_or(0);
    answered.then(|| Version::new(number(major), number(minor)))
}

fn nvrtc_is_present() -> bool {
    #[allow(unsafe_code)]
    // SAFETY: opens libraries by name and closes them again; NVRTC has no initialiser with effects.
    unsafe {
        nvrtc::sys::is_culib_present()
    }
}

/// Opens the toolkit's NVRTC by its path and keeps it open: the dynamic linker then finds it by its name, with which
/// cudarc opens it, although no search path has its directory.
fn open_nvrtc_of(toolkit: &Path) -> bool {
    ["lib64", "lib"].map(|name| toolkit.join(name)).iter().any(|lib| {
        let libraries = names(lib).into_iter().filter(|name| name.starts_with("libnvrtc.so"));
        libraries.map(|name| lib.join(name)).any(|path| {
            let Ok(path) = CString::new(path.into_os_string().into_vec()) else { return false };
            #[allow(unsafe_code)]
            // SAFETY: the path ends with a zero byte; NVRTC has no initialiser with effects.
            let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
            !handle.is_null()
        })
    })
}

fn headers(toolkit: Option<PathBuf>) -> HeaderFacts {
    let Some(toolkit) = toolkit else { return HeaderFacts::NoToolkit };
    let include = toolkit.join("include");
    let missing = |header: &&Header| !header.paths.iter().any(|path| include.join(path).is_file());
    let files: Vec<String> =
        HEADERS.iter().filter(missing).map(|header| header.name().to_owned()).collect();
    if files.is_empty() {
        HeaderFacts::Found(include)
    } else {
        HeaderFacts::Missing { include, files }
    }
}
