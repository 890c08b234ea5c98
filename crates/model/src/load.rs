//! Reading a Hugging Face directory, strictly: every parameter present once, nothing left over.
//!
//! Names, shapes and formats are checked before any data is read. Formats that can contain code are not read, and no
//! name leads out of the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arch::{Architecture, ModelConfig, ModelInfo, ParamSpec};
use burn::tensor::Device;
use serde_json::Value;

use crate::build::Builder;
use crate::{CausalLm, Error, ParameterSource, Result, SafetensorsFile, ScalarModel};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The language model of a directory. On an autodiff device every parameter is trained.
pub fn load_causal_lm(dir: &Path, device: &Device) -> Result<CausalLm> {
    load(dir, device, false)
}

/// As [`load_causal_lm`], for comparison with a reference that was cast to bf16 and back as a whole: in torch that rounds
/// RoPE's frequencies too, and loading a directory does not.
pub fn load_causal_lm_cast_as_a_whole(dir: &Path, device: &Device) -> Result<CausalLm> {
    load(dir, device, true)
}

fn load(dir: &Path, device: &Device, rounds_frequencies: bool) -> Result<CausalLm> {
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
    let mut files = WeightFiles::open(dir, &config, &parameters, &config.file_parameters())?;
    let from = Builder::new(&mut files, device);
    let from = if rounds_frequencies { from.rounding_frequencies() } else { from };
    let model = CausalLm::build(&config, from)?;
    files.finish()?;
    Ok(model)
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
    let mut files = WeightFiles::open(dir, &config, &parameters, &parameters)?;
    let model = ScalarModel::from_source(&config, &mut files, device)?;
    files.finish()?;
    Ok(model)
}

/// The weight files of a directory, matched with a model's parameters before any data is read.
pub struct WeightFiles {
    dir: PathBuf,
    files: Vec<SafetensorsFile>,
    /// Model name → (file, name in that file, shape).
    places: BTreeMap<String, Place>,
    /// Tensors that are allowed if they are all zeros.
    zeros: Vec<Place>,
    /// The embedding's name and the head that must equal it, where a tied model's file has both.
    tied_head: Option<(String, Place)>,
}

#[derive(Clone)]
struct Place {
    file: usize,
    name: String,
    shape: Vec<usize>,
}

impl WeightFiles {
    /// Opens the files and checks the names, shapes and formats of all tensors.
    ///
    /// The model needs `parameters`; of `file_parameters`, the others may be there as zeros.
    pub fn open(
        dir: &Path,
        config: &ModelConfig,
        parameters: &[ParamSpec],
        file_parameters: &[ParamSpec],
    ) -> Result<Self> {
        let files = open_files(dir)?;
        let mut names = tensor_places(&files)?;
        let prefix = config.base_prefix();
        // Files of a bare backbone leave the prefix out.
        let bare = !names.keys().any(|name| name.starts_with(prefix));
        let in_file = |name: &str| match name.strip_prefix(prefix) {
            Some(rest) if bare => rest.to_owned(),
            _ => name.to_owned(),
        };
        let mut take = |spec: &ParamSpec| {
            let name = in_file(&spec.name);
            let file = names.remove(&name)?;
            Some(Place { file, name, shape: spec.shape.clone() })
        };
        let mut places = BTreeMap::new();
        let mut missing = Vec::new();
        for spec in parameters {
            match take(spec) {
                Some(place) => {
                    places.insert(spec.name.clone(), place);
                }
                None => missing.push(in_file(&spec.name)),
            }
        }
        let zeros = file_parameters
            .iter()
            .filter(|spec| !places.contains_key(&spec.name))
            .filter_map(&mut take);
        let zeros: Vec<Place> = zeros.collect();
        let tied_head = tied_head_spec(config, parameters)
            .and_then(|(embedding, head)| Some((embedding, take(&head)?)));
        names.retain(|name, _| !config.is_derived_tensor(name));
        let open = Self { dir: dir.to_owned(), files, places, zeros, tied_head };
        open.check_names(missing, &names)?;
        open.check_shapes()?;
        Ok(open)
    }

    /// Checks the data of tensors that must be zeros.
    pub fn finish(mut self) -> Result<()> {
        for place in std::mem::take(&mut self.zeros) {
            let zeros = vec![0.0; place.shape.iter().product()];
            let Some(file) = self.files.get_mut(place.file) else { continue };
            if !file.equals(&place.name, &place.shape, &zeros)? {
                return Err(Error::Contradiction {
                    path: file.path().to_owned(),
                    name: place.name,
                    reason: "is not zero although config.json says `bias` = false",
                });
            }
        }
        Ok(())
    }

    fn check_names(&self, missing: Vec<String>, left: &BTreeMap<String, usize>) -> Result<()> {
        // The absent tensor is reported before a left-over one: a left-over name often explains it.
        if let Some((name, others)) = missing.split_first() {
            return Err(Error::MissingTensor {
                place: self.place(),
                name: name.clone(),
                more: others.len(),
            });
        }
        match left.iter().next() {
            None => Ok(()),
            Some((name, file)) => Err(Error::LeftOver {
                path: self.files.get(*file).map_or_else(|| self.place(), |f| f.path().to_owned()),
                name: name.clone(),
                more: left.len() - 1,
            }),
        }
    }

    fn check_shapes(&self) -> Result<()> {
        let tied = self.tied_head.iter().map(|(_, place)| place);
        for place in self.places.values().chain(&self.zeros).chain(tied) {
            if let Some(file) = self.files.get(place.file) {
                file.check(&place.name, &place.shape)?;
            }
        }
        Ok(())
    }

    fn place(&self) -> PathBuf {
        match self.files.as_slice() {
            [file] => file.path().to_owned(),
            _ => self.dir.clone(),
        }
    }
}

impl ParameterSource for WeightFiles {
    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let absent = |place| Error::MissingTensor { place, name: name.to_owned(), more: 0 };
        let Some(place) = self.places.get(name) else { return Err(absent(self.place())) };
        let Some(file) = self.files.get_mut(place.file) else {
            return Err(absent(self.dir.clone()));
        };
        let values = file.read(&place.name, shape)?;
        if let Some((embedding, head)) = &self.tied_head
            && embedding == name
            && let Some(file) = self.files.get_mut(head.file)
            && !file.equals(&head.name, shape, &values)?
        {
            return Err(Error::Contradiction {
                path: file.path().to_owned(),
                name: head.name.clone(),
                reason: "differs from the embedding although config.json ties the two",
            });
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

fn open_files(dir: &Path) -> Result<Vec<SafetensorsFile>> {
    let single = dir.join(SINGLE);
    if single.exists() {
        return Ok(vec![SafetensorsFile::open(&single)?]);
    }
    let index = dir.join(INDEX);
    if !index.exists() {
        let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
        let pickled = pickled.iter().any(|name| dir.join(name).exists());
        return Err(Error::NoWeights { dir: dir.to_owned(), pickled });
    }
    let weight_map = read_index(&index)?;
    let shards: BTreeSet<&String> = weight_map.values().collect();
    let mut files = Vec::with_capacity(shards.len());
    for shard in shards {
        let path = dir.join(fsio::basename_only(shard)?);
        if !path.exists() {
            return Err(Error::MissingShard { index, shard: shard.clone() });
        }
        let file = SafetensorsFile::open(&path)?;
        let listed = |name: &String| weight_map.get(name) == Some(shard);
        if let Some(info) = file.tensors().iter().find(|info| !listed(&info.name)) {
            let reason = format!("tensor `{}` is not listed in {INDEX}", info.name);
            return Err(Error::Malformed { path, reason });
        }
        let absent = |name: &String| file.tensor(name).is_none();
        if let Some((name, _)) = weight_map.iter().find(|(name, s)| *s == shard && absent(name)) {
            return Err(Error::MissingTensor { place: path, name: name.clone(), more: 0 });
        }
        files.push(file);
    }
    Ok(files)
}

/// Tensor name → file name.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let text = fsio::read_text_capped(path, fsio::limits::SAFETENSORS_INDEX_BYTES)?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| malformed(format!("not valid JSON: {error}")))?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(malformed("missing key `weight_map`".to_owned()));
    };
    let entry = |(name, file): (&String, &Value)| match file.as_str() {
        Some(file) => Ok((name.clone(), file.to_owned())),
        None => Err(malformed(format!("`weight_map` names no file for tensor `{name}`"))),
    };
    let map: BTreeMap<String, String> = map.iter().map(entry).collect::<Result<_>>()?;
    if map.is_empty() { Err(malformed("`weight_map` is empty".to_owned())) } else { Ok(map) }
}

/// Tensor name → number of its file; a name in two files is an error.
fn tensor_places(files: &[SafetensorsFile]) -> Result<BTreeMap<String, usize>> {
    let mut names = BTreeMap::new();
    for (idx, file) in files.iter().enumerate() {
        for info in file.tensors() {
            if names.insert(info.name.clone(), idx).is_some() {
                let reason = format!("tensor `{}` stands in another file too", info.name);
                return Err(Error::Malformed { path: file.path().to_owned(), reason });
            }
        }
    }
    Ok(names)
}
