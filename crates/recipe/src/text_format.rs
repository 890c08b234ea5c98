//! Formats of strings: paths, names, templates and devices, and the error for a wrong one.

use std::path::{Component, Path};

use crate::chat_keys::ChatTemplate;
use crate::extract::Extract;
use crate::nearest::nearest;
use crate::source::DATA_PREFIX;
use crate::template::Template;

/// Format of a string, under its name in the JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextFormat {
    InputPath,
    RowTemplate,
    ChatTemplate,
    AnswerPlace,
    RunName,
    Device,
}

impl TextFormat {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "input-path" => Some(Self::InputPath),
            "row-template" => Some(Self::RowTemplate),
            "chat-template" => Some(Self::ChatTemplate),
            "answer-place" => Some(Self::AnswerPlace),
            "run-name" => Some(Self::RunName),
            "device" => Some(Self::Device),
            _ => None,
        }
    }

    /// Description in the reference page.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::InputPath => "path",
            Self::RowTemplate => "text with `{column}`",
            Self::ChatTemplate => "`\"chatml\"`, `\"plain\"`, `\"model\"` or a `.jinja` path",
            Self::AnswerPlace => "`\"all\"`, `\"last\"`, `\"####\"`, `\"boxed\"` or `\"tag:NAME\"`",
            Self::RunName => "name",
            Self::Device => "`\"cpu\"`, `\"cuda\"`, `\"cuda:N\"`, `\"wgpu\"` or `\"wgpu:N\"`",
        }
    }

    /// The valid word that a wrong one was probably meant to be.
    pub(crate) fn meant(self, text: &str) -> Option<&'static str> {
        match self {
            Self::ChatTemplate => nearest(text, ChatTemplate::NAMES.into_iter()),
            Self::AnswerPlace => {
                nearest(text, Extract::WORDS.into_iter()).filter(|word| *word != text)
            }
            Self::Device if text.starts_with("gpu") => Some("cuda"),
            Self::Device => nearest(text, ["cpu", "cuda", "wgpu"].into_iter()),
            Self::InputPath | Self::RowTemplate | Self::RunName => None,
        }
    }

    /// Checks a text. The error is a predicate that follows the key's name.
    pub(crate) fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::InputPath => input_path(text),
            Self::RowTemplate => Template::parse(text).map(|_| ()),
            Self::ChatTemplate => {
                ChatTemplate::try_from(text.to_owned()).map(|_| ()).and_then(|()| input_path(text))
            }
            Self::AnswerPlace => Extract::try_from(text.to_owned()).map(|_| ()),
            Self::RunName => run_name(text),
            Self::Device => device(text),
        }
    }
}

fn input_path(text: &str) -> Result<(), String> {
    if text.contains(char::is_control) {
        return Err("must be a path without control characters".to_owned());
    }
    let Some(inside) = text.strip_prefix(DATA_PREFIX) else {
        return if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) };
    };
    let confined = Path::new(inside)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if confined { Ok(()) } else { Err("must stay within the data directory".to_owned()) }
}

/// Checks the name of a run, which becomes a directory under `runs/`. The error is a predicate.
pub fn run_name(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && text.len() <= 64 && text.chars().all(plain) {
        return Ok(());
    }
    Err("must be at most 64 letters, digits, `-`, `_` or `.`, and start with a letter or digit"
        .to_owned())
}

fn device(text: &str) -> Result<(), String> {
    let is_number =
        |n: &str| !n.is_empty() && n.len() <= 3 && n.chars().all(|c| c.is_ascii_digit());
    let is_one_of_several =
        |(kind, n): (&str, &str)| matches!(kind, "cuda" | "wgpu") && is_number(n);
    if matches!(text, "cpu" | "cuda" | "wgpu")
        || text.split_once(':').is_some_and(is_one_of_several)
    {
        return Ok(());
    }
    Err("must be `cpu`, `cuda`, `cuda:N`, `wgpu` or `wgpu:N`".to_owned())
}

/// Whether a recipe's file stem is a valid run name.
pub(crate) fn is_run_name(text: &str) -> bool {
    run_name(text).is_ok()
}
