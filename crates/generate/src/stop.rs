//! Stop texts: texts that end a completion, found as soon as they are complete, even across tokens.

use std::fmt;

use tokenizer::{DecodeStream, Tokenizer};

/// Texts that end a completion.
#[derive(Clone)]
pub struct Stop {
    texts: Vec<String>,
    special_ids: Vec<u32>,
    tokenizer: Tokenizer,
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("texts", &self.texts).finish_non_exhaustive()
    }
}

impl Stop {
    /// Stops before the first of `texts`; empty ones are ignored.
    ///
    /// Special tokens are not part of a completion's text, so a stop text that is one of them is found by its id.
    pub fn new(texts: Vec<String>, tokenizer: &Tokenizer) -> Self {
        let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        let special =
            |text: &String| tokenizer.token_id(text).filter(|&id| tokenizer.is_special(id));
        let special_ids = texts.iter().filter_map(special).collect();
        Self { texts, special_ids, tokenizer: tokenizer.clone() }
    }

    /// A watcher of one completion.
    pub(crate) fn watch(&self) -> Watcher {
        let stream = self.tokenizer.decode_stream(true);
        Watcher { stream, text: String::new(), n_taken: 0, has_ended: false }
    }

    /// The text before the first stop text in `text`, searched from byte `from` on.
    fn cut<'a>(&self, text: &'a str, from: usize) -> Option<&'a str> {
        let from = (0..=from.min(text.len())).rev().find(|&i| text.is_char_boundary(i))?;
        let tail = text.get(from..)?;
        let at = self.texts.iter().filter_map(|stop| tail.find(stop.as_str())).min()?;
        text.get(..from + at)
    }

    /// Number of bytes at the end of `text` with which a stop text may begin.
    fn n_held(&self, text: &str) -> usize {
        let from = text.len().saturating_sub(self.overlap());
        let begins = |at: &usize| {
            let tail = text.get(*at..);
            tail.is_some_and(|tail| self.texts.iter().any(|stop| stop.starts_with(tail)))
        };
        (from..text.len()).find(begins).map_or(0, |at| text.len() - at)
    }

    /// Number of bytes before new text in which a stop text may start.
    fn overlap(&self) -> usize {
        self.texts.iter().map(String::len).max().unwrap_or(1) - 1
    }
}

/// The text of one growing completion; each token is decoded a bounded number of times.
pub(crate) struct Watcher {
    stream: DecodeStream,
    text: String,
    /// Bytes of the text that were taken.
    n_taken: usize,
    has_ended: bool,
}

impl Watcher {
    /// Appends a token; returns the text before a stop text once there is one, which is then all of the text.
    pub(crate) fn push(&mut self, id: u32, stop: &Stop) -> Option<String> {
        if stop.special_ids.contains(&id) {
            self.text.push_str(&self.stream.finish());
        } else {
            let before = self.text.len();
            self.text.push_str(&self.stream.push(id));
            let cut = stop.cut(&self.text, before.saturating_sub(stop.overlap()))?.len();
            self.text.truncate(cut);
        }
        self.has_ended = true;
        Some(self.text.clone())
    }

    /// The completion has no further token.
    pub(crate) fn end(&mut self) {
        if !self.has_ended {
            self.text.push_str(&self.stream.finish());
            self.has_ended = true;
        }
    }

    /// The text since the last call that no stop text can remove any more; after the end, all that is left.
    pub(crate) fn take_text(&mut self, stop: &Stop) -> String {
        let n_held = if self.has_ended { 0 } else { stop.n_held(&self.text) };
        let end = self.text.len() - n_held;
        let text = self.text.get(self.n_taken..end).unwrap_or_default().to_owned();
        self.n_taken = self.n_taken.max(end);
        text
    }
}

#[cfg(test)]
mod tests {
    use tokenizer::{Tokenizer, default_special_tokens};

    use super::Stop;

    /// One token per byte.
    fn bytes() -> Tokenizer {
        let specials = default_special_tokens();
        let texts = std::iter::once("ab".to_owned());
        Tokenizer::train_byte_bpe(texts, 256 + specials.len(), &specials).unwrap()
    }

    /// The number of tokens read, and the text before the stop text.
    fn run(stops: &[&str], ids: &[u32]) -> Option<(usize, String)> {
        let stop = Stop::new(stops.iter().map(|&text| text.to_owned()).collect(), &bytes());
        let mut watcher = stop.watch();
        (1..).zip(ids).find_map(|(n, &id)| Some((n, watcher.push(id, &stop)?)))
    }

    fn of(text: &str) -> Vec<u32> {
        bytes().encode_plain(text).unwrap()
    }

    #[test]
    fn a_stop_text_across_tokens_ends_at_once_and_is_omitted() {
        let stops = ["\n\n", "END"];
        assert_eq!(run(&stops, &of("ab\n\ncd")), Some((4, "ab".to_owned())));
        assert_eq!(run(&stops, &of("a\nENEND\n\n")), Some((7, "a\nEN".to_owned())));
        assert_eq!(run(&stops, &of("a\nEN")), None);
    }

    #[test]
    fn characters_of_several_tokens_are_whole() {
        assert_eq!(run(&["é!"], &of("aé€é!b")), Some((9, "aé€".to_owned())));
        assert_eq!(run(&["€"], &of("aé€")), Some((6, "aé".to_owned())));
    }

    #[test]
    fn invalid_bytes_do_not_hide_a_stop_text() {
        let byte = bytes().token_id("ÿ").unwrap();
        let ids = [vec![byte; 5], of("ok STOP")].concat();
        let (n, text) = run(&["STOP"], &ids).unwrap();
        assert_eq!((n, text.trim_start_matches('\u{FFFD}')), (12, "ok "));
    }

    #[test]
    fn a_special_token_stops_by_its_id() {
        let end = bytes().token_id("<|im_end|>").unwrap();
        let stops = ["<|im_end|>", "x"];
        assert_eq!(run(&stops, &[of("ab"), vec![end]].concat()), Some((3, "ab".to_owned())));
        assert_eq!(
            run(&["x"], &[of("ab"), vec![end], of("x")].concat()),
            Some((4, "ab".to_owned()))
        );
        let half = of("é")[0];
        assert_eq!(run(&stops, &[half, end]), Some((2, "\u{FFFD}".to_owned())));
    }

    /// What is streamed until the end: never a part of a stop text, and in the end the whole text before it.
    #[test]
    fn text_is_held_back_while_a_stop_text_may_begin_with_it() {
        let stop = Stop::new(vec!["END".to_owned(), "\n\n".to_owned()], &bytes());
        let pieces = |text: &str| {
            let mut watcher = stop.watch();
            let mut pieces = Vec::new();
            for id in of(text) {
                let ends = watcher.push(id, &stop).is_some();
                pieces.push(watcher.take_text(&stop));
                if ends {
                    return pieces;
                }
            }
            watcher.end();
            pieces.push(watcher.take_text(&stop));
            pieces
        };
        assert_eq!(pieces("aEENDb"), ["a", "", "E", "", ""]);
        assert_eq!(pieces("é\nE"), ["", "é", "", "\n", "E"]);
        assert_eq!(pieces("ab\n\n"), ["a", "b", "", ""]);
    }

    #[test]
    fn no_stop_texts_never_stop() {
        assert_eq!(run(&[""], &of("anything")), None);
    }
}
