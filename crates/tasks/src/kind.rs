//! Kinds of tasks: how a row becomes requests, an example and a right answer.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::choices::List;
use crate::context::Context;
use crate::definition::Section;
use crate::definition::{AnswerKey, Definition, GenerationKeys, KindKey};
use crate::exact_match::ExactMatch;
use crate::filters::Filter;
use crate::instructions::Instructions;
use crate::item::{Gold, Request};
use crate::pairs;
use crate::template::{Columns, Template, is_list};

/// Result whose error is a sentence.
type Result<T> = std::result::Result<T, String>;

/// Arguments of the generation of a task's completions.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Texts that end a completion and are not part of it.
    pub until: Vec<String>,
    /// Maximum number of tokens.
    pub max_new_tokens: usize,
    /// 0 for the most likely token, else the divisor of logits.
    pub temperature: f64,
    /// Smallest share of the probability that the candidates have together.
    pub top_p: Option<f64>,
    /// Number of completions of a prompt.
    pub votes: usize,
    /// Numbers k of the metrics `pass@k`.
    pub pass_at: Vec<usize>,
}

/// A kind of task with its templates.
#[derive(Debug)]
pub(crate) enum Kind {
    /// One prompt, several continuations.
    Choices {
        prompt: Template,
        choices: List,
        answer: Answer,
    },
    /// Several prompts with the same continuation.
    Prompts {
        prompts: List,
        target: Template,
        answer: Answer,
    },
    LogLikelihood {
        prompt: Template,
        target: Template,
    },
    Rolling {
        target: Template,
    },
    Generate {
        prompt: Template,
        target: Template,
        generation: Generation,
        filters: Vec<Filter>,
        exact: ExactMatch,
    },
    /// Two answers to one prompt, for reward models.
    Pairs {
        prompt: Template,
        chosen: Template,
        rejected: Template,
        subset: Option<Template>,
        sections: Vec<Section>,
    },
    /// One prompt, whose columns name instructions that the answer follows.
    Instructions {
        prompt: Template,
        generation: Generation,
    },
}

/// The right choice.
#[derive(Debug)]
pub(crate) enum Answer {
    Index(usize),
    Template(Template),
}

impl Kind {
    /// Question and answer of a row as a few-shot example.
    pub(crate) fn example(&self, row: &Columns) -> Result<(String, String)> {
        Ok(match self {
            Kind::Choices { prompt, choices, answer } => {
                let choices = choices.texts(row).map_err(|e| format!("`choices`: {e}"))?;
                let index = answer.index(row, &choices)?;
                (text("prompt", prompt, row)?, choices.get(index).cloned().unwrap_or_default())
            }
            Kind::Prompts { prompts, target, answer } => {
                let prompts = prompts.texts(row).map_err(|e| format!("`prompts`: {e}"))?;
                let index = answer.index(row, &prompts)?;
                (prompts.get(index).cloned().unwrap_or_default(), text("target", target, row)?)
            }
            Kind::LogLikelihood { prompt, target } => {
                (text("prompt", prompt, row)?, text("target", target, row)?)
            }
            Kind::Rolling { target } => (String::new(), text("target", target, row)?),
            Kind::Generate { prompt, target, .. } => {
                let target = targets(target, row)?.into_iter().next().unwrap_or_default();
                (text("prompt", prompt, row)?, target)
            }
            Kind::Instructions { .. } | Kind::Pairs { .. } => {
                return Err("its rows have no answer to show".to_owned());
            }
        })
    }

    /// The prompt of a row without examples, for kinds with completions.
    pub(crate) fn question(&self, columns: &Map<String, Value>) -> Result<String> {
        match self {
            Kind::Generate { prompt, .. } | Kind::Instructions { prompt, .. } => {
                text("prompt", prompt, &Columns::new(columns))
            }
            Kind::Choices { .. }
            | Kind::Prompts { .. }
            | Kind::LogLikelihood { .. }
            | Kind::Rolling { .. }
            | Kind::Pairs { .. } => Ok(String::new()),
        }
    }

    /// Requests for a row after the texts of its context, and the right answer.
    pub(crate) fn requests(
        &self,
        columns: &Map<String, Value>,
        context: &Context<'_>,
    ) -> Result<(Vec<Request>, Gold)> {
        let row = &Columns::new(columns);
        let request = |prompt: &str, continuation: String| {
            Ok(Request::LogLikelihood { context: context.with(prompt)?, continuation })
        };
        Ok(match self {
            Kind::Choices { prompt, choices, answer } => {
                let choices = choices.texts(row).map_err(|e| format!("`choices`: {e}"))?;
                let prompt = text("prompt", prompt, row)?;
                let of = |choice: &String| {
                    request(&prompt, format!("{}{choice}", context.before_answer()))
                };
                let requests = choices.iter().map(of).collect::<Result<_>>()?;
                (requests, Gold::Choice { index: answer.index(row, &choices)?, choices })
            }
            Kind::Prompts { prompts, target, answer } => {
                let prompts = prompts.texts(row).map_err(|e| format!("`prompts`: {e}"))?;
                let target = text("target", target, row)?;
                let target = context.before_answer().to_owned() + &target;
                let requests = prompts
                    .iter()
                    .map(|prompt| request(prompt, target.clone()))
                    .collect::<Result<_>>()?;
                let index = answer.index(row, &prompts)?;
                (requests, Gold::Choice { index, choices: prompts })
            }
            Kind::LogLikelihood { prompt, target } => {
                let target = text("target", target, row)?;
                if target.is_empty() {
                    return Err("`target` is empty, so it has no probability".to_owned());
                }
                let requests = vec![request(&text("prompt", prompt, row)?, target.clone())?];
                (requests, Gold::Texts(vec![target]))
            }
            Kind::Rolling { target } => {
                let text = text("target", target, row)?;
                (vec![Request::Rolling { text: text.clone() }], Gold::Texts(vec![text]))
            }
            Kind::Generate { prompt, target, .. } => {
                let prompt = context.with(&text("prompt", prompt, row)?)?;
                (vec![Request::Generate { prompt }], Gold::Texts(targets(target, row)?))
            }
            Kind::Pairs { prompt, chosen, rejected, subset, .. } => {
                let prompt = text("prompt", prompt, row)?;
                let request = |key: &str, answer: &Template| {
                    let answer = text(key, answer, row)?;
                    Ok::<_, String>(Request::Score { prompt: prompt.clone(), answer })
                };
                let requests = vec![request("chosen", chosen)?, request("rejected", rejected)?];
                let subset = subset.as_ref().map(|subset| text("subset", subset, row));
                (requests, Gold::Pair { subset: subset.transpose()? })
            }
            Kind::Instructions { prompt, .. } => {
                let prompt = context.with(&text("prompt", prompt, row)?)?;
                let instructions = Instructions::of_row(columns)?;
                (vec![Request::Generate { prompt }], Gold::Instructions(instructions))
            }
        })
    }
}

impl Answer {
    fn new(key: AnswerKey) -> Result<Self> {
        Ok(match key {
            AnswerKey::Index(index) => Self::Index(index as usize),
            AnswerKey::Template(text) => Self::Template(template("answer", &text)?),
        })
    }

    /// Index of the right choice: a number, or the text of a choice. `true` is 1, as in Python.
    fn index(&self, row: &Columns, choices: &[String]) -> Result<usize> {
        let template = match self {
            Self::Index(index) => return in_range(*index, choices),
            Self::Template(template) => template,
        };
        let value = template.value(row).map_err(|problem| format!("`answer`: {problem}"))?;
        let is_bool = value.kind() == minijinja::value::ValueKind::Bool;
        let shown =
            if is_bool { usize::from(value.is_true()).to_string() } else { value.to_string() };
        if !shown.is_empty() && shown.bytes().all(|byte| byte.is_ascii_digit()) {
            let index = shown.parse().unwrap_or(usize::MAX);
            return in_range(index, choices);
        }
        choices.iter().position(|choice| *choice == shown).ok_or_else(|| {
            format!("`answer` is neither the number nor the text of a choice: `{shown}`")
        })
    }
}

fn in_range(index: usize, choices: &[String]) -> Result<usize> {
    if index < choices.len() {
        return Ok(index);
    }
    Err(format!("`answer` is {index}, but the choices are 0 to {}", choices.len() - 1))
}

pub(crate) fn template(key: &str, text: &str) -> Result<Template> {
    Template::new(text).map_err(|problem| format!("`{key}`: {problem}"))
}

fn text(key: &str, template: &Template, row: &Columns) -> Result<String> {
    template.text(row).map_err(|problem| format!("`{key}`: {problem}"))
}

/// The right texts: one, or a list of which each is right.
fn targets(template: &Template, row: &Columns) -> Result<Vec<String>> {
    let fails = |problem| format!("`target`: {problem}");
    if is_list(&template.value(row).map_err(fails)?) {
        let texts = template.texts(row).map_err(fails)?;
        return if texts.is_empty() {
            Err(fails("the list is empty".to_owned()))
        } else {
            Ok(texts)
        };
    }
    Ok(vec![template.text(row).map_err(fails)?])
}

/// The kind of a task with its templates.
pub(crate) fn kind(definition: Definition) -> Result<Kind> {
    let Definition { kind, prompt, prompts, choices, answer, target, .. } = definition;
    let (generation, filters) = (definition.generation, definition.filters);
    let exact = definition.exact_match;
    let needed = |key: &str| format!("`{key}` is missing, which a {} task needs", kind.name());
    let unused = |key: &str| format!("`{key}` has no meaning in a {} task", kind.name());
    for (key, given) in [("filters", filters.is_some()), ("exact_match", exact.is_some())] {
        if given && kind != KindKey::GenerateUntil {
            return Err(unused(key));
        }
    }
    let mut names = BTreeSet::new();
    for filter in filters.iter().flatten() {
        if !names.insert(filter.name()) {
            return Err(format!("`filters`: two have the name `{}`", filter.name()));
        }
    }
    for (key, given) in [
        ("chosen", definition.chosen.is_some()),
        ("rejected", definition.rejected.is_some()),
        ("subset", definition.subset.is_some()),
        ("sections", definition.sections.is_some()),
    ] {
        if given && kind != KindKey::Pairs {
            return Err(unused(key));
        }
    }
    let completes = matches!(kind, KindKey::GenerateUntil | KindKey::InstructionFollowing);
    if generation.is_some() && !completes {
        return Err(unused("generation"));
    }
    for (key, given) in [
        ("choices", choices.is_some()),
        ("prompts", prompts.is_some()),
        ("answer", answer.is_some()),
    ] {
        if given && kind != KindKey::MultipleChoice {
            return Err(unused(key));
        }
    }
    let text = |key: &str, text: Option<String>| template(key, &text.ok_or_else(|| needed(key))?);
    match kind {
        KindKey::MultipleChoice => {
            let answer = Answer::new(answer.ok_or_else(|| needed("answer"))?)?;
            match (prompt, prompts, choices, target) {
                (Some(prompt), None, Some(choices), None) => {
                    let choices = List::new(&choices).map_err(|e| format!("`choices`: {e}"))?;
                    Ok(Kind::Choices { prompt: template("prompt", &prompt)?, choices, answer })
                }
                (None, Some(prompts), None, Some(target)) => {
                    let prompts = List::new(&prompts).map_err(|e| format!("`prompts`: {e}"))?;
                    Ok(Kind::Prompts { prompts, target: template("target", &target)?, answer })
                }
                _ => Err(
                    "a multiple_choice task has `prompt` and `choices`, or `prompts` and `target`"
                        .to_owned(),
                ),
            }
        }
        KindKey::Loglikelihood => Ok(Kind::LogLikelihood {
            prompt: text("prompt", prompt)?,
            target: text("target", target)?,
        }),
        KindKey::LoglikelihoodRolling => {
            if prompt.is_some() {
                return Err(unused("prompt"));
            }
            Ok(Kind::Rolling { target: text("target", target)? })
        }
        KindKey::Pairs => {
            if target.is_some() {
                return Err(unused("target"));
            }
            let sections = definition.sections.unwrap_or_default();
            pairs::check(&sections)?;
            if definition.subset.is_none() && !sections.is_empty() {
                return Err(needed("subset"));
            }
            let subset = definition.subset.map(|subset| template("subset", &subset));
            Ok(Kind::Pairs {
                prompt: text("prompt", prompt)?,
                chosen: text("chosen", definition.chosen)?,
                rejected: text("rejected", definition.rejected)?,
                subset: subset.transpose()?,
                sections,
            })
        }
        KindKey::InstructionFollowing => {
            if target.is_some() {
                return Err(unused("target"));
            }
            let generation =
                generation_of(generation.unwrap_or_default(), definition.shot_delimiter)?;
            if generation.votes > 1 || !generation.pass_at.is_empty() {
                return Err("`generation.votes`: one answer is checked".to_owned());
            }
            Ok(Kind::Instructions { prompt: text("prompt", prompt)?, generation })
        }
        KindKey::GenerateUntil => {
            let blank_line = definition.shot_delimiter;
            let filters = filters.unwrap_or_default().into_iter().map(Filter::new);
            let mut filters: Vec<Filter> =
                filters.collect::<Result<_>>().map_err(|e| format!("`filters`: {e}"))?;
            if filters.is_empty() {
                filters.push(Filter::none());
            }
            let generation = generation_of(generation.unwrap_or_default(), blank_line)?;
            if generation.votes == 1 && filters.iter().any(Filter::needs_rewards) {
                return Err(
                    "`best_of` selects among completions: set `generation.votes`".to_owned()
                );
            }
            Ok(Kind::Generate {
                prompt: text("prompt", prompt)?,
                target: text("target", target)?,
                generation,
                filters,
                exact: ExactMatch::new(exact.unwrap_or_default())
                    .map_err(|e| format!("`exact_match`: {e}"))?,
            })
        }
    }
}

/// Most completions of a prompt.
const MOST_VOTES: usize = 10_000;

fn generation_of(keys: GenerationKeys, shot_delimiter: String) -> Result<Generation> {
    let GenerationKeys { until, max_new_tokens, temperature, top_p, votes, mut pass_at } = keys;
    if max_new_tokens == 0 || votes == 0 {
        return Err("`generation`: `max_new_tokens` and `votes` are at least 1".to_owned());
    }
    if votes > MOST_VOTES {
        return Err(format!("`generation.votes` is at most {MOST_VOTES}: `{votes}`"));
    }
    if !(temperature.is_finite() && temperature >= 0.0) {
        return Err(format!("`generation.temperature` must be 0 or more: `{temperature}`"));
    }
    if top_p.is_some_and(|top_p| !(top_p > 0.0 && top_p <= 1.0)) {
        return Err("`generation.top_p` must be above 0 and at most 1".to_owned());
    }
    if votes > 1 && temperature == 0.0 {
        return Err("`generation.votes` above 1 needs a `temperature` above 0".to_owned());
    }
    pass_at.sort_unstable();
    pass_at.dedup();
    if let Some(k) = pass_at.iter().find(|k| **k == 0 || **k > votes) {
        return Err(format!("`generation.pass_at` is from 1 to `votes` ({votes}): `{k}`"));
    }
    let until = until.unwrap_or_else(|| vec![shot_delimiter]);
    Ok(Generation { until, max_new_tokens, temperature, top_p, votes, pass_at })
}
