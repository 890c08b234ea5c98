//! Replicas on threads of one process, on any devices: mostly all on the processor.
//!
//! It deliberately uses no network and no library. Sums are taken by whoever comes last, in the order of ranks, on the first
//! replica's device. Where that is everybody's device, all get the same buffers and nothing is copied.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::meeting::Meeting;
use crate::{Collective, Error, Result};

type Tensors = Vec<Tensor<1>>;

/// One of several replicas in this process. Dropping it tells the others that it has ended.
#[derive(Debug)]
pub struct InProcess {
    rank: usize,
    world_size: usize,
    shared: Arc<Meetings>,
}

#[derive(Debug)]
struct Meetings {
    numbers: Meeting<Vec<f64>, Vec<Vec<f64>>>,
    tensors: Meeting<Tensors, Tensors>,
}

impl InProcess {
    /// As many replicas as wanted, by rank.
    pub fn replicas(world_size: usize) -> Vec<Self> {
        let shared = Arc::new(Meetings {
            numbers: Meeting::of(world_size),
            tensors: Meeting::of(world_size),
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
        self.shared.numbers.meet(self.rank, mine, |all| all).map_err(|_| self.lost())
    }

    fn all_reduce(&self, mine: Tensors) -> Result<Tensors> {
        let devices: Vec<Device> = mine.iter().map(Tensor::device).collect();
        let sums = self.shared.tensors.meet(self.rank, mine, in_order).map_err(|_| self.lost())?;
        Ok(sums.into_iter().zip(devices).map(|(sum, device)| sum.to_device(&device)).collect())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.shared.numbers.leave();
        self.shared.tensors.leave();
    }
}

/// Sums, the first rank's first. In place, as nobody else holds the buffers.
fn in_order(all: Vec<Tensors>) -> Tensors {
    let add_one = |(sum, next): (Tensor<1>, Tensor<1>)| {
        let device = sum.device();
        sum.add(next.to_device(&device))
    };
    let add = |sums: Tensors, next: Tensors| sums.into_iter().zip(next).map(add_one).collect();
    all.into_iter().reduce(add).unwrap_or_default()
}
