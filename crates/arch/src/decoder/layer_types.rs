//! `layer_types` of config.json: which blocks attend to a window.

use serde_json::Value;

use super::DecoderConfig;
use crate::config_reader::ConfigReader;
use crate::error::Result;

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// Layers of a family that have windows.
pub(crate) struct LayerTypes<'a> {
    /// The window of blocks with sliding attention.
    pub(crate) window: Option<usize>,
    /// Whether a block has sliding attention, in files without `layer_types`.
    pub(crate) is_sliding: &'a dyn Fn(usize) -> bool,
    /// Treatment of `sliding_attention` without a window.
    pub(crate) hint: &'static str,
}

/// The attention window of each of `n_layers` blocks.
pub(crate) fn read_layer_types(
    reader: &mut ConfigReader,
    n_layers: usize,
    types: &LayerTypes<'_>,
) -> Result<Vec<Option<usize>>> {
    let window = types.window;
    let is_known = |v: &Value| {
        let name = |t: &Value| matches!(t.as_str(), Some(FULL | SLIDING));
        v.as_array().is_some_and(|list| list.len() == n_layers && list.iter().all(name))
    };
    let hint = "supported: full_attention and sliding_attention, one entry for each layer";
    reader.require("layer_types", is_known, hint)?;
    let Some(list) = reader.value("layer_types").and_then(Value::as_array) else {
        return Ok((0..n_layers).map(|idx| window.filter(|_| (types.is_sliding)(idx))).collect());
    };
    let is_full = |layer_type: &Value| layer_type.as_str() == Some(FULL);
    if window.is_none() && !list.iter().all(is_full) {
        let message = "`layer_types` has sliding_attention, but there is no window".to_owned();
        return Err(reader.inconsistent(message, Some(types.hint)));
    }
    Ok(list.iter().map(|layer_type| window.filter(|_| !is_full(layer_type))).collect())
}

/// Reads `layer_types` of a family whose blocks are all alike: with a window in all of them, or in none.
pub(crate) fn require_uniform_layer_types(
    reader: &mut ConfigReader,
    window: Option<usize>,
) -> Result<()> {
    let expected = if window.is_some() { SLIDING } else { FULL };
    let fits = |v: &Value| {
        v.as_array().is_some_and(|types| types.iter().all(|t| t.as_str() == Some(expected)))
    };
    reader.require("layer_types", fits, &format!("supported: {expected} in all layers"))
}

/// The value of `layer_types`.
pub(crate) fn layer_types(config: &DecoderConfig) -> Value {
    let name = |window: Option<usize>| if window.is_some() { SLIDING } else { FULL };
    config.layers.iter().map(|layer| name(layer.window)).collect()
}
