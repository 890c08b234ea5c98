//! Replicas on threads of one process, on any devices.
//!
//! The last replica to arrive computes sums in the order of ranks, on the device of the first replica. Replicas on the same
//! device share the resulting buffers without a copy.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::rendezvous::Rendezvous;
use crate::{Collective, Error, Result};

type Tensors = Vec<Tensor<1>>;

/// One of several replicas in this process. Dropping it announces its exit to the others.
#[derive(Debug)]
pub struct InProcess {
    rank: usize,
    world_size: usize,
    shared: Arc<Exchanges>,
}

#[derive(Debug)]
struct Exchanges {
    numbers: Rendezvous<Vec<f64>, Vec<Vec<f64>>>,
    tensors: Rendezvous<Tensors, Tensors>,
}

impl InProcess {
    /// `world_size` connected replicas, by rank.
    pub fn replicas(world_size: usize) -> Vec<Self> {
        let shared = Arc::new(Exchanges {
            numbers: Rendezvous::of(world_size),
            tensors: Rendezvous::of(world_size),
        });
        (0..world_size).map(|rank| Self { rank, world_size, shared: Arc::clone(&shared) }).collect()
    }

    fn lost(&self) -> Error {
        Error::ReplicaLost { rank: self.rank }
    }
}

impl Collective for InProcess {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_gather(&self, mine: Vec<f64>) -> Result<Vec<Vec<f64>>> {
        self.shared.numbers.exchange(self.rank, mine, |all| all).map_err(|_| self.lost())
    }

    fn all_reduce(&self, mine: Tensors) -> Result<Tensors> {
        let devices: Vec<Device> = mine.iter().map(Tensor::device).collect();
        let sums =
            self.shared.tensors.exchange(self.rank, mine, in_order).map_err(|_| self.lost())?;
        Ok(sums.into_iter().zip(devices).map(|(sum, device)| sum.to_device(&device)).collect())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.shared.numbers.exit();
        self.shared.tensors.exit();
    }
}

/// Sums in the order of ranks, in place because the buffers have no other owner.
fn in_order(all: Vec<Tensors>) -> Tensors {
    let add_one = |(sum, next): (Tensor<1>, Tensor<1>)| {
        let device = sum.device();
        sum.add(next.to_device(&device))
    };
    let add = |sums: Tensors, next: Tensors| sums.into_iter().zip(next).map(add_one).collect();
    all.into_iter().reduce(add).unwrap_or_default()
}
