//! A stage's first weights, and the form in which it keeps them: whole, or as an adapter beside a base that stays where it
//! is.
//!
//! Where weights come from is the plan's to say; this reads them. It deliberately trains nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arch::{Architecture, Dtype, LoraConfig, ModelInfo};
use burn::tensor::Device;
use fsio::DirWriter;
use lora::{ADAPTER_WEIGHTS, Adapted};
use model::{Adaptable, CausalLm, SavedModel, ScalarModel, load_causal_lm, load_scalar_model};
use nn::DropoutKey;
use plan::{BASE_FILE, BaseFile, LoraPlan, Plan, StagePlan, Start, base_of};
use recipe::BaseDtype;
use seed::Purpose;
use tokenizer::Tokenizer;

use crate::model_file::{MODEL_FILE, save_model};
use crate::{Error, Result, RunDir, compare_trained, load_trained};

/// Where the first weights of a stage came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightSource {
    /// New random weights.
    New,
    /// A trained model with a head of the wanted kind.
    Trained,
    /// A trained language model, with a new head for scores.
    NewHead,
}

/// A model that a stage can train: whole, or by an adapter.
pub trait TrainedModel: SavedModel + Adaptable {
    /// New random weights.
    fn fresh(stage: &StagePlan, seed: u64, device: &Device) -> Self;

    /// The whole weights of a folder; `seed` is for a head that they lack.
    fn open(dir: &Path, seed: u64, bases: &mut BaseModelCache) -> Result<(Self, WeightSource)>;
}

impl TrainedModel for CausalLm {
    fn fresh(stage: &StagePlan, seed: u64, device: &Device) -> Self {
        Self::init(&stage.config, seed, device)
    }

    fn open(dir: &Path, _seed: u64, bases: &mut BaseModelCache) -> Result<(Self, WeightSource)> {
        Ok((bases.language_model(dir)?, WeightSource::Trained))
    }
}

impl TrainedModel for ScalarModel {
    fn fresh(stage: &StagePlan, seed: u64, device: &Device) -> Self {
        let backbone = CausalLm::init(&stage.config, seed, device).backbone;
        Self::from_backbone(backbone, &stage.config, seed)
    }

    fn open(dir: &Path, seed: u64, bases: &mut BaseModelCache) -> Result<(Self, WeightSource)> {
        let description = ModelInfo::read(dir).map_err(model::Error::from)?;
        match description.architecture {
            Architecture::SequenceClassifier => Ok((bases.scorer(dir)?, WeightSource::Trained)),
            Architecture::CausalLm => {
                let backbone = bases.language_model(dir)?.backbone;
                Ok((
                    Self::from_backbone(backbone, &description.config, seed),
                    WeightSource::NewHead,
                ))
            }
        }
    }
}

/// Whole weights that were read, each folder's once: models that stand on the same share them as handles.
///
/// Drop it before training, or weights that are trained are copied at the first step.
#[derive(Debug)]
pub struct BaseModelCache {
    device: Device,
    dtype: BaseDtype,
    language_models: BTreeMap<PathBuf, CausalLm>,
    scorers: BTreeMap<PathBuf, ScalarModel>,
}

impl BaseModelCache {
    /// Nothing read yet; what will be stands on `device`.
    pub fn new(device: &Device) -> Self {
        let (language_models, scorers) = (BTreeMap::new(), BTreeMap::new());
        let dtype = BaseDtype::F32;
        Self { device: device.clone(), dtype, language_models, scorers }
    }

    /// Holds weights in `dtype`: in bf16 they can be read, and adapters trained beside them, but not trained.
    #[must_use]
    pub fn storing(self, dtype: BaseDtype) -> Self {
        Self { dtype, ..self }
    }

    /// As weights are to be held beside the adapter of a plan, or without one.
    #[must_use]
    pub fn with_base_dtype(self, lora: Option<&LoraPlan>) -> Self {
        self.storing(lora.map(|lora| lora.base_dtype).unwrap_or_default())
    }

    fn stored<M: TrainedModel>(&self, model: M) -> M {
        match self.dtype {
            BaseDtype::F32 => model,
            BaseDtype::Bf16 => model::store_in_bf16(model),
        }
    }

    fn language_model(&mut self, dir: &Path) -> Result<CausalLm> {
        let key = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        if let Some(model) = self.language_models.get(&key) {
            return Ok(model.clone());
        }
        let model = self.stored(load_causal_lm(dir, &self.device)?);
        self.language_models.insert(key, model.clone());
        Ok(model)
    }

    fn scorer(&mut self, dir: &Path) -> Result<ScalarModel> {
        let key = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        if let Some(model) = self.scorers.get(&key) {
            return Ok(model.clone());
        }
        let model = self.stored(load_scalar_model(dir, &self.device)?);
        self.scorers.insert(key, model.clone());
        Ok(model)
    }

    /// The model of a folder, whole or an adapter beside the base that the folder records; nothing of it is merged.
    pub fn open<M: TrainedModel>(&mut self, dir: &Path) -> Result<M> {
        match base_of(dir)? {
            None => {
                let (model, origin) = M::open(dir, 0, self)?;
                if origin == WeightSource::NewHead {
                    return Err(Error::NoHead { dir: dir.to_owned() });
                }
                Ok(model)
            }
            Some(base) => self.with_adapter(&base, dir),
        }
    }

    /// The model of a base's folder with the adapter of another, refused where that one records other weights.
    pub fn open_on_base<M: TrainedModel>(&mut self, base: &Path, adapter: &Path) -> Result<M> {
        plan::check_base(adapter, base)?;
        self.with_adapter(base, adapter)
    }

    fn with_adapter<M: TrainedModel>(&mut self, base: &Path, adapter: &Path) -> Result<M> {
        let (model, origin) = M::open(base, 0, self)?;
        let (Adapted { model, .. }, peft) = lora::load(model, adapter)?;
        if origin == WeightSource::NewHead && !peft.saves_head {
            return Err(Error::NoHead { dir: adapter.to_owned() });
        }
        Ok(model)
    }
}

/// The form in which a stage keeps its weights.
#[derive(Clone, Debug, PartialEq)]
pub enum SaveFormat {
    /// All of them.
    Whole,
    /// An adapter beside whole weights that stay where they are.
    Adapter {
        /// The adapter's shape.
        config: LoraConfig,
        /// The folder of the whole weights.
        base: PathBuf,
        /// Their hash.
        base_sha256: String,
    },
}

impl SaveFormat {
    fn adapter(config: LoraConfig, base: PathBuf) -> Result<Self> {
        let base_sha256 = plan::weights_hash(&base)?;
        Ok(Self::Adapter { config, base, base_sha256 })
    }

    /// Writes the weights into a folder, in f32, with what they need to be opened again, config.json apart.
    pub fn write<M: TrainedModel>(&self, dir: &mut DirWriter, model: &M) -> Result<()> {
        match self {
            Self::Whole => save_model(dir, |out| model.write_safetensors(out, Dtype::F32)),
            Self::Adapter { config, base, base_sha256 } => {
                let named = base.display().to_string();
                lora::export(model, config, Some(&named), Dtype::F32, dir)?;
                let record = BaseFile::new(dir.final_dir(), base, base_sha256);
                let text = serde_json::to_string_pretty(&record).unwrap_or_default() + "\n";
                dir.write(BASE_FILE, text)?;
                Ok(())
            }
        }
    }

    /// The files beside the weights: whole weights are described by config.json, an adapter's are by its base's.
    pub fn side_files<M: SavedModel>(&self, stage: &StagePlan) -> Result<Vec<(String, Vec<u8>)>> {
        let (config, tokenizer) = (&stage.config, &stage.tokenizer);
        match self {
            Self::Whole => {
                Ok(export::description_files(config, M::ARCHITECTURE, tokenizer, Dtype::F32)?)
            }
            Self::Adapter { .. } => Ok(tokenizer.files().map_err(export::Error::from)?),
        }
    }

    /// Compares a folder that [`Self::write`] wrote with what is trained of the model in memory, bit by bit.
    pub fn compare<M: TrainedModel>(&self, dir: &Path, model: &M) -> Result<()> {
        let (file, prefix) = self.file();
        compare_trained(&dir.join(file), prefix, model)
    }

    /// The model with its trained parameters as a folder has them that [`Self::write`] wrote.
    pub fn load_into<M: TrainedModel>(&self, dir: &Path, model: M) -> Result<M> {
        let (file, prefix) = self.file();
        load_trained(model, &dir.join(file), prefix)
    }

    /// The file of the weights, and what stands before each name in it.
    fn file(&self) -> (&'static str, &'static str) {
        match self {
            Self::Whole => (MODEL_FILE, ""),
            Self::Adapter { .. } => (ADAPTER_WEIGHTS, lora::PREFIX),
        }
    }
}

/// A stage's weights as it begins.
#[derive(Debug)]
pub struct Weights<M> {
    /// The model, with gradients for what is trained.
    pub model: M,
    /// How it is kept.
    pub save_format: SaveFormat,
    /// Where it came from.
    pub origin: WeightSource,
    /// The key of its dropout masks.
    pub dropout: DropoutKey,
}

impl<M: TrainedModel> Weights<M> {
    /// The same weights with an adapter that drops nothing, whatever it did in an earlier stage.
    #[must_use]
    pub fn without_dropout(mut self) -> Self {
        self.model = lora::without_dropout(self.model);
        if let SaveFormat::Adapter { config, .. } = &mut self.save_format {
            config.dropout = 0.0;
        }
        self
    }
}

/// Where weights start, and what is trained of them.
#[derive(Clone, Copy, Debug)]
pub struct ModelSource<'a> {
    /// The stage that this is for.
    pub stage: &'a StagePlan,
    /// The folder, in the stage's own, of weights that had to be merged for it.
    pub name: &'a str,
    /// Where the weights lie.
    pub start: &'a Start,
    /// The adapter that is trained in their place.
    pub lora: Option<&'a LoraPlan>,
}

impl<'a> ModelSource<'a> {
    /// What a stage of one model trains.
    pub fn of(stage: &'a StagePlan) -> Self {
        Self { stage, name: "base", start: &stage.start, lora: stage.lora.as_ref() }
    }
}

/// The weights with which a stage begins, as its plan says; an adapter in the way is merged.
pub fn first_weights<M: TrainedModel>(
    plan: &Plan,
    role: ModelSource<'_>,
    run_dir: &RunDir,
    bases: &mut BaseModelCache,
) -> Result<Weights<M>> {
    let seed = |purpose, index| seed::derive(plan.seed, &role.stage.name, purpose, 0, index);
    let Some(dir) = start_dir(role.stage, role.start, run_dir)? else {
        let model = M::fresh(role.stage, seed(Purpose::Init, 0), &bases.device);
        let dropout = DropoutKey::default();
        return Ok(Weights {
            model,
            save_format: SaveFormat::Whole,
            origin: WeightSource::New,
            dropout,
        });
    };
    let head_seed = seed(Purpose::Init, 1);
    let Some(lora) = role.lora else {
        let (model, origin) = merged(&dir, head_seed, bases)?;
        let dropout = DropoutKey::default();
        return Ok(Weights { model, save_format: SaveFormat::Whole, origin, dropout });
    };
    let base = adapter_base::<M>(role, &dir, run_dir, head_seed, &bases.device)?;
    let (model, origin) = M::open(&base, head_seed, bases)?;
    let adapter = lora.adapter.as_ref().map(|start| start_dir(role.stage, start, run_dir));
    let Some(adapter) = adapter.transpose()?.flatten() else {
        let Adapted { model, dropout, .. } =
            lora::attach(model, &lora.config, seed(Purpose::LoraInit, 0))?;
        let save_format = SaveFormat::adapter(lora.config.clone(), base)?;
        return Ok(Weights { model, save_format, origin, dropout });
    };
    if adapter != dir {
        plan::check_base(&adapter, &base)?;
    }
    let (Adapted { model, dropout, .. }, peft) = lora::load(model, &adapter)?;
    // A head that came with the adapter is trained already.
    let origin = if peft.saves_head { WeightSource::Trained } else { origin };
    Ok(Weights { model, save_format: SaveFormat::adapter(peft.lora, base)?, origin, dropout })
}

/// Takes weights up again from a stage's own checkpoint.
pub fn resumed_weights<M: TrainedModel>(
    plan: &Plan,
    stage: &StagePlan,
    checkpoint: &Path,
    device: &Device,
) -> Result<Weights<M>> {
    let Some(base) = base_of(checkpoint)? else {
        let (model, dropout) = (M::load(checkpoint, device)?, DropoutKey::default());
        return Ok(Weights {
            model,
            save_format: SaveFormat::Whole,
            origin: WeightSource::Trained,
            dropout,
        });
    };
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Init, 0, 1);
    let (model, _) = M::open(
        &base,
        seed,
        &mut BaseModelCache::new(device).with_base_dtype(stage.lora.as_ref()),
    )?;
    let (Adapted { model, dropout, .. }, peft) = lora::load(model, checkpoint)?;
    let save_format = SaveFormat::adapter(peft.lora, base)?;
    Ok(Weights { model, save_format, origin: WeightSource::Trained, dropout })
}

/// Where a start lies; none for new weights.
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

/// The folder's weights, an adapter merged into its base.
fn merged<M: TrainedModel>(
    dir: &Path,
    seed: u64,
    bases: &mut BaseModelCache,
) -> Result<(M, WeightSource)> {
    let Some(base) = base_of(dir)? else { return M::open(dir, seed, bases) };
    let (model, origin) = M::open(&base, seed, bases)?;
    let (Adapted { model, .. }, peft) = lora::load(model, dir)?;
    let origin = if peft.saves_head { WeightSource::Trained } else { origin };
    let (model, _) = lora::merge(model)?;
    Ok((model::train_only(model, &|_| true), origin))
}

/// The folder of the whole weights that an adapter is trained beside. Where the stage starts from an adapter that it does
/// not go on with, that one is merged, and the result kept in the stage's folder.
fn adapter_base<M: TrainedModel>(
    role: ModelSource<'_>,
    dir: &Path,
    run_dir: &RunDir,
    seed: u64,
    device: &Device,
) -> Result<PathBuf> {
    let Some(base) = base_of(dir)? else { return Ok(dir.to_owned()) };
    let goes_on = role.lora.and_then(|lora| lora.adapter.as_ref()) == Some(role.start);
    if goes_on {
        return Ok(base);
    }
    let merged_dir = run_dir.stage(&role.stage.name).merged_base(role.name);
    if !merged_dir.is_dir() {
        let device = device.clone().inner();
        write_merged::<M>(&base, dir, &role.stage.tokenizer, seed, &merged_dir, &device)?;
    }
    Ok(merged_dir)
}

/// Writes an adapter merged into its base. That of a language model stays a language model, whatever the stage makes of it:
/// a head for scores comes with what is trained.
fn write_merged<M: TrainedModel>(
    base: &Path,
    adapter: &Path,
    tokenizer: &Tokenizer,
    seed: u64,
    out: &Path,
    device: &Device,
) -> Result<()> {
    let bases = &mut BaseModelCache::new(device);
    let architecture = ModelInfo::read(base).map_err(model::Error::from)?.architecture;
    let has_head = lora::Peft::read(adapter).map_err(lora::Error::from)?.saves_head;
    if architecture == Architecture::CausalLm && !has_head {
        let (model, _) = merged::<CausalLm>(adapter, seed, bases)?;
        export::hugging_face(&model, tokenizer, Dtype::F32, out)?;
    } else {
        let (model, _) = merged::<M>(adapter, seed, bases)?;
        export::hugging_face(&model, tokenizer, Dtype::F32, out)?;
    }
    Ok(())
}
