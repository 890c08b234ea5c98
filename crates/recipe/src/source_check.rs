//! Checks the keys of a source against each other and against the samples of its stage. Columns are
//! checked by `data`, which opens the files.

use crate::diagnostics::Diagnostics;
use crate::source::{DrawnPairs, RowLayout, Rows, SampleKind, Source};

/// Smallest weight of a source.
const LEAST_WEIGHT: f64 = 1e-6;

impl Source {
    pub(crate) fn check(&self, path: &str, kind: SampleKind, diagnostics: &mut Diagnostics) {
        // Smaller weights are no number of rows that any file has.
        if self.weight > 0.0 && self.weight < LEAST_WEIGHT {
            let rule = format!("must be at least {LEAST_WEIGHT}");
            diagnostics.value(&format!("{path}.weight"), &rule, self.weight);
        }
        if let Some(rows) = &self.rows {
            rows.check(&format!("{path}.rows"), kind, diagnostics);
            self.check_beside_rows(path, diagnostics);
        }
        if let Some(pairs) = &self.pairs {
            self.check_drawn(pairs, path, kind, diagnostics);
        }
        if let Some(delimiter) = &self.delimiter
            && !matches!(delimiter.as_bytes(), [byte] if byte.is_ascii() && !b"\"\r\n\0".contains(byte))
        {
            diagnostics.value(
                &format!("{path}.delimiter"),
                "must be one ASCII character, not a quote or a line break",
                delimiter,
            );
        }
        self.check_layout(path, kind, diagnostics);
        self.check_columns(path, kind, diagnostics);
    }

    fn check_beside_rows(&self, path: &str, diagnostics: &mut Diagnostics) {
        if self.text.is_some() {
            diagnostics.conflict(&format!("{path}.text"), "`rows` already defines the text");
        }
        if self.columns.is_some() {
            diagnostics.conflict(&format!("{path}.columns"), "`rows` already names the columns");
        }
        if !matches!(self.layout, RowLayout::Auto | RowLayout::Text | RowLayout::PromptCompletion) {
            diagnostics.conflict(&format!("{path}.layout"), "`rows` already defines the layout");
        }
    }

    /// Checks `pairs`, which replaces every other description of a row.
    fn check_drawn(
        &self,
        pairs: &DrawnPairs,
        path: &str,
        kind: SampleKind,
        diagnostics: &mut Diagnostics,
    ) {
        if kind != SampleKind::Pairs {
            diagnostics.conflict(&format!("{path}.pairs"), ONLY_PAIRS);
        }
        let others = [("rows", self.rows.is_some()), ("columns", self.columns.is_some())];
        for (key, _) in others.into_iter().filter(|(_, is_there)| *is_there) {
            diagnostics.conflict(&format!("{path}.{key}"), "`pairs` already defines the rows");
        }
        if pairs.chosen == pairs.rejected {
            diagnostics.conflict(
                &format!("{path}.pairs.rejected"),
                "it is equal to `chosen`, so no row would be in a pair",
            );
        }
        if let Some(prompt) = &pairs.prompt
            && prompt.columns().next().is_some()
        {
            diagnostics.value(
                &format!("{path}.pairs.prompt"),
                "must have no `{column}`: the two texts of a pair are from different rows",
                prompt.as_str(),
            );
        }
    }

    fn check_layout(&self, path: &str, kind: SampleKind, diagnostics: &mut Diagnostics) {
        let refused = match kind {
            SampleKind::Documents => {
                !matches!(self.layout, RowLayout::Auto | RowLayout::Text | RowLayout::Pretokenized)
            }
            SampleKind::Chats => self.layout == RowLayout::Text,
            SampleKind::Pairs => self.layout != RowLayout::Auto,
            SampleKind::Completions => !matches!(
                self.layout,
                RowLayout::Auto | RowLayout::PromptCompletion | RowLayout::Kto
            ),
            SampleKind::Prompts => {
                matches!(self.layout, RowLayout::Text | RowLayout::Tree | RowLayout::Pretokenized)
            }
        };
        if refused {
            let reason = match kind {
                SampleKind::Documents => {
                    "pretraining reads documents: use `auto`, `text` or `pretokenized`"
                }
                SampleKind::Chats => "fine-tuning needs a prompt and a completion",
                SampleKind::Pairs => "the columns of a pair define its layout: remove the key",
                SampleKind::Completions => "the stage reads a prompt, a completion and a label",
                SampleKind::Prompts => "a prompt is a text or a list of messages",
            };
            diagnostics.conflict(&format!("{path}.layout"), reason);
        }
    }

    fn check_columns(&self, path: &str, kind: SampleKind, diagnostics: &mut Diagnostics) {
        if self.text.is_some()
            && let Some(reason) = match kind {
                SampleKind::Documents => None,
                SampleKind::Chats => Some(
                    "fine-tuning reads prompts and completions: name them in `columns` or `rows`",
                ),
                SampleKind::Pairs => Some(
                    "pairs have `prompt`, `chosen` and `rejected`: name them in `columns` or `rows`",
                ),
                SampleKind::Completions => {
                    Some("rows have `prompt`, `completion` and `label`: name them in `columns`")
                }
                SampleKind::Prompts => {
                    Some("the stage reads prompts: name them in `columns` or `rows`")
                }
            }
        {
            diagnostics.conflict(&format!("{path}.text"), reason);
        }
        let Some(columns) = &self.columns else { return };
        let reads_pairs = matches!(kind, SampleKind::Pairs | SampleKind::Completions);
        let pairs = [
            ("chosen", &columns.chosen, reads_pairs),
            ("rejected", &columns.rejected, reads_pairs),
            ("margin", &columns.margin, kind == SampleKind::Pairs),
        ];
        for (key, _, _) in pairs.into_iter().filter(|(_, column, read)| column.is_some() && !read) {
            diagnostics.conflict(&format!("{path}.columns.{key}"), ONLY_PAIRS);
        }
        if kind == SampleKind::Documents {
            diagnostics.conflict(
                &format!("{path}.columns"),
                "pretraining reads one text per row: name its column in `text`",
            );
        }
    }
}

impl Rows {
    fn check(&self, path: &str, kind: SampleKind, diagnostics: &mut Diagnostics) {
        let [text, prompt, completion, chosen, rejected] = [
            ("text", self.text.is_some()),
            ("prompt", self.prompt.is_some()),
            ("completion", self.completion.is_some()),
            ("chosen", self.chosen.is_some()),
            ("rejected", self.rejected.is_some()),
        ];
        let (needed, why_needed, useless, why_useless) = match kind {
            SampleKind::Documents => (
                vec![text],
                "pretraining makes one text per row",
                vec![prompt, completion],
                "pretraining makes one text per row: use `text`",
            ),
            SampleKind::Chats => (
                vec![prompt, completion],
                "fine-tuning needs a prompt and a completion",
                vec![text],
                "fine-tuning makes a `prompt` and a `completion` per row",
            ),
            SampleKind::Pairs => (
                vec![chosen, rejected],
                "a pair needs `chosen` and `rejected`",
                vec![text, completion],
                "a pair has `prompt`, `chosen` and `rejected`",
            ),
            SampleKind::Completions => (
                vec![chosen, rejected],
                "`rows` has no label: make pairs, whose chosen answers are desirable, or name the \
                 columns of labelled rows in `columns`",
                vec![text, completion],
                "a pair has `prompt`, `chosen` and `rejected`",
            ),
            SampleKind::Prompts => (
                vec![prompt],
                "the stage answers prompts",
                vec![text, completion],
                "the stage samples its own answers: use `prompt`",
            ),
        };
        for (key, _) in needed.into_iter().filter(|(_, is_there)| !is_there) {
            diagnostics.missing(path, key, why_needed);
        }
        for (key, _) in useless.into_iter().filter(|(_, is_there)| *is_there) {
            diagnostics.conflict(&format!("{path}.{key}"), why_useless);
        }
        let pairs = [chosen, rejected].into_iter().filter(|(_, is_there)| *is_there);
        let reads_pairs = matches!(kind, SampleKind::Pairs | SampleKind::Completions);
        for (key, _) in pairs.filter(|_| !reads_pairs) {
            diagnostics.conflict(&format!("{path}.{key}"), ONLY_PAIRS);
        }
    }
}

const ONLY_PAIRS: &str = "only stages that train on pairs use it, such as [reward] and [dpo]";
