//! Replicas on the GPUs of one machine: one thread for each GPU, sums by NCCL through burn's collective operations.
//!
//! burn owns the communicator of each set of GPUs.

use burn::tensor::distributed::{CollectiveTensor, ReduceOperation, all_reduce};
use burn::tensor::{Device, Tensor};

use super::in_process::InProcess;
use crate::{Collective, Result};

/// One of several replicas, each on its own GPU.
#[derive(Debug)]
pub struct Nccl {
    host: InProcess,
    devices: Vec<Device>,
}

impl Nccl {
    /// A replica for each device, by rank. The devices are distinct CUDA devices.
    pub fn replicas(devices: &[Device]) -> Vec<Self> {
        // Gradients are on the device without autodiff.
        let devices: Vec<Device> = devices.iter().map(|device| device.clone().inner()).collect();
        let hosts = InProcess::replicas(devices.len());
        hosts.into_iter().map(|host| Self { host, devices: devices.clone() }).collect()
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.host.rank()
    }

    fn world_size(&self) -> usize {
        self.host.world_size()
    }

    fn all_gather(&self, mine: Vec<f64>) -> Result<Vec<Vec<f64>>> {
        self.host.all_gather(mine)
    }

    fn all_reduce(&self, mine: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>> {
        // A GPU that waits for a lost peer inside NCCL cannot be told. The host barrier fails first.
        self.host.barrier()?;
        let sum = |tensor| all_reduce(tensor, ReduceOperation::Sum, self.devices.clone());
        let begun: Vec<CollectiveTensor<1>> = mine.into_iter().map(sum).collect();
        Ok(begun.into_iter().map(CollectiveTensor::resolve).collect())
    }
}
