//! Rewrites a template so that the size and nesting of all its values are checked.
//!
//! The engine's fuel counts instructions and bytes, but not the contents of lists: adding a list to
//! itself 40 times allocates 2^40 items, comparing lists that share their parts takes as many steps,
//! and dropping a list nested 100,000 levels deep overflows the stack and ends the process. A value
//! must be stored, passed or put into a literal to be used twice, so the rewritten template checks
//! it there, and before lists are added or compared. Reading a text by position or comparing it takes
//! as many steps as it is long, which no instruction counts either. `template_values` contains the checks.
//! Operators are counted, since the engine's parser recurses for each of them. Nothing else about a template changes. Expressions are split into words, not parsed.

/// The filter that checks a whole value.
const CHECKED: &str = "|_checked";
/// The filter that checks a whole value and counts the bytes of a text that is compared or looked up.
const READ: &str = "|_read";
/// The filter that checks an argument.
const PASSED: &str = "|_passed";
/// The filter that counts the bytes of a text of which a position is read.
const INDEXED: &str = "|_indexed";
/// The filter that checks a value before a namespace stores it.
const STORED: &str = "|_stored";
/// The filter that checks the length of a list before another one is added to it.
const LENGTH: &str = "|_length";

/// Maximum number of operators, calls, indices and filters in one tag. The engine's parser recurses for each of them.
/// Published templates have fewer than 50.
const OPERATORS_IN_TAG: usize = 500;
/// Maximum number of `elif` in a template, each of which the parser nests into the one before.
const ELIFS: usize = 500;
/// Maximum length of a name or of a literal key, both of which are hashed each time they are looked up.
const NAME_BYTES: usize = 1000;

/// Filters, methods and functions that write the texts of a list without consuming fuel for each.
const WRITERS: [&str; 18] = [
    "capitalize",
    "e",
    "escape",
    "format",
    "indent",
    "join",
    "lower",
    "pprint",
    "raise_exception",
    "replace",
    "safe",
    "split",
    "string",
    "title",
    "trim",
    "upper",
    "urlencode",
    "wordcount",
];

/// Words before an operand: a `+` or `(` after them is neither a binary operator nor a call.
const OPERATORS: [&str; 9] = ["and", "or", "not", "in", "is", "if", "else", "elif", "recursive"];

#[derive(Clone, Copy, PartialEq)]
enum Last {
    /// Nothing, an operator, an opening bracket or a comma: an operand follows.
    Open,
    /// An operand: an operator can follow.
    Operand,
}

/// An operand of `~` or of a comparison: operands joined by the operators that bind more tightly.
#[derive(Clone, Copy, Default)]
struct Sum {
    /// Its start in the output.
    start: usize,
    /// It contains `+` or `*`, which can make a large list of small ones.
    grows: bool,
    /// It follows a `~`, which writes it, or an `in`, which compares its parts.
    read: bool,
}

/// An open bracket.
struct Bracket {
    kind: Inside,
    /// Its position in the output.
    start: usize,
    /// Start of the current argument in the output.
    argument: usize,
    /// Start of what is called or indexed, or of the bracket itself.
    operand_start: usize,
    comma: bool,
    /// An index with a colon, which accepts numbers only.
    slice: bool,
    /// The sum that continues after the bracket.
    sum: Sum,
    /// A sum between the brackets contains `+` or `*`.
    grows: bool,
    /// The arguments of one of [`WRITERS`].
    writer: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Inside {
    /// The arguments of a call, each checked.
    Call,
    /// The parameters of a macro.
    Parameters,
    /// An index or slice.
    Index,
    /// A list or dict literal.
    Literal,
    /// Parentheses of a group or tuple.
    Group,
}

/// The state of rewriting one tag.
struct Tag<'s> {
    rest: &'s str,
    out: String,
    last: Last,
    /// Start of the last operand in the output, with its calls and indices.
    operand_start: usize,
    /// End of the last operand in the output.
    operand_end: usize,
    /// A dot or a bar comes before the next word, which belongs to the last operand.
    continued: bool,
    n_operators: usize,
    /// Length of the longest name.
    longest_name: usize,
    /// The last sum or product, of which the last operand is a part.
    sum: Sum,
    /// The last word is one of [`WRITERS`].
    writer: bool,
    /// The operand belongs to an `is`, whose result is a boolean.
    tested: bool,
    brackets: Vec<Bracket>,
    /// First word, such as `set` or `for`; empty for an output.
    name: String,
    n_words: usize,
    /// Start of the value of a `set` or `with` in the output.
    value: Option<usize>,
    /// The target of a `set` has a dot: a namespace stores the value.
    attribute: bool,
    /// The `in` of a `for` has been seen.
    looping: bool,
}

/// Variables that a template with marks writes at the start and at the end of `{% generation %}`
/// blocks.
pub(crate) const MARKS: [&str; 2] = ["_generation_start", "_generation_end"];

/// The template with checks added; `{% generation %}` becomes a block without effect. The error is a limit that the
/// template exceeds.
pub(crate) fn add_checks(source: &str) -> Result<String, String> {
    rewritten(source, false)
}

/// The same, but the start and the end of each `{% generation %}` block write [`MARKS`].
pub(crate) fn add_checks_and_marks(source: &str) -> Result<String, String> {
    rewritten(source, true)
}

fn rewritten(source: &str, marks: bool) -> Result<String, String> {
    let mut out = String::with_capacity(source.len() * 2);
    let mut rest = source;
    let mut n_elifs = 0;
    while let Some(start) = rest.find('{') {
        let (text, tag) = rest.split_at(start);
        out.push_str(text);
        rest = match tag.get(..2) {
            Some("{#") => copy_until(tag, "#}", &mut out),
            Some("{{") => {
                rewrite(tag, "}}", marks, &mut out).map_err(|e| at_line(source, tag, &e))?
            }
            Some("{%") if first_word(tag) == "raw" => copy_raw(tag, &mut out),
            Some("{%") => {
                n_elifs += usize::from(first_word(tag) == "elif");
                if n_elifs > ELIFS {
                    return Err(at_line(source, tag, &format!("more than {ELIFS} `elif`")));
                }
                rewrite(tag, "%}", marks, &mut out).map_err(|e| at_line(source, tag, &e))?
            }
            _ => copy_until(tag, "{", &mut out),
        };
    }
    out.push_str(rest);
    Ok(out)
}

/// A problem with the line of its tag.
fn at_line(source: &str, tag: &str, problem: &str) -> String {
    let before = source.get(..source.len() - tag.len()).unwrap_or_default();
    format!("{problem} (line {})", before.matches('\n').count() + 1)
}

fn first_word(tag: &str) -> &str {
    let inner = tag.get(2..).unwrap_or_default().trim_start_matches(['-', '+']).trim_start();
    inner.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn copy_until<'s>(text: &'s str, end: &str, out: &mut String) -> &'s str {
    let end = text.find(end).map_or(text.len(), |at| at + end.len());
    let (done, rest) = text.split_at(end);
    out.push_str(done);
    rest
}

fn copy_raw<'s>(text: &'s str, out: &mut String) -> &'s str {
    let mut rest = copy_until(text, "%}", out);
    while !rest.is_empty() && first_word(rest) != "endraw" {
        let next = rest.get(1..).and_then(|tail| tail.find("{%")).map_or(rest.len(), |at| at + 1);
        // A tag starts with ASCII, so this is a character boundary; otherwise all is copied.
        let (done, tail) = rest.split_at_checked(next).unwrap_or((rest, ""));
        out.push_str(done);
        rest = tail;
    }
    copy_until(rest, "%}", out)
}

fn rewrite<'s>(tag: &'s str, end: &str, marks: bool, out: &mut String) -> Result<&'s str, String> {
    let mut state = Tag {
        rest: tag.get(2..).unwrap_or_default(),
        out: tag.get(..2).unwrap_or_default().to_owned(),
        last: Last::Open,
        operand_start: 0,
        operand_end: 0,
        continued: false,
        n_operators: 0,
        longest_name: 0,
        sum: Sum::default(),
        writer: false,
        tested: false,
        brackets: Vec::new(),
        name: String::new(),
        n_words: 0,
        value: None,
        attribute: false,
        looping: false,
    };
    state.run(end);
    if state.n_operators > OPERATORS_IN_TAG {
        return Err(format!("more than {OPERATORS_IN_TAG} operators in one tag"));
    }
    if state.longest_name > NAME_BYTES {
        return Err(format!("a name of {} bytes", state.longest_name));
    }
    match state.name.as_str() {
        "generation" if marks => out.push_str(&marked(&state.out, "with", MARKS[0], "if true")),
        "endgeneration" if marks => out.push_str(&marked(&state.out, "endif", MARKS[1], "endwith")),
        _ => out.push_str(&state.out),
    }
    Ok(state.rest)
}

fn argument_check(of_writer: bool) -> &'static str {
    if of_writer { READ } else { PASSED }
}

/// A mark between two block tags, which strip the same white space as `tag` on both of its sides.
fn marked(tag: &str, before: &str, mark: &str, after: &str) -> String {
    let sign = |c: Option<char>| c.filter(|c| matches!(c, '-' | '+')).map(String::from);
    let left = sign(tag.chars().nth(2)).unwrap_or_default();
    let right = sign(tag.chars().rev().nth(2)).unwrap_or_default();
    format!("{{%{left} {before} %}}{{{{ {mark} }}}}{{% {after} {right}%}}")
}

impl Tag<'_> {
    fn run(&mut self, end: &str) {
        // A whitespace sign after the opening is not an operator.
        self.take(usize::from(self.rest.starts_with(['-', '+'])));
        self.start_sum(false);
        while let Some(c) = self.rest.chars().next() {
            if self.brackets.is_empty() && self.at_end(end) {
                self.end_sum(false);
                self.close_value();
                self.take(self.rest.find(end).map_or(0, |at| at + end.len()));
                return;
            }
            match c {
                '\'' | '"' => self.string(c),
                c if c.is_alphanumeric() || c == '_' => self.word(),
                '(' | '[' | '{' => self.open(c),
                ')' | ']' | '}' => self.close(),
                c if c.is_whitespace() => self.take(c.len_utf8()),
                _ => self.operator(c),
            }
        }
    }

    /// Whether the tag ends here, with or without a whitespace sign.
    fn at_end(&self, end: &str) -> bool {
        self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest).starts_with(end)
    }

    /// Copies the next `n` bytes.
    fn take(&mut self, n: usize) {
        let (taken, rest) = self.rest.split_at_checked(n).unwrap_or((self.rest, ""));
        self.out.push_str(taken);
        self.rest = rest;
    }

    fn operand(&mut self) {
        self.last = Last::Operand;
        self.operand_end = self.out.len();
        self.continued = false;
    }

    /// Notes the start of an operand, unless it continues the last one.
    fn start_operand(&mut self) {
        if !self.continued {
            self.operand_start = self.out.len();
        }
    }

    /// Adds a check after the last operand.
    fn check_operand(&mut self, filter: &str) {
        self.out.insert_str(self.operand_end, filter);
    }

    fn start_sum(&mut self, read: bool) {
        self.sum = Sum { start: self.out.len(), grows: false, read };
    }

    /// Adds a check around the last sum if the operator before or after it reads all of it.
    fn end_sum(&mut self, read: bool) {
        if self.sum.read || read {
            self.wrap(self.sum.start, READ);
        }
        if let Some(bracket) = self.brackets.last_mut() {
            bracket.grows |= self.sum.grows;
        }
        self.start_sum(false);
    }

    fn string(&mut self, quote: char) {
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        self.start_operand();
        self.take(end.map_or(self.rest.len(), |(at, _)| at + 1));
        self.operand();
    }

    fn word(&mut self) {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let word = self.rest.get(..end.unwrap_or(self.rest.len())).unwrap_or_default();
        self.n_words += 1;
        self.longest_name = self.longest_name.max(word.len());
        let first = self.n_words == 1 && self.out.starts_with("{%");
        if first {
            self.name = word.to_owned();
            let plain = match word {
                "generation" => "with",
                "endgeneration" => "endwith",
                other => other,
            };
            self.out.push_str(plain);
            self.rest = self.rest.get(word.len()..).unwrap_or_default();
            self.last = Last::Open;
            self.start_sum(false);
            return;
        }
        let mut compared = false;
        self.writer = WRITERS.contains(&word);
        if word == "in" && self.name == "for" && !self.looping && self.brackets.is_empty() {
            self.looping = true;
        } else if word == "in" && !self.tested {
            compared = true;
        }
        let operator = OPERATORS.contains(&word) && !self.continued;
        if operator {
            let comparison = compared || word == "not" && !self.tested;
            if comparison && self.last == Last::Operand {
                // `x in y` and `x not in y` compare x with each item.
                self.check_operand(READ);
            }
            self.end_sum(false);
        } else {
            if self.writer && self.out.trim_end().ends_with('|') {
                self.check_operand(READ);
            }
            self.start_operand();
        }
        self.take(word.len());
        if operator {
            self.start_sum(compared);
            self.n_operators += 1;
            self.last = Last::Open;
            self.tested = word == "is" || (word == "not" && self.tested);
        } else {
            self.operand();
        }
    }

    fn open(&mut self, c: char) {
        let parameters = matches!(self.name.as_str(), "macro" | "call") && !self.out.contains('(');
        let kind = match (c, self.last) {
            ('(', _) if parameters => Inside::Parameters,
            ('(', Last::Operand) => Inside::Call,
            ('(', Last::Open) => Inside::Group,
            ('[', Last::Operand) => Inside::Index,
            _ => Inside::Literal,
        };
        if matches!(kind, Inside::Group | Inside::Literal) {
            self.start_operand();
        }
        self.n_operators += usize::from(kind != Inside::Parameters);
        self.continued = false;
        let start = self.out.len();
        self.take(1);
        self.brackets.push(Bracket {
            kind,
            start,
            argument: self.out.len(),
            operand_start: self.operand_start,
            comma: false,
            slice: false,
            sum: self.sum,
            grows: false,
            writer: kind == Inside::Call && self.writer,
        });
        self.start_sum(false);
        self.last = Last::Open;
        self.tested = false;
    }

    fn close(&mut self) {
        self.end_sum(false);
        let Some(bracket) = self.brackets.pop() else {
            self.take(1);
            return;
        };
        self.sum = bracket.sum;
        self.close_argument(&bracket);
        self.take(1);
        self.operand_start = bracket.operand_start;
        if bracket.kind == Inside::Index {
            // Reading a position of a text, or a part of it, counts its characters from the start.
            let container = bracket.operand_start..bracket.start;
            self.out.insert_str(container.end, &format!("{INDEXED})"));
            self.out.insert(container.start, '(');
        }
        // Names on the left of `=` or `in` may be in brackets; they are not values.
        let target =
            (self.name == "for" && !self.looping) || (self.name == "set" && self.value.is_none());
        let value = bracket.kind == Inside::Literal
            || (bracket.kind == Inside::Group && (bracket.comma || bracket.grows));
        if value && !target {
            // An index or a method may follow, which is not possible after a bare filter.
            self.out.insert(bracket.start, '(');
            self.out.push_str("|_checked)");
        }
        self.operand();
        self.tested = false;
    }

    /// Adds a check around the argument that ends here.
    fn close_argument(&mut self, bracket: &Bracket) {
        // Looking up a key traverses all of it.
        match bracket.kind {
            Inside::Call => self.wrap(bracket.argument, argument_check(bracket.writer)),
            Inside::Index if !bracket.slice => self.wrap(bracket.argument, READ),
            Inside::Index | Inside::Parameters | Inside::Literal | Inside::Group => {}
        }
    }

    /// Adds `check` around the output since `start`, unless it cannot need one.
    fn wrap(&mut self, start: usize, check: &str) {
        let text = self.out.get(start..).unwrap_or_default();
        let inner = text.trim();
        // A splat is not an expression; a number or a string needs no check.
        let plain = inner.is_empty()
            || inner.starts_with('*')
            || inner.parse::<f64>().is_ok()
            || (inner.starts_with(['\'', '"'])
                && inner.len() <= NAME_BYTES
                && !inner.contains(['|', '~', '+', '*', '%', ',', '[', '(']));
        if !plain {
            let first = start + text.len() - text.trim_start().len();
            let end = first + inner.len();
            self.out.insert_str(end, check);
            self.out.insert(end, ')');
            self.out.insert(first, '(');
        }
    }

    fn close_value(&mut self) {
        if let Some(start) = self.value.take() {
            self.wrap(start, if self.attribute { STORED } else { CHECKED });
        }
    }

    fn operator(&mut self, c: char) {
        let two = self.rest.get(..2).unwrap_or_default();
        self.n_operators += usize::from(!matches!(c, ',' | ':') && (c != '=' || two == "=="));
        let continued = matches!(c, '.' | '|') && self.last == Last::Operand;
        let comparison = matches!(two, "==" | "!=" | "<=" | ">=") || c == '<' || c == '>';
        let binary = self.last == Last::Operand && !self.tested;
        if comparison {
            if binary {
                self.check_operand(READ);
            }
            self.end_sum(false);
            self.take(if two.ends_with('=') { 2 } else { 1 });
            self.start_sum(false);
        } else if two == "**" || two == "//" {
            self.take(2);
        } else {
            if (c == '+' || c == '*') && binary {
                self.check_operand(LENGTH);
                self.sum.grows = true;
            }
            if matches!(c, '~' | ',' | ':' | '=') {
                self.end_sum(c == '~');
            }
            if c == ',' {
                self.comma();
            } else {
                self.take(c.len_utf8());
            }
            match c {
                '=' => self.assign(),
                ':' => self.brackets.last_mut().into_iter().for_each(|b| b.slice = true),
                '.' if self.name == "set" && self.value.is_none() => self.attribute = true,
                _ => {}
            }
            if matches!(c, '~' | ',' | ':' | '=') {
                self.start_sum(c == '~');
            }
        }
        // A name follows a dot and a filter follows a bar; both can be called.
        self.last = Last::Open;
        self.tested = false;
        self.continued = continued;
    }

    fn comma(&mut self) {
        if let Some(bracket) = self.brackets.last_mut() {
            bracket.comma = true;
            let (kind, argument, writer) = (bracket.kind, bracket.argument, bracket.writer);
            if kind == Inside::Call {
                self.wrap(argument, argument_check(writer));
            }
        } else if self.name == "with" {
            self.close_value();
        }
        self.take(1);
        let next = self.out.len();
        if let Some(bracket) = self.brackets.last_mut() {
            bracket.argument = next;
        }
    }

    fn assign(&mut self) {
        let next = self.out.len();
        if let Some(bracket) = self.brackets.last_mut() {
            // A keyword argument: the value starts here.
            bracket.argument = next;
        } else if matches!(self.name.as_str(), "set" | "with") && self.value.is_none() {
            self.value = Some(next);
        }
    }
}

#[cfg(test)]
mod tests;
