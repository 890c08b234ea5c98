//! A language model that scores completions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use generate::{Sampling, Settings};
use model::{CausalLm, SavedModel};
use recipe::JudgeKeys;
use rewards::GradedText;
use tokenizer::{Message, Role, Tokenizer};

use crate::{Error, Result};

/// A judge with its own tokenizer.
#[derive(Debug)]
pub(crate) struct Judge {
    model: CausalLm,
    tokenizer: Tokenizer,
    keys: JudgeKeys,
    at_once: usize,
}

impl Judge {
    /// A judge whose tokenizer is in `dir`. It writes `at_once` replies together.
    ///
    /// Errors: the tokenizer cannot be read, or a question has no room beside the template.
    pub(crate) fn new(
        model: CausalLm,
        dir: &Path,
        keys: &JudgeKeys,
        at_once: usize,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir_or_file(dir)?;
        let tokenizer = tokenizer.for_embedding(SavedModel::config(&model).vocab_size());
        let judge = Self { model, tokenizer, keys: keys.clone(), at_once };
        // A text of no tokens would be a question without tokens where the template is nothing else.
        let letter = || "x".to_owned();
        let shortest =
            GradedText { prompt: letter(), completion: letter(), answer: Some(letter()) };
        match judge.question(&shortest) {
            Ok(_) => Ok(judge),
            Err(reason) => Err(Error::JudgeTemplate { reason }),
        }
    }

    /// The most likely reply to the question about each text, or why there is none. Equal questions are asked once.
    pub(crate) fn replies(
        &self,
        texts: &[&GradedText],
    ) -> Result<Vec<std::result::Result<String, String>>> {
        let mut numbers: BTreeMap<&GradedText, usize> = BTreeMap::new();
        let mut questions = Vec::new();
        for text in texts {
            if let Entry::Vacant(number) = numbers.entry(text) {
                number.insert(questions.len());
                questions.push(self.question(text));
            }
        }
        let asked: Vec<Vec<u32>> = questions.iter().flatten().cloned().collect();
        let settings = Settings {
            sampling: Sampling::greedy(),
            max_new_tokens: self.keys.max_new_tokens,
            eos_ids: self.tokenizer.eos_ids(),
            vocab_size: Some(self.tokenizer.vocab_size()),
            batch_rows: self.at_once,
            ..Settings::default()
        };
        let written = generate::generate(&self.model, &asked, &settings, 0, |_| {})?;
        let mut written = written.iter().map(|reply| reply.text(&self.tokenizer));
        let replies: Vec<std::result::Result<String, String>> = questions
            .into_iter()
            .map(|question| question.map(|_| written.next().unwrap_or_default()))
            .collect();
        let number = |text: &&GradedText| numbers.get(*text).copied().unwrap_or_default();
        let reply = |text| replies.get(number(text)).cloned();
        Ok(texts.iter().filter_map(reply).collect())
    }

    /// The ids of the question about a text, or why it cannot be asked.
    fn question(&self, text: &GradedText) -> std::result::Result<Vec<u32>, String> {
        let value = |name: &str| match name {
            "prompt" => Some(Cow::Borrowed(text.prompt.as_str())),
            "completion" => Some(Cow::Borrowed(text.completion.as_str())),
            "answer" => text.answer.as_deref().map(Cow::Borrowed),
            _ => None,
        };
        let question = self.keys.template.render(value);
        let question = question.map_err(|name| format!("the question has no text for `{name}`"))?;
        let ids = match self.tokenizer.chat_template().filter(|_| self.keys.chat) {
            Some(template) => {
                let message = [Message::new(Role::User, question)];
                self.tokenizer.encode_prompt(&message, template)
            }
            None => self.tokenizer.encode(&question),
        };
        let ids = ids.map_err(|error| format!("the judge cannot read the question: {error}"))?;
        let (n, n_positions) = (ids.len(), self.model.config().max_positions());
        if n == 0 || n >= n_positions {
            return Err(format!(
                "the question has {n} tokens, and the judge has {n_positions} positions"
            ));
        }
        Ok(ids)
    }
}
