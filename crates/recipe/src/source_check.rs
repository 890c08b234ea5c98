//! Whether the keys of a source agree with each other and with what a stage makes of its rows. Opens no file: whether a
//! column is there is seen by `data`.

use crate::problems::Problems;
use crate::source::{DrawnPairs, Layout, Rows, Source, Use};

impl Source {
    pub(crate) fn check(&self, path: &str, wanted: Use, problems: &mut Problems) {
        if let Some(rows) = &self.rows {
            rows.check(&format!("{path}.rows"), wanted, problems);
            self.check_beside_rows(path, problems);
        }
        if let Some(pairs) = &self.pairs {
            self.check_drawn(pairs, path, wanted, problems);
        }
        self.check_layout(path, wanted, problems);
        self.check_columns(path, wanted, problems);
    }

    fn check_beside_rows(&self, path: &str, problems: &mut Problems) {
        if self.text.is_some() {
            problems
                .conflict(&format!("{path}.text"), "`rows` already says where the text comes from");
        }
        if self.columns.is_some() {
            problems.conflict(&format!("{path}.columns"), "`rows` already names the columns");
        }
        if !matches!(self.layout, Layout::Auto | Layout::Text | Layout::PromptCompletion) {
            problems.conflict(&format!("{path}.layout"), "`rows` already says what a row is");
        }
    }

    /// `pairs` says everything about a row by itself.
    fn check_drawn(&self, pairs: &DrawnPairs, path: &str, wanted: Use, problems: &mut Problems) {
        if wanted != Use::Pairs {
            problems.conflict(&format!("{path}.pairs"), ONLY_PAIRS);
        }
        let others = [("rows", self.rows.is_some()), ("columns", self.columns.is_some())];
        for (key, _) in others.into_iter().filter(|(_, is_there)| *is_there) {
            problems.conflict(&format!("{path}.{key}"), "`pairs` already says what a row is");
        }
        if pairs.chosen == pairs.rejected {
            problems.conflict(
                &format!("{path}.pairs.rejected"),
                "the rows that fit `chosen` fit it too, and none would be in a pair",
            );
        }
        if let Some(prompt) = &pairs.prompt
            && prompt.columns().next().is_some()
        {
            problems.value(
                &format!("{path}.pairs.prompt"),
                "must have no `{column}`: the two texts of a pair are of different rows",
                prompt.as_str(),
            );
        }
    }

    fn check_layout(&self, path: &str, wanted: Use, problems: &mut Problems) {
        let refused = match wanted {
            Use::Documents => !matches!(self.layout, Layout::Auto | Layout::Text),
            Use::Chats => self.layout == Layout::Text,
            Use::Pairs => self.layout != Layout::Auto,
            Use::Prompts => matches!(self.layout, Layout::Text | Layout::Tree),
        };
        if refused {
            let reason = match wanted {
                Use::Documents => "pretraining reads documents, not chats: `auto` or `text`",
                Use::Chats => "fine-tuning needs to know what is asked and what is answered",
                Use::Pairs => "a pair's columns say what it is: leave `layout` out",
                Use::Prompts => "a prompt is a text or a list of messages",
            };
            problems.conflict(&format!("{path}.layout"), reason);
        }
    }

    fn check_columns(&self, path: &str, wanted: Use, problems: &mut Problems) {
        if self.text.is_some()
            && let Some(reason) = match wanted {
                Use::Documents => None,
                Use::Chats => Some(
                    "fine-tuning reads prompts and completions: `columns` or `rows` name theirs",
                ),
                Use::Pairs => Some(
                    "pairs have `prompt`, `chosen` and `rejected`: `columns` or `rows` name theirs",
                ),
                Use::Prompts => Some("prompts are read: `columns` or `rows` name theirs"),
            }
        {
            problems.conflict(&format!("{path}.text"), reason);
        }
        let Some(columns) = &self.columns else { return };
        if wanted != Use::Pairs {
            let pairs = [
                ("chosen", &columns.chosen),
                ("rejected", &columns.rejected),
                ("margin", &columns.margin),
            ];
            for (key, column) in pairs {
                if column.is_some() {
                    problems.conflict(&format!("{path}.columns.{key}"), ONLY_PAIRS);
                }
            }
        }
        if wanted == Use::Documents {
            problems.conflict(
                &format!("{path}.columns"),
                "pretraining reads one text a row: `text` names its column",
            );
        }
    }
}

impl Rows {
    fn check(&self, path: &str, wanted: Use, problems: &mut Problems) {
        let [text, prompt, completion, chosen, rejected] = [
            ("text", self.text.is_some()),
            ("prompt", self.prompt.is_some()),
            ("completion", self.completion.is_some()),
            ("chosen", self.chosen.is_some()),
            ("rejected", self.rejected.is_some()),
        ];
        let (needed, why_needed, useless, why_useless) = match wanted {
            Use::Documents => (
                vec![text],
                "pretraining makes one text of each row",
                vec![prompt, completion],
                "pretraining makes one text of each row: `text`",
            ),
            Use::Chats => (
                vec![prompt, completion],
                "fine-tuning needs what is asked and what is answered",
                vec![text],
                "fine-tuning makes `prompt` and `completion` of each row",
            ),
            Use::Pairs => (
                vec![chosen, rejected],
                "a pair needs `chosen` and `rejected`",
                vec![text, completion],
                "pairs are made of `prompt`, `chosen` and `rejected`",
            ),
            Use::Prompts => (
                vec![prompt],
                "the stage answers prompts",
                vec![text, completion],
                "the stage writes its answers itself: `prompt` is all that it reads",
            ),
        };
        for (key, _) in needed.into_iter().filter(|(_, is_there)| !is_there) {
            problems.missing(path, key, why_needed);
        }
        for (key, _) in useless.into_iter().filter(|(_, is_there)| *is_there) {
            problems.conflict(&format!("{path}.{key}"), why_useless);
        }
        let pairs = [chosen, rejected].into_iter().filter(|(_, is_there)| *is_there);
        for (key, _) in pairs.filter(|_| wanted != Use::Pairs) {
            problems.conflict(&format!("{path}.{key}"), ONLY_PAIRS);
        }
    }
}

const ONLY_PAIRS: &str = "only a stage that learns from pairs reads it, such as [reward] or [dpo]";
