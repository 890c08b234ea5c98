//! The rewards of a stage, and their values for a completion.

use recipe::{ExactKeys, Extract, LengthShape, Reward, RewardKind, Template};
use regex::Regex;

use crate::extract::stated;
use crate::json_schema::{self, Schema};
use crate::{Error, Result, choice, format, judge, length, number, repetition};

/// A sampled completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'t> {
    /// Its text without the end token.
    pub text: &'t str,
    /// Number of its tokens, with the end token if it was sampled.
    pub n_tokens: usize,
}

/// The value of one reward for a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Value before its weight; `None` if the prompt has no such reward.
    pub value: Option<f64>,
    /// Reason for the value.
    pub why: String,
}

/// The values of all rewards for a completion, in the order of the recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// One for each reward.
    pub parts: Vec<Part>,
    weights: Vec<f64>,
}

impl Scored {
    /// Weighted sum of the rewards that have a value; `None` if none has.
    pub fn total(&self) -> Option<f64> {
        let terms = self.parts.iter().zip(&self.weights);
        let terms = terms.filter_map(|(part, weight)| Some(weight * part.value?));
        terms.fold(None, |sum, term| Some(sum.unwrap_or(0.0) + term))
    }

    /// Replaces the value of a reward that a model or a program computed.
    pub fn set(&mut self, idx: usize, part: Part) {
        if let Some(old) = self.parts.get_mut(idx) {
            *old = part;
        }
    }
}

/// The rewards of a stage but those of reward models. A judge's and a program's are computed elsewhere ([`Rewards::graded`]).
#[derive(Clone, Debug)]
pub struct Rewards {
    rewards: Vec<Checked>,
    max_new_tokens: usize,
}

/// Equal settings; patterns and schemas follow from them.
impl PartialEq for Rewards {
    fn eq(&self, other: &Self) -> bool {
        let settings = |rewards: &Self| -> Vec<Reward> {
            let reward = |r: &Checked| Reward { kind: r.kind.clone(), weight: r.weight };
            rewards.rewards.iter().map(reward).collect()
        };
        self.max_new_tokens == other.max_new_tokens && settings(self) == settings(other)
    }
}

/// Reason of a reward that a prompt does not have.
const NO_ANSWER: &str = "the row has no such answer";

/// A reward with its settings compiled.
#[derive(Clone, Debug)]
struct Checked {
    kind: RewardKind,
    weight: f64,
    name: String,
    /// Its place among the texts of a prompt, if it compares with one.
    value: Option<usize>,
    pattern: Option<Regex>,
    schema: Option<Schema>,
}

impl Rewards {
    /// Compiles rewards; those of reward models are left out. `max_new_tokens` is the limit of a completion.
    ///
    /// Errors: the index of a reward with a wrong pattern or schema, and the problem.
    pub fn new(
        rewards: &[Reward],
        max_new_tokens: usize,
    ) -> std::result::Result<Self, (usize, Error)> {
        let mut checked: Vec<Checked> = Vec::new();
        let mut n_values = 0;
        for (idx, reward) in rewards.iter().enumerate() {
            let word = reward.kind.name();
            if reward.kind.is_model() {
                continue;
            }
            let (mut pattern, mut schema) = (None, None);
            match &reward.kind {
                RewardKind::Regex(keys) => {
                    pattern = Some(compiled_pattern(&keys.pattern).map_err(|error| (idx, error))?);
                }
                RewardKind::Judge(keys) => {
                    let compiled = keys.pattern.as_deref().map(compiled_score_pattern);
                    pattern = compiled.transpose().map_err(|error| (idx, error))?;
                }
                RewardKind::JsonSchema(keys) => {
                    schema = Some(Schema::parse(&keys.schema).map_err(|error| (idx, error))?);
                }
                RewardKind::Format(keys) => {
                    if let Some(tag) = format::repeated(&keys.tags) {
                        return Err((idx, Error::RepeatedTag { tag: tag.to_owned() }));
                    }
                }
                RewardKind::Number(_)
                | RewardKind::Choice(_)
                | RewardKind::Exact(_)
                | RewardKind::Length(_)
                | RewardKind::Repetition(_)
                | RewardKind::Model(_)
                | RewardKind::Command(_) => {}
            }
            let value = reward.kind.answer().map(|_| n_values);
            n_values += usize::from(value.is_some());
            let same = checked.iter().filter(|other| other.kind.name() == word).count();
            let name = if same == 0 { word.to_owned() } else { format!("{word}-{}", same + 1) };
            let (kind, weight) = (reward.kind.clone(), reward.weight);
            checked.push(Checked { kind, weight, name, value, pattern, schema });
        }
        Ok(Self { rewards: checked, max_new_tokens })
    }

    /// Whether there is no reward.
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// Names of the rewards: their kinds, with a number from the second of a kind on.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rewards.iter().map(|reward| reward.name.as_str())
    }

    /// Templates of the texts that a prompt needs from its row, in the order in which [`Rewards::score`] takes them.
    pub fn templates(&self) -> Vec<Template> {
        self.rewards.iter().filter_map(|reward| reward.kind.answer().cloned()).collect()
    }

    /// Whether each reward has a value for a prompt with these texts; those that need none always have.
    pub fn applies(&self, values: &[Option<String>]) -> Vec<bool> {
        let has_answer = |reward: &Checked| {
            let Some(idx) = reward.value else { return true };
            let value = values.get(idx).and_then(Option::as_deref);
            value.is_some_and(|value| reward.is_answer(value))
        };
        let mut checks = self.rewards.iter().filter(|reward| reward.kind.checks_answer());
        let is_checked = checks.any(has_answer);
        let applies = |reward: &Checked| match &reward.kind {
            RewardKind::Length(keys) => keys.shape == LengthShape::Overlong || is_checked,
            RewardKind::Number(_)
            | RewardKind::Choice(_)
            | RewardKind::Exact(_)
            | RewardKind::Regex(_)
            | RewardKind::Format(_)
            | RewardKind::Repetition(_)
            | RewardKind::JsonSchema(_)
            | RewardKind::Model(_)
            | RewardKind::Judge(_)
            | RewardKind::Command(_) => has_answer(reward),
        };
        self.rewards.iter().map(applies).collect()
    }

    /// The rewards that a judge or a program computes, with their places among all.
    pub fn graded(&self) -> impl Iterator<Item = (usize, &RewardKind)> {
        let is_graded = |reward: &&Checked| reward.kind.is_graded();
        let rewards = self.rewards.iter().enumerate();
        rewards
            .filter(move |(_, reward)| is_graded(reward))
            .map(|(idx, reward)| (idx, &reward.kind))
    }

    /// The text of a prompt that a reward compares with; `None` if it compares with none.
    pub fn answer<'v>(&self, idx: usize, values: &'v [Option<String>]) -> Option<&'v str> {
        values.get(self.rewards.get(idx)?.value?)?.as_deref()
    }

    /// The score in a judge's reply, for the reward at `idx`.
    pub fn reply_score(&self, idx: usize, reply: &str) -> Part {
        let reward = self.rewards.get(idx);
        let (value, why) = match reward.map(|reward| (&reward.kind, &reward.pattern)) {
            Some((RewardKind::Judge(keys), pattern)) => judge::score(reply, keys, pattern.as_ref()),
            _ => (None, "no judge".to_owned()),
        };
        Part { value, why }
    }

    /// The value of each reward for a completion of a prompt with these texts. Those that a judge or a program computes have
    /// none yet.
    pub fn score(&self, values: &[Option<String>], completion: &Completion<'_>) -> Scored {
        let mut parts: Vec<Option<Part>> = Vec::with_capacity(self.rewards.len());
        for reward in &self.rewards {
            let value = reward.value.and_then(|idx| values.get(idx)?.as_deref());
            parts.push(reward.score(value, completion));
        }
        // A length that depends on the answer comes after the rewards that check it.
        let is_right = self.is_right(&parts);
        let parts =
            self.rewards.iter().zip(parts).map(|(reward, part)| match (&reward.kind, part) {
                (_, Some(part)) => part,
                (RewardKind::Length(keys), None) => {
                    let max_tokens = keys.max_tokens.unwrap_or(self.max_new_tokens);
                    let (value, why) =
                        length::score(completion.n_tokens, max_tokens, is_right, keys);
                    Part { value, why }
                }
                (_, None) => Part { value: None, why: NO_ANSWER.to_owned() },
            });
        let weights = self.rewards.iter().map(|reward| reward.weight).collect();
        Scored { parts: parts.collect(), weights }
    }

    /// Whether every reward that checks the answer gives 1; `None` if none has a value.
    fn is_right(&self, parts: &[Option<Part>]) -> Option<bool> {
        let checks = self.rewards.iter().zip(parts);
        let checks = checks.filter(|(reward, _)| reward.kind.checks_answer());
        let values = checks.filter_map(|(_, part)| part.as_ref()?.value);
        values.fold(None, |all, value| Some(all.unwrap_or(true) && value >= 1.0))
    }
}

/// A pattern whose first group is a score.
fn compiled_score_pattern(pattern: &str) -> Result<Regex> {
    let compiled = compiled_pattern(pattern)?;
    if compiled.captures_len() < 2 {
        let reason = "it has no group `(…)` for the score".to_owned();
        return Err(Error::Pattern { reason });
    }
    Ok(compiled)
}

/// Memory that a pattern may take once it is compiled, in bytes.
const PATTERN_BYTES: usize = 2 << 20;

fn compiled_pattern(pattern: &str) -> Result<Regex> {
    let compiled = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
    compiled.map_err(|error| {
        let message = error.to_string();
        let reason = message.lines().last().unwrap_or_default();
        Error::Pattern { reason: reason.trim_start_matches("error: ").to_owned() }
    })
}

impl Checked {
    /// Whether a text of the data can be compared with.
    fn is_answer(&self, value: &str) -> bool {
        match &self.kind {
            RewardKind::Number(_) => number::gold(value).is_some(),
            RewardKind::Choice(keys) => choice::gold(value, &keys.choices).is_some(),
            RewardKind::Exact(_) => !value.trim().is_empty(),
            RewardKind::Judge(_)
            | RewardKind::Command(_)
            | RewardKind::Regex(_)
            | RewardKind::Format(_)
            | RewardKind::Length(_)
            | RewardKind::Repetition(_)
            | RewardKind::JsonSchema(_)
            | RewardKind::Model(_) => true,
        }
    }

    /// The reward's part; `None` for one without a value, and for lengths.
    fn score(&self, value: Option<&str>, completion: &Completion<'_>) -> Option<Part> {
        let text = completion.text;
        let (value, why) = match &self.kind {
            RewardKind::Number(keys) => number::score(text, number::gold(value?)?, keys),
            RewardKind::Choice(keys) => {
                choice::score(text, choice::gold(value?, &keys.choices)?, keys)
            }
            RewardKind::Exact(keys) => {
                exact(text, value.filter(|value| !value.trim().is_empty())?, keys)
            }
            RewardKind::Regex(_) => {
                let is_match = self.pattern.as_ref()?.is_match(text);
                let why = if is_match { "matches" } else { "does not match" };
                (f64::from(u8::from(is_match)), why.to_owned())
            }
            RewardKind::Format(keys) => format::score(text, &keys.tags),
            RewardKind::Repetition(keys) => repetition::score(text, keys.n),
            RewardKind::JsonSchema(keys) => match stated(text, &keys.extract) {
                Ok(documents) => match documents.as_slice() {
                    [document] => json_schema::score(document, self.schema.as_ref()?),
                    _ => (0.0, format!("{} documents", documents.len())),
                },
                Err(why) => (0.0, why),
            },
            RewardKind::Length(_)
            | RewardKind::Model(_)
            | RewardKind::Judge(_)
            | RewardKind::Command(_) => return None,
        };
        Some(Part { value: Some(value), why })
    }
}

/// 1 if the completion is the right text, else 0; and the reason. Runs of white space are one space.
fn exact(text: &str, gold: &str, keys: &ExactKeys) -> (f64, String) {
    let plain = |text: &str| {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if keys.ignore_case { text.to_lowercase() } else { text }
    };
    let gold = plain(gold);
    let answers = if keys.extract == Extract::Last {
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.map(|line| vec![line]).ok_or_else(|| "no text".to_owned())
    } else {
        stated(text, &keys.extract)
    };
    match answers {
        Err(why) => (0.0, why),
        Ok(answers) => match answers.into_iter().map(plain).find(|answer| *answer != gold) {
            None => (1.0, format!("`{gold}`")),
            Some(answer) => {
                let shown: String = answer.chars().take(40).collect();
                (0.0, format!("`{shown}` is not `{gold}`"))
            }
        },
    }
}
