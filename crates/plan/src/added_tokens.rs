//! Tokens that a stage adds to the tokenizer of existing weights: rows of embeddings and output layer, and whether an
//! adapter trains them.

use arch::{AdapterLayout, LayerRole, ModelConfig, ParamKind};
use recipe::{Loaded, StageKeys};
use tokenizer::Tokenizer;

use crate::stage::LoraPlan;
use crate::starting_point::StartingPoint;
use crate::{Error, Result};

/// Most ids that a sentence lists.
const LISTED: usize = 8;

/// Tokens that a stage adds.
pub(crate) struct AddedTokens {
    /// Rows that embeddings and output layer get.
    pub(crate) n_new: usize,
    /// A sentence on the tokens and their rows.
    pub(crate) note: String,
    /// Ids of the tokens.
    ids: Vec<u32>,
}

impl AddedTokens {
    /// Makes room for added tokens in the configuration of existing weights; `None` without such tokens.
    pub(crate) fn plan(
        loaded: &Loaded,
        name: &str,
        keys: &StageKeys<'_>,
        starting_point: &StartingPoint,
        config: &mut ModelConfig,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Self>> {
        let [tokens, specials] = keys.added_tokens;
        let added: Vec<&String> = tokens.iter().chain(specials).collect();
        if added.is_empty() || starting_point.config.is_none() {
            return Ok(None);
        }
        let (n_tokens, n_rows) = (tokenizer.vocab_size(), config.vocab_size());
        let ids: Vec<u32> = added.iter().filter_map(|token| tokenizer.token_id(token)).collect();
        let listed = added.iter().map(|token| {
            let id = tokenizer.token_id(token).map_or_else(String::new, |id| format!(" ({id})"));
            format!("`{token}`{id}")
        });
        let listed = listed.collect::<Vec<String>>().join(", ");
        let n_new = n_tokens.saturating_sub(n_rows);
        if n_new == 0 {
            let note = format!("added tokens: {listed}; the embeddings have rows for them");
            return Ok(Some(Self { n_new, note, ids }));
        }
        if starting_point.is_packed {
            let key = if tokens.is_empty() { "add_special_tokens" } else { "add_tokens" };
            return Err(Error::Recipe(loaded.spans.error(
                &format!("{name}.{key}"),
                "the embeddings of packed weights cannot grow",
                "needs new rows",
                Some("unpack the weights first with `temper export`".to_owned()),
            )));
        }
        *config = config.with_vocab_size(n_tokens)?;
        let saved = match keys.lora {
            Some(_) => "; the base model with these rows is saved in the stage's directory",
            None => "",
        };
        let note = format!(
            "added tokens: {listed}; the embeddings grow from {n_rows} to {n_tokens} rows, each new \
             one the mean of the old ones{saved}"
        );
        Ok(Some(Self { n_new, note, ids }))
    }

    /// Refuses to continue an adapter on a base model that gets new rows. `path` is that of `lora`.
    pub(crate) fn check_adapter(&self, loaded: &Loaded, path: &str, lora: &LoraPlan) -> Result<()> {
        if self.n_new == 0 || lora.adapter.is_none() {
            return Ok(());
        }
        Err(Error::Recipe(loaded.spans.error(
            &format!("{path}.adapter"),
            "an adapter cannot be continued on a base model that gets rows for added tokens",
            "trained on a base model without these rows",
            Some(
                "remove `adapter` to train a new adapter: name the earlier one in `start`, and it \
                 is merged first"
                    .to_owned(),
            ),
        )))
    }

    /// Sentences on rows of the added tokens that a new adapter leaves as they are, with the keys that train them.
    pub(crate) fn untrained(
        &self,
        lora: &LoraPlan,
        config: &ModelConfig,
        is_scalar: bool,
    ) -> Vec<String> {
        let layout = &lora.layout;
        let ids = self.listed_ids();
        let mut warnings = Vec::new();
        if !trains_rows(layout, config, LayerRole::Embedding, &self.ids) {
            warnings.push(format!(
                "the adapter does not train the embeddings of the added tokens ({ids}): add \
                 `trainable_token_indices = [{ids}]` to `lora`, or train all embeddings with \
                 `modules_to_save`"
            ));
        }
        let has_own_head = !is_scalar && (!config.tied() || layout.unties);
        if has_own_head && !trains_rows(layout, config, LayerRole::Head, &self.ids) {
            warnings.push(format!(
                "the adapter does not train the output layer's rows of the added tokens ({ids}), so \
                 the model hardly learns to write them: add `modules_to_save = [\"lm_head\"]` to \
                 `lora`"
            ));
        }
        warnings
    }

    fn listed_ids(&self) -> String {
        let mut listed: Vec<String> = self.ids.iter().take(LISTED).map(u32::to_string).collect();
        if self.ids.len() > LISTED {
            listed.push("…".to_owned());
        }
        listed.join(", ")
    }
}

/// Whether an adapter changes these rows of the token embedding or of the output layer.
fn trains_rows(layout: &AdapterLayout, config: &ModelConfig, role: LayerRole, ids: &[u32]) -> bool {
    let is_head = role == LayerRole::Head;
    let by_factors = layout.layers.iter().any(|layer| layer.role == role);
    let by_rows = layout
        .tokens
        .iter()
        .any(|rows| rows.is_head == is_head && ids.iter().all(|id| rows.ids.contains(id)));
    let embedding = config.parameters().first().map(|spec| spec.name.clone());
    let as_a_whole = layout.base_parameters.iter().any(|spec| {
        if is_head { spec.kind == ParamKind::Head } else { Some(&spec.name) == embedding.as_ref() }
    });
    by_factors || by_rows || as_a_whole
}
