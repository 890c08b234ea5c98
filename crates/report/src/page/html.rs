//! HTML as a type of its own, so that foreign text enters a page only escaped.

use std::fmt::Write as _;

/// A piece of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl Html {
    /// Foreign or own text, escaped.
    pub(super) fn text(text: &str) -> Self {
        Self(escaped(text))
    }

    /// A literal of this program.
    pub(super) fn literal(html: &'static str) -> Self {
        Self(html.to_owned())
    }

    /// An element. Attribute values are escaped.
    pub(super) fn element(
        name: &'static str,
        attributes: &[(&'static str, &str)],
        inner: Self,
    ) -> Self {
        let mut out = format!("<{name}");
        for (key, value) in attributes {
            let _ = write!(out, " {key}=\"{}\"", escaped(value));
        }
        out.push('>');
        out += &inner.0;
        if !matches!(name, "meta" | "br" | "hr") {
            let _ = write!(out, "</{name}>");
        }
        Self(out)
    }

    /// An element of a class.
    pub(super) fn class(name: &'static str, class: &str, inner: Self) -> Self {
        Self::element(name, &[("class", class)], inner)
    }

    /// An element without attributes around a text.
    pub(super) fn tag(name: &'static str, text: &str) -> Self {
        Self::element(name, &[], Self::text(text))
    }

    /// Pieces in a row.
    pub(super) fn all(pieces: impl IntoIterator<Item = Self>) -> Self {
        Self(pieces.into_iter().map(|piece| piece.0).collect())
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: Self) {
        self.0 += &piece.0;
    }

    /// Adds a line feed, for readers of the source.
    pub(super) fn line(mut self) -> Self {
        self.0.push('\n');
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// A fold: its summary is always visible, the rest on demand and in print.
pub(super) fn details(summary: &str, inner: Html) -> Html {
    let summary = Html::tag("summary", summary);
    Html::element("details", &[], Html::all([summary, inner])).line()
}

/// A fold that is open at first.
pub(super) fn open_details(summary: &str, inner: Html) -> Html {
    let summary = Html::tag("summary", summary);
    Html::element("details", &[("open", "")], Html::all([summary, inner])).line()
}

/// A table with a head. `right` lists the columns that are aligned to the right.
pub(super) fn table(class: &str, head: &[&str], rows: Vec<Vec<Html>>, right: &[usize]) -> Html {
    let align = |idx: usize| if right.contains(&idx) { "n" } else { "" };
    let cell = |name: &'static str, idx: usize, inner: Html| match align(idx) {
        "" => Html::element(name, &[], inner),
        class => Html::class(name, class, inner),
    };
    let head: Vec<Html> =
        head.iter().enumerate().map(|(idx, text)| cell("th", idx, Html::text(text))).collect();
    let head = Html::element("thead", &[], Html::element("tr", &[], Html::all(head)));
    let rows = rows.into_iter().map(|row| {
        let cells = row.into_iter().enumerate().map(|(idx, inner)| cell("td", idx, inner));
        Html::element("tr", &[], Html::all(cells)).line()
    });
    let body = Html::element("tbody", &[], Html::all(rows));
    let table = Html::class("table", class, Html::all([head, body]));
    // A table that is too wide for the screen scrolls alone.
    Html::class("div", "wide", table).line()
}

/// Escapes what has a meaning in HTML, and shows the characters that would be invisible or reverse a line.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Html;

    #[test]
    fn text_and_attributes_are_escaped() {
        let hostile = "<script>alert(1)</script> \"x\" 'y' & \u{1b}[2J\u{202e}";
        let page = Html::element("p", &[("title", hostile)], Html::text(hostile)).into_string();
        let shown = "&lt;script&gt;alert(1)&lt;/script&gt; &quot;x&quot; &#39;y&#39; &amp; \\u001b[2J\\u202e";
        assert_eq!(page, format!("<p title=\"{shown}\">{shown}</p>"));
    }
}
