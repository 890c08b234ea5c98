//! Initial and resumed weights of a stage, and the form in which it saves them: all weights, or an adapter on a base model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arch::{AdapterLayout, Architecture, Dtype, LoraConfig, ModelInfo};
use burn::tensor::Device;
use fsio::DirWriter;
use lora::{ADAPTER_WEIGHTS, Adapted};
use model::{
    Adaptable, CausalLm, SavedModel, ScalarModel, load_causal_lm, load_causal_lm_in_bf16,
    load_causal_lm_in_blocks, load_causal_lm_packed, load_scalar_model,
};
use nn::{DropoutKey, PackedFormat};
use plan::{BASE_FILE, BaseFile, LoraPlan, Plan, StagePlan, Start, base_of};
use recipe::BaseDtype;
use seed::Purpose;

use crate::model_file::{MODEL_FILE, save_model};
use crate::{Error, Result, RunDir, compare_trained, load_trained};

/// The source of a stage's initial weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightSource {
    /// New random weights.
    New,
    /// A trained model with the required head.
    Trained,
    /// A trained language model with a new scalar head.
    NewHead,
}

/// A model that a stage can train, fully or by an adapter.
pub trait TrainedModel: SavedModel + Adaptable {
    /// New random weights.
    fn fresh(stage: &StagePlan, seed: u64, device: &Device) -> Self;

    /// Reads a directory with all weights; `seed` initializes a missing head.
    fn open(dir: &Path, seed: u64, bases: &mut BaseModelCache) -> Result<(Self, WeightSource)>;

    /// Appends rows for new tokens, each the mean of the old rows.
    fn grow_vocabulary(&mut self, vocab_size: usize) -> Result<()>;
}

impl TrainedModel for CausalLm {
    fn fresh(stage: &StagePlan, seed: u64, device: &Device) -> Self {
        Self::init(&stage.config, seed, device)
    }

    fn open(dir: &Path, _seed: u64, bases: &mut BaseModelCache) -> Result<(Self, WeightSource)> {
        Ok((bases.language_model(dir)?, WeightSource::Trained))
    }

    fn grow_vocabulary(&mut self, vocab_size: usize) -> Result<()> {
        Ok(Self::grow_vocabulary(self, vocab_size)?)
    }
}

impl TrainedModel for ScalarModel {
    fn fresh(stage: &StagePlan, seed: u64, device: &Device) -> Self {
        let backbone = CausalLm::init(&stage.config, seed, device).backbone;
        Self::from_backbone(backbone, &stage.config, seed)
    }

    fn open(dir: &Path, seed: u64, bases: &mut BaseModelCache) -> Result<(Self, WeightSource)> {
        let info = ModelInfo::read(dir).map_err(model::Error::from)?;
        match info.architecture {
            Architecture::SequenceClassifier => Ok((bases.scorer(dir)?, WeightSource::Trained)),
            Architecture::CausalLm => {
                let backbone = bases.language_model(dir)?.backbone;
                Ok((Self::from_backbone(backbone, &info.config, seed), WeightSource::NewHead))
            }
        }
    }

    fn grow_vocabulary(&mut self, vocab_size: usize) -> Result<()> {
        Ok(Self::grow_vocabulary(self, vocab_size)?)
    }
}

/// Base models by directory, each read once: models on the same base share its weights.
///
/// Drop it before training, or the first update copies every weight that it holds.
#[derive(Debug)]
pub struct BaseModelCache {
    device: Device,
    dtype: BaseDtype,
    /// Whether the matrices of a language model stay in the blocks of its GGUF file.
    keeps_blocks: bool,
    /// Adapters that train some of the base model's parameters, which stay f32.
    adapters: Vec<AdapterLayout>,
    /// By directory, and by how weights are stored.
    language_models: BTreeMap<(PathBuf, BaseDtype, bool), CausalLm>,
    scorers: BTreeMap<(PathBuf, BaseDtype), ScalarModel>,
}

impl BaseModelCache {
    /// An empty cache for weights on `device`.
    pub fn new(device: &Device) -> Self {
        let (language_models, scorers) = (BTreeMap::new(), BTreeMap::new());
        let (dtype, adapters) = (BaseDtype::F32, Vec::new());
        let keeps_blocks = false;
        Self { device: device.clone(), dtype, keeps_blocks, adapters, language_models, scorers }
    }

    /// Stores weights in `dtype`. Weights in bf16 cannot be trained, but adapters on them can.
    #[must_use]
    pub fn storing(self, dtype: BaseDtype) -> Self {
        Self { dtype, ..self }
    }

    /// Keeps quantised matrices of a GGUF file in its blocks, for a model that only generates. Its results are those of
    /// weights in f32, to the bit. The base model of an adapter is stored in f32 all the same.
    #[must_use]
    pub fn keeping_blocks(self) -> Self {
        Self { keeps_blocks: true, ..self }
    }

    /// Stores weights in the `base_dtype` of a planned adapter; in f32 without an adapter.
    #[must_use]
    pub fn with_base_dtype(self, lora: Option<&LoraPlan>) -> Self {
        let cache = self.storing(lora.map(|lora| lora.base_dtype).unwrap_or_default());
        cache.training(lora)
    }

    /// Keeps the parameters that a planned adapter trains in f32.
    #[must_use]
    pub fn training(mut self, lora: Option<&LoraPlan>) -> Self {
        self.adapters.extend(lora.map(|lora| lora.layout.clone()));
        self
    }

    fn stored<M: TrainedModel>(&self, model: M) -> M {
        match self.dtype {
            BaseDtype::F32 => model,
            BaseDtype::Int8 => self.packed(model, PackedFormat::Int8),
            BaseDtype::Nf4 => self.packed(model, PackedFormat::Nf4),
            BaseDtype::Bf16 => model::store_in_bf16(model, &|name| self.trains(name)),
        }
    }

    /// The format in which the layers of base models are packed.
    fn pack_format(&self) -> Option<PackedFormat> {
        match self.dtype {
            BaseDtype::Int8 => Some(PackedFormat::Int8),
            BaseDtype::Nf4 => Some(PackedFormat::Nf4),
            BaseDtype::F32 | BaseDtype::Bf16 => None,
        }
    }

    /// Whether an adapter trains a parameter of the base model.
    fn trains(&self, name: &str) -> bool {
        self.adapters.iter().any(|layout| layout.trains(name))
    }

    /// Packs the layers of the blocks; what an adapter trains stays dense.
    fn packed<M: TrainedModel>(&self, mut model: M, format: PackedFormat) -> M {
        for (name, layer) in model.backbone_mut().projections_mut() {
            let weight = format!("{name}.weight");
            if self.trains(&weight) {
                continue;
            }
            let weight = layer.weight_mut();
            if weight.dense().is_some() {
                *weight = weight.pack(format);
            }
        }
        model
    }

    /// Calls `open` with the type in which the base weights of an adapter were packed while it was trained.
    fn with_recorded_dtype<R>(
        &mut self,
        adapter: &Path,
        open: impl FnOnce(&mut Self) -> Result<R>,
    ) -> Result<R> {
        let Some(recorded) = plan::packed_base_dtype(adapter)? else { return open(self) };
        let before = std::mem::replace(&mut self.dtype, recorded);
        let opened = open(self);
        self.dtype = before;
        opened
    }

    fn language_model(&mut self, dir: &Path) -> Result<CausalLm> {
        let path = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let key = (path, self.dtype, self.keeps_blocks);
        if let Some(model) = self.language_models.get(&key) {
            return Ok(model.clone());
        }
        let trains = |name: &str| self.trains(name);
        let model = match self.pack_format() {
            Some(format) => load_causal_lm_packed(dir, &self.device, format, &trains)?,
            // Rounded tensor by tensor, so that the model is never in memory in f32.
            None if self.dtype == BaseDtype::Bf16 => {
                load_causal_lm_in_bf16(dir, &self.device, &trains)?
            }
            None if self.keeps_blocks => load_causal_lm_in_blocks(dir, &self.device)?,
            None => load_causal_lm(dir, &self.device)?,
        };
        let model = self.stored(model);
        self.language_models.insert(key, model.clone());
        Ok(model)
    }

    fn scorer(&mut self, dir: &Path) -> Result<ScalarModel> {
        let key = (std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()), self.dtype);
        if let Some(model) = self.scorers.get(&key) {
            return Ok(model.clone());
        }
        let model = self.stored(load_scalar_model(dir, &self.device)?);
        self.scorers.insert(key, model.clone());
        Ok(model)
    }

    /// Reads the model of a directory: all weights, or an adapter, unmerged, on the base model that it records.
    pub fn open<M: TrainedModel>(&mut self, dir: &Path) -> Result<M> {
        match base_of(dir)? {
            None => {
                let (model, source) = M::open(dir, 0, self)?;
                if source == WeightSource::NewHead {
                    return Err(Error::NoHead { dir: dir.to_owned() });
                }
                Ok(model)
            }
            Some(base) => self.with_adapter(&base, dir),
        }
    }

    /// Reads a base model as it is; a head that it lacks is new.
    pub fn open_base<M: TrainedModel>(&mut self, base: &Path) -> Result<M> {
        Ok(M::open(base, 0, self)?.0)
    }

    /// Reads a base model and an adapter of another directory.
    ///
    /// Errors: the adapter was trained on a different base model.
    pub fn open_on_base<M: TrainedModel>(&mut self, base: &Path, adapter: &Path) -> Result<M> {
        plan::check_base(adapter, base)?;
        self.with_adapter(base, adapter)
    }

    fn with_adapter<M: TrainedModel>(&mut self, base: &Path, adapter: &Path) -> Result<M> {
        let keeps_blocks = std::mem::replace(&mut self.keeps_blocks, false);
        let opened = self.with_recorded_dtype(adapter, |bases| M::open(base, 0, bases));
        self.keeps_blocks = keeps_blocks;
        let (model, source) = opened?;
        let (Adapted { model, .. }, peft) = lora::load(model, adapter)?;
        if source == WeightSource::NewHead && !peft.saves_head {
            return Err(Error::NoHead { dir: adapter.to_owned() });
        }
        Ok(model)
    }
}

/// The form in which a stage saves its weights.
// A stage has a handful, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum SaveFormat {
    /// All weights.
    Whole,
    /// An adapter on a base model, which is not copied.
    Adapter {
        /// The adapter's configuration.
        config: LoraConfig,
        /// The directory of the base model.
        base: PathBuf,
        /// The base model as adapter_config.json names it: its directory as the recipe has it, in a resumed stage too.
        base_name: String,
        /// The hash of its weights.
        base_sha256: String,
        /// The type of its weights in memory.
        base_dtype: BaseDtype,
    },
}

impl SaveFormat {
    fn adapter(config: LoraConfig, base: PathBuf, base_dtype: BaseDtype) -> Result<Self> {
        let base_sha256 = plan::weights_hash(&base)?;
        let base_name = base.display().to_string();
        Ok(Self::Adapter { config, base, base_name, base_sha256, base_dtype })
    }

    /// Writes the weights in f32, for an adapter with its configuration and the record of its base model.
    pub fn write<M: TrainedModel>(&self, dir: &mut DirWriter, model: &M) -> Result<()> {
        match self {
            Self::Whole => save_model(dir, |out| model.write_safetensors(out, Dtype::F32)),
            Self::Adapter { config, base, base_name, base_sha256, base_dtype } => {
                lora::export(model, config, Some(base_name), Dtype::F32, dir)?;
                let record = BaseFile::new(dir.final_dir(), base, base_sha256, *base_dtype);
                let text = serde_json::to_string_pretty(&record).unwrap_or_default() + "\n";
                dir.write(BASE_FILE, text)?;
                Ok(())
            }
        }
    }

    /// The files beside the weights: tokenizer files, and where all weights are saved also config.json and
    /// generation_config.json, with the sampling defaults of the model that the stage starts from.
    pub fn side_files<M: SavedModel>(
        &self,
        stage: &StagePlan,
        run_dir: &RunDir,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let (config, tokenizer) = (&stage.config, &stage.tokenizer);
        match self {
            Self::Whole => {
                let mut options = export::Options::new(Dtype::F32);
                if let Some(start) = start_dir(stage, &stage.start, run_dir)? {
                    let whole = plan::recorded_base(&start)?.unwrap_or(start);
                    options.generation = export::sampling_defaults(&whole)?;
                }
                Ok(export::description_files(config, M::ARCHITECTURE, tokenizer, &options)?)
            }
            Self::Adapter { .. } => Ok(tokenizer.files().map_err(export::Error::from)?),
        }
    }

    /// Compares the trainable parameters of a model bit by bit with a directory that [`Self::write`] wrote.
    pub fn compare<M: TrainedModel>(&self, dir: &Path, model: &M) -> Result<()> {
        let (file, in_file) = self.file(model)?;
        compare_trained(&dir.join(file), &in_file, model)
    }

    /// Replaces the trainable parameters of a model by those of a directory that [`Self::write`] wrote.
    pub fn load_into<M: TrainedModel>(&self, dir: &Path, model: M) -> Result<M> {
        let (file, in_file) = self.file(&model)?;
        load_trained(model, &dir.join(file), &in_file)
    }

    /// The file of the weights, and its names of parameters.
    fn file<M: TrainedModel>(&self, model: &M) -> Result<(&'static str, InFile)> {
        Ok(match self {
            Self::Whole => (MODEL_FILE, Box::new(str::to_owned)),
            Self::Adapter { config, .. } => {
                let layout = lora::layout_of(model, config)?;
                (ADAPTER_WEIGHTS, Box::new(move |name| lora::peft_name(&layout, name)))
            }
        })
    }
}

/// Maps a parameter's name to that in a file.
type InFile = Box<dyn Fn(&str) -> String>;

/// The weights with which a stage starts or resumes.
#[derive(Debug)]
pub struct Weights<M> {
    /// The model; its trainable parameters require gradients.
    pub model: M,
    /// The form in which it is saved.
    pub save_format: SaveFormat,
    /// The source of its weights.
    pub source: WeightSource,
    /// The key of its dropout masks.
    pub dropout: DropoutKey,
}

impl<M: TrainedModel> Weights<M> {
    /// The same weights with the adapter's dropout turned off, whatever it was in an earlier stage.
    #[must_use]
    pub fn without_dropout(mut self) -> Self {
        self.model = lora::without_dropout(self.model);
        if let SaveFormat::Adapter { config, .. } = &mut self.save_format {
            config.dropout = 0.0;
        }
        self
    }
}

/// The initial weights of a model and the part of them that is trained.
#[derive(Clone, Copy, Debug)]
pub struct ModelSource<'a> {
    /// The stage that reads the model.
    pub stage: &'a StagePlan,
    /// The directory, within the stage's, for a base model into which an earlier adapter is merged.
    pub name: &'a str,
    /// The initial weights.
    pub start: &'a Start,
    /// The adapter that is trained; `None` to train all weights.
    pub lora: Option<&'a LoraPlan>,
}

impl<'a> ModelSource<'a> {
    /// The source of the model that a stage trains.
    pub fn of(stage: &'a StagePlan) -> Self {
        Self { stage, name: "base", start: &stage.start, lora: stage.lora.as_ref() }
    }
}

/// Reads or initializes the weights with which a stage starts; an adapter that the stage does not train is merged.
pub fn first_weights<M: TrainedModel>(
    plan: &Plan,
    role: ModelSource<'_>,
    run_dir: &RunDir,
    bases: &mut BaseModelCache,
) -> Result<Weights<M>> {
    let seed = |purpose, index| seed::derive(plan.seed, &role.stage.name, purpose, 0, index);
    let whole = |model, source| Weights {
        model,
        save_format: SaveFormat::Whole,
        source,
        dropout: DropoutKey::default(),
    };
    let Some(dir) = start_dir(role.stage, role.start, run_dir)? else {
        let model = M::fresh(role.stage, seed(Purpose::Init, 0), &bases.device);
        return Ok(whole(model, WeightSource::New));
    };
    let head_seed = seed(Purpose::Init, 1);
    let grows = role.stage.grows_vocabulary && role.start == &role.stage.start;
    let dir =
        if grows { grown_base::<M>(role, &dir, run_dir, head_seed, &bases.device)? } else { dir };
    let Some(lora) = role.lora else {
        let (model, source) = merged(&dir, head_seed, bases)?;
        if grows && plan.replicas == 1 {
            // Checkpoints have all weights, so this copy has served its purpose.
            fsio::remove_dir_all(&dir)?;
        }
        return Ok(whole(model, source));
    };
    let base = adapter_base::<M>(role, &dir, run_dir, head_seed, &bases.device)?;
    let (model, source) = M::open(&base, head_seed, bases)?;
    let adapter = lora.adapter.as_ref().map(|start| start_dir(role.stage, start, run_dir));
    let Some(adapter) = adapter.transpose()?.flatten() else {
        let Adapted { model, dropout, .. } =
            lora::attach(model, &lora.config, seed(Purpose::LoraInit, 0))?;
        let save_format = SaveFormat::adapter(lora.config.clone(), base, lora.base_dtype)?;
        return Ok(Weights { model, save_format, source, dropout });
    };
    if adapter != dir {
        plan::check_base(&adapter, &base)?;
    }
    let (Adapted { model, dropout, .. }, peft) = lora::load(model, &adapter)?;
    // A head that is saved with the adapter is already trained.
    let source = if peft.saves_head { WeightSource::Trained } else { source };
    Ok(Weights {
        model,
        save_format: SaveFormat::adapter(peft.lora, base, lora.base_dtype)?,
        source,
        dropout,
    })
}

/// Reads weights from a checkpoint of the stage itself.
pub fn resumed_weights<M: TrainedModel>(
    plan: &Plan,
    stage: &StagePlan,
    checkpoint: &Path,
    device: &Device,
) -> Result<Weights<M>> {
    let source = WeightSource::Trained;
    let Some(base) = base_of(checkpoint)? else {
        let (model, dropout) = (M::load(checkpoint, device)?, DropoutKey::default());
        return Ok(Weights { model, save_format: SaveFormat::Whole, source, dropout });
    };
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Init, 0, 1);
    let bases = &mut BaseModelCache::new(device).with_base_dtype(stage.lora.as_ref());
    let (model, _) = M::open(&base, seed, bases)?;
    let (Adapted { model, dropout, .. }, peft) = lora::load(model, checkpoint)?;
    let dtype = stage.lora.as_ref().map(|lora| lora.base_dtype).unwrap_or_default();
    let mut save_format = SaveFormat::adapter(peft.lora, base, dtype)?;
    if let (SaveFormat::Adapter { base_name, .. }, Some(named)) = (&mut save_format, peft.base) {
        *base_name = named;
    }
    Ok(Weights { model, save_format, source, dropout })
}

/// The directory of initial weights; `None` for new weights.
pub fn start_dir(stage: &StagePlan, start: &Start, run_dir: &RunDir) -> Result<Option<PathBuf>> {
    match start {
        Start::Fresh => Ok(None),
        Start::Directory(dir) => Ok(Some(dir.clone())),
        Start::Stage(name) => {
            let dir = run_dir.stage(name).model();
            if !dir.is_dir() {
                return Err(Error::StageNotRun { stage: stage.name.clone(), start: name.clone() });
            }
            Ok(Some(dir))
        }
    }
}

/// The weights of a directory, with an adapter merged into its base model.
fn merged<M: TrainedModel>(
    dir: &Path,
    seed: u64,
    bases: &mut BaseModelCache,
) -> Result<(M, WeightSource)> {
    let Some(base) = base_of(dir)? else { return M::open(dir, seed, bases) };
    let (model, source) = bases.with_recorded_dtype(dir, |bases| M::open(&base, seed, bases))?;
    let (Adapted { model, .. }, peft) = lora::load(model, dir)?;
    let source = if peft.saves_head { WeightSource::Trained } else { source };
    let (model, _) = lora::merge(model)?;
    Ok((model::train_only(model, &|_| true), source))
}

/// The directory of the base model of a trained adapter. If the stage starts from another adapter, that one is merged and
/// the result is saved in the stage's directory.
fn adapter_base<M: TrainedModel>(
    role: ModelSource<'_>,
    dir: &Path,
    run_dir: &RunDir,
    seed: u64,
    device: &Device,
) -> Result<PathBuf> {
    let Some(base) = base_of(dir)? else { return Ok(dir.to_owned()) };
    let continues_adapter = role.lora.and_then(|lora| lora.adapter.as_ref()) == Some(role.start);
    if continues_adapter {
        return Ok(base);
    }
    let merged_dir = run_dir.stage(&role.stage.name).merged_base(role.name);
    if !merged_dir.is_dir() {
        let device = device.clone().inner();
        run_dir.guard().check()?;
        write_whole::<M>(dir, role.stage, seed, &merged_dir, &device, None)?;
    }
    Ok(merged_dir)
}

/// The directory of the initial weights with rows for the tokens that the stage adds, which is saved
/// in the stage's directory. An adapter of the start is merged.
fn grown_base<M: TrainedModel>(
    role: ModelSource<'_>,
    dir: &Path,
    run_dir: &RunDir,
    seed: u64,
    device: &Device,
) -> Result<PathBuf> {
    let grown_dir = run_dir.stage(&role.stage.name).merged_base(role.name);
    if !grown_dir.is_dir() {
        let device = device.clone().inner();
        let vocab_size = role.stage.config.vocab_size();
        run_dir.guard().check()?;
        write_whole::<M>(dir, role.stage, seed, &grown_dir, &device, Some(vocab_size))?;
    }
    Ok(grown_dir)
}

/// Writes the weights of a directory, an adapter merged into its base model, with `vocab_size` rows of embeddings if that
/// is given. A language model stays one in every stage, because a scalar head is saved with the trainable parameters.
fn write_whole<M: TrainedModel>(
    dir: &Path,
    stage: &StagePlan,
    seed: u64,
    out: &Path,
    device: &Device,
    vocab_size: Option<usize>,
) -> Result<()> {
    let base = base_of(dir)?;
    let whole = base.as_deref().unwrap_or(dir);
    let architecture = ModelInfo::read(whole).map_err(model::Error::from)?.architecture;
    let saves_head = match &base {
        Some(_) => lora::Peft::read(dir).map_err(lora::Error::from)?.saves_head,
        None => false,
    };
    if architecture == Architecture::CausalLm && !saves_head {
        write_as::<CausalLm>(dir, whole, stage, seed, out, device, vocab_size)
    } else {
        write_as::<M>(dir, whole, stage, seed, out, device, vocab_size)
    }
}

fn write_as<M: TrainedModel>(
    dir: &Path,
    whole: &Path,
    stage: &StagePlan,
    seed: u64,
    out: &Path,
    device: &Device,
    vocab_size: Option<usize>,
) -> Result<()> {
    let (mut model, _) = merged::<M>(dir, seed, &mut BaseModelCache::new(device))?;
    if let Some(vocab_size) = vocab_size {
        model.grow_vocabulary(vocab_size)?;
    }
    let generation = export::sampling_defaults(whole)?;
    let options = export::Options { generation, ..export::Options::new(Dtype::F32) };
    export::hugging_face_with(&model, &stage.tokenizer, options, out)?;
    Ok(())
}
