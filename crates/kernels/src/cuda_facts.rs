//! Facts about CUDA on a machine, and the problems, hints and warnings that follow from them.
//!
//! Facts are plain values, so that every judgement can be tested without the hardware.

pub(crate) mod toolkit;

use std::fmt;
use std::path::PathBuf;

/// A CUDA version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Number before the dot.
    pub major: u32,
    /// Number after the dot.
    pub minor: u32,
}

impl Version {
    /// `major.minor`
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// From the number that driver and toolkit use: 12080 is 12.8.
    pub const fn from_number(number: u32) -> Self {
        Self { major: number / 1000, minor: number % 1000 / 10 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// State of the NVIDIA driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverFacts {
    /// No library of the driver could be opened.
    Missing,
    /// It could be opened but does not start.
    Refused {
        /// The error's name, such as `CUDA_ERROR_NO_DEVICE`.
        name: String,
        /// The error's text, such as "no CUDA-capable device is detected".
        text: String,
    },
    /// It works and supports CUDA up to this version.
    Works(Version),
}

/// A GPU that the driver lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuFacts {
    /// Such as "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// Total memory in bytes.
    pub memory: u64,
    /// Compute capability.
    pub capability: Version,
}

/// Location of the toolkit's headers, which kernels include.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderFacts {
    /// No directory of a toolkit is known.
    NoToolkit,
    /// A directory that lacks some of them.
    Missing {
        /// The directory.
        include: PathBuf,
        /// Paths of the missing headers in it.
        files: Vec<String>,
    },
    /// The directory.
    Found(PathBuf),
}

/// A machine's CUDA facts, and this binary's requirements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaFacts {
    /// Whether the binary was built with CUDA; if not, the other facts were not read.
    pub built: bool,
    /// The CUDA version whose functions the binary calls.
    pub bindings: Version,
    /// The driver.
    pub driver: DriverFacts,
    /// The GPUs, by index.
    pub gpus: Vec<GpuFacts>,
    /// The version of NVRTC, which compiles kernels, if its library could be opened.
    pub nvrtc: Option<Version>,
    /// The toolkit's headers.
    pub headers: HeaderFacts,
}

/// Why a GPU cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaProblem {
    /// The binary was built without CUDA.
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
    #[error("the NVIDIA driver is too old: it supports CUDA {found}, but {needed} is required")]
    DriverTooOld {
        /// The driver's version.
        found: Version,
        /// The required version.
        needed: Version,
    },
    /// The driver lists no GPU.
    #[error("the NVIDIA driver lists no GPU")]
    NoGpu,
    /// No GPU with that index.
    #[error("there is no GPU {index}: the driver lists {count}")]
    NoSuchGpu {
        /// The requested index.
        index: usize,
        /// The number of GPUs.
        count: usize,
    },
    /// No NVRTC.
    #[error("NVRTC, which compiles the kernels, was not found: libnvrtc.so could not be opened")]
    NoNvrtc,
    /// No toolkit.
    #[error("the headers of the CUDA toolkit, which the kernels include, were not found")]
    NoHeaders,
    /// A toolkit without some headers.
    #[error("the headers of the CUDA toolkit are incomplete: `{}` lacks {}", .include.display(), .files.join(", "))]
    HeadersMissing {
        /// The directory of headers.
        include: PathBuf,
        /// The missing ones.
        files: Vec<String>,
    },
}

impl CudaProblem {
    /// A suggestion for the user.
    pub fn hint(&self) -> String {
        match self {
            Self::NotBuilt => "build with `cargo build --release --locked --features cuda -p cli` \
                               (docs/cuda.md), or set device = \"cpu\""
                .to_owned(),
            Self::NoDriver => "install the NVIDIA driver until `nvidia-smi` works; a container must be started with \
                               its GPUs; LD_LIBRARY_PATH must have the directory of a driver in an unusual place"
                .to_owned(),
            Self::DriverRefuses { name, .. } if name == "CUDA_ERROR_NO_DEVICE" => {
                "`nvidia-smi` must list a GPU, and CUDA_VISIBLE_DEVICES must not hide it".to_owned()
            }
            Self::DriverRefuses { name, .. } if name == "CUDA_ERROR_STUB_LIBRARY" => {
                "LD_LIBRARY_PATH has the toolkit's stub of libcuda.so: put the driver's directory before it".to_owned()
            }
            Self::DriverRefuses { .. } => {
                "`nvidia-smi` has details; after an update of the driver the machine must be restarted".to_owned()
            }
            Self::DriverTooOld { needed, found } => format!(
                "update the driver (570 or newer supports CUDA 12.8), or build for the installed toolkit: \
                 CUDARC_CUDA_VERSION={}0{}0 cargo build …{}",
                found.major,
                found.minor,
                if *needed > *found { "" } else { " (a newer one)" }
            ),
            Self::NoGpu => "CUDA_VISIBLE_DEVICES may hide it; `nvidia-smi` lists the GPUs".to_owned(),
            Self::NoSuchGpu { .. } => "`temper devices` lists the GPUs; indices start at 0".to_owned(),
            Self::NoNvrtc => format!(
                "`pip install {}` in an activated virtual environment, or in `.venv` of the working directory; or install the \
                 CUDA toolkit and add the directory of libnvrtc.so to LD_LIBRARY_PATH",
                toolkit::NVRTC_PACKAGE
            ),
            Self::NoHeaders => format!(
                "`pip install {}` in an activated virtual environment, or in `.venv` of the working directory; or install the \
                 CUDA toolkit and set CUDA_PATH to the directory whose `include` has cuda_fp16.h",
                toolkit::packages(&[])
            ),
            Self::HeadersMissing { files, .. } => format!(
                "`pip install {}` brings them; with another toolkit, set CUDA_PATH to the directory whose `include` has them",
                toolkit::packages(files)
            ),
        }
    }
}

impl CudaFacts {
    /// The facts of a binary without CUDA.
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

    /// The oldest driver that has every function that the binary calls: bindings from 13.0 on use a function of 12.8 for
    /// timing; older bindings need their own major version.
    pub fn oldest_driver(&self) -> Version {
        if self.bindings.major >= 13 {
            Version::new(12, 8)
        } else {
            Version::new(self.bindings.major, 0)
        }
    }

    /// The first problem that prevents the use of GPU `index`, in the order in which to solve them.
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
        self.check_headers()
    }

    fn check_headers(&self) -> Result<(), CudaProblem> {
        match &self.headers {
            HeaderFacts::NoToolkit => Err(CudaProblem::NoHeaders),
            HeaderFacts::Missing { include, files } => {
                Err(CudaProblem::HeadersMissing { include: include.clone(), files: files.clone() })
            }
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

    /// Every problem that concerns all GPUs.
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
        problems.extend(self.check_headers().err());
        problems
    }

    /// Possible problems although nothing is missing.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let (DriverFacts::Works(driver), Some(nvrtc)) = (&self.driver, self.nvrtc) {
            if nvrtc > *driver {
                warnings.push(format!(
                    "NVRTC {nvrtc} is newer than the driver, which supports CUDA {driver} and may refuse its kernels: \
                     update the driver or use an NVRTC of {driver}"
                ));
            }
            let oldest = self.bindings.min(Version::new(12, 9));
            if nvrtc < oldest {
                warnings.push(format!(
                    "NVRTC {nvrtc} is older than {oldest}, for which this binary generates kernels; some may not compile: \
                     use a newer one, or build with CUDARC_CUDA_VERSION={}0{}0",
                    nvrtc.major, nvrtc.minor
                ));
            }
        }
        for (index, gpu) in self.gpus.iter().enumerate() {
            if gpu.capability < Version::new(8, 0) {
                warnings.push(format!(
                    "cuda:{index} has compute capability {}: tensor cores multiply tf32 and bf16 from 8.0 on",
                    gpu.capability
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
