//! Quotes of comma-separated values that cannot be meant. The parser takes a quote that is never closed for the start of a field
//! with all following rows in it, and text behind a closing quote for a part of the field, so that stray quotes join rows.

use std::collections::VecDeque;

use crate::row_problem::RowProblem;

const QUOTE: u8 = b'"';

/// Follows the quotes of a file as its bytes pass.
#[derive(Debug)]
pub(crate) struct Quotes {
    delimiter: u8,
    state: State,
    /// Bytes that have passed.
    n_bytes: u64,
    /// Whether they end within a line, at the end of the file.
    ends_in_line: bool,
    last: u8,
    /// Offset in the file and problem, in order.
    problems: VecDeque<(u64, RowProblem)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// At the start of a field.
    Start,
    /// In a field without quotes, in which a quote is a character.
    Plain,
    /// In a field with quotes.
    Quoted,
    /// Behind a quote in such a field: it is closed, unless another one follows.
    Closed,
}

impl Quotes {
    pub(crate) fn new(delimiter: u8) -> Self {
        Self {
            delimiter,
            state: State::Start,
            n_bytes: 0,
            ends_in_line: false,
            last: b'\n',
            problems: VecDeque::new(),
        }
    }

    /// Bytes of the file, in order.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = match (self.state, *byte) {
                (State::Quoted, QUOTE) => State::Closed,
                (State::Quoted, _) | (State::Start | State::Closed, QUOTE) => State::Quoted,
                (_, b'\n' | b'\r') => State::Start,
                (_, byte) if byte == self.delimiter => State::Start,
                // Blanks behind a closing quote join nothing.
                (State::Closed, b' ' | b'\t') => State::Closed,
                (State::Closed, _) => {
                    self.problems.push_back((self.n_bytes, RowProblem::BehindQuote));
                    State::Plain
                }
                (State::Start | State::Plain, _) => State::Plain,
            };
            self.n_bytes += 1;
            self.last = *byte;
        }
    }

    /// The file has ended.
    pub(crate) fn end(&mut self) {
        self.ends_in_line |= self.last != b'\n' || self.state == State::Quoted;
        if self.state == State::Quoted {
            self.problems.push_back((self.n_bytes.saturating_sub(1), RowProblem::UnclosedQuote));
            self.state = State::Start;
        }
    }

    /// Whether the end of the file ends the record at an offset, and no line feed.
    pub(crate) fn ends_record(&self, end: u64) -> bool {
        self.ends_in_line && end >= self.n_bytes
    }

    /// The first problem of a record that ends at an offset in the file.
    pub(crate) fn of_record(&mut self, end: u64) -> Option<RowProblem> {
        let mut first = None;
        while let Some((_, problem)) = self.problems.pop_front_if(|(at, _)| *at < end) {
            first.get_or_insert(problem);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(u64, RowProblem)> {
        let mut quotes = Quotes::new(b',');
        // In parts, as a reader passes them.
        text.as_bytes().chunks(3).for_each(|part| quotes.pass(part));
        quotes.end();
        quotes.problems.into()
    }

    #[test]
    fn quotes_as_they_are_meant() {
        for text in [
            "a,b\n\"c,d\",\"e \"\"f\"\"\"\r\n",
            "a\"b,c\" d\n",
            "\"a\" ,b\n",
            "\"a\nb\"",
            "",
            "\"\"",
        ] {
            assert_eq!(problems(text), [], "{text:?}");
        }
    }

    #[test]
    fn stray_quotes() {
        assert_eq!(problems("a\n\"b\nc\n"), [(6, RowProblem::UnclosedQuote)]);
        assert_eq!(problems("a\n\"b\nc\"\"\n"), [(8, RowProblem::UnclosedQuote)]);
        let behind = RowProblem::BehindQuote;
        assert_eq!(
            problems("\"a,b\n\"a,b\n\"x\" y,\"z\"z"),
            [(6, behind.clone()), (14, behind.clone()), (19, behind)]
        );
    }
}
