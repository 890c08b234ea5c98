//! Device names of recipes and the command line → burn devices.
//!
//! Nothing is chosen automatically: a run names its device. `cuda` reads the machine's facts and [`CudaFacts`] judges them, so
//! that every judgement can be tested without the hardware.

#[cfg(feature = "cuda")]
mod cuda;
mod failure;

use burn::tensor::Device;

pub use failure::{DeviceFailure, device_failure};

use crate::cuda_facts::CudaFacts;
use crate::error::{Error, Result};

/// A parsed device name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Cpu,
    /// With its index among the GPUs that the driver lists.
    Cuda(usize),
}

fn parse(name: &str) -> Result<Name> {
    let unknown = || Error::UnknownDevice(name.to_owned());
    match name.split_once(':') {
        None if name == "cpu" => Ok(Name::Cpu),
        None if name == "cuda" => Ok(Name::Cuda(0)),
        // `+1` would parse as a number too.
        Some(("cuda", index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
            index.parse().map(Name::Cuda).map_err(|_| unknown())
        }
        _ => Err(unknown()),
    }
}

/// The device `name`: `cpu`, `cuda` (the same as `cuda:0`) or `cuda:N` with the index of a usable GPU.
///
/// Driver, GPU and libraries are checked here, so that no kernel fails later because one is missing. The device has no
/// autodiff; add it with [`Device::autodiff`].
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

/// Makes a CUDA toolkit that was installed as Python packages known to this process; call it at the start of `main`.
///
/// It is searched only if neither CUDA_PATH nor a usual directory has a toolkit: in the activated virtual environment, in
/// `.venv` of the working directory and in the user's packages. Has no effect in a build without CUDA.
pub fn find_cuda_toolkit() {
    #[cfg(feature = "cuda")]
    cuda::find_toolkit();
}

/// The machine's CUDA facts, and whether this binary can use CUDA. Opens no device; takes about a millisecond without a
/// driver.
pub fn cuda_facts() -> CudaFacts {
    #[cfg(feature = "cuda")]
    let facts = cuda::gather();
    #[cfg(not(feature = "cuda"))]
    let facts = CudaFacts::not_built();
    facts
}

/// Whether the device is the CPU's, with or without autodiff.
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
    Err(Error::Cuda { device: name.to_owned(), problem: crate::cuda_facts::CudaProblem::NotBuilt })
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
