//! What replicas of a model do together: bring numbers to one place, add up gradients.
//!
//! The seam between a stage's loop and however many devices there are. It deliberately launches nothing: that is
//! `replicas`' duty, and across machines a launcher's.

mod in_process;
mod meeting;
mod nccl;
mod single_replica;

use burn::tensor::Tensor;
use data::Share;

use crate::Result;

pub use in_process::InProcess;
pub use nccl::Nccl;
pub use single_replica::SingleReplica;

/// One replica's hold on all of them.
///
/// Every replica calls the same methods in the same order. Sums are taken in the order of ranks, so that the same number
/// of replicas gives the same bits. If one of them ends early, the others get an error and none waits for ever.
pub trait Collective: Send + Sync {
    /// Which replica this is, from 0. Number 0 leads: it alone writes, measures and hears signals.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world_size(&self) -> usize;

    /// What each replica brought, by rank.
    fn all_gather(&self, mine: Vec<f64>) -> Result<Vec<Vec<f64>>>;

    /// The sum of each tensor over all replicas, which bring as many of the same lengths.
    fn all_reduce(&self, mine: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>>;

    /// Whether this is the replica that leads.
    fn is_leader(&self) -> bool {
        self.rank() == 0
    }

    /// The share of a step's rows that falls to this replica.
    fn share(&self) -> Share {
        Share { rank: self.rank(), world_size: self.world_size() }
    }

    /// The sum of a number over all replicas.
    fn sum(&self, mine: f64) -> Result<f64> {
        let mut sums = [mine];
        self.sums(&mut sums)?;
        Ok(sums[0])
    }

    /// Puts the sum over all replicas in the place of each number.
    fn sums(&self, mine: &mut [f64]) -> Result<()> {
        if self.world_size() == 1 {
            return Ok(());
        }
        for (rank, brought) in self.all_gather(mine.to_vec())?.into_iter().enumerate() {
            for (sum, value) in mine.iter_mut().zip(brought) {
                *sum = if rank == 0 { value } else { *sum + value };
            }
        }
        Ok(())
    }

    /// The leader's numbers, whatever the others bring.
    fn broadcast(&self, mine: Vec<f64>) -> Result<Vec<f64>> {
        if self.world_size() == 1 {
            return Ok(mine);
        }
        Ok(self.all_gather(mine)?.into_iter().next().unwrap_or_default())
    }

    /// Waits until all replicas have come here.
    fn barrier(&self) -> Result<()> {
        if self.world_size() > 1 {
            self.all_gather(Vec::new())?;
        }
        Ok(())
    }
}
