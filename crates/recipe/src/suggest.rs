//! Suggestions for unknown keys: a similar key, the section that has the key, or the equivalent of
//! another tool's key.

use std::sync::LazyLock;

use crate::location::join;
use crate::nearest::nearest;
use crate::schema_tree::{Marker, Node, Table, Variant};

/// Keys of other tools with their equivalents here. The first one that the section has is
/// suggested.
const ALIASES: [(&str, &[&str]); 42] = [
    ("learning_rate", &["lr", "optimizer"]),
    ("max_lr", &["lr", "optimizer"]),
    ("batch_size", &["tokens_per_step", "micro_batch"]),
    ("per_device_train_batch_size", &["micro_batch"]),
    ("gradient_accumulation_steps", &["tokens_per_step"]),
    ("num_train_epochs", &["epochs"]),
    ("num_epochs", &["epochs"]),
    ("n_epochs", &["epochs"]),
    ("max_iters", &["max_steps"]),
    ("num_steps", &["max_steps"]),
    ("block_size", &["sequence_length", "n_positions"]),
    ("context_length", &["sequence_length", "max_position_embeddings", "n_positions"]),
    ("max_seq_length", &["sequence_length", "max_position_embeddings", "n_positions"]),
    ("max_length", &["sequence_length"]),
    ("seq_len", &["sequence_length"]),
    ("warmup", &["warmup_steps"]),
    ("warmup_iters", &["warmup_steps"]),
    ("lr_decay_iters", &["total_steps"]),
    ("clip", &["max_grad_norm"]),
    ("grad_clip", &["max_grad_norm"]),
    ("gradient_clipping", &["max_grad_norm"]),
    ("scheduler", &["schedule"]),
    ("lr_scheduler", &["schedule"]),
    ("logging_steps", &["log_every_steps"]),
    ("save_steps", &["save_every_steps"]),
    ("eval_steps", &["every_steps"]),
    ("save_total_limit", &["keep_checkpoints"]),
    ("random_seed", &["seed"]),
    ("model_type", &["family"]),
    ("dataset", &["data"]),
    ("r", &["rank"]),
    ("lora_r", &["rank"]),
    ("lora_alpha", &["alpha"]),
    ("lora_dropout", &["dropout"]),
    ("use_rslora", &["rslora"]),
    ("kl_coef", &["kl"]),
    ("init_kl_coef", &["kl"]),
    ("response_length", &["max_new_tokens"]),
    ("num_ppo_epochs", &["n_ppo_epochs"]),
    ("num_mini_batches", &["n_minibatches"]),
    ("lam", &["lambda"]),
    ("reward_model", &["reward"]),
];

/// Keys of GPT-2 with their equivalents in Llama.
const FAMILY_NAMES: [(&str, &str); 8] = [
    ("n_embd", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_positions", "max_position_embeddings"),
    ("n_inner", "intermediate_size"),
    ("layer_norm_epsilon", "rms_norm_eps"),
    ("activation_function", "hidden_act"),
    ("bias", "attention_bias"),
];

/// Label for an unknown key: the key that was probably meant, or its section. `present` are the sections of the recipe.
pub(crate) fn key(
    path: &str,
    name: &str,
    tables: &[&Table],
    siblings: &[Variant],
    present: &[String],
) -> Option<String> {
    let here = || tables.iter().flat_map(|table| table.keys.iter()).map(|key| key.name.as_str());
    let near = nearest(name, here());
    if let Some(near) = near.filter(|near| is_slip(name, near)) {
        return Some(did_you_mean(near));
    }
    if let Some(known) = alias(name, |known| here().any(|key| key == known)) {
        return Some(format!("use `{known}` instead"));
    }
    if let Some(other) = siblings.iter().find(|variant| variant.table.key(name).is_some()) {
        return Some(match &other.marker {
            Marker::Tag { key, value } => format!("only `{key} = \"{value}\"` has this key"),
            Marker::Key(key) => format!("only tables with `{key}` have this key"),
        });
    }
    if let Some(hint) = not_in_ppo(path, name) {
        return Some(hint);
    }
    if let Some(place) = place_of(path, name, present) {
        return Some(format!("move it {place}"));
    }
    if let Some(known) = alias(name, |known| place_of(path, known, present).is_some()) {
        let place = place_of(path, known, present).unwrap_or_default();
        return Some(format!("move it {place} as `{known}`"));
    }
    near.map(did_you_mean)
}

/// Label for keys that every other stage has.
fn not_in_ppo(path: &str, name: &str) -> Option<String> {
    let adds_tokens = matches!(name, "add_tokens" | "add_special_tokens");
    (path == "ppo" && adds_tokens).then(|| {
        "the reward model has no rows for new tokens: add them in the stages before, [sft] and [reward]"
            .to_owned()
    })
}

/// Keys of a section, for an unknown key that is similar to none of them.
pub(crate) fn known_keys(path: &str, tables: &[&Table]) -> String {
    let mut names: Vec<String> = Vec::new();
    for key in tables.iter().flat_map(|table| table.keys.iter()) {
        let name = format!("`{}`", key.name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let subject =
        if path.is_empty() { "the top level has".to_owned() } else { format!("[{path}] has") };
    format!("{subject} {}", names.join(", "))
}

/// Number of values of one key that a hint lists.
const LISTED: usize = 3;

/// Ways to choose one of several tables.
pub(crate) fn markers(variants: &[Variant]) -> String {
    let is_tag = |variant: &&Variant| matches!(variant.marker, Marker::Tag { .. });
    let n_unlisted = variants.iter().filter(is_tag).count().saturating_sub(LISTED);
    let mut n_tags = 0;
    let mut written = Vec::new();
    for variant in variants {
        match &variant.marker {
            Marker::Tag { key, value } => {
                n_tags += 1;
                if n_tags <= LISTED {
                    written.push(format!("`{key} = \"{value}\"`"));
                } else if n_tags == LISTED + 1 {
                    written.push(format!("{n_unlisted} other values of `{key}`"));
                }
            }
            Marker::Key(key) => written.push(format!("`{key} = …`")),
        }
    }
    format!("use {}", written.join(" or "))
}

/// First sentence of a doc comment, without its full stop.
pub(crate) fn first_sentence(doc: &str) -> &str {
    let end = doc.find(". ").unwrap_or(doc.len());
    doc.get(..end).unwrap_or(doc).trim_end_matches('.')
}

fn did_you_mean(key: &str) -> String {
    format!("did you mean `{key}`?")
}

/// Whether a word differs from a key by one letter: a typing mistake.
fn is_slip(word: &str, key: &str) -> bool {
    key.len() > 2 && strsim::damerau_levenshtein(&word.to_lowercase().replace('-', "_"), key) <= 1
}

/// Equivalent of another tool's key, of the keys that satisfy `is_known`.
fn alias(name: &str, is_known: impl Fn(&str) -> bool) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    let ours =
        ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, ours)| *ours).unwrap_or_default();
    let family = FAMILY_NAMES.iter().filter_map(|(gpt2, llama)| match name.as_str() {
        name if name == *gpt2 => Some(*llama),
        name if name == *llama => Some(*gpt2),
        _ => None,
    });
    ours.iter().copied().chain(family).find(|known| is_known(known))
}

/// Sections with the names of their keys, in the order of the reference page.
fn sections() -> &'static [(String, Vec<String>)] {
    static SECTIONS: LazyLock<Vec<(String, Vec<String>)>> = LazyLock::new(|| {
        let mut sections = Vec::new();
        collect("", crate::schema_tree::recipe(), &mut sections);
        sections
    });
    &SECTIONS
}

fn collect(path: &str, table: &Table, sections: &mut Vec<(String, Vec<String>)>) {
    sections.push((path.to_owned(), table.keys.iter().map(|key| key.name.clone()).collect()));
    for key in &table.keys {
        collect_node(&join(path, &key.name), &key.node, sections);
    }
}

fn collect_node(path: &str, node: &Node, sections: &mut Vec<(String, Vec<String>)>) {
    match node {
        Node::Table(table) => collect(path, table, sections),
        Node::Choice { variants, .. } => {
            for variant in variants {
                collect(path, &variant.table, sections);
            }
        }
        Node::List { item, .. } => collect_node(&format!("{path}[]"), item, sections),
        Node::Map(_) | Node::Text(_) | Node::Integer { .. } | Node::Number(_) | Node::Boolean => {}
    }
}

/// The sections that have this key, as `to [sft] or [dpo]`: those of the recipe, of these the nearest to `path`; the first
/// possible one if the recipe has none.
fn place_of(path: &str, name: &str, present: &[String]) -> Option<String> {
    let first = |path: &str| path.split(['.', '[']).next().unwrap_or_default().to_owned();
    let here = first(path);
    let rank = |section: &str| {
        let top = first(section);
        let is_absent = !top.is_empty() && !present.contains(&top);
        let is_inside = !path.is_empty() && section.starts_with(path);
        (is_absent, top != here, !is_inside, section.matches(['.', '[']).count())
    };
    let has = sections().iter().filter(|(_, keys)| keys.iter().any(|key| key == name));
    let mut has: Vec<&str> = has.map(|(section, _)| section.as_str()).collect();
    has.sort_by_key(|section| rank(section));
    let best = rank(has.first()?);
    let n_listed = if best.0 { 1 } else { has.len() };
    has.retain(|section| rank(section) == best);
    has.dedup();
    let places: Vec<String> = has.into_iter().take(n_listed).map(section_text).collect();
    Some(format!("to {}", places.join(" or ")))
}

/// A table of the variant that a word selects, with the keys that it needs: `{ kind = "adamw", lr = … }`.
pub(crate) fn tagged(variants: &[Variant], word: &str) -> Option<String> {
    variants.iter().find_map(|variant| match &variant.marker {
        Marker::Tag { key, value } if value == word => {
            let needed = variant.table.keys.iter().filter(|other| other.required);
            let needed = needed.filter(|other| other.name != *key);
            let needed: Vec<String> = std::iter::once(format!("{key} = \"{value}\""))
                .chain(needed.map(|other| format!("{} = …", other.name)))
                .collect();
            Some(format!("{{ {} }}", needed.join(", ")))
        }
        Marker::Tag { .. } | Marker::Key(_) => None,
    })
}

fn section_text(section: &str) -> String {
    match section.strip_suffix("[]") {
        Some(list) => format!("an entry of [{list}]"),
        None if section.is_empty() => "the top of the file, before the first [section]".to_owned(),
        None => format!("[{}]", section.replace("[]", "")),
    }
}
