//! Tokenizer of a recipe, loaded or trained once and cached, and chat template of a stage.

use std::path::Path;

use arch::ModelConfig;
use data::SourceSpec;
use hub_local::Need;
use recipe::{ChatTemplate as TemplateKey, Loaded, SampleKind, TokenizerSection, TrainTokenizer};
use serde_json::json;
use tokenizer::{ChatTemplate, Tokenizer, default_special_tokens};

use crate::error::AtKey;
use crate::{Error, Paths, Request, Result, Watch};

/// Version of the trainer, part of the cache key. To be raised when the same texts give a different tokenizer.
const TRAINER_VERSION: u32 = 1;
/// Most tokens that a sentence lists.
const LISTED: usize = 8;

/// The tokenizer that `[tokenizer]` describes; none without that section.
pub(crate) fn of_recipe(
    loaded: &Loaded,
    request: &Request,
    paths: &Paths,
    watch: &mut dyn Watch,
) -> Result<Option<Tokenizer>> {
    match &loaded.recipe.tokenizer {
        None => Ok(None),
        Some(TokenizerSection::Load(path)) => {
            let dir = paths.input(path, Need::Tokenizer).at_key(loaded, "tokenizer.load")?;
            Tokenizer::from_dir_or_file(dir).at_key(loaded, "tokenizer.load").map(Some)
        }
        Some(TokenizerSection::Train(train)) => {
            trained(loaded, train, request, paths, watch).map(Some)
        }
    }
}

fn trained(
    loaded: &Loaded,
    train: &TrainTokenizer,
    request: &Request,
    paths: &Paths,
    watch: &mut dyn Watch,
) -> Result<Tokenizer> {
    let first_stage = loaded.recipe.stages().into_iter().next().map(recipe::StageSection::keys);
    // Stages without documents train the tokenizer on the text of their messages.
    let kind = match (train.data(), &first_stage) {
        (None, Some(stage)) => stage.samples.kind(),
        (Some(_), _) | (None, None) => SampleKind::Documents,
    };
    let sources = train.data().or(first_stage.as_ref().map(|stage| stage.data));
    let specs = sources
        .unwrap_or_default()
        .iter()
        .map(|source| {
            SourceSpec::resolve(source, &paths.recipe_dir, &paths.data_dir, request.limit)
        })
        .collect::<data::Result<Vec<_>>>()?;
    let specials = train.special_tokens().map_or_else(default_special_tokens, <[String]>::to_vec);
    let settings = match train {
        TrainTokenizer::ByteBpe(keys) => json!(["byte-bpe", keys.vocab_size, specials]),
        TrainTokenizer::Char(_) => json!(["char", specials]),
    };
    fsio::create_dir_all(&paths.cache_dir)?;
    let texts = data::texts_key(&specs, kind, &paths.cache_dir)?;
    let key = json!([TRAINER_VERSION, settings, texts]).to_string();
    let name = format!("tokenizer-{}", fsio::sha256_hex(key.as_bytes()));
    let dir = paths.cache_dir.join(&name);
    if data::verified_cache(&dir)?.is_none() {
        let _lock = data::lock_cache(&paths.cache_dir, &name, || watch.waiting_for_tokenizer())?;
        // Another process may have trained it meanwhile.
        if data::verified_cache(&dir)?.is_none() {
            watch.training_tokenizer();
            let tokenizer = match train {
                TrainTokenizer::ByteBpe(keys) => train_tokenizer(&specs, kind, |texts| {
                    Tokenizer::train_byte_bpe(texts, keys.vocab_size, &specials)
                })?,
                TrainTokenizer::Char(_) => {
                    train_tokenizer(&specs, kind, |texts| Tokenizer::train_char(texts, &specials))?
                }
            };
            save(&tokenizer, &dir)?;
        }
    }
    // Read back, so that a run that trained it and a run that found it in the cache have the same tokenizer.
    Ok(Tokenizer::from_dir_or_file(&dir)?)
}

/// Runs a trainer on the texts of sources, which another thread reads, with a small buffer between the two.
pub fn train_tokenizer(
    specs: &[SourceSpec],
    kind: SampleKind,
    train: impl FnOnce(&mut dyn Iterator<Item = String>) -> tokenizer::Result<Tokenizer>,
) -> Result<Tokenizer> {
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::sync_channel(64);
        let spawned = std::thread::Builder::new().spawn_scoped(scope, move || {
            data::texts(specs, kind, &mut |text| {
                // Sending fails only after the trainer has failed, and its error is reported.
                let _ = sender.send(text);
            })
        });
        let reader =
            spawned.map_err(|source| data::Error::Threads { source: fsio::NoThread(source) })?;
        let trained = train(&mut receiver.into_iter());
        match reader.join() {
            Ok(read) => read?,
            Err(_) => return Err(Error::ReaderFailed),
        }
        Ok(trained?)
    })
}

/// Saves a trained tokenizer atomically.
fn save(tokenizer: &Tokenizer, dir: &Path) -> Result<()> {
    let mut writer = fsio::DirWriter::begin(dir)?;
    for (name, bytes) in tokenizer.files()? {
        writer.write(&name, bytes)?;
    }
    writer.commit(serde_json::Value::Null)?;
    Ok(())
}

/// A model's own tokenizer without the special tokens that have no row in its embedding, and a sentence on them. `config` is
/// none for a tokenizer from elsewhere, which has to fit as it is.
pub(crate) fn fitting(
    tokenizer: Tokenizer,
    config: Option<&ModelConfig>,
) -> (Tokenizer, Option<String>) {
    let fitting = config.and_then(|config| tokenizer.without_surplus(config.vocab_size()));
    let Some((fitting, texts)) = fitting else { return (tokenizer, None) };
    let listed: Vec<String> = texts.iter().take(LISTED).map(|text| format!("`{text}`")).collect();
    let more = if texts.len() > LISTED { ", …" } else { "" };
    let note = format!(
        "special tokens without a row in the embedding are left out of the tokenizer: {}{more}",
        listed.join(", ")
    );
    (fitting, Some(note))
}

/// The tokenizer with the ordinary and the special tokens that a stage adds.
pub(crate) fn with_added_tokens(
    tokenizer: Tokenizer,
    [tokens, specials]: [&[String]; 2],
) -> Result<Tokenizer> {
    let mut tokenizer = tokenizer;
    for (added, special) in [(tokens, false), (specials, true)] {
        if !added.is_empty() {
            tokenizer = tokenizer.with_added_tokens(added, special)?;
        }
    }
    Ok(tokenizer)
}

/// The tokenizer with the end-of-text token that a stage names.
pub(crate) fn with_eos_token(
    loaded: &Loaded,
    stage: &str,
    token: Option<&str>,
    tokenizer: Tokenizer,
) -> Result<Tokenizer> {
    let Some(token) = token else { return Ok(tokenizer) };
    tokenizer.with_eos_token(token).map_err(|error| {
        Error::Recipe(loaded.spans.error(
            &format!("{stage}.eos_token"),
            error.to_string(),
            "not in the vocabulary",
            error.hint(),
        ))
    })
}

/// Sentences on the token that ends answers, and on `{% generation %}` blocks of the template.
pub(crate) fn turn_notes(tokenizer: &Tokenizer) -> Result<Vec<String>> {
    let Some(template) = tokenizer.chat_template() else { return Ok(Vec::new()) };
    let end = tokenizer.turn_end(template)?;
    let token = tokenizer.token_text(end.id).unwrap_or_default();
    let mut notes = vec![match end.added {
        None => format!("answers end with `{token}`, which the chat template writes"),
        Some(source) => format!(
            "answers end with `{token}` of {}: the chat template writes no token after an answer, so \
             it is added after the last one of a chat",
            source.name()
        ),
    }];
    notes.extend(tokenizer.generation_blocks_note(template));
    Ok(notes)
}

/// The tokenizer with the chat template of a stage.
pub(crate) fn with_template(
    loaded: &Loaded,
    request: &Request,
    paths: &Paths,
    stage: &str,
    key: Option<&TemplateKey>,
    tokenizer: &Tokenizer,
) -> Result<Tokenizer> {
    let template = match (key, tokenizer.chat_template()) {
        (None | Some(TemplateKey::Model), Some(own)) => own.clone(),
        (None | Some(TemplateKey::Chatml), _) => ChatTemplate::builtin("chatml")?,
        (Some(TemplateKey::Plain), _) => ChatTemplate::builtin("plain")?,
        (Some(TemplateKey::File(path)), _) => {
            let file = paths.input(path, Need::Tokenizer)?;
            let key = format!("{stage}.chat_template");
            let source =
                fsio::read_text_capped(&file, fsio::limits::TEMPLATE_BYTES).at_key(loaded, &key)?;
            ChatTemplate::from_source(path, source)?
        }
        (Some(TemplateKey::Model), None) => {
            return Err(Error::Recipe(loaded.spans.error(
                &format!("{stage}.chat_template"),
                "the starting model has no chat template",
                "no template to inherit",
                Some("use `chatml`, `plain` or a .jinja file".to_owned()),
            )));
        }
    };
    let template = match request.clock {
        Some(clock) => template.with_clock(clock)?,
        None => template,
    };
    // Checked before any row is read: a token must end the template's answers.
    tokenizer.turn_end(&template)?;
    Ok(tokenizer.with_chat_template(template))
}
