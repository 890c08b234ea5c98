//! The most probable tokens of a teacher at each position, as tensors and on the host.
//!
//! Shape legend: n positions, v vocabulary, k tokens.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The most probable tokens of a teacher at each position.
#[derive(Clone, Debug)]
pub struct TopTokens {
    /// Their ids, `[n, k]`; those of a position differ.
    pub ids_nk: Tensor<2, Int>,
    /// Their log-probabilities at the divergence's temperature among all tokens, and last that of all other tokens together,
    /// `[n, k + 1]`.
    pub logprobs_nj: Tensor<2>,
}

/// The same on the host, position by position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostTopTokens {
    /// Ids, `n * k`.
    pub ids: Vec<u32>,
    /// Log-probabilities, `n * (k + 1)`: after those of the tokens, that of all other tokens together. It is computed from theirs:
    /// 1 minus the sum of the tokens' has few digits left where they have nearly everything.
    pub logprobs: Vec<f32>,
}

impl HostTopTokens {
    /// Selects the `k` most probable tokens of each position from the log-probabilities of all, `[n, v]`. The more probable
    /// ones come first; of equally probable ones, those with lower ids.
    ///
    /// # Panics
    /// If `k` is 0 or above `v`.
    pub fn select(logprobs_nv: &Tensor<2>, k: usize) -> Self {
        let [_, v] = logprobs_nv.dims();
        assert!((1..=v).contains(&k), "{k} of {v} tokens");
        let mut top = Self::default();
        let mut order: Vec<u32> = Vec::with_capacity(v);
        kernels::with_host_values(logprobs_nv, |values| {
            for row in values.chunks_exact(v) {
                let by_probability =
                    |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
                order.clear();
                order.extend(0..v as u32);
                if k < v {
                    order.select_nth_unstable_by(k - 1, by_probability);
                }
                let chosen = &mut order[..k];
                chosen.sort_unstable_by(by_probability);
                top.ids.extend_from_slice(chosen);
                top.logprobs.extend(chosen.iter().map(|id| row[*id as usize]));
                let others = order[k..].iter().map(|id| f64::from(row[*id as usize]).exp());
                top.logprobs.push(others.sum::<f64>().max(f64::MIN_POSITIVE).ln() as f32);
            }
        });
        top
    }

    /// Tensors of `k` tokens for each position.
    ///
    /// # Panics
    /// If the numbers of ids and log-probabilities differ, or are no multiple of `k`.
    pub fn to_device(&self, k: usize, device: &Device) -> TopTokens {
        let n = self.ids.len() / k;
        let ids: Vec<i64> = self.ids.iter().map(|id| i64::from(*id)).collect();
        TopTokens {
            ids_nk: Tensor::from_data(TensorData::new(ids, [n, k]), device),
            logprobs_nj: Tensor::from_data(
                TensorData::new(self.logprobs.clone(), [n, k + 1]),
                device,
            ),
        }
    }
}
