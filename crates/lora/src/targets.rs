//! Which layers of a model a list, a pattern or `all-linear` means, by PEFT's rules.
//!
//! A target that is no layer is an error, not a layer less. It deliberately attaches nothing.

use std::collections::BTreeSet;

use model::{Adaptable, parameter_names};
use regex::Regex;

use crate::{Error, Result, Targets};

/// Which names a target means.
enum Matcher<'a> {
    Names(&'a [String]),
    Pattern(Box<Regex>),
    All,
}

impl Matcher<'_> {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Names(targets) => targets.iter().any(|target| is_tail(name, target)),
            Self::Pattern(regex) => regex.is_match(name),
            Self::All => true,
        }
    }
}

/// The names of the layers that `targets` means, in module order.
pub(crate) fn resolve<M: Adaptable>(model: &mut M, targets: &Targets) -> Result<Vec<String>> {
    let layers: Vec<String> =
        model.backbone_mut().projections_mut().into_iter().map(|(name, _)| name).collect();
    let matcher = match targets {
        Targets::Names(names) => Matcher::Names(names),
        Targets::Pattern(pattern) => Matcher::Pattern(Box::new(full_match(pattern)?)),
        Targets::AllLinear => Matcher::All,
    };
    if !matches!(matcher, Matcher::All) {
        refuse_others(model, &layers, &matcher)?;
    }
    let found: Vec<String> = layers.iter().filter(|name| matcher.matches(name)).cloned().collect();
    let unknown = match targets {
        Targets::Names(names) => {
            names.iter().find(|target| !found.iter().any(|name| is_tail(name, target)))
        }
        Targets::Pattern(pattern) => Some(pattern).filter(|_| found.is_empty()),
        Targets::AllLinear => None,
    };
    match unknown {
        None => Ok(found),
        Some(target) => Err(Error::NoSuchTarget { target: target.clone(), known: known(&layers) }),
    }
}

/// Embeddings, norms and heads: named by a target they are refused.
fn refuse_others<M: Adaptable>(model: &M, layers: &[String], matcher: &Matcher) -> Result<()> {
    let layers_set: BTreeSet<&str> = layers.iter().map(String::as_str).collect();
    let parameters = parameter_names(model);
    let modules = parameters.iter().filter_map(|name| name.rsplit_once('.')).map(|(name, _)| name);
    let tied_head = Some("lm_head").filter(|_| model.own_head().is_none());
    let others = modules.chain(tied_head).filter(|name| {
        let factor = name.ends_with(".lora_A") || name.ends_with(".lora_B");
        !factor && !layers_set.contains(name)
    });
    let tied = model.config().tied() && model.own_head().is_none();
    let embedding = parameters.first().and_then(|name| name.rsplit_once('.')).map(|(name, _)| name);
    for module in others {
        if !matcher.matches(module) {
            continue;
        }
        let module_name = module.to_owned();
        return Err(if tied && (module == "lm_head" || Some(module) == embedding) {
            Error::Tied { module: module_name }
        } else {
            Error::NotALayer { module: module_name, known: known(layers) }
        });
    }
    Ok(())
}

/// Whether `target` is a whole name or its last parts.
fn is_tail(name: &str, target: &str) -> bool {
    name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A regular expression that must match from the first character to the last.
fn full_match(pattern: &str) -> Result<Regex> {
    let wrong = |error: regex::Error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim().to_owned();
        Error::Pattern { pattern: pattern.to_owned(), reason }
    };
    // On its own first: an unbalanced bracket must not pair with those that are added.
    Regex::new(pattern).map_err(wrong)?;
    Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(wrong)
}

/// The last parts of the layers' names, each once, in module order.
fn known(layers: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let tails = layers.iter().filter_map(|name| name.rsplit('.').next());
    tails.filter(|tail| seen.insert(*tail)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{full_match, is_tail};

    #[test]
    fn names_match_whole_parts_only() {
        assert!(is_tail("model.layers.0.self_attn.q_proj", "q_proj"));
        assert!(is_tail("model.layers.0.self_attn.q_proj", "self_attn.q_proj"));
        assert!(is_tail("lm_head", "lm_head"));
        assert!(!is_tail("model.layers.0.self_attn.q_proj", "proj"));
        assert!(!is_tail("model.layers.10", "0"));
    }

    #[test]
    fn patterns_match_whole_names_only() {
        let regex = full_match(r".*layers\.1\..*(q_proj|o_proj)").expect("a pattern");
        assert!(regex.is_match("model.layers.1.self_attn.q_proj"));
        assert!(!regex.is_match("model.layers.1.self_attn.q_proj.lora_A"));
        // Alternatives are held together.
        assert!(!full_match("a|b").expect("a pattern").is_match("ab"));
        for wrong in ["(", "a)(?:b", r"(?=x)", r"(a)\1"] {
            assert!(full_match(wrong).is_err(), "{wrong}");
        }
    }
}
