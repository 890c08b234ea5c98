//! Selects the kernels of a call: once per public function, from devices, number formats and the user's setting.
//!
//! On the CPU the kernels of `kernels-cpu` run. On every other device the generic kernels run, which call those of
//! `kernels-gpu` where they can read the operands. The environment variable `TEMPER_KERNELS=generic` selects burn's
//! tensor operations instead, on every device, and [`with_generic_kernels`] does so for a part of a thread's work, as the
//! reference in tests.

use std::cell::Cell;
use std::sync::OnceLock;

use burn::tensor::{DType, Device, Tensor};

use crate::device::is_cpu;
use crate::error::{Error, Result};
use crate::weight::WeightTensor;

/// The user's setting: `cpu` (the default: our own kernels, a GPU's on a GPU) or `generic`.
const VARIABLE: &str = "TEMPER_KERNELS";

/// A set of implementations of this crate's operations.
///
/// Every operation matches on it, so that a new set must be handled in each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelSet {
    /// The crate `kernels-cpu`.
    Cpu,
    /// Tensor operations of burn, on any device.
    Generic,
}

impl KernelSet {
    fn named(name: &str) -> Option<Self> {
        match name {
            "" | "cpu" => Some(Self::Cpu),
            "generic" => Some(Self::Generic),
            _ => None,
        }
    }
}

/// Checks the value of the environment variable `TEMPER_KERNELS`; call it once at the start.
pub fn check_kernel_setting() -> Result<()> {
    match setting() {
        Ok(_) => Ok(()),
        Err(value) => Err(Error::UnknownKernels(value.clone())),
    }
}

/// The value of the environment variable `TEMPER_KERNELS`, `cpu` where it is not set.
pub fn kernel_setting() -> &'static str {
    match value() {
        "" => "cpu",
        value => value,
    }
}

/// The environment's setting; the value if it is none.
fn setting() -> &'static std::result::Result<KernelSet, String> {
    static SETTING: OnceLock<std::result::Result<KernelSet, String>> = OnceLock::new();
    SETTING.get_or_init(|| KernelSet::named(value()).ok_or_else(|| value().to_owned()))
}

/// The text of the variable, read once.
fn value() -> &'static str {
    static VALUE: OnceLock<String> = OnceLock::new();
    VALUE.get_or_init(|| {
        std::env::var_os(VARIABLE).unwrap_or_default().to_string_lossy().into_owned()
    })
}

thread_local! {
    static GENERIC_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `run` with the generic kernels for this thread's operations, as the reference in tests.
pub fn with_generic_kernels<R>(run: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            GENERIC_HERE.set(self.0);
        }
    }
    // Also after a panic that a caller catches.
    let _reset = Reset(GENERIC_HERE.replace(true));
    run()
}

/// The kernels that operations on `device` run.
pub fn kernel_set(device: &Device) -> KernelSet {
    if is_cpu(device) { cpu_kernel_set() } else { KernelSet::Generic }
}

/// Whether operations on a GPU run our own kernels where those can read the operands.
#[cfg(feature = "gpu")]
pub(crate) fn gpu_is_selected() -> bool {
    cpu_kernel_set() == KernelSet::Cpu
}

fn cpu_kernel_set() -> KernelSet {
    if GENERIC_HERE.get() {
        return KernelSet::Generic;
    }
    *setting().as_ref().unwrap_or(&KernelSet::Cpu)
}

/// The kernels of one call, from the tensors that it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Select {
    cpu: bool,
}

#[cfg(test)]
thread_local! {
    /// Number of selections of this thread.
    pub(crate) static N_SELECTIONS: Cell<usize> = const { Cell::new(0) };
}

impl Select {
    pub(crate) fn new() -> Self {
        #[cfg(test)]
        N_SELECTIONS.set(N_SELECTIONS.get() + 1);
        Self { cpu: cpu_kernel_set() == KernelSet::Cpu }
    }

    /// Adds a tensor: the CPU kernels read f32 on the CPU's devices.
    pub(crate) fn float<const D: usize>(self, x: &Tensor<D>) -> Self {
        self.of_dtype(x, DType::F32)
    }

    /// Adds a tensor if there is one.
    pub(crate) fn optional<const D: usize>(self, x: Option<&Tensor<D>>) -> Self {
        match x {
            Some(x) => self.float(x),
            None => self,
        }
    }

    /// Adds a weight: f32, or bf16 if it is frozen.
    pub(crate) fn weight(self, weight: &Tensor<2>) -> Self {
        let stored_bf16 = weight.dtype() == DType::BF16 && !weight.is_require_grad();
        self.of_dtype(weight, if stored_bf16 { DType::BF16 } else { DType::F32 })
    }

    /// Adds a weight as it is stored.
    pub(crate) fn stored(self, weight: &WeightTensor) -> Self {
        match weight {
            WeightTensor::Dense(weight) => self.weight(weight),
            WeightTensor::Blocks(_) => self,
        }
    }

    /// Adds a tensor whose gradient the CPU kernels do not compute.
    pub(crate) fn constant<const D: usize>(self, x: &Tensor<D>) -> Self {
        Self { cpu: self.cpu && !x.is_autodiff() }.float(x)
    }

    /// Adds a condition of the CPU kernels that no tensor shows.
    pub(crate) fn supports(self, supported: bool) -> Self {
        Self { cpu: self.cpu && supported }
    }

    fn of_dtype<const D: usize>(self, x: &Tensor<D>, dtype: DType) -> Self {
        Self { cpu: self.cpu && is_cpu(&x.device()) && x.dtype() == dtype }
    }

    /// The kernels.
    pub(crate) fn kernel_set(self) -> KernelSet {
        if self.cpu { KernelSet::Cpu } else { KernelSet::Generic }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Tensor};

    use super::{KernelSet, Select, kernel_set, with_generic_kernels};

    #[test]
    fn settings_have_names() {
        assert_eq!(KernelSet::named("cpu"), Some(KernelSet::Cpu));
        assert_eq!(KernelSet::named(""), Some(KernelSet::Cpu));
        assert_eq!(KernelSet::named("generic"), Some(KernelSet::Generic));
        assert_eq!(KernelSet::named("plain"), None);
    }

    #[test]
    fn one_tensor_that_the_cpu_kernels_cannot_read_selects_the_generic_ones() {
        let device = Device::flex();
        let x = Tensor::<2>::ones([2, 3], &device);
        let half = x.clone().cast(DType::BF16);
        let trained_half = half.clone().autodiff().require_grad();
        let select = || Select::new().float(&x);
        let cases = [
            (select(), KernelSet::Cpu),
            (select().float(&half), KernelSet::Generic),
            (select().weight(&half), KernelSet::Cpu),
            (select().weight(&trained_half), KernelSet::Generic),
            (select().constant(&x), KernelSet::Cpu),
            (select().constant(&x.clone().autodiff()), KernelSet::Generic),
            (select().optional(Some(&half)), KernelSet::Generic),
            (select().optional::<2>(None), KernelSet::Cpu),
        ];
        for (idx, (select, expected)) in cases.into_iter().enumerate() {
            assert_eq!(select.kernel_set(), expected, "case {idx}");
        }
        assert_eq!(kernel_set(&device.autodiff()), KernelSet::Cpu);
    }

    #[test]
    fn the_scope_of_the_generic_kernels_ends_with_a_panic_too() {
        let set = || kernel_set(&Device::flex());
        assert_eq!(with_generic_kernels(set), KernelSet::Generic);
        let caught = std::panic::catch_unwind(|| with_generic_kernels(|| panic!("on purpose")));
        assert!(caught.is_err());
        assert_eq!(set(), KernelSet::Cpu);
    }
}
