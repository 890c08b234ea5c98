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
        Watcher { stream: self.tokenizer.decode_stream(true), text: String::new() }
    }

    /// The text before the first stop text in `text`, searched from byte `from` on.
    fn cut<'a>(&self, text: &'a str, from: usize) -> Option<&'a str> {
        let from = (0..=from.min(text.len())).rev().find(|&i| text.is_char_boundary(i))?;
        let tail = text.get(from..)?;
        let at = self.texts.iter().filter_map(|stop| tail.find(stop.as_str())).min()?;
        text.get(..from + at)
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
}

impl Watcher {
    /// Appends a token; returns the text before a stop text once there is one.
    pub(crate) fn push(&mut self, id: u32, stop: &Stop) -> Option<String> {
        if stop.special_ids.contains(&id) {
            self.text.push_str(&self.stream.finish());
            return Some(std::mem::take(&mut self.text));
        }
        let before = self.text.len();
        self.text.push_str(&self.stream.push(id));
        stop.cut(&self.text, before.saturating_sub(stop.overlap())).map(str::to_owned)
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

    #[test]
    fn no_stop_texts_never_stop() {
        assert_eq!(run(&[""], &of("anything")), None);
    }
}
