//! Padded batches of scored completions: the tensors that the loss reads.

use burn::tensor::{Device, Int, Tensor, TensorData};
use loss::CompletionBatch;

use super::score::GroupEpisode;
use crate::rollout::Rollout;

/// A scored completion with its rollout.
pub(super) type Member<'a> = (&'a Rollout, &'a GroupEpisode);

/// Sizes of padded completions.
pub(super) struct Padding {
    /// Tokens of each completion.
    lengths: Vec<usize>,
    /// Tokens of the longest one.
    width: usize,
    device: Device,
}

impl Padding {
    /// The padding of completions; constants are on `device` without autodiff.
    pub(super) fn of(members: &[Member<'_>], device: &Device) -> Self {
        let lengths: Vec<usize> =
            members.iter().map(|(rollout, _)| rollout.span().response).collect();
        let width = lengths.iter().copied().max().unwrap_or(0);
        Self { lengths, width, device: device.clone().inner() }
    }

    /// Values `[n]` in the order of completions as `[b, t]`. Padding repeats the first value, which the mask removes.
    pub(super) fn spread(&self, flat_n: Tensor<1>) -> Tensor<2> {
        let (mut places, mut start) = (Vec::new(), 0);
        for length in &self.lengths {
            places
                .extend((0..self.width).map(|at| if at < *length { start + at as i32 } else { 0 }));
            start += *length as i32;
        }
        let n = places.len();
        let places_n = Tensor::<1, Int>::from_data(TensorData::new(places, [n]), &self.device);
        flat_n.select(0, places_n).reshape([self.lengths.len(), self.width])
    }

    /// Values of each completion, `[b, t]`, 0 in the padding.
    fn rows<'v>(&self, rows: impl Iterator<Item = &'v [f32]>) -> Tensor<2> {
        let mut values = Vec::with_capacity(self.lengths.len() * self.width);
        for row in rows {
            let end = values.len() + self.width;
            values.extend_from_slice(row);
            values.resize(end, 0.0);
        }
        let shape = [self.lengths.len(), self.width];
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }
}

/// The constants of a batch beside the policy's current log-probabilities and entropies.
pub(super) fn completion_batch(
    members: &[Member<'_>],
    padding: &Padding,
    logprobs_n: Tensor<1>,
    entropies_n: Tensor<1>,
    focus: Option<&[Vec<bool>]>,
) -> CompletionBatch {
    let logprobs_bt = padding.spread(logprobs_n);
    let has = |of: fn(&GroupEpisode) -> &Vec<f32>| {
        members.iter().all(|(rollout, episode)| of(episode).len() == rollout.span().response)
    };
    let rows = |of: fn(&GroupEpisode) -> &Vec<f32>| {
        padding.rows(members.iter().map(|(_, episode)| of(episode).as_slice()))
    };
    let flags = |rows: Vec<Vec<f32>>| padding.rows(rows.iter().map(Vec::as_slice));
    let old_logprobs_bt = if has(|episode| &episode.logprobs) {
        rows(|episode| &episode.logprobs)
    } else {
        // The only optimizer step since sampling: its ratios are 1.
        let constant_bt = logprobs_bt.clone();
        if constant_bt.is_autodiff() { constant_bt.inner() } else { constant_bt }
    };
    let mask = members.iter().map(|(rollout, episode)| {
        vec![f32::from(u8::from(episode.is_trained)); rollout.span().response]
    });
    let advantages: Vec<f32> = members.iter().map(|(_, episode)| episode.advantage).collect();
    let shape = [advantages.len(), 1];
    let focus = focus.map(|focus| {
        let row = |row: &Vec<bool>| row.iter().map(|is| f32::from(u8::from(*is))).collect();
        flags(focus.iter().map(row).collect())
    });
    CompletionBatch {
        old_logprobs_bt,
        ref_logprobs_bt: has(|episode| &episode.ref_logprobs)
            .then(|| rows(|episode| &episode.ref_logprobs)),
        entropies_bt: padding.spread(entropies_n),
        advantages_b1: Tensor::from_data(TensorData::new(advantages, shape), &padding.device),
        mask_bt: flags(mask.collect()),
        focus_bt: focus,
        logprobs_bt,
    }
}
