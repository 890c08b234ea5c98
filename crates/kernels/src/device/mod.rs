//! Device names of recipes and the command line → burn devices.
//!
//! It deliberately chooses nothing by itself: a run says where it computes. What a machine has is read in `cuda` and
//! judged in `facts`, so that every verdict can be tested without the hardware.

#[cfg(feature = "cuda")]
mod cuda;
mod facts;
mod failure;

use burn::tensor::Device;

pub use facts::{CudaFacts, CudaProblem, DriverFacts, GpuFacts, HeaderFacts, Version};
pub use failure::{DeviceFailure, device_failure};

use crate::error::{Error, Result};

/// A device's name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Cpu,
    /// With its number among the GPUs that the driver shows.
    Cuda(usize),
}

fn parse(name: &str) -> Result<Name> {
    let unknown = || Error::UnknownDevice(name.to_owned());
    match name.split_once(':') {
        None if name == "cpu" => Ok(Name::Cpu),
        None if name == "cuda" => Ok(Name::Cuda(0)),
        // `+1` parses as a number too, and is none here.
        Some(("cuda", index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
            index.parse().map(Name::Cuda).map_err(|_| unknown())
        }
        _ => Err(unknown()),
    }
}

/// The device called `name`: `cpu`, or `cuda` (which is `cuda:0`) or `cuda:N` where a GPU of that number can be used.
///
/// Everything that can be known before the first kernel is checked, so that nothing fails later for want of a driver or a
/// library. The device has no autodiff; add it with [`Device::autodiff`].
pub fn device(name: &str) -> Result<Device> {
    match parse(name)? {
        Name::Cpu => Ok(Device::flex()),
        Name::Cuda(index) => {
            let problem = |problem| Error::Cuda { device: name.to_owned(), problem };
            cuda_facts().check(index).map_err(problem)?;
            open(index, name)
        }
    }
}

/// What this machine offers for CUDA, and whether this binary can use it. Opens no device; takes about a millisecond
/// where there is no driver.
pub fn cuda_facts() -> CudaFacts {
    #[cfg(feature = "cuda")]
    let facts = cuda::gather();
    #[cfg(not(feature = "cuda"))]
    let facts = CudaFacts::not_built();
    facts
}

/// Whether it is the CPU's device, with autodiff or without.
pub fn is_cpu(device: &Device) -> bool {
    *device == Device::flex() || *device == Device::flex().autodiff()
}

#[cfg(feature = "cuda")]
#[allow(clippy::unnecessary_wraps)]
fn open(index: usize, _: &str) -> Result<Device> {
    Ok(Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn open(_: usize, name: &str) -> Result<Device> {
    Err(Error::Cuda { device: name.to_owned(), problem: CudaProblem::NotBuilt })
}

#[cfg(test)]
mod tests {
    use super::{Name, device, parse};

    #[test]
    fn names() {
        assert!(device("cpu").is_ok());
        assert_eq!(parse("cpu").expect("a name"), Name::Cpu);
        assert_eq!(parse("cuda").expect("a name"), Name::Cuda(0));
        assert_eq!(parse("cuda:12").expect("a name"), Name::Cuda(12));
        for name in ["cuda:x", "gpu", "cpu:0", "cuda:", "cuda:+1", "cuda:-1", "CUDA", ""] {
            let error = device(name).expect_err(name);
            assert_eq!(error.to_string(), format!("unknown device: `{name}`"));
            assert!(error.hint().is_some());
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        for name in ["cuda", "cuda:1"] {
            let error = device(name).expect_err(name);
            let message = format!("`{name}` cannot be used: this binary was built without CUDA");
            assert_eq!(error.to_string(), message);
            assert!(error.hint().expect("a hint").contains("--features cuda"));
        }
    }

    /// The other way of compiling kernels needs LLVM, which the build leaves out.
    #[cfg(feature = "cuda")]
    #[test]
    fn kernels_are_compiled_by_nvrtc() {
        use cubecl_cuda::compiler::CudaBackend;
        assert_eq!(CudaBackend::default(), CudaBackend::Cpp);
    }
}
