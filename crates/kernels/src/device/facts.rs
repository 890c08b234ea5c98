//! What was found out about CUDA on a machine, and what follows from it in words.
//!
//! It deliberately looks at nothing itself: facts come in, sentences go out.

use std::fmt;
use std::path::PathBuf;

/// A version of two numbers, as CUDA's parts have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Before the dot.
    pub major: u32,
    /// After it.
    pub minor: u32,
}

impl Version {
    /// `major.minor`
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// From the driver's and the toolkit's own spelling: 12080 is 12.8.
    pub const fn from_number(number: u32) -> Self {
        Self { major: number / 1000, minor: number % 1000 / 10 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// What the NVIDIA driver answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverFacts {
    /// No library of the driver could be opened.
    Missing,
    /// It was opened and refused to start, with its own words.
    Refused {
        /// As `CUDA_ERROR_NO_DEVICE`.
        name: String,
        /// As "no CUDA-capable device is detected".
        text: String,
    },
    /// It works; the newest CUDA it can serve.
    Works(Version),
}

/// One GPU that the driver shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuFacts {
    /// As "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// All of its memory, in bytes.
    pub memory: u64,
    /// Compute capability.
    pub capability: Version,
}

/// Where the toolkit's headers are, which kernels include.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderFacts {
    /// No folder of a toolkit is known.
    NoToolkit,
    /// A folder is known, but this file isn't there.
    Missing(PathBuf),
    /// The folder.
    Found(PathBuf),
}

/// What a machine offers for CUDA, and what this binary asks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaFacts {
    /// Whether the binary was built with it; without, nothing else was looked at.
    pub built: bool,
    /// The CUDA whose functions the binary calls.
    pub bindings: Version,
    /// The driver.
    pub driver: DriverFacts,
    /// The GPUs, by number.
    pub gpus: Vec<GpuFacts>,
    /// The compiler of kernels; none if its library could not be opened.
    pub nvrtc: Option<Version>,
    /// The toolkit's headers.
    pub headers: HeaderFacts,
}

/// Why a GPU cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaProblem {
    /// The binary lacks it.
    #[error("this binary was built without CUDA")]
    NotBuilt,
    /// No driver.
    #[error("no NVIDIA driver: libcuda.so could not be opened")]
    NoDriver,
    /// The driver does not start.
    #[error("the NVIDIA driver does not start: {text} ({name})")]
    DriverRefuses {
        /// The error's name.
        name: String,
        /// The error's text.
        text: String,
    },
    /// The driver lacks functions that the binary calls.
    #[error("the NVIDIA driver is too old: it serves CUDA {found}, and {needed} is needed")]
    DriverTooOld {
        /// What the driver serves.
        found: Version,
        /// What the binary needs.
        needed: Version,
    },
    /// The driver shows no GPU.
    #[error("the NVIDIA driver shows no GPU")]
    NoGpu,
    /// No GPU of that number.
    #[error("there is no GPU of number {index}: the driver shows {count}")]
    NoSuchGpu {
        /// The number asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// No compiler of kernels.
    #[error("NVRTC, which compiles the kernels, was not found: libnvrtc.so could not be opened")]
    NoNvrtc,
    /// No toolkit.
    #[error("the headers of the CUDA toolkit, which the kernels include, were not found")]
    NoHeaders,
    /// A toolkit without headers.
    #[error("the headers of the CUDA toolkit are incomplete: `{}` is not there", .0.display())]
    HeaderMissing(PathBuf),
}

impl CudaProblem {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotBuilt => "build with `cargo build --release --locked --features cuda -p cli` \
                               (docs/cuda.md), or set device = \"cpu\""
                .to_owned(),
            Self::NoDriver => "install the NVIDIA driver until `nvidia-smi` works; a container must be started with \
                               its GPUs; a driver in an unusual folder is found through LD_LIBRARY_PATH"
                .to_owned(),
            Self::DriverRefuses { name, .. } if name == "CUDA_ERROR_NO_DEVICE" => {
                "`nvidia-smi` must list a GPU, and CUDA_VISIBLE_DEVICES must not hide it".to_owned()
            }
            Self::DriverRefuses { name, .. } if name == "CUDA_ERROR_STUB_LIBRARY" => {
                "LD_LIBRARY_PATH leads to the toolkit's stub of libcuda.so: put the driver's folder before it".to_owned()
            }
            Self::DriverRefuses { .. } => {
                "`nvidia-smi` says more; after an update of the driver the machine must be restarted".to_owned()
            }
            Self::DriverTooOld { needed, found } => format!(
                "update the driver (570 or newer serves CUDA 12.8), or build for the toolkit at hand: \
                 CUDARC_CUDA_VERSION={}0{}0 cargo build …{}",
                found.major,
                found.minor,
                if *needed > *found { "" } else { " (a newer one)" }
            ),
            Self::NoGpu => "CUDA_VISIBLE_DEVICES may hide it; `nvidia-smi` lists what there is".to_owned(),
            Self::NoSuchGpu { .. } => "`temper devices` lists them; numbers begin at 0".to_owned(),
            Self::NoNvrtc => "install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc`, and put the folder of \
                              libnvrtc.so into LD_LIBRARY_PATH"
                .to_owned(),
            Self::NoHeaders => "install the CUDA toolkit, or `pip install nvidia-cuda-runtime nvidia-cuda-cccl`, and set CUDA_PATH to \
                                the folder whose `include` holds cuda_fp16.h"
                .to_owned(),
            Self::HeaderMissing(_) => {
                "set CUDA_PATH to the folder whose `include` holds cuda_fp16.h".to_owned()
            }
        }
    }
}

impl CudaFacts {
    /// Of a binary without CUDA.
    pub fn not_built() -> Self {
        Self {
            built: false,
            bindings: Version::new(0, 0),
            driver: DriverFacts::Missing,
            gpus: Vec::new(),
            nvrtc: None,
            headers: HeaderFacts::NoToolkit,
        }
    }

    /// The oldest driver that has every function the binary calls: bindings from 13.0 on time with a function that came
    /// with 12.8; older ones need their own major version.
    pub fn oldest_driver(&self) -> Version {
        if self.bindings.major >= 13 {
            Version::new(12, 8)
        } else {
            Version::new(self.bindings.major, 0)
        }
    }

    /// What stands in the way of the GPU of that number; the first thing to do comes first.
    pub fn check(&self, index: usize) -> Result<(), CudaProblem> {
        self.check_driver()?;
        match self.gpus.len() {
            0 => return Err(CudaProblem::NoGpu),
            count if index >= count => return Err(CudaProblem::NoSuchGpu { index, count }),
            _ => {}
        }
        if self.nvrtc.is_none() {
            return Err(CudaProblem::NoNvrtc);
        }
        match &self.headers {
            HeaderFacts::NoToolkit => Err(CudaProblem::NoHeaders),
            HeaderFacts::Missing(file) => Err(CudaProblem::HeaderMissing(file.clone())),
            HeaderFacts::Found(_) => Ok(()),
        }
    }

    fn check_driver(&self) -> Result<(), CudaProblem> {
        if !self.built {
            return Err(CudaProblem::NotBuilt);
        }
        match &self.driver {
            DriverFacts::Missing => Err(CudaProblem::NoDriver),
            DriverFacts::Refused { name, text } => {
                Err(CudaProblem::DriverRefuses { name: name.clone(), text: text.clone() })
            }
            DriverFacts::Works(found) if *found < self.oldest_driver() => {
                Err(CudaProblem::DriverTooOld { found: *found, needed: self.oldest_driver() })
            }
            DriverFacts::Works(_) => Ok(()),
        }
    }

    /// Everything that is missing, whichever GPU is asked for.
    pub fn problems(&self) -> Vec<CudaProblem> {
        let mut problems = Vec::new();
        if let Err(problem) = self.check_driver() {
            problems.push(problem);
            if !self.built {
                return problems;
            }
        } else if self.gpus.is_empty() {
            problems.push(CudaProblem::NoGpu);
        }
        if self.nvrtc.is_none() {
            problems.push(CudaProblem::NoNvrtc);
        }
        match &self.headers {
            HeaderFacts::NoToolkit => problems.push(CudaProblem::NoHeaders),
            HeaderFacts::Missing(file) => problems.push(CudaProblem::HeaderMissing(file.clone())),
            HeaderFacts::Found(_) => {}
        }
        problems
    }

    /// What may go wrong although nothing is missing.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let (DriverFacts::Works(driver), Some(nvrtc)) = (&self.driver, self.nvrtc) {
            if nvrtc > *driver {
                warnings.push(format!(
                    "NVRTC {nvrtc} is newer than the driver, which serves CUDA {driver} and may refuse what it compiles: \
                     update the driver or use an NVRTC of {driver}"
                ));
            }
            let oldest = self.bindings.min(Version::new(12, 9));
            if nvrtc < oldest {
                warnings.push(format!(
                    "NVRTC {nvrtc} is older than {oldest}, for which this binary writes kernels; some may not compile: \
                     use a newer one, or build with CUDARC_CUDA_VERSION={}0{}0",
                    nvrtc.major, nvrtc.minor
                ));
            }
        }
        for (index, gpu) in self.gpus.iter().enumerate() {
            if gpu.capability < Version::new(8, 0) {
                warnings.push(format!(
                    "cuda:{index} has compute capability {}: tf32 and bf16 products on tensor cores begin at 8.0",
                    gpu.capability
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
