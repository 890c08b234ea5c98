//! Finds the numbers of a text.
//!
//! A number is digits with optional thousands separators, decimals, a fraction, a power or a percent sign, and not a part of
//! a word. Digits that form no single number, such as a date, a time or a root, are found without a value: they are no
//! answer, and neither are the digits inside them.

use std::ops::Range;

use crate::value::{Number, Rational};

/// Largest number of digits of an integer or of decimals; longer ones have no value.
const MAX_DIGITS: usize = 30;

/// A number in a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// Range of its characters, with its sign and without its unit.
    pub(crate) range: Range<usize>,
    /// `None` for digits that form no single number.
    pub(crate) number: Option<Number>,
}

/// A text as characters, with the numbers in it.
pub(crate) struct Scan {
    pub(crate) chars: Vec<char>,
    pub(crate) found: Vec<Found>,
}

impl Scan {
    pub(crate) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let mut found = Vec::new();
        let mut at = 0;
        while at < chars.len() {
            let reader = Reader { chars: &chars };
            if let Some(end) = reader.word_with_digits(at) {
                at = end;
            } else if let Some(number) = reader.number_at(at) {
                at = number.range.end.max(at + 1);
                found.push(number);
            } else {
                at += 1;
            }
        }
        Self { chars, found }
    }

    /// Text between two positions.
    pub(crate) fn text(&self, range: Range<usize>) -> String {
        self.chars.get(range).unwrap_or_default().iter().collect()
    }
}

#[derive(Clone, Copy)]
struct Reader<'c> {
    chars: &'c [char],
}

/// A number without sign, unit and percent sign; `value` is `None` if it is too long.
struct Unsigned {
    end: usize,
    value: Option<Rational>,
}

impl Reader<'_> {
    fn get(self, at: usize) -> Option<char> {
        self.chars.get(at).copied()
    }

    fn is_digit(self, at: usize) -> bool {
        self.get(at).is_some_and(|c| c.is_ascii_digit())
    }

    fn starts_with(self, at: usize, text: &str) -> bool {
        text.chars().enumerate().all(|(offset, c)| self.get(at + offset) == Some(c))
    }

    /// The character before a position.
    fn before(self, at: usize) -> Option<char> {
        self.get(at.checked_sub(1)?)
    }

    /// The number that starts at a position: at its first digit, `\frac`, a fraction character or a decimal point.
    fn number_at(self, at: usize) -> Option<Found> {
        let starts = self.is_digit(at)
            || self.frac_length(at).is_some()
            || self.get(at).is_some_and(|c| vulgar_fraction(c).is_some())
            || (self.get(at) == Some('.') && self.is_digit(at + 1) && self.before(at) != Some('.'));
        if !starts {
            return None;
        }
        let unsigned = self.unsigned(at)?;
        let (start, is_negative) = self.sign_before(at);
        let end = unsigned.end;
        let value =
            if self.has_root_before(at) || self.has_pi_at(end) { None } else { unsigned.value };
        let value = if is_negative { value.and_then(Rational::negated) } else { value };
        let percent = self.percent_length(end);
        let number = value.map(|value| Number { value, is_percent: percent.is_some() });
        Some(Found { range: start..end + percent.unwrap_or(0), number })
    }

    /// End of digits that belong to a word or a unit: `x2`, `H2O`, `cm^2`.
    fn word_with_digits(self, at: usize) -> Option<usize> {
        let is_part =
            self.is_digit(at) && (self.before(at).is_some_and(joins_digits) || self.is_power(at));
        is_part.then(|| self.word_end(at))
    }

    /// Whether a position is an exponent.
    fn is_power(self, at: usize) -> bool {
        let mut before = (0..at).rev().filter_map(|at| self.get(at)).peekable();
        before.next_if(|c| matches!(c, '-' | '\u{2212}'));
        before.next_if_eq(&'{');
        before.next() == Some('^')
    }

    /// End of the letters, digits and underscores from a position on.
    fn word_end(self, mut at: usize) -> usize {
        while self.get(at).is_some_and(|c| c.is_alphanumeric() || c == '_') {
            at += 1;
        }
        at
    }

    /// Start of a number with its currency symbol and sign, and whether it is negative.
    fn sign_before(self, at: usize) -> (usize, bool) {
        let is_sign = |c: char| matches!(c, '-' | '+' | '\u{2212}' | '\u{2013}');
        let is_currency = |c: char| matches!(c, '$' | '€' | '£' | '¥' | '₹');
        // A sign after a letter, a digit or a closing bracket is an operator or a hyphen.
        let is_sign_at = |at: usize| {
            self.get(at).is_some_and(is_sign)
                && !self
                    .before(at)
                    .is_some_and(|c| c.is_alphanumeric() || matches!(c, ')' | ']' | '}' | '.'))
        };
        let negative = |at: usize| self.get(at).is_some_and(|c| c != '+');
        let mut start = at;
        if let Some(previous) = start.checked_sub(1)
            && is_sign_at(previous)
        {
            return (previous, negative(previous));
        }
        if self.before(start).is_some_and(is_currency) {
            start -= 1;
            if self.before(start) == Some('\\') {
                start -= 1;
            }
            if let Some(previous) = start.checked_sub(1)
                && is_sign_at(previous)
            {
                return (previous, negative(previous));
            }
        }
        (start, false)
    }

    /// Whether a number is the argument of a root.
    fn has_root_before(self, at: usize) -> bool {
        let Some(mut before) = at.checked_sub(1) else { return false };
        if matches!(self.get(before), Some('{' | '(')) {
            let Some(outer) = before.checked_sub(1) else { return false };
            before = outer;
        }
        self.get(before) == Some('√')
            || before.checked_sub(4).is_some_and(|start| self.starts_with(start, "\\sqrt"))
    }

    /// Whether π follows: 2π is not 2.
    fn has_pi_at(self, at: usize) -> bool {
        let at = if self.get(at) == Some(' ') { at + 1 } else { at };
        self.get(at) == Some('π')
            || (self.starts_with(at, "\\pi") && !self.get(at + 3).is_some_and(char::is_alphabetic))
            || (self.starts_with(at, "pi") && !self.get(at + 2).is_some_and(char::is_alphabetic))
    }

    /// Length of a percent sign after a number, with the space before it.
    fn percent_length(self, at: usize) -> Option<usize> {
        let space = usize::from(self.get(at) == Some(' '));
        let at = at + space;
        let signs = ["%", "\\%", "percent", "per cent"];
        let sign = signs.into_iter().find(|sign| self.starts_with(at, sign))?;
        let is_word = sign.starts_with('p');
        let goes_on = self.get(at + sign.len()).is_some_and(char::is_alphabetic);
        (!is_word || !goes_on).then_some(space + sign.len())
    }

    /// A number without its sign.
    fn unsigned(self, at: usize) -> Option<Unsigned> {
        if let Some(length) = self.frac_length(at) {
            return self.latex_fraction(at + length);
        }
        if let Some(value) = self.get(at).and_then(vulgar_fraction) {
            return Some(Unsigned { end: at + 1, value: Some(value) });
        }
        let whole = self.decimal(at)?;
        if self.is_digits_and_marks(whole.end) {
            // A date, a time, a version or badly grouped digits.
            let mut end = whole.end;
            while self.is_digit(end) || (self.is_mark(end) && self.is_digit(end + 1)) {
                end += 1;
            }
            return Some(Unsigned { end, value: None });
        }
        if let Some(mixed) = self.mixed(&whole) {
            return Some(mixed);
        }
        if let Some(fraction) = self.fraction(&whole) {
            return Some(fraction);
        }
        Some(self.scaled(whole))
    }

    fn is_mark(self, at: usize) -> bool {
        matches!(self.get(at), Some(':' | '.' | ',' | '/'))
    }

    /// Whether what follows a decimal makes it a part of a time (`3:30`), a version (`1.2.3`) or badly grouped digits.
    fn is_digits_and_marks(self, end: usize) -> bool {
        let joins = match self.get(end) {
            Some(':' | '.') => true,
            // `1,2` is a list, `1,234,5` is badly grouped.
            Some(',') => end.checked_sub(4).is_some_and(|at| self.get(at) == Some(',')),
            // `1/2/2024` is a date.
            Some('/') => {
                let mut second = end + 1;
                while self.is_digit(second) {
                    second += 1;
                }
                return second > end + 1
                    && self.get(second) == Some('/')
                    && self.is_digit(second + 1);
            }
            _ => false,
        };
        joins && self.is_digit(end + 1)
    }

    /// Digits with thousands separators and decimals.
    fn decimal(self, at: usize) -> Option<Unsigned> {
        let mut digits = String::new();
        let mut end = at;
        while self.is_digit(end) {
            digits.extend(self.get(end));
            end += 1;
        }
        if (1..=3).contains(&digits.len()) {
            while let Some(group) = self.group(end) {
                digits.extend(self.chars.get(group - 3..group).unwrap_or_default());
                end = group;
            }
        }
        let mut n_decimals = 0;
        if self.get(end) == Some('.') && self.is_digit(end + 1) {
            end += 1;
            while self.is_digit(end) {
                digits.extend(self.get(end));
                end += 1;
                n_decimals += 1;
            }
        }
        if digits.is_empty() {
            return None;
        }
        // Zeros at the end of decimals change no value.
        while n_decimals > 0 && digits.ends_with('0') {
            digits.pop();
            n_decimals -= 1;
        }
        let significant = digits.trim_start_matches('0');
        let value = if significant.len() <= MAX_DIGITS && n_decimals <= MAX_DIGITS {
            let digits = if significant.is_empty() { "0" } else { significant };
            let scale = 10_i128.checked_pow(n_decimals as u32);
            digits.parse().ok().zip(scale).and_then(|(digits, scale)| Rational::new(digits, scale))
        } else {
            None
        };
        Some(Unsigned { end, value })
    }

    /// End of a thousands separator with exactly three digits.
    fn group(self, at: usize) -> Option<usize> {
        let separators = [",", "{,}", "\\,", "\u{a0}", "\u{2009}", "\u{202f}"];
        let separator = separators.into_iter().find(|text| self.starts_with(at, text))?;
        let first = at + separator.chars().count();
        let is_group = (0..3).all(|offset| self.is_digit(first + offset));
        (is_group && !self.is_digit(first + 3)).then_some(first + 3)
    }

    /// `3/4`, with at most one space on each side of the bar.
    fn fraction(self, numerator: &Unsigned) -> Option<Unsigned> {
        let mut at = numerator.end;
        at += usize::from(self.get(at) == Some(' '));
        if !matches!(self.get(at), Some('/' | '\u{2044}')) {
            return None;
        }
        at += 1;
        at += usize::from(self.get(at) == Some(' '));
        if !self.is_digit(at) {
            return None;
        }
        let denominator = self.decimal(at)?;
        let value = numerator.value.zip(denominator.value).and_then(|(n, d)| n.over(d));
        Some(Unsigned { end: denominator.end, value })
    }

    /// `3 1/2`, `3½` or `3\frac{1}{2}`.
    fn mixed(self, whole: &Unsigned) -> Option<Unsigned> {
        let integer = whole.value.filter(|value| value.is_integer())?;
        let space = usize::from(self.get(whole.end) == Some(' '));
        let at = whole.end + space;
        let fraction = if let Some(length) = self.frac_length(at) {
            self.latex_fraction(at + length)?
        } else if let Some(value) = self.get(at).and_then(vulgar_fraction) {
            Unsigned { end: at + 1, value: Some(value) }
        } else if space == 1 && self.is_digit(at) {
            let numerator = self.decimal(at)?;
            self.fraction(&numerator)?
        } else {
            return None;
        };
        let value = fraction.value?;
        // `12 34/5` is no mixed number.
        let is_proper = value.to_f64() < 1.0 && !value.is_integer();
        is_proper.then(|| Unsigned { end: fraction.end, value: integer.plus(value) })
    }

    /// Length of `\frac`, `\dfrac` or `\tfrac`.
    fn frac_length(self, at: usize) -> Option<usize> {
        ["\\frac", "\\dfrac", "\\tfrac"]
            .into_iter()
            .find(|name| self.starts_with(at, name))
            .map(str::len)
    }

    /// The two arguments of `\frac`: in braces, or a digit each.
    fn latex_fraction(self, at: usize) -> Option<Unsigned> {
        let (numerator, end) = self.argument(at)?;
        let (denominator, end) = self.argument(end)?;
        let value = numerator.zip(denominator).and_then(|(n, d)| n.over(d));
        Some(Unsigned { end, value })
    }

    /// Value and end of an argument of `\frac`.
    fn argument(self, at: usize) -> Option<(Option<Rational>, usize)> {
        if self.get(at) != Some('{') {
            let digit = self.get(at)?.to_digit(10)?;
            return Some((Some(Rational::integer(digit.into())), at + 1));
        }
        let mut end = at + 1;
        while !matches!(self.get(end)?, '}' | '{') {
            end += 1;
        }
        let (from, is_negative) = match self.get(at + 1) {
            Some('-' | '\u{2212}') => (at + 2, true),
            _ => (at + 1, false),
        };
        let value = self.decimal(from).filter(|inside| inside.end == end);
        let value = value.and_then(|inside| inside.value);
        let value = if is_negative { value.and_then(Rational::negated) } else { value };
        (self.get(end) == Some('}')).then_some((value, end + 1))
    }

    /// A decimal with its exponent: `2e3`, `2 × 10^3`, `10^{-2}`.
    fn scaled(self, base: Unsigned) -> Unsigned {
        let end = base.end;
        if let Some((exponent, end)) = self.e_notation(end) {
            let scale = exponent.and_then(|exponent| Rational::integer(10).power(exponent));
            let value = base.value.zip(scale).and_then(|(base, scale)| base.times(scale));
            return Unsigned { end, value };
        }
        if self.get(end) == Some('^') {
            let (exponent, end) = self.exponent(end + 1);
            let value = base.value.zip(exponent).and_then(|(base, n)| base.power(n));
            return Unsigned { end, value };
        }
        let Some(power) = self.power_of_ten(end) else { return base };
        let (exponent, end) = self.exponent(power);
        let scale = exponent.and_then(|exponent| Rational::integer(10).power(exponent));
        let value = base.value.zip(scale).and_then(|(base, scale)| base.times(scale));
        Unsigned { end, value }
    }

    /// Start of the exponent of ` × 10^`, with or without spaces.
    fn power_of_ten(self, at: usize) -> Option<usize> {
        let skip_space = |at: usize| at + usize::from(self.get(at) == Some(' '));
        let at = skip_space(at);
        let signs = ["×", "x", "*", "\\times", "\\cdot"];
        let sign = signs.into_iter().find(|sign| self.starts_with(at, sign))?;
        let at = skip_space(at + sign.chars().count());
        self.starts_with(at, "10^").then_some(at + 3)
    }

    /// Exponent and end of `e3`, `E-3`; not of a word such as `5each`.
    fn e_notation(self, at: usize) -> Option<(Option<i32>, usize)> {
        if !matches!(self.get(at), Some('e' | 'E')) {
            return None;
        }
        let (sign, digits) = match self.get(at + 1) {
            Some('-') => (-1, at + 2),
            Some('+') => (1, at + 2),
            _ => (1, at + 1),
        };
        let mut end = digits;
        while self.is_digit(end) {
            end += 1;
        }
        if end == digits || self.get(end).is_some_and(char::is_alphanumeric) {
            return None;
        }
        Some((self.small(digits..end).map(|n| sign * n), end))
    }

    /// Exponent after `^`, in braces or not; `None` if it is no small integer.
    fn exponent(self, at: usize) -> (Option<i32>, usize) {
        let is_braced = self.get(at) == Some('{');
        let mut from = at + usize::from(is_braced);
        let is_negative = matches!(self.get(from), Some('-' | '\u{2212}'));
        from += usize::from(is_negative);
        let mut end = from;
        while self.is_digit(end) {
            end += 1;
        }
        let value = self.small(from..end).map(|n| if is_negative { -n } else { n });
        if !is_braced {
            return (value, end.max(at));
        }
        if self.get(end) == Some('}') {
            return (value, end + 1);
        }
        (None, end.max(at))
    }

    fn small(self, range: Range<usize>) -> Option<i32> {
        let text: String = self.chars.get(range).unwrap_or_default().iter().collect();
        text.parse().ok().filter(|n: &i32| *n <= MAX_DIGITS as i32)
    }
}

/// Whether a character before a digit makes both parts of one word. Scripts without spaces between words have no such
/// characters.
fn joins_digits(c: char) -> bool {
    let is_unspaced = matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{0e00}'..='\u{0eff}');
    c == '_' || (c.is_alphabetic() && !is_unspaced)
}

/// Value of a character such as ½.
fn vulgar_fraction(c: char) -> Option<Rational> {
    let (numerator, denominator) = match c {
        '½' => (1, 2),
        '⅓' => (1, 3),
        '⅔' => (2, 3),
        '¼' => (1, 4),
        '¾' => (3, 4),
        '⅕' => (1, 5),
        '⅖' => (2, 5),
        '⅗' => (3, 5),
        '⅘' => (4, 5),
        '⅙' => (1, 6),
        '⅚' => (5, 6),
        '⅛' => (1, 8),
        '⅜' => (3, 8),
        '⅝' => (5, 8),
        '⅞' => (7, 8),
        _ => return None,
    };
    Rational::new(numerator, denominator)
}
