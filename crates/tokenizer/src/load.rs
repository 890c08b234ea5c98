//! Loads a tokenizer.json into the tokenizers library and applies its tokenizer_config.json.
//!
//! Added tokens, and bos and eos around texts, follow transformers.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, PostProcessorWrapper};

use crate::config_values::token_text;
use crate::origin::Origin;
use crate::untrusted::bounded::{Library, within_budget};
use crate::untrusted::panics::{catch, catch_panic};
use crate::untrusted::tokenizer_json;
use crate::{Error, Result};

/// Config keys of special tokens, in the order in which transformers adds missing ones.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The library's tokenizer with its numbers of ids.
pub(crate) struct Loaded {
    pub(crate) library: Library,
    /// Largest id plus one.
    pub(crate) n_ids: usize,
    /// The same for the tokenizer.json alone.
    pub(crate) n_file_ids: usize,
}

/// The library's tokenizer from the text of a tokenizer.json and its config.
pub(crate) fn load(
    json: &str,
    path: &Path,
    config: &Map<String, Value>,
    origin: Origin,
) -> Result<Loaded> {
    let (mut library, checked) = parse(json, path)?;
    // Tokens are normalized when they are added.
    within_budget(json, || {
        catch_panic("adding special tokens", || add_missing(&mut library, config))
    })
    .map_err(|reason| Error::TextBudget { reason })??;
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    match (origin, class.strip_suffix("Fast").unwrap_or(class)) {
        (Origin::Converted, _) => update_post_processor(&mut library, config)?,
        (Origin::TokenizerJson, "CodeLlamaTokenizer") => {
            let mut config = config.clone();
            config.insert("add_bos_token".to_owned(), true.into());
            config.remove("add_eos_token");
            update_post_processor(&mut library, &config)?;
        }
        (Origin::TokenizerJson, "GPTNeoXTokenizer") => {
            library.with_post_processor(None::<PostProcessorWrapper>);
        }
        (Origin::TokenizerJson | Origin::Gguf, _) => {}
    }
    let largest = library.get_added_tokens_decoder().into_keys().max();
    let n_ids = checked.n_ids.max(largest.map_or(0, |id| id as usize + 1));
    let beyond = checked.of_post_processor.iter().find(|(_, id)| *id >= n_ids as u64);
    if let Some((token, id)) = beyond {
        return Err(Error::Refused {
            path: path.to_owned(),
            reason: format!(
                "the post-processor adds token `{token}` with id `{id}`, but the vocabulary has {n_ids} ids"
            ),
            hint: Some("correct the id in `post_processor`".to_owned()),
        });
    }
    Ok(Loaded { library, n_ids, n_file_ids: checked.n_ids })
}

fn parse(json: &str, path: &Path) -> Result<(Library, tokenizer_json::Checked)> {
    let refused = |refusal: tokenizer_json::Refusal| Error::Refused {
        path: path.to_owned(),
        reason: refusal.reason,
        hint: refusal.hint,
    };
    let checked = tokenizer_json::check(json).map_err(refused)?;
    let read = || catch("reading tokenizer.json", || Library::from_bytes(json));
    let read = within_budget(json, read).map_err(|reason| Error::TextBudget { reason })?;
    let mut library = read.map_err(|error| {
        if let Error::Backend { reason, .. } = error { refused(reason.into()) } else { error }
    })?;
    for token in &checked.added {
        let actual = library.token_to_id(&token.content);
        if actual != Some(token.id) {
            let reason = format!(
                "added token `{}` has id `{}` in added_tokens, but `{}` in the vocabulary",
                token.content,
                token.id,
                actual.map_or_else(|| "none".to_owned(), |id| id.to_string())
            );
            return Err(refused(reason.into()));
        }
    }
    // transformers disables both for each call too: the caller decides about lengths.
    catch("reading tokenizer.json", || library.with_truncation(None).map(|_| ()))?;
    library.with_padding(None);
    Ok((library, checked))
}

/// Adds the tokens of the config, as transformers does: those that the config describes with their
/// settings there, which override the tokenizer.json, then those that are only named.
fn add_missing(library: &mut Library, config: &Map<String, Value>) {
    let extra = config.get("extra_special_tokens");
    let of_model = config
        .iter()
        .filter(|(key, _)| key.ends_with("_token") && !NAMED.contains(&key.as_str()))
        .map(|(_, value)| value);
    let tables = extra.and_then(Value::as_object).into_iter().flat_map(Map::values);
    let lists = [config.get("additional_special_tokens"), extra]
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten();
    let named: Vec<(&str, &Value)> = NAMED
        .iter()
        .filter_map(|key| config.get(*key))
        .chain(of_model)
        .chain(tables)
        .chain(lists)
        .filter_map(|value| Some((token_text(value)?, value)))
        .collect();
    let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
    let mut described: Vec<(u32, &str, &Value)> = decoder
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| Some((id.parse().ok()?, token_text(token)?, token)))
        .collect();
    described.sort_unstable_by_key(|(id, _, _)| *id);
    let is_named = |text: &str| named.iter().any(|(name, _)| *name == text);
    let mut tokens: Vec<AddedToken> = described
        .iter()
        .map(|(_, text, token)| {
            let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            added_token(text, special || is_named(text), token)
        })
        .collect();
    let added = library.get_added_tokens_decoder();
    for (text, value) in &named {
        let known = described.iter().any(|(_, other, _)| other == text)
            || library
                .token_to_id(text)
                .is_some_and(|id| added.get(&id).is_some_and(|token| token.special));
        if !known {
            tokens.push(added_token(text, true, value));
        }
    }
    // Fails only if the tokens' automaton cannot be built. A token is then missing, and code that
    // needs it returns an error with its name.
    let _ = library.add_tokens(tokens);
}

fn added_token(text: &str, special: bool, settings: &Value) -> AddedToken {
    let flag =
        |key: &str, default: bool| settings.get(key).and_then(Value::as_bool).unwrap_or(default);
    let described = settings.get("content").is_some();
    AddedToken::from(text, special)
        .lstrip(flag("lstrip", false))
        .rstrip(flag("rstrip", false))
        .single_word(flag("single_word", false))
        .normalized(flag("normalized", described && !special))
}

/// Applies `add_bos_token` and `add_eos_token` to converted files, which have no post-processor.
///
/// The post-processor of a tokenizer.json decides by itself, as in transformers 5, which drops both
/// flags where there is a tokenizer.json. Two of its classes replace the post-processor:
/// `CodeLlamaTokenizer` always adds bos, and `GPTNeoXTokenizer` never does.
fn update_post_processor(library: &mut Library, config: &Map<String, Value>) -> Result<()> {
    let flag = |key: &str| config.get(key).map(|value| value.as_bool().unwrap_or(false));
    let (bos_flag, eos_flag) = (flag("add_bos_token"), flag("add_eos_token"));
    if bos_flag.is_none() && eos_flag.is_none() {
        return Ok(());
    }
    let token = |wanted: Option<bool>, key: &str| {
        let text = wanted.unwrap_or(false).then(|| config.get(key).and_then(token_text))??;
        Some((text.to_owned(), library.token_to_id(text)?))
    };
    let bos = token(bos_flag, "bos_token");
    let eos = token(eos_flag, "eos_token");
    let processor = post_processor(bos.as_ref(), eos.as_ref());
    let processor: TemplateProcessing =
        catch("setting bos and eos", || serde_json::from_value::<TemplateProcessing>(processor))?;
    library.with_post_processor(Some(PostProcessorWrapper::Template(processor)));
    Ok(())
}

/// A post-processor that adds `bos` before each text and `eos` after it.
pub(crate) fn post_processor(bos: Option<&(String, u32)>, eos: Option<&(String, u32)>) -> Value {
    let special = |token: Option<&(String, u32)>, type_id: u32| {
        token.map(|(text, _)| json!({"SpecialToken": {"id": text, "type_id": type_id}}))
    };
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let part = |id: &str, type_id: u32| {
        [special(bos, type_id), Some(sequence(id, type_id)), special(eos, type_id)]
            .into_iter()
            .flatten()
            .collect::<Vec<Value>>()
    };
    let mut specials = Map::new();
    for (text, id) in [bos, eos].into_iter().flatten() {
        let token = json!({"id": text, "ids": [id], "tokens": [text]});
        specials.insert(text.clone(), token);
    }
    let pair = [part("A", 0), part("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": part("A", 0),
        "pair": pair,
        "special_tokens": specials,
    })
}
