//! Texts that end a completion, found as soon as they are complete, also across tokens. It knows a
//! tokenizer only as a function from ids to text.

use std::fmt;
use std::sync::Arc;

/// Ids to text, special tokens left out.
type Decode = Arc<dyn Fn(&[u32]) -> String + Send + Sync>;

/// What `decode` gives for bytes that are not (yet) a whole character.
const INCOMPLETE: char = '\u{FFFD}';

/// Bytes of a character at most: so many single-byte tokens may stand at the end without being text.
const MAX_CHAR_BYTES: usize = 4;

/// Texts that end a completion, with what is needed to see them in ids.
#[derive(Clone)]
pub struct Stop {
    texts: Vec<String>,
    special_ids: Vec<u32>,
    decode: Decode,
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop")
            .field("texts", &self.texts)
            .field("special_ids", &self.special_ids)
            .finish_non_exhaustive()
    }
}

impl Stop {
    /// Stops before the first of `texts`; empty ones are left out.
    ///
    /// `decode` turns ids into text without special tokens. A special token's own text never shows
    /// in that, so the ids of those that shall stop go into `special_ids`.
    pub fn new(
        texts: Vec<String>,
        special_ids: Vec<u32>,
        decode: impl Fn(&[u32]) -> String + Send + Sync + 'static,
    ) -> Self {
        let texts = texts.into_iter().filter(|text| !text.is_empty()).collect();
        Self { texts, special_ids, decode: Arc::new(decode) }
    }

    /// The text before the first stop text in `text`, looking only from byte `from` on.
    fn cut<'a>(&self, text: &'a str, from: usize) -> Option<&'a str> {
        let from = (0..=from.min(text.len())).rev().find(|&i| text.is_char_boundary(i))?;
        let tail = text.get(from..)?;
        let at = self.texts.iter().filter_map(|stop| tail.find(stop.as_str())).min()?;
        text.get(..from + at)
    }

    /// Bytes before new text in which a stop text may have begun.
    fn overlap(&self) -> usize {
        self.texts.iter().map(String::len).max().unwrap_or(1) - 1
    }
}

/// The text of one growing completion. Each token is decoded a bounded number of times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watcher {
    ids: Vec<u32>,
    text: String,
    /// `ids[..read]` are in `text`; decoding starts at `context`, so that a token's text may depend
    /// on the one before it (word pieces do).
    context: usize,
    read: usize,
}

impl Watcher {
    /// Takes one more token; gives the text before the stop text once there is one.
    pub(crate) fn push(&mut self, id: u32, stop: &Stop) -> Option<String> {
        if stop.special_ids.contains(&id) {
            self.flush(stop, true);
            return Some(std::mem::take(&mut self.text));
        }
        self.ids.push(id);
        let before = self.text.len();
        self.flush(stop, false);
        stop.cut(&self.text, before.saturating_sub(stop.overlap())).map(str::to_owned)
    }

    /// Appends what is new, unless its last character may still be incomplete.
    fn flush(&mut self, stop: &Stop, all: bool) {
        let known = (stop.decode)(self.ids.get(self.context..self.read).unwrap_or_default());
        let whole = (stop.decode)(self.ids.get(self.context..).unwrap_or_default());
        let n_pending = self.ids.len() - self.read;
        if whole.ends_with(INCOMPLETE) && n_pending < MAX_CHAR_BYTES && !all {
            return;
        }
        // Where earlier text changed with what follows, the new part starts at the first difference.
        let same = known.char_indices().zip(whole.chars()).find(|((_, a), b)| a != b);
        let start = same.map_or(known.len().min(whole.len()), |((at, _), _)| at);
        self.text.push_str(whole.get(start..).unwrap_or_default());
        self.context = self.read;
        self.read = self.ids.len();
    }
}

#[cfg(test)]
mod tests {
    use super::{Stop, Watcher};

    /// One token is one byte.
    fn bytes(texts: &[&str]) -> Stop {
        Stop::new(texts.iter().map(|&t| t.to_owned()).collect(), vec![999], |ids| {
            let bytes: Vec<u8> = ids.iter().map(|&id| id as u8).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    fn run(stop: &Stop, ids: impl IntoIterator<Item = u32>) -> Option<(usize, String)> {
        let mut watcher = Watcher::default();
        for (i, id) in ids.into_iter().enumerate() {
            if let Some(text) = watcher.push(id, stop) {
                return Some((i + 1, text));
            }
        }
        None
    }

    fn of(text: &str) -> impl Iterator<Item = u32> {
        text.bytes().map(u32::from)
    }

    #[test]
    fn a_stop_text_across_tokens_ends_at_once_and_is_left_out() {
        let stop = bytes(&["\n\n", "END"]);
        assert_eq!(run(&stop, of("ab\n\ncd")), Some((4, "ab".to_owned())));
        assert_eq!(run(&stop, of("a\nENEND\n\n")), Some((7, "a\nEN".to_owned())));
        assert_eq!(run(&stop, of("a\nEN")), None);
    }

    #[test]
    fn characters_of_several_tokens_are_whole() {
        let stop = bytes(&["é!"]);
        assert_eq!(run(&stop, of("aé€é!b")), Some((9, "aé€".to_owned())));
        assert_eq!(run(&bytes(&["€"]), of("aé€")), Some((6, "aé".to_owned())));
    }

    #[test]
    fn invalid_bytes_do_not_hold_text_back_for_ever() {
        let ids = [0xff, 0xff, 0xff, 0xff, 0xff].into_iter().chain(of("ok STOP"));
        let (n, text) = run(&bytes(&["STOP"]), ids).unwrap();
        assert_eq!((n, text.trim_start_matches('\u{FFFD}')), (12, "ok "));
    }

    #[test]
    fn a_special_token_stops_by_its_id() {
        let stop = bytes(&["x"]);
        assert_eq!(run(&stop, [97, 98, 999, 97]), Some((3, "ab".to_owned())));
        assert_eq!(run(&stop, [97, 0xc3, 999]), Some((3, "a\u{FFFD}".to_owned())));
    }

    #[test]
    fn no_stop_texts_never_stop() {
        assert_eq!(run(&bytes(&[""]), of("anything")), None);
    }
}
