//! Facts about the adapters that wgpu finds on a machine, and the problems, hints and warnings that follow from them.
//!
//! Facts are plain values, so that every judgement can be tested without the hardware.

use std::fmt;

/// Bytes of shared memory that the tiles of attention need; heads of 256 values take the most.
const SHARED_MEMORY: u64 = 32 << 10;
/// Units of the largest cube.
const UNITS: u64 = 256;
/// Buffers of the kernel with the most: attention's gradient of the queries has 12 tensors, and the list of its sizes.
const BUFFERS: u64 = 14;

/// What an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU of a virtual machine.
    Virtual,
    /// A GPU of another kind.
    Other,
    /// A driver that computes on the processor, such as lavapipe.
    Software,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Discrete => "discrete GPU",
            Self::Integrated => "integrated GPU",
            Self::Virtual => "virtual GPU",
            Self::Other => "GPU",
            Self::Software => "software",
        })
    }
}

/// An adapter that wgpu lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFacts {
    /// Such as "AMD Radeon RX 7900 XTX (RADV NAVI31)".
    pub name: String,
    /// What it is.
    pub kind: AdapterKind,
    /// Its place among the adapters of its kind.
    pub place: usize,
    /// Name and version of its driver, such as "radv Mesa 24.2.8".
    pub driver: String,
    /// Bytes of shared memory of a cube.
    pub shared_memory: u64,
    /// Units of a cube.
    pub units: u64,
    /// Buffers of a kernel.
    pub buffers: u64,
    /// Bytes of the largest tensor.
    pub largest_tensor: u64,
    /// The smallest and the largest subgroup, if kernels can use them.
    pub subgroups: Option<[u32; 2]>,
}

/// A machine's adapters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WgpuFacts {
    /// Whether the binary was built with wgpu; if not, the adapters were not asked for.
    pub built: bool,
    /// The graphics API of the adapters, such as "Vulkan".
    pub api: String,
    /// The adapters by index: GPUs before software, as [`AdapterKind`] is ordered.
    pub adapters: Vec<AdapterFacts>,
}

/// Why an adapter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WgpuProblem {
    /// The binary was built without wgpu.
    #[error("this binary was built without wgpu")]
    NotBuilt,
    /// No adapter.
    #[error("no driver for Vulkan, Metal or DirectX 12 lists a GPU")]
    NoAdapter,
    /// No adapter with that index.
    #[error("there is no adapter {index}: the drivers list {count}")]
    NoSuchAdapter {
        /// The requested index.
        index: usize,
        /// The number of adapters.
        count: usize,
    },
    /// An adapter with a limit below what kernels need.
    #[error("`{adapter}` has {found} {what}, and the kernels need {needed}")]
    Limit {
        /// The adapter's name.
        adapter: String,
        /// What is limited.
        what: &'static str,
        /// The limit.
        found: u64,
        /// What is needed.
        needed: u64,
    },
}

impl WgpuProblem {
    /// A suggestion for the user.
    pub fn hint(&self) -> String {
        match self {
            Self::NotBuilt => "build with `cargo build --release --locked --features wgpu -p cli` (docs/wgpu.md), or set \
                               device = \"cpu\""
                .to_owned(),
            Self::NoAdapter => "install the GPU's Vulkan driver and the loader until `vulkaninfo --summary` lists it: packages \
                                mesa-vulkan-drivers and libvulkan1 on Debian and Ubuntu; the user may need the group `render`"
                .to_owned(),
            Self::NoSuchAdapter { .. } => {
                "`temper devices` lists the adapters; indices start at 0".to_owned()
            }
            Self::Limit { .. } => {
                "a newer driver may raise it; else set device = \"cpu\"".to_owned()
            }
        }
    }
}

impl WgpuFacts {
    /// The facts of a binary without wgpu.
    pub fn not_built() -> Self {
        Self { built: false, api: String::new(), adapters: Vec::new() }
    }

    /// The first problem that prevents the use of adapter `index`.
    pub fn check(&self, index: usize) -> Result<&AdapterFacts, WgpuProblem> {
        match self.problem() {
            Some(problem) => Err(problem),
            None => self
                .adapters
                .get(index)
                .ok_or(WgpuProblem::NoSuchAdapter { index, count: self.adapters.len() })?
                .check(),
        }
    }

    /// A problem that concerns all adapters.
    pub fn problem(&self) -> Option<WgpuProblem> {
        if !self.built {
            return Some(WgpuProblem::NotBuilt);
        }
        self.adapters.is_empty().then_some(WgpuProblem::NoAdapter)
    }
}

impl AdapterFacts {
    fn check(&self) -> Result<&Self, WgpuProblem> {
        let limits = [
            ("bytes of shared memory", self.shared_memory, SHARED_MEMORY),
            ("units in a cube", self.units, UNITS),
            ("buffers in a kernel", self.buffers, BUFFERS),
        ];
        match limits.into_iter().find(|(_, found, needed)| found < needed) {
            Some((what, found, needed)) => {
                Err(WgpuProblem::Limit { adapter: self.name.clone(), what, found, needed })
            }
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AdapterFacts, AdapterKind, WgpuFacts, WgpuProblem};

    fn one(change: impl FnOnce(&mut AdapterFacts)) -> WgpuFacts {
        let mut adapter = AdapterFacts {
            name: "a GPU".to_owned(),
            kind: AdapterKind::Discrete,
            place: 0,
            driver: "a driver".to_owned(),
            shared_memory: 32 << 10,
            units: 1024,
            buffers: 14,
            largest_tensor: 1 << 30,
            subgroups: None,
        };
        change(&mut adapter);
        WgpuFacts { built: true, api: "Vulkan".to_owned(), adapters: vec![adapter] }
    }

    #[test]
    fn an_adapter_is_usable_or_has_one_problem() {
        assert!(one(|_| ()).check(0).is_ok());
        assert_eq!(WgpuFacts::not_built().check(0), Err(WgpuProblem::NotBuilt));
        let missing = WgpuProblem::NoSuchAdapter { index: 1, count: 1 };
        assert_eq!(one(|_| ()).check(1), Err(missing));
        let none = WgpuFacts { adapters: Vec::new(), ..one(|_| ()) };
        assert_eq!(none.check(0), Err(WgpuProblem::NoAdapter));
    }

    #[test]
    fn limits_are_named() {
        let message = |facts: WgpuFacts| facts.check(0).expect_err("a limit").to_string();
        assert_eq!(
            message(one(|x| x.shared_memory = 16384)),
            "`a GPU` has 16384 bytes of shared memory, and the kernels need 32768"
        );
        assert_eq!(
            message(one(|x| x.buffers = 8)),
            "`a GPU` has 8 buffers in a kernel, and the kernels need 14"
        );
        assert!(message(one(|x| x.units = 128)).contains("128 units in a cube"));
    }
}
