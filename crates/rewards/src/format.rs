//! The `format` reward: whether a completion consists of given tags in order.

use std::collections::BTreeSet;

/// 1 if the text is `<a>…</a> <b>…</b>` for the tags a, b, with nothing but white space around them, else 0; and the
/// reason.
pub(crate) fn score(text: &str, tags: &[String]) -> (f64, String) {
    match check(text, tags) {
        Ok(()) => (1.0, "every tag is in place".to_owned()),
        Err(why) => (0.0, why),
    }
}

/// The first tag that is named twice.
pub(crate) fn repeated(tags: &[String]) -> Option<&str> {
    let mut named = BTreeSet::new();
    tags.iter().map(String::as_str).find(|tag| !named.insert(*tag))
}

fn check(text: &str, tags: &[String]) -> Result<(), String> {
    let mut rest = text.trim();
    for tag in tags {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let inside = rest.strip_prefix(&open).ok_or_else(|| format!("no `{open}` in its place"))?;
        let (inside, after) =
            inside.split_once(&close).ok_or_else(|| format!("`{open}` is not closed"))?;
        for other in tags {
            for mark in [format!("<{other}>"), format!("</{other}>")] {
                if inside.contains(&mark) {
                    return Err(format!("`{mark}` inside `{open}`"));
                }
            }
        }
        rest = after.trim_start();
    }
    if rest.is_empty() { Ok(()) } else { Err("text after the last tag".to_owned()) }
}
