//! Rows in which the answers to one prompt follow it side by side, so that a model computes the prompt once.
//!
//! A row is `[prompt, answer 1, answer 2, …]`, perhaps with more prompts behind. Each answer is a segment whose prefix is the
//! prompt: its positions count on from the prompt's, it sees the prompt and itself, and no other answer. The gradient that
//! reaches the prompt is the sum of those of its copies, so results are those of a row for each answer up to rounding. The
//! last token of an answer predicts nothing and is left out.

use burn::tensor::Device;
use nn::{PAD_SEGMENT, TokenBatch};

use crate::rollout::Rollout;

/// Rows with shared prompts, and where their answers are predicted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SharedRows {
    ids: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<i32>,
    prefixes: Vec<i32>,
    rows: usize,
    length: usize,
    /// Flat positions from which a token was sampled, in the order of episodes.
    pub(crate) predicting: Vec<i32>,
}

impl SharedRows {
    /// The rows of `episodes`, of which neighbours share a prompt if theirs are equal.
    pub(crate) fn new(episodes: &[&Rollout]) -> Self {
        let groups: Vec<&[&Rollout]> = episodes.chunk_by(|a, b| a.prompt() == b.prompt()).collect();
        let apart: Vec<&[&Rollout]> = episodes.chunks(1).collect();
        let [shared, apart] = [groups, apart].map(|groups| Places::of(&groups));
        // Groups of very unequal size leave rows half empty.
        let places = if shared.n_tokens() <= apart.n_tokens() { shared } else { apart };
        places.filled()
    }

    /// The rows on a device.
    pub(crate) fn batch(&self, device: &Device) -> TokenBatch {
        let Self { ids, positions, segments, prefixes, rows, length, .. } = self;
        TokenBatch::new(ids, positions, segments, *rows, *length, device)
            .with_prefixes(prefixes.clone())
    }
}

/// Groups of episodes with one prompt each, and the rows that they are in.
struct Places<'a> {
    /// Row, group in the order of episodes.
    groups: Vec<(usize, &'a [&'a Rollout])>,
    rows: usize,
    length: usize,
}

impl<'a> Places<'a> {
    /// Puts each group into the first row with room for it; a row has room for the longest group.
    fn of(groups: &[&'a [&'a Rollout]]) -> Self {
        let length = groups.iter().map(|group| n_tokens(group)).max().unwrap_or(0);
        let mut used: Vec<usize> = Vec::new();
        let mut place = |group: &'a [&'a Rollout]| {
            let n = n_tokens(group);
            let row = used.iter().position(|used| used + n <= length).unwrap_or(used.len());
            if row == used.len() {
                used.push(0);
            }
            if let Some(used) = used.get_mut(row) {
                *used += n;
            }
            (row, group)
        };
        let groups = groups.iter().map(|group| place(group)).collect();
        Self { groups, rows: used.len(), length }
    }

    fn n_tokens(&self) -> usize {
        self.rows * self.length
    }

    fn filled(&self) -> SharedRows {
        let mut rows: Vec<Row> = (0..self.rows).map(|_| Row::default()).collect();
        let mut predicting = Vec::new();
        for (idx, group) in &self.groups {
            if let Some(row) = rows.get_mut(*idx) {
                let first = idx * self.length;
                predicting.extend(row.add(group).into_iter().map(|at| (first + at) as i32));
            }
        }
        let mut shared = SharedRows {
            rows: self.rows,
            length: self.length,
            predicting,
            ..SharedRows::default()
        };
        for mut row in rows {
            row.pad(self.length);
            shared.ids.extend(row.ids);
            shared.positions.extend(row.positions);
            shared.segments.extend(row.segments);
            shared.prefixes.extend(row.prefixes);
        }
        shared
    }
}

/// Tokens of a prompt and of the answers to it, each without its last.
fn n_tokens(group: &[&Rollout]) -> usize {
    let prompt = group.first().map_or(0, |episode| episode.prompt().len());
    prompt + group.iter().map(|episode| episode.response().len() - 1).sum::<usize>()
}

/// One row while it is filled.
#[derive(Default)]
struct Row {
    ids: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<i32>,
    prefixes: Vec<i32>,
    next_segment: i32,
}

impl Row {
    /// Adds a prompt and the answers to it. Returns the places of the row that predict the answers' tokens.
    fn add(&mut self, group: &[&Rollout]) -> Vec<usize> {
        let prompt = group.first().map_or(&[][..], |episode| episode.prompt());
        let prefix = self.next_segment;
        self.push(prompt, 0, prefix);
        let mut predicting = Vec::new();
        // A prompt has a token, so its last one has a place.
        let last = self.ids.len().saturating_sub(1);
        for episode in group {
            let answer = episode.response();
            let fed = answer.split_last().map_or(&[][..], |(_, fed)| fed);
            let start = self.ids.len();
            self.push(fed, prompt.len(), prefix);
            predicting.push(last);
            predicting.extend(start..self.ids.len());
        }
        predicting
    }

    /// Adds a segment of its own that continues `prefix` from `position` on.
    fn push(&mut self, ids: &[u32], position: usize, prefix: i32) {
        let n = ids.len();
        self.ids.extend_from_slice(ids);
        self.positions.extend((position..position + n).map(|position| position as u32));
        self.segments.extend(std::iter::repeat_n(self.next_segment, n));
        self.prefixes.extend(std::iter::repeat_n(prefix, n));
        self.next_segment += 1;
    }

    fn pad(&mut self, length: usize) {
        self.ids.resize(length, 0);
        self.positions.resize(length, 0);
        self.segments.resize(length, PAD_SEGMENT);
        self.prefixes.resize(length, PAD_SEGMENT);
    }
}

#[cfg(test)]
mod tests {
    use nn::PAD_SEGMENT;

    use super::SharedRows;
    use crate::rollout::{Rollout, Rollouts, Sampling};

    fn rows_of(episodes: &[(&[u32], &[u32])]) -> SharedRows {
        let sampling =
            Sampling { temperature: 1.0, end_ids: vec![], max_new_tokens: 99, vocab_size: None };
        let mut rollouts = Rollouts::new(sampling);
        for (prompt, answer) in episodes {
            rollouts.push(prompt, answer).expect("an episode");
        }
        SharedRows::new(&rollouts.episodes.iter().collect::<Vec<&Rollout>>())
    }

    #[test]
    fn answers_follow_their_prompt_once() {
        let [first, second]: [&[u32]; 2] = [&[5, 6, 7], &[8, 9]];
        let found = rows_of(&[
            (first, &[11, 12, 13]),
            (first, &[21]),
            (first, &[31, 32]),
            (second, &[41, 42]),
        ]);
        let pad = PAD_SEGMENT;
        let wanted = SharedRows {
            ids: vec![5, 6, 7, 11, 12, 31, 8, 9, 41, 0, 0, 0],
            positions: vec![0, 1, 2, 3, 4, 3, 0, 1, 2, 0, 0, 0],
            segments: vec![0, 0, 0, 1, 1, 3, 0, 0, 1, pad, pad, pad],
            prefixes: vec![0, 0, 0, 0, 0, 0, 0, 0, 0, pad, pad, pad],
            rows: 2,
            length: 6,
            predicting: vec![2, 3, 4, 2, 2, 5, 7, 8],
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn small_groups_fill_a_row() {
        let prompts: [&[u32]; 3] = [&[1, 2], &[3], &[4, 5]];
        let found = rows_of(&[
            (prompts[0], &[10, 11, 12]),
            (prompts[0], &[13, 14, 15]),
            (prompts[1], &[16, 17]),
            (prompts[2], &[18, 19]),
        ]);
        assert_eq!((found.rows, found.length), (2, 6));
        assert_eq!(found.ids[6..], [3, 16, 4, 5, 18, 0]);
        assert_eq!(found.segments[6..], [0, 1, 2, 2, 3, PAD_SEGMENT]);
        assert_eq!(found.prefixes[6..], [0, 0, 2, 2, 2, PAD_SEGMENT]);
        assert_eq!(found.predicting, [1, 2, 3, 1, 4, 5, 6, 7, 9, 10]);
    }

    #[test]
    fn unequal_groups_take_no_more_than_answers_apart() {
        let many: Vec<(Vec<u32>, Vec<u32>)> = (0..20)
            .map(|idx: u32| (vec![if idx < 8 { 1 } else { idx }; 30], vec![idx; 10]))
            .collect();
        let episodes: Vec<(&[u32], &[u32])> =
            many.iter().map(|(prompt, answer)| (prompt.as_slice(), answer.as_slice())).collect();
        let found = rows_of(&episodes);
        assert!(found.rows * found.length <= 20 * 39);
        let longest: Vec<(&[u32], &[u32])> = vec![(&[1], &[7; 40]), (&[2; 30], &[7; 2])];
        let found = rows_of(&longest);
        assert_eq!(found.rows * found.length, 2 * 40);
    }
}
