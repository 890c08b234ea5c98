//! Nesting depth of a TOML text, computed from its tokens before it is parsed, because the parser
//! and all code that walks its tree recurse.

use std::ops::Range;

use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// An open bracket: its level, and whether it contains keys.
struct Open {
    level: usize,
    is_table: bool,
}

/// State of the scan.
#[derive(Default)]
struct Scan {
    /// Level of the current `[section]`.
    section: usize,
    open: Vec<Open>,
    /// Level of a value that starts here.
    value_level: usize,
    /// Number of dots in the current key.
    dots: usize,
    in_key: bool,
    in_header: bool,
    /// Whether only whitespace has been read of this statement.
    at_start: bool,
}

/// Byte range of the first token deeper than `limit`.
pub(crate) fn too_deep(text: &str, limit: usize) -> Option<Range<usize>> {
    let mut scan = Scan { at_start: true, in_key: true, ..Scan::default() };
    for token in Source::new(text).lex() {
        if scan.step(token.kind()) > limit {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}

impl Scan {
    /// Reads one token and returns its level.
    fn step(&mut self, kind: TokenKind) -> usize {
        let at_start = std::mem::replace(&mut self.at_start, false);
        match kind {
            TokenKind::Whitespace | TokenKind::Comment => self.at_start = at_start,
            TokenKind::Newline if self.open.is_empty() => self.start_statement(),
            TokenKind::LeftSquareBracket
                if self.open.is_empty() && (at_start || self.in_header) =>
            {
                // A second bracket, `[[`, opens a list of sections: one level more.
                self.section = usize::from(self.in_header);
                self.in_header = true;
                self.dots = 0;
            }
            TokenKind::RightSquareBracket if self.in_header => {
                self.section += std::mem::take(&mut self.dots);
                // `[a]` is one level below the file; a second `]` adds none.
                self.section += usize::from(self.in_key);
                self.in_key = false;
            }
            TokenKind::Dot if self.in_key => self.dots += 1,
            TokenKind::Equals => {
                self.value_level = self.level() + std::mem::take(&mut self.dots);
                self.in_key = false;
            }
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                let is_table = kind == TokenKind::LeftCurlyBracket;
                self.value_level += 1;
                self.open.push(Open { level: self.value_level, is_table });
                self.in_key = is_table;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                self.open.pop();
                self.value_level = self.level();
                self.dots = 0;
                self.in_key = false;
            }
            TokenKind::Comma => {
                self.value_level = self.level();
                self.dots = 0;
                self.in_key = self.open.last().is_some_and(|open| open.is_table);
            }
            TokenKind::Dot
            | TokenKind::Newline
            | TokenKind::LiteralString
            | TokenKind::BasicString
            | TokenKind::MlLiteralString
            | TokenKind::MlBasicString
            | TokenKind::Atom
            | TokenKind::Eof => {}
        }
        self.level().max(self.value_level) + self.dots
    }

    fn level(&self) -> usize {
        self.open.last().map_or(self.section, |open| open.level)
    }

    fn start_statement(&mut self) {
        self.in_header = false;
        self.at_start = true;
        self.in_key = true;
        self.dots = 0;
        self.value_level = self.level();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest limit that accepts a text.
    fn depth(text: &str) -> usize {
        (0..100).find(|limit| too_deep(text, *limit).is_none()).unwrap()
    }

    #[test]
    fn every_kind_of_nesting_counts() {
        assert_eq!(depth("a = 1.5\nb = [1.5, 2.5]\n"), 1);
        assert_eq!(depth("a = { b = 1 }"), 1);
        assert_eq!(depth("a.b = 1"), 1);
        assert_eq!(depth("a.b = { c.d = [[1]] }"), 5);
        assert_eq!(depth("[a]\nb = 1"), 1);
        assert_eq!(depth("[a.b.c]\nd.e = 1"), 4);
        assert_eq!(depth("[[a]]\nb = [{ c = 1 }]"), 4);
        assert_eq!(depth("[a.b]\nx = 1\n[c]\ny = [\n  [1], # [[[\n  '[[['\n]\n"), 3);
        assert_eq!(depth("a = \"\"\"\n[[[[\n\"\"\"\n"), 0);
    }

    #[test]
    fn unbalanced_text_is_scanned_to_its_end() {
        for text in ["]]]]}}}}", "[[[[[[", "a = [}", "a = {]", "= = = .", "[a\n[b", "\u{feff}[["] {
            let _ = depth(text);
        }
    }
}
