//! Forward passes over sequences with a KV cache, for several sequences and any number of tokens per call.
//!
//! Prompts of different lengths are padded on the left. Padding is a segment of its own, which no token attends to, and
//! positions count tokens only, so padding changes no result.

use burn::module::Module;
use burn::tensor::Tensor;
use model::CausalLm;
use nn::{KvCache, PAD_SEGMENT, TokenBatch};

/// The largest number of attention scores in a call (rows × heads × queries × keys): 64 MiB of f32.
pub(crate) const MAX_SCORES: usize = 16 << 20;

/// Positions of padding that are not worth moving the texts.
const LEAST_PADDING: usize = 64;

/// A model and the KV cache of the sequences read so far.
#[derive(Debug)]
pub struct Decoder<'a> {
    model: &'a CausalLm,
    cache: KvCache,
    next_positions: Vec<u32>,
    /// The adapter of each row, in a model that has several.
    adapters: Vec<Option<usize>>,
    /// The texts so far, in models that read a text again at some length.
    reread: Option<Reread>,
}

/// Texts that are read again when one of them reaches a length.
#[derive(Debug)]
struct Reread {
    at: usize,
    texts: Vec<Vec<u32>>,
}

impl<'a> Decoder<'a> {
    /// Reads prompts; returns the hidden state of each prompt's last token, `[rows, 1, d]`.
    ///
    /// `capacity` is the number of positions of the longest prompt and of all tokens that will follow it.
    ///
    /// # Panics
    /// If there is no prompt, one is empty, or one is longer than `capacity` or the model's context.
    pub fn prefill(model: &'a CausalLm, prompts: &[&[u32]], capacity: usize) -> (Self, Tensor<3>) {
        Self::prefill_with(model, None, prompts, capacity)
    }

    /// As [`Self::prefill`], with one of the model's adapters.
    pub(crate) fn prefill_with(
        model: &'a CausalLm,
        adapter: Option<usize>,
        prompts: &[&[u32]],
        capacity: usize,
    ) -> (Self, Tensor<3>) {
        let width = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let scores_per_column = (prompts.len() * model.config().n_heads() * width).max(1);
        let n_columns = (MAX_SCORES / scores_per_column).max(16);
        // Where the angles of a token depend on the length of its text, all of it is read at once.
        let n_columns = if model.config().rope_depends_on_length() { width } else { n_columns };
        Self::prefill_by((model, adapter), prompts, capacity, n_columns)
    }

    /// As [`Self::prefill`], `n_columns` positions at a time.
    fn prefill_by(
        (model, adapter): (&'a CausalLm, Option<usize>),
        prompts: &[&[u32]],
        capacity: usize,
        n_columns: usize,
    ) -> (Self, Tensor<3>) {
        let (rows, width) = (prompts.len(), prompts.iter().map(|p| p.len()).max().unwrap_or(0));
        assert!(prompts.iter().all(|prompt| !prompt.is_empty()), "an empty prompt");
        let next_positions = prompts.iter().map(|prompt| prompt.len() as u32).collect();
        let reread = model.config().rereads_at().map(|at| {
            let texts = prompts.iter().map(|prompt| prompt.to_vec()).collect();
            Reread { at, texts }
        });
        let cache = model.new_cache(rows, capacity);
        let adapters = vec![adapter; rows];
        let mut decoder = Self { model, cache, next_positions, adapters, reread };
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
    /// `[rows, t, d]`. Where the cache has no room, padding that all rows have is dropped first.
    ///
    /// # Panics
    /// If the capacity or the model's context is exceeded.
    pub fn feed(&mut self, ids: &[u32]) -> Tensor<3> {
        let rows = self.next_positions.len();
        let t = ids.len() / rows.max(1);
        if self.cache.len() + t > self.cache.capacity() {
            self.cache.end_at(self.longest());
        }
        if self.extend_texts(ids, t) {
            return self.read_again(t);
        }
        let positions =
            self.next_positions.iter().flat_map(|&next| next..next + t as u32).collect();
        self.next_positions.iter_mut().for_each(|next| *next += t as u32);
        let columns = Columns { ids: ids.to_vec(), positions, segments: vec![0; ids.len()] };
        self.read(&columns, rows)
    }

    /// Appends `t` tokens to each stored text; returns whether one of them reaches the length at which all are read again.
    fn extend_texts(&mut self, ids: &[u32], t: usize) -> bool {
        let Some(Reread { at, texts }) = &mut self.reread else { return false };
        let mut reaches = false;
        for (text, ids) in texts.iter_mut().zip(ids.chunks(t.max(1))) {
            reaches |= text.len() < *at && text.len() + t >= *at;
            text.extend_from_slice(ids);
        }
        reaches
    }

    /// Reads all texts into a new cache. Returns the hidden states of the last `t` tokens, `[rows, t, d]`.
    fn read_again(&mut self, t: usize) -> Tensor<3> {
        let texts = self.reread.as_ref().map(|reread| reread.texts.clone()).unwrap_or_default();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let width = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        self.next_positions = texts.iter().map(|text| text.len() as u32).collect();
        self.cache = self.model.new_cache(texts.len(), self.cache.capacity());
        let hidden = self.read(&left_padded(&texts, width, 0, width), texts.len());
        let [b, _, d] = hidden.dims();
        hidden.slice([0..b, width - t..width, 0..d])
    }

    /// Tokens of the longest text.
    pub(crate) fn longest(&self) -> usize {
        self.next_positions.iter().max().map_or(0, |next| *next as usize)
    }

    /// Makes room for `n` further tokens of each text. Padding that all rows have is dropped once it is half of the cache, and the
    /// capacity follows the longest text in steps, so that moving the texts costs little per token.
    pub(crate) fn make_room(&mut self, n: usize) {
        let (longest, capacity) = (self.longest(), self.cache.capacity());
        let has_room = self.cache.len() + n <= capacity;
        if has_room && self.cache.len() <= 2 * longest + LEAST_PADDING {
            return;
        }
        self.cache.end_at(longest);
        let needed = longest + n;
        if needed + needed / 4 > capacity || capacity > 4 * needed + LEAST_PADDING {
            self.cache.set_capacity((needed + needed / 2).next_multiple_of(LEAST_PADDING));
        }
    }

    /// As [`Self::replace_row`], with room for the text and a token.
    pub(crate) fn give_row(&mut self, row: usize, other: &Decoder<'_>) {
        let needed = other.cache.len() + 1;
        if needed > self.cache.capacity() {
            self.cache.set_capacity((needed + needed / 2).next_multiple_of(LEAST_PADDING));
        }
        self.replace_row(row, other);
    }

    /// A copy of it with room for `capacity` positions.
    ///
    /// # Panics
    /// If its texts are longer.
    pub(crate) fn copy_with_capacity(&self, capacity: usize) -> Self {
        let reread = self.reread.as_ref();
        let mut cache = self.cache.clone();
        cache.set_capacity(capacity);
        Self {
            model: self.model,
            cache,
            next_positions: self.next_positions.clone(),
            adapters: self.adapters.clone(),
            reread: reread.map(|Reread { at, texts }| Reread { at: *at, texts: texts.clone() }),
        }
    }

    /// Replaces the text of a row by the first text of another decoder of the same model. A row's place in the batch can thus
    /// be given to another prompt while the others continue.
    ///
    /// # Panics
    /// If the capacity is exceeded.
    pub fn replace_row(&mut self, row: usize, other: &Decoder<'_>) {
        if other.cache.len() > self.cache.len() {
            self.cache.end_at(other.cache.len());
        }
        self.cache.replace_row(row, &other.cache, 0);
        self.next_positions[row] = other.next_positions[0];
        self.adapters[row] = other.adapters[0];
        if let (Some(own), Some(other)) = (&mut self.reread, &other.reread) {
            own.texts[row].clone_from(&other.texts[0]);
        }
    }

    /// Keeps these rows only, in this order; a row may be selected several times.
    pub fn select_rows(&mut self, rows: &[usize]) {
        self.cache = self.cache.select_rows(rows);
        self.next_positions = rows.iter().map(|&row| self.next_positions[row]).collect();
        self.adapters = rows.iter().map(|&row| self.adapters[row]).collect();
        if let Some(Reread { texts, .. }) = &mut self.reread {
            *texts = rows.iter().map(|&row| texts[row].clone()).collect();
        }
    }

    /// The adapter of the first row.
    pub(crate) fn adapter(&self) -> Option<usize> {
        self.adapters.first().copied().flatten()
    }

    /// The model.
    pub fn model(&self) -> &CausalLm {
        self.model
    }

    fn read(&mut self, columns: &Columns, rows: usize) -> Tensor<3> {
        let Columns { ids, positions, segments } = columns;
        if let Some(rows) = self.model.adapter_rows() {
            rows.set(&self.adapters);
        }
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
    use nn::TokenBatch;
    use testkit::{Tolerance, assert_close, tiny_decoders, tiny_gpt2, tiny_llama, values};

    use super::Decoder;

    #[test]
    fn a_prompt_read_in_pieces_gives_the_same_states() {
        let device = kernels::device("cpu").unwrap();
        let long: Vec<u32> = (0..37).map(|i| (i * 7) % 50).collect();
        let prompts = [&long[..], &long[3..9], &long[..1], &long[5..30]];
        let few = [tiny_llama(50), tiny_gpt2(50, true)];
        for config in few.into_iter().chain(tiny_decoders(50)) {
            let config = ModelConfig::from_json(&config, Path::new("tiny")).unwrap();
            // Pieces of such a text have other angles than the whole; a prompt is never read in pieces.
            if config.rope_depends_on_length() {
                continue;
            }
            let model = CausalLm::init(&config, 3, &device);
            let (mut whole, expected) = Decoder::prefill(&model, &prompts, 40);
            let next = whole.feed(&[1, 2, 3, 4]);
            for n_columns in [1, 5, 36] {
                let (mut pieces, got) =
                    Decoder::prefill_by((&model, None), &prompts, 40, n_columns);
                let tolerance = Tolerance::absolute(1e-5);
                assert_close("last", &values(&got), &values(&expected), tolerance);
                let got = pieces.feed(&[1, 2, 3, 4]);
                assert_close("next", &values(&got), &values(&next), tolerance);
            }
        }
    }

    /// Texts longer than the windows and than the room that their layers have: each state is that of a pass over the whole
    /// text, read at once and token by token.
    #[test]
    fn windowed_layers_read_texts_longer_than_their_cache() {
        let device = kernels::device("cpu").unwrap();
        for family in ["mistral", "gemma3_text"] {
            let mut keys =
                tiny_decoders(50).into_iter().find(|keys| keys["model_type"] == family).unwrap();
            keys["max_position_embeddings"] = 2000.into();
            keys["sliding_window"] = 20.into();
            let config = ModelConfig::from_json(&keys, Path::new("tiny")).unwrap();
            let model = CausalLm::init(&config, 3, &device);
            let ids: Vec<u32> = (0..1300_u32).map(|i| (i * i + 7 * i) % 50).collect();
            let whole = TokenBatch::of_rows(&ids, 1, &device);
            let whole = values(&model.forward(&whole).hidden_btd);
            let of_last = |n: usize| &whole[(n - 1) * 32..n * 32];
            let tolerance = Tolerance::absolute(2e-5);
            for n_columns in [16, 300, 1000] {
                let (decoder, got) =
                    Decoder::prefill_by((&model, None), &[&ids[..1000]], 1300, n_columns);
                assert_close(family, &values(&got), of_last(1000), tolerance);
                let (n_layers, width) =
                    (config.n_layers(), config.n_kv_heads() * config.head_dim());
                let n_windowed =
                    (0..n_layers).filter(|l| config.attention_window(*l).is_some()).count();
                assert!(n_windowed > 0);
                let positions = n_windowed * (20 + 512) + (n_layers - n_windowed) * 1300;
                assert_eq!(decoder.cache.n_elements(), 2 * width * positions, "{family}");
                assert_eq!(config.kv_cache_elements(1300), (2 * width * positions) as u64);
                let mut decoder = decoder;
                for n in 1000..1300 {
                    let got = values(&decoder.feed(&ids[n..=n]));
                    assert_close(family, &got, of_last(n + 1), tolerance);
                }
            }
        }
    }

    /// Rows whose places are given to shorter and longer texts, in a cache that runs full: every state is that of a pass over
    /// the whole text.
    #[test]
    fn a_place_continues_with_the_text_that_it_was_given() {
        let device = kernels::device("cpu").unwrap();
        let long = |family: &str| {
            let all = tiny_decoders(50).into_iter();
            let mut keys = all.filter(|keys| keys["model_type"] == family).collect::<Vec<_>>();
            let keys = keys.first_mut().unwrap();
            keys["max_position_embeddings"] = 2000.into();
            keys["sliding_window"] = 20.into();
            keys.clone()
        };
        let few = [tiny_llama(50), tiny_gpt2(50, true)].into_iter().chain(tiny_decoders(50));
        let few = few.map(|config| (config, 1));
        // Texts longer than the room that layers with a window have.
        let many = [long("mistral"), long("gemma3_text")].map(|config| (config, 40));
        for (keys, scale) in few.chain(many) {
            let config = ModelConfig::from_json(&keys, Path::new("tiny")).unwrap();
            // Dynamic frequencies rotate the keys in the cache otherwise than a pass over the whole text, as in transformers.
            if config.rope_depends_on_length() && config.rereads_at().is_none() {
                continue;
            }
            let model = CausalLm::init(&config, 3, &device);
            let text = |from: u32, n: u32| -> Vec<u32> {
                (from..from + n * scale).map(|i| (i * i + 7 * i) % 50).collect()
            };
            let mut texts = [text(0, 12), text(5, 3), text(9, 7)].to_vec();
            let rows: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let capacity = (26 * scale + 12) as usize;
            let (mut decoder, _) = Decoder::prefill(&model, &rows, capacity);
            let given = [None, Some((1, text(2, 9))), None, Some((0, text(4, 24))), None, None];
            for (step, given) in given.into_iter().enumerate() {
                if let Some((place, text)) = given {
                    let (other, _) = Decoder::prefill(&model, &[&text], text.len());
                    decoder.replace_row(place, &other);
                    texts[place] = text;
                }
                for n in 0..4 {
                    let ids: Vec<u32> =
                        (0..3).map(|row| (step as u32 * 11 + n * 5 + row) % 50).collect();
                    let states = values(&decoder.feed(&ids));
                    for ((text, id), state) in
                        texts.iter_mut().zip(ids).zip(states.chunks(states.len() / 3))
                    {
                        text.push(id);
                        if n < 3 {
                            continue;
                        }
                        let whole = TokenBatch::of_rows(text, 1, &device);
                        let whole = values(&model.forward(&whole).hidden_btd);
                        let last = &whole[whole.len() - state.len()..];
                        let name = format!("{} at step {step}", keys["model_type"]);
                        assert_close(&name, state, last, Tolerance::absolute(5e-5));
                    }
                }
            }
        }
    }

    /// Where Phi-3 changes to the long factors, each row has the hidden state of a pass over its whole text.
    #[test]
    fn texts_are_read_again_where_the_factors_change() {
        let device = kernels::device("cpu").unwrap();
        let phi3 = tiny_decoders(50).into_iter().find(|keys| keys["model_type"] == "phi3").unwrap();
        let config = ModelConfig::from_json(&phi3, Path::new("tiny")).unwrap();
        assert_eq!(config.rereads_at(), Some(9));
        let model = CausalLm::init(&config, 3, &device);
        let mut texts = [vec![3, 1, 4, 1, 5], vec![9, 2, 6]];
        let prompts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let (mut decoder, _) = Decoder::prefill(&model, &prompts, 20);
        for step in 0..10_u32 {
            let ids = [step + 10, step + 30];
            let hidden = values(&decoder.feed(&ids));
            for (text, id) in texts.iter_mut().zip(ids) {
                text.push(id);
            }
            for (row, text) in texts.iter().enumerate() {
                let tokens = TokenBatch::of_rows(text, 1, &device);
                let whole = values(&model.forward(&tokens).hidden_btd);
                let last = &whole[whole.len() - 32..];
                let got = &hidden[row * 32..(row + 1) * 32];
                assert_close("last", got, last, Tolerance::absolute(1e-5));
            }
        }
    }
}
