//! Facts about driver, NVRTC and toolkit, read by opening their libraries at run time.
//!
//! No context is created and nothing is kept. Every function called here exists since CUDA 7, so a library that can be
//! opened has it; cudarc panics without the library, so its presence is checked first.

use std::path::PathBuf;

use cudarc::driver::result::{self, DriverError, device};
use cudarc::driver::sys::{self, CUdevice_attribute};
use cudarc::nvrtc;

use crate::cuda_facts::{CudaFacts, DriverFacts, GpuFacts, HeaderFacts, Version};

/// Headers that kernels include; the last one moved to another directory in CUDA 13.
const HEADERS: [&[&str]; 3] =
    [&["cuda_fp16.h"], &["mma.h"], &["cuda/barrier", "cccl/cuda/barrier"]];

/// Reads all facts.
pub(super) fn gather() -> CudaFacts {
    let (driver, gpus) = driver();
    CudaFacts {
        built: true,
        bindings: Version::from_number(sys::CUDA_VERSION),
        driver,
        gpus,
        nvrtc: nvrtc_version(),
        headers: headers(cubecl_cuda::install::cuda_path()),
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

fn nvrtc_version() -> Option<Version> {
    let (mut major, mut minor) = (0, 0);
    #[allow(unsafe_code)]
    // SAFETY: the library is present, and the pointers are to locals of the type that the function writes.
    let answered = unsafe {
        nvrtc::sys::is_culib_present()
            && nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor).result().is_ok()
    };
    let number = |value: i32| u32::try_from(value).unwrap_or(0);
    answered.then(|| Version::new(number(major), number(minor)))
}

fn headers(toolkit: Option<PathBuf>) -> HeaderFacts {
    let Some(toolkit) = toolkit else { return HeaderFacts::NoToolkit };
    let include = toolkit.join("include");
    for places in HEADERS {
        if !places.iter().any(|place| include.join(place).is_file()) {
            let first = places.first().copied().unwrap_or_default();
            return HeaderFacts::Missing(include.join(first));
        }
    }
    HeaderFacts::Found(include)
}
