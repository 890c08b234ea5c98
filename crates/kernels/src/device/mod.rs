//! Device names of recipes and the command line → burn devices.
//!
//! Nothing is chosen automatically: a run names its device. `cuda` and `wgpu` read the machine's facts, and [`CudaFacts`] and
//! [`WgpuFacts`] judge them, so that every judgement can be tested without the hardware.

#[cfg(feature = "cuda")]
mod cuda;
mod failure;
#[cfg(feature = "wgpu")]
mod wgpu;

use burn::tensor::Device;

pub use failure::{DeviceFailure, device_failure};

use crate::cuda_facts::CudaFacts;
use crate::error::{Error, Result};
use crate::precision::Precision;
use crate::wgpu_facts::{AdapterFacts, WgpuFacts};

/// A parsed device name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Cpu,
    /// With its index among the GPUs that the driver lists.
    Cuda(usize),
    /// With its index among the adapters that wgpu lists.
    Wgpu(usize),
}

fn parse(name: &str) -> Result<Name> {
    let unknown = || Error::UnknownDevice(name.to_owned());
    let indexed = |kind: &str, index: usize| match kind {
        "cuda" => Ok(Name::Cuda(index)),
        "wgpu" => Ok(Name::Wgpu(index)),
        _ => Err(unknown()),
    };
    match name.split_once(':') {
        None if name == "cpu" => Ok(Name::Cpu),
        None => indexed(name, 0),
        // `+1` would parse as a number too.
        Some((kind, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
            indexed(kind, index.parse().map_err(|_| unknown())?)
        }
        Some(_) => Err(unknown()),
    }
}

/// The device `name`: `cpu`, `cuda` (the same as `cuda:0`), `cuda:N` with the index of a usable GPU, `wgpu` or `wgpu:N`.
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
        Name::Wgpu(index) => {
            let problem = |problem| Error::Wgpu { device: name.to_owned(), problem };
            let facts = wgpu_facts();
            open_adapter(facts.check(index).map_err(problem)?, name)
        }
    }
}

/// Refuses a precision that the device `name` does not compute in. The name is one that [`device`] accepts.
pub fn check_precision(name: &str, precision: Precision) -> Result<()> {
    let computes = match parse(name)? {
        Name::Cpu => precision != Precision::Tf32,
        Name::Cuda(_) => true,
        // WGSL has no bf16 and burn's wgpu backend no tensor cores.
        Name::Wgpu(_) => precision == Precision::F32,
    };
    if computes {
        return Ok(());
    }
    Err(Error::PrecisionOfDevice { device: name.to_owned(), precision })
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

/// The adapters that wgpu lists, and whether this binary can use them. The drivers are asked once in a process.
pub fn wgpu_facts() -> WgpuFacts {
    #[cfg(feature = "wgpu")]
    let facts = wgpu::facts();
    #[cfg(not(feature = "wgpu"))]
    let facts = WgpuFacts::not_built();
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

#[cfg(feature = "wgpu")]
#[allow(clippy::unnecessary_wraps)]
fn open_adapter(adapter: &AdapterFacts, _: &str) -> Result<Device> {
    Ok(wgpu::open(adapter))
}

#[cfg(not(feature = "wgpu"))]
fn open_adapter(_: &AdapterFacts, name: &str) -> Result<Device> {
    Err(Error::Wgpu { device: name.to_owned(), problem: crate::wgpu_facts::WgpuProblem::NotBuilt })
}

#[cfg(test)]
mod tests {
    use super::{Name, check_precision, device, parse};
    use crate::precision::Precision;

    #[test]
    fn names() {
        assert!(device("cpu").is_ok());
        assert_eq!(parse("cpu").expect("a name"), Name::Cpu);
        assert_eq!(parse("cuda").expect("a name"), Name::Cuda(0));
        assert_eq!(parse("cuda:12").expect("a name"), Name::Cuda(12));
        assert_eq!(parse("wgpu").expect("a name"), Name::Wgpu(0));
        assert_eq!(parse("wgpu:3").expect("a name"), Name::Wgpu(3));
        for name in [
            "cuda:x", "wgpu:", "vulkan:0", "gpu", "cpu:0", "cuda:", "cuda:+1", "cuda:-1", "CUDA",
            "",
        ] {
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

    #[cfg(not(feature = "wgpu"))]
    #[test]
    fn a_build_without_wgpu_says_so() {
        let error = device("wgpu:1").expect_err("no wgpu");
        let message = "`wgpu:1` cannot be used: this binary was built without wgpu";
        assert_eq!(error.to_string(), message);
        assert!(error.hint().expect("a hint").contains("--features wgpu"));
    }

    #[test]
    fn devices_have_precisions() {
        let accepted = |name| Precision::ALL.map(|x| check_precision(name, x).is_ok());
        assert_eq!(accepted("cpu"), [true, false, true]);
        assert_eq!(accepted("cuda:1"), [true, true, true]);
        assert_eq!(accepted("wgpu"), [true, false, false]);
        let error = check_precision("wgpu:1", Precision::Bf16).expect_err("no bf16");
        assert_eq!(error.to_string(), "`wgpu:1` does not compute in bf16");
    }

    /// The other way of compiling kernels needs LLVM, which the build leaves out.
    #[cfg(feature = "cuda")]
    #[test]
    fn kernels_are_compiled_by_nvrtc() {
        use cubecl_cuda::compiler::CudaBackend;
        assert_eq!(CudaBackend::default(), CudaBackend::Cpp);
    }
}
