//! Reading a Hugging Face directory, strictly: every parameter present once, no tensor left over.
//!
//! Names, shapes and dtypes are checked before any data is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arch::{Architecture, ModelConfig, ModelInfo, ParamSpec};
use burn::tensor::Device;
use kernels::{KernelSet, PackedFormat, PackedLayout};
use tensor_file::{TensorDir, TensorType};

use crate::bitsandbytes::{self, companions};
use crate::build::{Builder, Keeps};
use crate::{CausalLm, Error, ParameterSource, Result, ScalarModel};

/// The language model of a directory. On an autodiff device every parameter is trained.
pub fn load_causal_lm(dir: &Path, device: &Device) -> Result<CausalLm> {
    load(dir, device, Loading::default())
}

/// As [`load_causal_lm`] followed by [`crate::store_in_bf16`], without ever holding the whole model in f32. On an autodiff
/// device, weights are f32, as [`load_causal_lm`] reads them.
pub fn load_causal_lm_in_bf16(
    dir: &Path,
    device: &Device,
    keeps: &dyn Fn(&str) -> bool,
) -> Result<CausalLm> {
    let model = load(dir, device, Loading { bf16: Some(keeps), ..Loading::default() })?;
    Ok(if model.backbone.is_autodiff() { model } else { crate::store_in_bf16(model, keeps) })
}

/// As [`load_causal_lm`]; the linear layers of the blocks are packed as soon as each is read, so that only one of them is
/// in f32 at a time. Weights that `keeps` names stay dense, and so do layers that are stored as `[in, out]`.
pub fn load_causal_lm_packed(
    dir: &Path,
    device: &Device,
    format: PackedFormat,
    keeps: &dyn Fn(&str) -> bool,
) -> Result<CausalLm> {
    load(dir, device, Loading { packing: Some((format, keeps)), ..Loading::default() })
}

/// As [`load_causal_lm`]; the quantised matrices of a GGUF file stay in its blocks, and the results of a model in f32 are the
/// same to the bit. Only for use without training, on the CPU with its kernels: elsewhere the weights are f32.
pub fn load_causal_lm_in_blocks(dir: &Path, device: &Device) -> Result<CausalLm> {
    let reads_blocks = !device.is_autodiff()
        && kernels::is_cpu(device)
        && kernels::kernel_set(device) == KernelSet::Cpu;
    load(dir, device, Loading { keeps_blocks: reads_blocks, ..Loading::default() })
}

/// A format, and the weights that are not packed.
type Packing<'a> = (PackedFormat, &'a dyn Fn(&str) -> bool);

/// As [`load_causal_lm`], for comparison with a reference that was cast to bf16 and back as a whole: in torch that rounds
/// RoPE's frequencies too, and loading a directory does not.
pub fn load_causal_lm_cast_as_a_whole(dir: &Path, device: &Device) -> Result<CausalLm> {
    load(dir, device, Loading { rounds_frequencies: true, ..Loading::default() })
}

/// How weights are stored.
#[derive(Default)]
struct Loading<'a> {
    rounds_frequencies: bool,
    /// Matrices are rounded to bf16, but for those that it names.
    bf16: Option<Keeps<'a>>,
    packing: Option<Packing<'a>>,
    /// Matrices in a GGUF file's blocks stay so.
    keeps_blocks: bool,
}

fn load(dir: &Path, device: &Device, loading: Loading<'_>) -> Result<CausalLm> {
    let Loading { rounds_frequencies, bf16, packing, keeps_blocks } = loading;
    let info = ModelInfo::read(dir)?;
    if info.architecture != Architecture::CausalLm {
        return Err(Error::WrongHead {
            dir: dir.to_owned(),
            found: "a sequence classifier",
            expected: "a language model",
        });
    }
    let config = info.config;
    let parameters = config.parameters();
    let file_parameters = config.file_parameters();
    let mut files = WeightFiles::open_unverified(dir, &config, &parameters, &file_parameters)?;
    files.keeps_blocks = keeps_blocks;
    if let Some((format, keeps)) = packing {
        let layers = config.adaptable_layers().into_iter();
        let weights = layers.map(|layer| format!("{}.weight", layer.name));
        files.pack = Some((format, weights.filter(|name| !keeps(name)).collect()));
    }
    let from = Builder::new(&mut files, device);
    let from = if rounds_frequencies { from.rounding_frequencies() } else { from };
    let from = if let Some(keeps) = bf16 { from.storing_in_bf16(keeps) } else { from };
    let model = CausalLm::build(&config, from);
    files.verified(model)
}

/// The reward or value model of a directory: a sequence classifier with one label.
pub fn load_scalar_model(dir: &Path, device: &Device) -> Result<ScalarModel> {
    let info = ModelInfo::read(dir)?;
    if info.architecture != Architecture::SequenceClassifier {
        return Err(Error::WrongHead {
            dir: dir.to_owned(),
            found: "a language model",
            expected: "a sequence classifier",
        });
    }
    let config = info.config;
    let parameters = config.sequence_classifier_parameters();
    let mut files = WeightFiles::open_unverified(dir, &config, &parameters, &parameters)?;
    let model = ScalarModel::from_source(&config, &mut files, device);
    files.verified(model)
}

/// Checks the names, shapes and dtypes of a directory's weights against its config.json. Reads no values.
///
/// Errors: config.json or a header cannot be read, or they are not of the same model.
pub fn check_weights(dir: &Path) -> Result<()> {
    let ModelInfo { config, architecture, .. } = ModelInfo::read(dir)?;
    let (parameters, file_parameters) = match architecture {
        Architecture::CausalLm => (config.parameters(), config.file_parameters()),
        Architecture::SequenceClassifier => {
            let parameters = config.sequence_classifier_parameters();
            (parameters.clone(), parameters)
        }
    };
    WeightFiles::open_unverified(dir, &config, &parameters, &file_parameters).map(drop)
}

/// The weight files of a directory, matched with a model's parameters before any data is read.
pub struct WeightFiles {
    files: TensorDir,
    /// Parameter name → its tensor.
    stored: BTreeMap<String, StoredTensor>,
    /// Names of the tensors beside those that bitsandbytes packed, by the packed tensor's name.
    packed: BTreeMap<String, Vec<String>>,
    /// Tensors that are allowed if they are all zeros.
    zeros: Vec<StoredTensor>,
    /// The embedding's name and the head that must equal it, if a tied model's file has both.
    tied_head: Option<(String, StoredTensor)>,
    /// Weights that are packed as soon as they are read, and their format.
    pack: Option<(PackedFormat, BTreeSet<String>)>,
    /// Matrices in a GGUF file's blocks are not converted.
    keeps_blocks: bool,
}

/// A tensor of the files, by its name there, with the shape that the model requires.
#[derive(Clone)]
struct StoredTensor {
    name: String,
    shape: Vec<usize>,
}

impl WeightFiles {
    /// Opens the files and checks the names, shapes and dtypes of all tensors.
    ///
    /// The model needs `parameters`; the others of `file_parameters` may be there as zeros.
    pub fn open(
        dir: &Path,
        config: &ModelConfig,
        parameters: &[ParamSpec],
        file_parameters: &[ParamSpec],
    ) -> Result<Self> {
        let open = Self::open_unverified(dir, config, parameters, file_parameters)?;
        open.files.verify()?;
        Ok(open)
    }

    /// As [`Self::open`], while files are compared with MANIFEST on other threads; [`Self::verified`] follows.
    fn open_unverified(
        dir: &Path,
        config: &ModelConfig,
        parameters: &[ParamSpec],
        file_parameters: &[ParamSpec],
    ) -> Result<Self> {
        let files = TensorDir::open_unverified(dir)?;
        let mut names: BTreeSet<&str> = files.names().collect();
        let prefix = config.base_prefix();
        // Files of a bare backbone omit the prefix.
        let bare = !names.iter().any(|name| name.starts_with(prefix));
        let in_file = |name: &str| match name.strip_prefix(prefix) {
            Some(rest) if bare => rest.to_owned(),
            _ => name.to_owned(),
        };
        let mut packed = BTreeMap::new();
        let mut take = |spec: &ParamSpec| {
            let name = in_file(&spec.name);
            let beside = companions(&names, &name);
            if !beside.is_empty() {
                names.retain(|name| !beside.iter().any(|beside| beside == name));
                packed.insert(name.clone(), beside);
            }
            let found = names.remove(name.as_str());
            found.then(|| StoredTensor { name, shape: spec.shape.clone() })
        };
        let mut stored = BTreeMap::new();
        let mut missing = Vec::new();
        for spec in parameters {
            match take(spec) {
                Some(tensor) => {
                    stored.insert(spec.name.clone(), tensor);
                }
                None => missing.push(in_file(&spec.name)),
            }
        }
        let zeros = file_parameters
            .iter()
            .filter(|spec| !stored.contains_key(&spec.name))
            .filter_map(&mut take);
        let zeros: Vec<StoredTensor> = zeros.collect();
        let tied_head = tied_head_spec(config, parameters)
            .and_then(|(embedding, head)| Some((embedding, take(&head)?)));
        names.retain(|name| !config.is_derived_tensor(name));
        let fits = check_names(&files, missing, &names);
        let open =
            Self { files, stored, packed, zeros, tied_head, pack: None, keeps_blocks: false };
        if let Err(error) = fits.and_then(|()| open.check_tensors()) {
            // Damage explains tensors that do not fit.
            open.files.verify()?;
            return Err(error);
        }
        Ok(open)
    }

    /// The model that was read, once all checks of the files have passed. Damage is the first error to report.
    fn verified<M>(self, model: Result<M>) -> Result<M> {
        self.files.verify()?;
        let model = model?;
        self.finish()?;
        Ok(model)
    }

    /// Checks the values of tensors that must be zeros.
    pub fn finish(self) -> Result<()> {
        for tensor in &self.zeros {
            let view = self.files.tensor(&tensor.name)?;
            if !view.weights_equal(&vec![0.0; view.n_elements()])? {
                return Err(Error::Contradiction {
                    path: view.path().to_owned(),
                    name: tensor.name.clone(),
                    reason: "is not zero although config.json says `bias` = false",
                });
            }
        }
        Ok(())
    }

    /// Checks the shape and dtype of every tensor that will be read.
    fn check_tensors(&self) -> Result<()> {
        let tied = self.tied_head.iter().map(|(_, head)| head);
        for tensor in self.stored.values().chain(&self.zeros).chain(tied) {
            if self.packed.contains_key(&tensor.name) {
                continue;
            }
            self.files.tensor(&tensor.name)?.with_shape(&tensor.shape)?.weight_dtype()?;
        }
        Ok(())
    }
}

/// Reports missing and left-over tensors.
fn check_names(files: &TensorDir, missing: Vec<String>, left: &BTreeSet<&str>) -> Result<()> {
    // The missing tensor is reported before a left-over one: a left-over name often explains it.
    if let Some((name, others)) = missing.split_first() {
        let (path, name) = (files.path().to_owned(), name.clone());
        return Err(tensor_file::Error::MissingTensor { path, name, more: others.len() }.into());
    }
    match left.first() {
        None => Ok(()),
        Some(name) => Err(Error::LeftOver {
            path: files.tensor(name)?.path().to_owned(),
            name: (*name).to_owned(),
            more: left.len() - 1,
        }),
    }
}

impl WeightFiles {
    /// The codes of a packed parameter; `None` if it is not packed.
    fn read_packed(&self, name: &str, shape: &[usize]) -> Result<Option<(Vec<u8>, PackedLayout)>> {
        let stored = self.stored.get(name);
        let Some((tensor, beside)) =
            stored.and_then(|tensor| Some((tensor, self.packed.get(&tensor.name)?)))
        else {
            return Ok(None);
        };
        let Ok(dims) = <[usize; 2]>::try_from(shape) else {
            return Err(Error::Packing {
                path: self.files.path().to_owned(),
                name: name.to_owned(),
                reason: "is packed, but it is not a matrix".to_owned(),
            });
        };
        bitsandbytes::read(&self.files, &tensor.name, beside, dims).map(Some)
    }
}

impl ParameterSource for WeightFiles {
    fn packs(&self, name: &str) -> Option<PackedFormat> {
        let (format, weights) = self.pack.as_ref()?;
        weights.contains(name).then_some(*format)
    }

    fn packed(&mut self, name: &str, shape: &[usize]) -> Result<Option<(Vec<u8>, PackedLayout)>> {
        self.read_packed(name, shape)
    }

    fn blocks(&mut self, name: &str, shape: &[usize]) -> Result<Option<(TensorType, Vec<u8>)>> {
        // A head that repeats the embedding is compared with its values.
        let is_compared = self.tied_head.as_ref().is_some_and(|(embedding, _)| embedding == name);
        match self.stored.get(name).filter(|_| self.keeps_blocks && !is_compared) {
            Some(tensor) => Ok(self.files.tensor(&tensor.name)?.with_shape(shape)?.blocks()?),
            None => Ok(None),
        }
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some(tensor) = self.stored.get(name) else {
            let (path, name) = (self.files.path().to_owned(), name.to_owned());
            return Err(tensor_file::Error::MissingTensor { path, name, more: 0 }.into());
        };
        if let Some((codes, layout)) = self.read_packed(name, shape)? {
            let codes = kernels::codes_tensor(codes, &layout, &Device::flex());
            let values = kernels::unpack(codes, &layout);
            return Ok(kernels::with_host_values(&values, <[f32]>::to_vec));
        }
        let values = self.files.tensor(&tensor.name)?.with_shape(shape)?.weights()?;
        if let Some((embedding, head)) = &self.tied_head
            && embedding == name
        {
            let head = self.files.tensor(&head.name)?;
            if !head.with_shape(shape)?.weights_equal(&values)? {
                return Err(Error::Contradiction {
                    path: head.path().to_owned(),
                    name: head.name().to_owned(),
                    reason: "differs from the embedding although config.json ties the two",
                });
            }
        }
        Ok(values)
    }
}

/// The embedding's name, and the head as which a tied model's file may repeat it.
fn tied_head_spec(config: &ModelConfig, parameters: &[ParamSpec]) -> Option<(String, ParamSpec)> {
    let embedding = parameters.first()?;
    let causal = !parameters.iter().any(|spec| spec.kind == arch::ParamKind::Head);
    let head = ParamSpec { name: "lm_head.weight".to_owned(), ..embedding.clone() };
    (config.tied() && causal).then(|| (embedding.name.clone(), head))
}
