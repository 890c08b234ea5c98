//! Rewrites a template so that the size and nesting of all its values are checked.
//!
//! The engine's fuel counts instructions and bytes, but not the contents of lists: adding a list to
//! itself 40 times allocates 2^40 items, comparing lists that share their parts takes as many steps,
//! and dropping a list nested 100,000 levels deep overflows the stack and ends the process. A value
//! must be stored, passed or put into a literal to be used twice, so the rewritten template checks
//! it there, and before lists are added or compared. Reading a text by position or comparing it takes
//! as many steps as it is long, which no instruction counts either. `template_values` contains the checks.
//! Operators are counted, since the engine's parser recurses for each of them. Nothing else about a template changes. Expressions are split into words, not parsed.

mod tag;

/// Maximum number of `elif` in a template, each of which the parser nests into the one before.
const ELIFS: usize = 500;

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
    let tag = tag::rewritten(tag, end)?;
    match tag.name.as_str() {
        "generation" if marks => out.push_str(&marked(&tag.text, "with", MARKS[0], "if true")),
        "endgeneration" if marks => out.push_str(&marked(&tag.text, "endif", MARKS[1], "endwith")),
        _ => out.push_str(&tag.text),
    }
    Ok(tag.rest)
}

/// A mark between two block tags, which strip the same white space as `tag` on both of its sides.
fn marked(tag: &str, before: &str, mark: &str, after: &str) -> String {
    let sign = |c: Option<char>| c.filter(|c| matches!(c, '-' | '+')).map(String::from);
    let left = sign(tag.chars().nth(2)).unwrap_or_default();
    let right = sign(tag.chars().rev().nth(2)).unwrap_or_default();
    format!("{{%{left} {before} %}}{{{{ {mark} }}}}{{% {after} {right}%}}")
}

#[cfg(test)]
mod tests;
