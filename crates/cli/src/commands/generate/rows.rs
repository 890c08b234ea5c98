//! Output rows of `temper generate`: completions, input rows with their completions, or pairs.

use ::generate::FinishReason;
use serde_json::{Value, json};
use tokenizer::{Message, Role};

use super::prompts::Prompt;
use crate::args::GenerateArgs;
use crate::commands::score::Scorer;
use crate::failure::{Failure, Result};

/// One completion.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) tokens: Vec<u32>,
    pub(super) finish_reason: FinishReason,
}

/// Makes output rows.
pub(super) struct Rows {
    column: String,
    scorer: Option<Scorer>,
    has_pairs: bool,
}

impl Rows {
    /// Opens the reward model, if there is one.
    pub(super) fn open(args: &GenerateArgs, prompts: &[Prompt]) -> Result<Self> {
        let scorer = match &args.reward {
            Some(reward) => {
                if let Some(raw) = prompts.iter().find(|prompt| prompt.messages.is_empty()) {
                    return Err(Failure::input(
                        format!(
                            "{}: a reward model scores chats, and this prompt is raw text",
                            raw.place
                        ),
                        "add --chat, or give `messages`",
                    ));
                }
                Some(Scorer::open(reward, None, &args.device)?)
            }
            None => None,
        };
        Ok(Self { column: args.completion_column().to_owned(), scorer, has_pairs: args.pairs })
    }

    /// The lines of a prompt; none if it has no pair.
    pub(super) fn lines(&self, prompt: &Prompt, answers: Vec<Answer>) -> Result<String> {
        let scores = match &self.scorer {
            Some(scorer) => scores(scorer, prompt, &answers)?,
            None => Vec::new(),
        };
        if self.has_pairs {
            let pair = pair(prompt, &answers, &scores);
            return Ok(pair.map_or_else(String::new, |pair| format!("{pair}\n")));
        }
        let mut lines = String::new();
        for (idx, answer) in answers.into_iter().enumerate() {
            let mut line = match &prompt.row {
                Some(row) => {
                    let mut row = row.clone();
                    row.insert(self.column.clone(), Value::from(answer.text));
                    Value::Object(row)
                }
                None => json!({
                    "prompt": prompt.shown,
                    "completion": answer.text,
                    "tokens": answer.tokens,
                    "finish_reason": answer.finish_reason.as_str(),
                }),
            };
            if let Some(score) = scores.get(idx) {
                line["score"] = json!(score);
            }
            lines += &format!("{line}\n");
        }
        Ok(lines)
    }
}

fn scores(scorer: &Scorer, prompt: &Prompt, answers: &[Answer]) -> Result<Vec<f64>> {
    let chats: Vec<Vec<Message>> = answers
        .iter()
        .map(|answer| {
            let answer = Message::new(Role::Assistant, answer.text.as_str());
            prompt.messages.iter().cloned().chain([answer]).collect()
        })
        .collect();
    scorer.scores(&chats, &prompt.place)
}

/// The best and the worst answer of a prompt, of those that ended on their own; the first of equally good ones. `None` if they
/// have the same text or score.
fn pair(prompt: &Prompt, answers: &[Answer], scores: &[f64]) -> Option<Value> {
    let ended = || {
        let all = answers.iter().zip(scores);
        all.filter(|(answer, score)| {
            answer.finish_reason != FinishReason::Length && !score.is_nan()
        })
    };
    let (mut best, mut worst) = (ended().next()?, ended().next()?);
    for answer in ended() {
        if answer.1 > best.1 {
            best = answer;
        }
        if answer.1 < worst.1 {
            worst = answer;
        }
    }
    if best.1 <= worst.1 || best.0.text == worst.0.text {
        return None;
    }
    Some(json!({
        "prompt": prompt.shown,
        "chosen": best.0.text,
        "rejected": worst.0.text,
        "chosen_score": best.1,
        "rejected_score": worst.1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt() -> Prompt {
        let (shown, place) = (Value::from("p"), "a:1".to_owned());
        Prompt { shown, ids: Vec::new(), messages: Vec::new(), row: None, place }
    }

    fn answers(of: &[(&str, FinishReason)]) -> Vec<Answer> {
        let answer = |(text, finish_reason): &(&str, FinishReason)| Answer {
            text: (*text).to_owned(),
            tokens: Vec::new(),
            finish_reason: *finish_reason,
        };
        of.iter().map(answer).collect()
    }

    #[test]
    fn a_pair_is_the_best_and_the_worst_that_ended() {
        use FinishReason::{Eos, Length, Stop};
        let all = answers(&[("a", Eos), ("b", Length), ("c", Eos), ("d", Stop), ("e", Eos)]);
        let found = pair(&prompt(), &all, &[0.5, 9.0, 2.0, -1.0, 2.0]).expect("a pair");
        assert_eq!(found["chosen"], "c");
        assert_eq!(found["rejected"], "d");
        assert_eq!(found["chosen_score"], 2.0);
        // No pair: one that ended, equal scores, equal texts.
        assert!(pair(&prompt(), &answers(&[("a", Eos), ("b", Length)]), &[1.0, 0.0]).is_none());
        assert!(pair(&prompt(), &answers(&[("a", Eos), ("b", Eos)]), &[1.0, 1.0]).is_none());
        assert!(pair(&prompt(), &answers(&[("a", Eos), ("a", Eos)]), &[1.0, 0.0]).is_none());
        assert!(pair(&prompt(), &answers(&[("a", Eos), ("b", Eos)]), &[f64::NAN, 0.0]).is_none());
    }
}
