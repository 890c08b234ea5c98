//! A LoRA configuration applied to a model: its layers, the names and shapes of its tensors, and the parameters of the base
//! model that are trained with them.

use std::collections::BTreeSet;

use crate::adapter::{BiasTraining, LoraConfig, LoraInit};
use crate::adapter_error::{AdapterError, AdapterResult};
use crate::adapter_match::{BlockIndex, ByPattern, Matcher, is_name_suffix};
use crate::adapter_targets::Targets;
use crate::family::ModelConfig;
use crate::params::{AxisOrder, LinearLayer, ParamKind, ParamSpec};

/// The output layer of language models.
const OUTPUT_LAYER: &str = "lm_head";
/// The head of sequence classifiers, which is always trained as a whole.
const SCORE: &str = "score";

/// Kind of a layer that has an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerRole {
    /// A linear layer inside a block.
    Linear,
    /// The token embedding.
    Embedding,
    /// The output layer.
    Head,
}

/// A layer with low-rank factors.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptedLayer {
    /// Module name in a Hugging Face checkpoint.
    pub name: String,
    /// Kind of the layer.
    pub role: LayerRole,
    /// Input width; for the embedding, the number of tokens.
    pub d_in: usize,
    /// Output width.
    pub d_out: usize,
    /// Whether the base layer has a bias.
    pub has_bias: bool,
    /// Width between the factors.
    pub rank: usize,
    /// Factor of their product.
    pub scale: f64,
}

/// Rows of an embedding or output layer that are trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRows {
    /// Module name in a Hugging Face checkpoint.
    pub module: String,
    /// Whether the module is the output layer.
    pub is_head: bool,
    /// Number of rows of the module.
    pub n_tokens: usize,
    /// Width of a row.
    pub width: usize,
    /// The trained rows.
    pub ids: Vec<u32>,
}

/// A tensor of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterTensor {
    /// The layer's name, a dot, and PEFT's name of the tensor.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Role of the tensor in its layer.
    pub kind: AdapterTensorKind,
}

/// The tensors that a layer's adapter can have, with the end of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterTensorKind {
    /// `[r, in]`
    A,
    /// `[out, r]`
    B,
    /// `[out]`
    BiasOfB,
    /// `[out]`: DoRA's magnitudes.
    Magnitude,
    /// `[r, tokens]`
    EmbeddingA,
    /// `[width, r]`
    EmbeddingB,
    /// `[n, width]`: trained rows.
    Rows,
}

impl AdapterTensorKind {
    const ALL: [Self; 7] = [
        Self::A,
        Self::B,
        Self::BiasOfB,
        Self::Magnitude,
        Self::EmbeddingA,
        Self::EmbeddingB,
        Self::Rows,
    ];

    /// The part of a tensor's name after the layer's.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::A => ".lora_A.weight",
            Self::B => ".lora_B.weight",
            Self::BiasOfB => ".lora_B.bias",
            Self::Magnitude => ".lora_magnitude_vector",
            Self::EmbeddingA => ".lora_embedding_A",
            Self::EmbeddingB => ".lora_embedding_B",
            Self::Rows => ".token_adapter.trainable_tokens_delta",
        }
    }

    /// The layer and the kind of an adapter's tensor; `None` for any other parameter.
    pub fn of_name(name: &str) -> Option<(&str, Self)> {
        Self::ALL.into_iter().find_map(|kind| Some((name.strip_suffix(kind.suffix())?, kind)))
    }
}

/// Tensors of an adapter on a given model.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterLayout {
    /// Layers with factors, in module order.
    pub layers: Vec<AdaptedLayer>,
    /// Trained rows of embedding and output layer.
    pub tokens: Vec<TokenRows>,
    /// Parameters of the base model that are trained: saved modules and biases.
    pub base_parameters: Vec<ParamSpec>,
    /// Whether embedding and output layer, one weight in the base model, are two with this adapter.
    pub unties: bool,
    use_dora: bool,
    lora_bias: bool,
}

impl AdapterLayout {
    /// The tensors of a layer's adapter, in module order.
    pub fn tensors_of(&self, layer: &AdaptedLayer) -> Vec<AdapterTensor> {
        use AdapterTensorKind::{A, B, BiasOfB, EmbeddingA, EmbeddingB, Magnitude};
        let AdaptedLayer { name, d_in, d_out, rank, .. } = layer;
        let (d_in, d_out, rank) = (*d_in, *d_out, *rank);
        let [a, b] = match layer.role {
            LayerRole::Linear | LayerRole::Head => [A, B],
            LayerRole::Embedding => [EmbeddingA, EmbeddingB],
        };
        let mut tensors = vec![tensor(name, a, &[rank, d_in]), tensor(name, b, &[d_out, rank])];
        if self.lora_bias && layer.role == LayerRole::Linear {
            tensors.push(tensor(name, BiasOfB, &[d_out]));
        }
        if self.use_dora {
            tensors.push(tensor(name, Magnitude, &[d_out]));
        }
        tensors
    }

    /// The tensor of trained rows.
    pub fn tensor_of_rows(&self, rows: &TokenRows) -> AdapterTensor {
        tensor(&rows.module, AdapterTensorKind::Rows, &[rows.ids.len(), rows.width])
    }

    /// All tensors that are added to the base model.
    pub fn tensors(&self) -> Vec<AdapterTensor> {
        let of_layers = self.layers.iter().flat_map(|layer| self.tensors_of(layer));
        of_layers.chain(self.tokens.iter().map(|rows| self.tensor_of_rows(rows))).collect()
    }

    /// Names and shapes of all trained parameters, those of the base model included.
    pub fn trained(&self) -> Vec<(String, Vec<usize>)> {
        let added = self.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape));
        let whole = self.base_parameters.iter().map(|spec| (spec.name.clone(), spec.shape.clone()));
        added.chain(whole).collect()
    }

    /// Number of elements that are added to the base model.
    pub fn n_added(&self) -> u64 {
        let n =
            |tensor: &AdapterTensor| -> u64 { tensor.shape.iter().map(|n| *n as u64).product() };
        self.tensors().iter().map(n).sum()
    }

    /// Number of trained elements.
    pub fn n_trained(&self) -> u64 {
        self.n_added() + self.base_parameters.iter().map(ParamSpec::n_elements).sum::<u64>()
    }

    /// Sum of the layers' ranks.
    pub fn total_rank(&self) -> u64 {
        self.layers.iter().map(|layer| layer.rank as u64).sum()
    }

    /// Sum of the layers' input and output widths.
    pub fn total_width(&self) -> u64 {
        self.layers.iter().map(|layer| (layer.d_in + layer.d_out) as u64).sum()
    }

    /// Whether the layer of this name has factors.
    pub fn has_layer(&self, name: &str) -> bool {
        self.layers.iter().any(|layer| layer.name == name)
    }

    /// Whether a parameter of the base model is trained.
    pub fn trains(&self, name: &str) -> bool {
        self.base_parameters.iter().any(|spec| spec.name == name)
    }
}

fn tensor(layer: &str, kind: AdapterTensorKind, shape: &[usize]) -> AdapterTensor {
    AdapterTensor { name: format!("{layer}{}", kind.suffix()), shape: shape.to_vec(), kind }
}

/// A module that an adapter can target, or must refuse by name.
struct Module {
    name: String,
    /// `None` for norms, learned positions and heads that have no adapters.
    layer: Option<AdaptedLayer>,
}

impl LoraConfig {
    /// Applies the configuration to a language model, by PEFT's rules.
    ///
    /// Errors: no module matches the targets, or a module matches that cannot have an adapter.
    pub fn layout(&self, config: &ModelConfig) -> AdapterResult<AdapterLayout> {
        self.layout_of(config, false)
    }

    /// As [`Self::layout`] for a model with a score in place of the logits.
    pub fn scalar_layout(&self, config: &ModelConfig) -> AdapterResult<AdapterLayout> {
        self.layout_of(config, true)
    }

    fn layout_of(&self, config: &ModelConfig, is_scalar: bool) -> AdapterResult<AdapterLayout> {
        self.check()?;
        if self.targets == Targets::FamilyDefault {
            return self.with_family_targets(config)?.layout_of(config, is_scalar);
        }
        let parameters = all_parameters(config, is_scalar);
        let saved = self.saved_modules(&parameters)?;
        let modules = modules(config, &parameters, is_scalar);
        let layers = self.layers(config, modules, &saved)?;
        let tokens = self.token_rows(config, &parameters, is_scalar)?;
        let is_tied = config.tied() && !is_scalar;
        let is_shared =
            |name: &str| is_tied && (name == OUTPUT_LAYER || is_embedding(name, &parameters));
        let of_layers = layers.iter().find(|layer| is_shared(&layer.name)).map(|layer| &layer.name);
        let unties = of_layers.is_some() || saved.iter().any(|name| is_shared(module_of(name)));
        if let Some(rows) = tokens.first()
            && (unties || is_tied && rows.is_head)
        {
            return Err(AdapterError::Tied { module: rows.module.clone() });
        }
        if let Some(rows) = tokens.iter().find(|rows| layers.iter().any(|l| l.name == rows.module))
        {
            return Err(AdapterError::Twice { module: rows.module.clone() });
        }
        let has_adapter: BTreeSet<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        let is_trained = |spec: &ParamSpec| {
            let is_bias = spec.kind == ParamKind::Bias;
            saved.contains(&spec.name)
                || match self.bias {
                    BiasTraining::None => false,
                    BiasTraining::All => is_bias,
                    BiasTraining::LoraOnly => {
                        is_bias && has_adapter.contains(module_of(&spec.name))
                    }
                }
        };
        let base_parameters = parameters.iter().filter(|spec| is_trained(spec)).cloned().collect();
        let (use_dora, lora_bias) = (self.use_dora, self.lora_bias);
        let layout = AdapterLayout { layers, tokens, base_parameters, unties, use_dora, lora_bias };
        self.check_layout(&layout)?;
        Ok(layout)
    }

    /// Refuses names and patterns that have no effect on this model. PEFT ignores them, so adapters from elsewhere may have
    /// some.
    pub fn check_use(&self, layout: &AdapterLayout, config: &ModelConfig) -> AdapterResult<()> {
        let names = || layout.layers.iter().map(|layer| layer.name.as_str());
        let known = || names_of_layers(config);
        if let Targets::Names(targets) = &self.targets
            && let Some(target) =
                targets.iter().find(|target| !names().any(|name| is_name_suffix(name, target)))
        {
            return Err(AdapterError::NoSuchTarget { target: target.clone(), known: known() });
        }
        let unused = |key: &'static str, pattern: Option<&String>| match pattern {
            Some(pattern) => {
                Err(AdapterError::Unused { key, value: pattern.clone(), known: known() })
            }
            None => Ok(()),
        };
        let ranks = ByPattern::new("rank_pattern", &self.rank_pattern)?.unused(names());
        let pattern = ranks.and_then(|idx| self.rank_pattern.get(idx));
        unused("rank_pattern", pattern.map(|(pattern, _)| pattern))?;
        let alphas = ByPattern::new("alpha_pattern", &self.alpha_pattern)?.unused(names());
        let pattern = alphas.and_then(|idx| self.alpha_pattern.get(idx));
        unused("alpha_pattern", pattern.map(|(pattern, _)| pattern))?;
        let blocks = BlockIndex::new(&self.layers_pattern)?;
        let found: BTreeSet<usize> = names().filter_map(|name| blocks.of(name)).collect();
        let listed = self.layers_to_transform.iter().flatten();
        let absent = listed.copied().find(|idx| !found.contains(idx)).map(|idx| idx.to_string());
        unused("layers_to_transform", absent.as_ref())
    }

    /// The targeted layers in module order.
    fn layers(
        &self,
        config: &ModelConfig,
        modules: Vec<Module>,
        saved: &BTreeSet<String>,
    ) -> AdapterResult<Vec<AdaptedLayer>> {
        let targets = Matcher::new("target_modules", &self.targets)?;
        let excluded = match &self.exclude_modules {
            Some(excluded) => Matcher::new("exclude_modules", excluded)?,
            None => Matcher::None,
        };
        let blocks = BlockIndex::new(&self.layers_pattern)?;
        let in_blocks = |name: &str| match &self.layers_to_transform {
            Some(listed) => blocks.of(name).is_some_and(|idx| listed.contains(&idx)),
            None => true,
        };
        let is_saved = |name: &str| saved.iter().any(|parameter| module_of(parameter) == name);
        let ranks = ByPattern::new("rank_pattern", &self.rank_pattern)?;
        let alphas = ByPattern::new("alpha_pattern", &self.alpha_pattern)?;
        let known = || names_of_layers(config);
        let mut found = Vec::new();
        for Module { name, layer } in modules {
            let is_linear = layer.as_ref().is_some_and(|l| l.role == LayerRole::Linear);
            let is_target = match self.targets {
                Targets::AllLinear => is_linear && in_blocks(&name),
                // Replaced by the family's names.
                Targets::FamilyDefault => false,
                Targets::Pattern(_) => targets.matches(&name),
                Targets::Names(_) => {
                    targets.names_exactly(&name) || targets.matches(&name) && in_blocks(&name)
                }
            };
            if !is_target || excluded.matches(&name) || is_saved(&name) {
                continue;
            }
            let Some(mut layer) = layer else {
                return Err(AdapterError::NotALayer { module: name, known: known() });
            };
            layer.rank = ranks.get(&name).unwrap_or(self.rank);
            layer.scale = self.scale_of(layer.rank, alphas.get(&name).unwrap_or(self.alpha));
            found.push(layer);
        }
        let target = match &self.targets {
            Targets::Names(names) => names.join("`, `"),
            Targets::Pattern(pattern) => pattern.clone(),
            Targets::AllLinear | Targets::FamilyDefault => "all-linear".to_owned(),
        };
        if found.is_empty() {
            return Err(AdapterError::NoSuchTarget { target, known: known() });
        }
        Ok(found)
    }

    /// The parameters of the modules that are trained as a whole.
    fn saved_modules(&self, parameters: &[ParamSpec]) -> AdapterResult<BTreeSet<String>> {
        let mut saved = BTreeSet::new();
        for target in &self.modules_to_save {
            let before = saved.len();
            // PEFT compares the end of each module's name, within a part too.
            let is_inside = |name: &str| {
                let mut module = module_of(name);
                loop {
                    if module.ends_with(target.as_str()) {
                        return true;
                    }
                    match module.rsplit_once('.') {
                        Some((parent, _)) => module = parent,
                        None => return false,
                    }
                }
            };
            let names = parameters.iter().map(|spec| &spec.name);
            saved.extend(names.filter(|name| is_inside(name)).cloned());
            if saved.len() == before {
                let known = last_parts(parameters.iter().map(|spec| module_of(&spec.name)));
                let (key, value) = ("modules_to_save", target.clone());
                return Err(AdapterError::Unused { key, value, known });
            }
        }
        Ok(saved)
    }

    fn token_rows(
        &self,
        config: &ModelConfig,
        parameters: &[ParamSpec],
        is_scalar: bool,
    ) -> AdapterResult<Vec<TokenRows>> {
        const KEY: &str = "trainable_token_indices";
        let embedding = parameters.first().map(|spec| module_of(&spec.name)).unwrap_or_default();
        let head = (!is_scalar).then_some(OUTPUT_LAYER);
        let n_tokens = config.vocab_size();
        self.trainable_tokens
            .iter()
            .map(|tokens| {
                let named = |name: &&str| {
                    tokens.module.as_ref().is_none_or(|target| is_name_suffix(name, target))
                };
                let module = [Some(embedding), head].into_iter().flatten().find(named);
                let module = module.ok_or_else(|| AdapterError::Unused {
                    key: KEY,
                    value: tokens.module.clone().unwrap_or_default(),
                    known: vec![embedding.to_owned(), OUTPUT_LAYER.to_owned()],
                })?;
                if let Some(id) = tokens.ids.iter().find(|id| **id as usize >= n_tokens) {
                    let expected = "ids of the vocabulary";
                    let value = id.to_string();
                    return Err(AdapterError::OutOfRange { key: KEY, value, expected });
                }
                Ok(TokenRows {
                    module: module.to_owned(),
                    is_head: module == OUTPUT_LAYER,
                    n_tokens,
                    width: config.hidden_size(),
                    ids: tokens.ids.clone(),
                })
            })
            .collect()
    }

    /// Refuses layers that the settings have no meaning for.
    fn check_layout(&self, layout: &AdapterLayout) -> AdapterResult<()> {
        let refuse = |layer: &AdaptedLayer, key: &'static str, reason: &'static str| {
            Err(AdapterError::NotForLayer { key, layer: layer.name.clone(), reason })
        };
        for layer in &layout.layers {
            let is_embedding = layer.role == LayerRole::Embedding;
            let in_block = layer.role == LayerRole::Linear;
            if self.lora_bias && !in_block {
                return refuse(layer, "lora_bias", "embedding and output layer have no bias");
            }
            if self.init != LoraInit::Default && is_embedding {
                return refuse(layer, "init", "an embedding has no decomposition in PEFT");
            }
            if self.init != LoraInit::Default && layer.rank > layer.d_in.min(layer.d_out) {
                return refuse(layer, "rank", "the weight has fewer singular values");
            }
            if self.dropout > 0.0 && layer.role == LayerRole::Head {
                return refuse(layer, "dropout", "the output layer's adapter has no dropout");
            }
        }
        Ok(())
    }
}

/// All parameters; those of a tied output layer under a name of their own.
fn all_parameters(config: &ModelConfig, is_scalar: bool) -> Vec<ParamSpec> {
    if is_scalar {
        return config.sequence_classifier_parameters();
    }
    let mut parameters = config.parameters();
    if config.tied()
        && let Some(embedding) = parameters.first()
    {
        let name = format!("{OUTPUT_LAYER}.weight");
        let head = ParamSpec { name, kind: ParamKind::Head, ..embedding.clone() };
        parameters.push(head);
    }
    parameters
}

/// The modules of the parameters, in module order.
fn modules(config: &ModelConfig, parameters: &[ParamSpec], is_scalar: bool) -> Vec<Module> {
    let linear = config.adaptable_layers();
    let biases: BTreeSet<&str> = parameters
        .iter()
        .filter(|spec| spec.kind == ParamKind::Bias)
        .map(|spec| module_of(&spec.name))
        .collect();
    let layer = |name: &str, role, d_in, d_out| AdaptedLayer {
        name: name.to_owned(),
        role,
        d_in,
        d_out,
        has_bias: biases.contains(name),
        rank: 0,
        scale: 0.0,
    };
    let of_linear = |name: &str| {
        let found = linear.iter().find(|layer| layer.name == name);
        found.map(|LinearLayer { d_in, d_out, .. }| layer(name, LayerRole::Linear, *d_in, *d_out))
    };
    let mut seen = BTreeSet::new();
    let mut modules = Vec::new();
    for spec in parameters {
        let name = module_of(&spec.name);
        if !seen.insert(name) {
            continue;
        }
        let layer = match (spec.kind, spec.shape.as_slice()) {
            (ParamKind::Embedding, &[rows, width]) if is_embedding(name, parameters) => {
                Some(layer(name, LayerRole::Embedding, rows, width))
            }
            (ParamKind::Head, &[d_out, d_in]) if !is_scalar => {
                Some(layer(name, LayerRole::Head, d_in, d_out))
            }
            _ => of_linear(name),
        };
        modules.push(Module { name: name.to_owned(), layer });
    }
    // Layers whose weight is a slice of a stored tensor.
    for LinearLayer { name, d_in, d_out, .. } in &linear {
        if !seen.contains(name.as_str()) {
            let layer = Some(layer(name, LayerRole::Linear, *d_in, *d_out));
            modules.push(Module { name: name.clone(), layer });
        }
    }
    if !is_scalar {
        modules.push(Module { name: SCORE.to_owned(), layer: None });
    }
    modules
}

/// Whether the module is the token embedding, which is the first parameter.
fn is_embedding(module: &str, parameters: &[ParamSpec]) -> bool {
    parameters.first().is_some_and(|spec| {
        spec.kind == ParamKind::Embedding
            && spec.axis_order == AxisOrder::OutIn
            && module_of(&spec.name) == module
    })
}

/// A parameter's name without its last part.
fn module_of(parameter: &str) -> &str {
    parameter.rsplit_once('.').map_or(parameter, |(module, _)| module)
}

/// The last parts of the names of all layers inside blocks.
fn names_of_layers(config: &ModelConfig) -> Vec<String> {
    let layers = config.adaptable_layers();
    last_parts(layers.iter().map(|layer| layer.name.as_str()))
}

/// The last parts of names in order, without duplicates.
fn last_parts<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let names = names.filter_map(|name| name.rsplit('.').next());
    names.filter(|name| seen.insert(*name)).map(str::to_owned).collect()
}
