//! Lists of texts in a task file: one template per text, or one expression whose value is a list.

use serde::Deserialize;

use crate::template::{Columns, Template};

/// A list as written in a task file.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of templates, or one template whose value is a list"
)]
pub(crate) enum ListKey {
    /// One template per text.
    Templates(Vec<String>),
    /// An expression.
    Expression(String),
}

/// A compiled list.
#[derive(Debug)]
pub(crate) enum List {
    /// One template per text.
    Templates(Vec<Template>),
    /// An expression.
    Expression(Template),
}

impl List {
    pub(crate) fn new(key: &ListKey) -> Result<Self, String> {
        Ok(match key {
            ListKey::Templates(templates) => {
                let templates = templates.iter().map(|template| Template::new(template));
                Self::Templates(templates.collect::<Result<_, _>>()?)
            }
            ListKey::Expression(template) => Self::Expression(Template::new(template)?),
        })
    }

    /// The texts for a row; at least two.
    pub(crate) fn texts(&self, row: &Columns) -> Result<Vec<String>, String> {
        let texts = match self {
            Self::Templates(templates) => templates
                .iter()
                .map(|template| template.text(row))
                .collect::<Result<Vec<_>, _>>()?,
            Self::Expression(template) => template.texts(row)?,
        };
        match texts.len() {
            0 | 1 => Err(format!("at least two are needed, but there is {}", texts.len())),
            _ => Ok(texts),
        }
    }
}
