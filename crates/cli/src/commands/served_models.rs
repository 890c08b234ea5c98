//! Opens the models of `temper serve`. Adapters of one base model become one model with the base, so that their requests are
//! decoded together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ::serve::{Models, NamedModel};
use ::tokenizer::Tokenizer;
use model::CausalLm;
use train::BaseModelCache;

use super::{bases_for_generation, open_model_among};
use crate::failure::{Failure, Result};
use crate::serve_args::{NamedPath, ServeArgs};

/// A model of the command line.
struct Opened {
    /// Its place there.
    idx: usize,
    name: String,
    model: CausalLm,
    tokenizer: Tokenizer,
    /// The directory or file with all weights: the model's own, or its base model's.
    weights: PathBuf,
    is_adapter: bool,
}

/// Opens all models.
pub(super) fn open(args: &ServeArgs) -> Result<Models> {
    let bases = bases_for_generation(&args.dtype, &args.device)?;
    let mut bases = if are_apart(args)? { bases.keeping_blocks() } else { bases };
    let mut rest = Vec::new();
    for (idx, named) in args.models.iter().enumerate() {
        rest.push(open_one(&mut bases, args, idx, named)?);
    }
    if args.base.is_some() && !rest.iter().any(|opened| opened.is_adapter) {
        return Err(Failure::input(
            "--base is for adapters, and no MODEL is one",
            "these models have all their weights",
        ));
    }
    let mut models = Vec::new();
    let mut named: Vec<(usize, NamedModel)> = Vec::new();
    while let Some(first) = rest.first() {
        let weights = first.weights.clone();
        let (same, others) = rest.into_iter().partition(|opened| opened.weights == weights);
        rest = others;
        for group in groups(&mut bases, &weights, same)? {
            add(group, &mut models, &mut named);
        }
    }
    // The first name is the one that the page chooses.
    named.sort_by_key(|(idx, _)| *idx);
    Ok(Models { models, named: named.into_iter().map(|(_, named)| named).collect() })
}

/// Whether each model has weights of its own. Adapters are joined with weights in f32.
fn are_apart(args: &ServeArgs) -> Result<bool> {
    let mut seen = BTreeSet::new();
    for named in &args.models {
        let dir = ::plan::locate_argument(&named.path)?;
        if ::plan::is_adapter(&dir) || !seen.insert(absolute(&dir)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn open_one(
    bases: &mut BaseModelCache,
    args: &ServeArgs,
    idx: usize,
    named: &NamedPath,
) -> Result<Opened> {
    let dir = ::plan::locate_argument(&named.path)?;
    let is_adapter = ::plan::is_adapter(&dir);
    // The option is about adapters, beside which their base may be served.
    let base = args.base.as_deref().filter(|_| is_adapter);
    let (model, tokenizer) = open_model_among::<CausalLm>(bases, &named.path, base)?;
    let weights = match base {
        Some(base) => ::plan::locate_argument(base)?,
        None => ::plan::recorded_base(&dir)?.unwrap_or(dir),
    };
    let weights = absolute(&weights);
    Ok(Opened { idx, name: named.name.clone(), model, tokenizer, weights, is_adapter })
}

fn absolute(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A model for one thread, and the models that it stands for.
struct Group {
    /// The base model, if its members are to be joined with it.
    base: Option<CausalLm>,
    members: Vec<Opened>,
}

/// Divides models on one base into those that can be joined, and others alone.
fn groups(bases: &mut BaseModelCache, weights: &Path, same: Vec<Opened>) -> Result<Vec<Group>> {
    let alone = |opened: Opened| Group { base: None, members: vec![opened] };
    if same.len() == 1 {
        return Ok(same.into_iter().map(alone).collect());
    }
    let base: CausalLm = bases.open_base(weights)?;
    let (members, others): (Vec<Opened>, Vec<Opened>) =
        same.into_iter().partition(|opened| lora::is_joinable(&base, &opened.model));
    let mut groups: Vec<Group> = others.into_iter().map(alone).collect();
    if members.len() == 1 {
        groups.extend(members.into_iter().map(alone));
    } else if !members.is_empty() {
        groups.push(Group { base: Some(base), members });
    }
    Ok(groups)
}

/// Adds the model of a group and the names of its members.
fn add(group: Group, models: &mut Vec<CausalLm>, named: &mut Vec<(usize, NamedModel)>) {
    let Group { base, members } = group;
    let model_idx = models.len();
    let is_joined = base.is_some();
    let mut adapted = Vec::new();
    for Opened { idx, name, model, tokenizer, is_adapter, .. } in members {
        let adapter = (is_joined && is_adapter).then_some(adapted.len());
        named.push((idx, NamedModel { name, model_idx, adapter, tokenizer }));
        if is_adapter || !is_joined {
            adapted.push(model);
        }
    }
    match base {
        Some(base) => models.push(lora::join(base, adapted)),
        None => models.extend(adapted),
    }
}
