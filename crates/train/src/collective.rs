//! Collective operations between the replicas of a model: gathering numbers, summing gradients.
//!
//! [`Collective`] is the interface between the loop of a stage and any number of devices. `replicas` launches the replicas of
//! one machine.

mod in_process;
mod nccl;
mod rendezvous;
mod single_replica;

use burn::tensor::Tensor;
use data::Share;

use crate::Result;

pub use in_process::InProcess;
pub use nccl::Nccl;
pub use single_replica::SingleReplica;

/// One replica's connection to all replicas.
///
/// Every replica calls the same methods in the same order. Sums are computed in the order of ranks, so that the same number
/// of replicas gives the same bits. If a replica exits early, the others get an error instead of a deadlock.
pub trait Collective: Send + Sync {
    /// The rank of this replica, from 0. Rank 0 is the leader: it alone writes, evaluates and reacts to signals.
    fn rank(&self) -> usize;

    /// Number of replicas.
    fn world_size(&self) -> usize;

    /// The numbers of every replica, by rank.
    fn all_gather(&self, mine: Vec<f64>) -> Result<Vec<Vec<f64>>>;

    /// The sum of each tensor over all replicas, which pass the same number of tensors with the same lengths.
    fn all_reduce(&self, mine: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>>;

    /// Whether this replica is the leader.
    fn is_leader(&self) -> bool {
        self.rank() == 0
    }

    /// This replica's share of the rows of a step.
    fn share(&self) -> Share {
        Share { rank: self.rank(), world_size: self.world_size() }
    }

    /// The sum of a number over all replicas.
    fn sum(&self, mine: f64) -> Result<f64> {
        let mut sums = [mine];
        self.sums(&mut sums)?;
        Ok(sums[0])
    }

    /// Replaces each number by its sum over all replicas.
    fn sums(&self, mine: &mut [f64]) -> Result<()> {
        if self.world_size() == 1 {
            return Ok(());
        }
        for (rank, numbers) in self.all_gather(mine.to_vec())?.into_iter().enumerate() {
            for (sum, value) in mine.iter_mut().zip(numbers) {
                *sum = if rank == 0 { value } else { *sum + value };
            }
        }
        Ok(())
    }

    /// The leader's numbers; those of the other replicas are ignored.
    fn broadcast(&self, mine: Vec<f64>) -> Result<Vec<f64>> {
        if self.world_size() == 1 {
            return Ok(mine);
        }
        Ok(self.all_gather(mine)?.into_iter().next().unwrap_or_default())
    }

    /// Waits for all replicas.
    fn barrier(&self) -> Result<()> {
        if self.world_size() > 1 {
            self.all_gather(Vec::new())?;
        }
        Ok(())
    }
}
