//! Counts the words of texts on all cores; the result is sorted and does not depend on threads.

use std::collections::HashMap;

use rayon::prelude::*;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
};

use crate::untrusted::panics::catch;
use crate::{Error, Result};

/// GPT-2's pattern for words, which `ByteLevel` of the tokenizers library uses too.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Bytes of text per parallel batch.
const BATCH_BYTES: usize = 16 << 20;

/// Length at which a word is split. The time for a merge grows with the length of the words that
/// contain the pair, and a megabyte without spaces would be one word; the pieces have the same pairs.
const WORD_BYTES: usize = 256;

/// A word as bytes, with its count.
pub(super) type Word = (Vec<u8>, u64);

/// The words of all texts with their counts, sorted. Special tokens in the texts are skipped.
pub(super) fn count(texts: impl Iterator<Item = String>, specials: &[String]) -> Result<Vec<Word>> {
    let split =
        Split::new(SplitPattern::Regex(GPT2.to_owned()), SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| Error::Backend {
            doing: "compiling the word pattern",
            reason: e.to_string(),
        })?;
    let mut total: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    let mut flush = |batch: &mut Vec<String>| -> Result<()> {
        let counts: Vec<HashMap<Vec<u8>, u64>> = batch
            .par_iter()
            .try_fold(HashMap::new, |mut counts, text| {
                for piece in outside_specials(text, specials) {
                    count_piece(&split, piece, &mut counts)?;
                }
                Ok::<_, Error>(counts)
            })
            .collect::<Result<_>>()?;
        for (word, n) in counts.into_iter().flatten() {
            *total.entry(word).or_default() += n;
        }
        batch.clear();
        Ok(())
    };
    for text in texts {
        batch_bytes += text.len();
        batch.push(text);
        if batch_bytes >= BATCH_BYTES {
            flush(&mut batch)?;
            batch_bytes = 0;
        }
    }
    flush(&mut batch)?;
    if total.is_empty() {
        return Err(super::empty());
    }
    let mut words: Vec<Word> = total.into_iter().collect();
    words.sort_unstable();
    Ok(words)
}

fn count_piece(split: &Split, piece: &str, counts: &mut HashMap<Vec<u8>, u64>) -> Result<()> {
    let mut text = PreTokenizedString::from(piece);
    catch("splitting words", || split.pre_tokenize(&mut text))?;
    for (word, _, _) in text.get_splits(OffsetReferential::Original, OffsetType::None) {
        for part in word.as_bytes().chunks(WORD_BYTES) {
            if let Some(n) = counts.get_mut(part) {
                *n += 1;
            } else {
                counts.insert(part.to_vec(), 1);
            }
        }
    }
    Ok(())
}

/// The parts of `text` between special tokens; of several at one position, the longest counts.
pub(super) fn outside_specials<'t>(text: &'t str, specials: &[String]) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let next = specials
            .iter()
            .filter_map(|special| Some((rest.find(special.as_str())?, special.len())))
            .min_by_key(|(at, len)| (*at, std::cmp::Reverse(*len)));
        let Some((at, len)) = next else { break };
        let (before, after) = rest.split_at(at);
        parts.push(before);
        rest = after.get(len..).unwrap_or_default();
    }
    parts.push(rest);
    parts.retain(|part| !part.is_empty());
    parts
}
