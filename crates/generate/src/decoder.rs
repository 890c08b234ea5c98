//! Forward passes over sequences with a KV cache, for several sequences and any number of tokens per call.
//!
//! Prompts of different lengths are padded on the left. Padding is a segment of its own, which no token attends to, and
//! positions count tokens only, so padding changes no result.

use burn::module::Module;
use burn::tensor::Tensor;
use model::CausalLm;
use nn::{KvCache, PAD_SEGMENT, TokenBatch};

/// The largest number of attention scores in a call (rows × heads × queries × keys): 64 MiB of f32.
const MAX_SCORES: usize = 16 << 20;

/// A model and the KV cache of the sequences read so far.
#[derive(Debug)]
pub struct Decoder<'a> {
    model: &'a CausalLm,
    cache: KvCache,
    next_positions: Vec<u32>,
}

impl<'a> Decoder<'a> {
    /// Reads prompts; returns the hidden state of each prompt's last token, `[rows, 1, d]`.
    ///
    /// `capacity` is the number of positions of the longest prompt and of all tokens that will follow it.
    ///
    /// # Panics
    /// If there is no prompt, one is empty, or one is longer than `capacity` or the model's context.
    pub fn prefill(model: &'a CausalLm, prompts: &[&[u32]], capacity: usize) -> (Self, Tensor<3>) {
        let width = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let scores_per_column = (prompts.len() * model.config().n_heads() * width).max(1);
        Self::prefill_by(model, prompts, capacity, (MAX_SCORES / scores_per_column).max(16))
    }

    /// As [`Self::prefill`], `n_columns` positions at a time.
    fn prefill_by(
        model: &'a CausalLm,
        prompts: &[&[u32]],
        capacity: usize,
        n_columns: usize,
    ) -> (Self, Tensor<3>) {
        let (rows, width) = (prompts.len(), prompts.iter().map(|p| p.len()).max().unwrap_or(0));
        assert!(prompts.iter().all(|prompt| !prompt.is_empty()), "an empty prompt");
        let next_positions = prompts.iter().map(|prompt| prompt.len() as u32).collect();
        let mut decoder = Self { model, cache: model.new_cache(rows, capacity), next_positions };
        let mut start = 0;
        loop {
            let end = (start + n_columns).min(width);
            let hidden = decoder.read(&left_padded(prompts, width, start, end), rows);
            if end == width {
                let [b, t, d] = hidden.dims();
                return (decoder, hidden.slice([0..b, t - 1..t, 0..d]));
            }
            start = end;
        }
    }

    /// Reads further tokens, the same number for each row: `[rows, t]`, row-major. Returns their hidden states,
    /// `[rows, t, d]`.
    ///
    /// # Panics
    /// If the capacity or the model's context is exceeded.
    pub fn feed(&mut self, ids: &[u32]) -> Tensor<3> {
        let rows = self.next_positions.len();
        let t = ids.len() / rows.max(1);
        let positions =
            self.next_positions.iter().flat_map(|&next| next..next + t as u32).collect();
        self.next_positions.iter_mut().for_each(|next| *next += t as u32);
        let columns = Columns { ids: ids.to_vec(), positions, segments: vec![0; ids.len()] };
        self.read(&columns, rows)
    }

    /// Keeps these rows only, in this order; a row may be selected several times.
    pub fn select_rows(&mut self, rows: &[usize]) {
        self.cache = self.cache.select_rows(rows);
        self.next_positions = rows.iter().map(|&row| self.next_positions[row]).collect();
    }

    /// The model.
    pub fn model(&self) -> &CausalLm {
        self.model
    }

    fn read(&mut self, columns: &Columns, rows: usize) -> Tensor<3> {
        let Columns { ids, positions, segments } = columns;
        let device = self.model.backbone.device();
        let t = ids.len() / rows.max(1);
        let tokens = TokenBatch::new(ids, positions, segments, rows, t, &device);
        self.model.backbone.forward_cached(&tokens, &mut self.cache).hidden_btd
    }
}

/// The model without autodiff, on the same weights: with autodiff, the graph would grow with each token.
pub fn without_autodiff(model: &CausalLm) -> std::borrow::Cow<'_, CausalLm> {
    if model.backbone.is_autodiff() {
        std::borrow::Cow::Owned(model.valid())
    } else {
        std::borrow::Cow::Borrowed(model)
    }
}

/// Some columns of a batch, row-major.
struct Columns {
    ids: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<i32>,
}

/// Columns `start..end` of the prompts, padded on the left to `width`.
fn left_padded(prompts: &[&[u32]], width: usize, start: usize, end: usize) -> Columns {
    let mut columns = Columns { ids: Vec::new(), positions: Vec::new(), segments: Vec::new() };
    for prompt in prompts {
        let n_padding = width - prompt.len();
        for column in start..end {
            let token = column.checked_sub(n_padding).map(|position| (position, prompt[position]));
            columns.ids.push(token.map_or(0, |(_, id)| id));
            columns.positions.push(token.map_or(0, |(position, _)| position as u32));
            columns.segments.push(token.map_or(PAD_SEGMENT, |_| 0));
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arch::ModelConfig;
    use model::CausalLm;
    use testkit::{Tolerance, assert_close, tiny_gpt2, tiny_llama, values};

    use super::Decoder;

    #[test]
    fn a_prompt_read_in_pieces_gives_the_same_states() {
        let device = kernels::device("cpu").unwrap();
        let long: Vec<u32> = (0..37).map(|i| (i * 7) % 50).collect();
        let prompts = [&long[..], &long[3..9], &long[..1], &long[5..30]];
        for config in [tiny_llama(50), tiny_gpt2(50, true)] {
            let config = ModelConfig::from_json(&config, Path::new("tiny")).unwrap();
            let model = CausalLm::init(&config, 3, &device);
            let (mut whole, expected) = Decoder::prefill(&model, &prompts, 40);
            let next = whole.feed(&[1, 2, 3, 4]);
            for n_columns in [1, 5, 36] {
                let (mut pieces, got) = Decoder::prefill_by(&model, &prompts, 40, n_columns);
                let tolerance = Tolerance::absolute(1e-5);
                assert_close("last", &values(&got), &values(&expected), tolerance);
                let got = pieces.feed(&[1, 2, 3, 4]);
                assert_close("next", &values(&got), &values(&next), tolerance);
            }
        }
    }
}
