//! Parameters by their Hugging Face names, in module order.
//!
//! Field paths are checkpoint keys, except that the `backbone` field and the family's variant become the family's
//! prefix, and that the slot of an adapter and the variants of weights and adapters have no name. Nothing is keyed by
//! burn's random parameter ids.

use std::collections::BTreeMap;
use std::io;

use arch::{Dtype, ParamSpec};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Int, Tensor, TensorData};
use tensor_file::SafetensorsWriter;

use crate::{Backbone, Error, ParameterSource, Result};

/// The name of a traversal's current place; call it for each module that the traversal enters and leaves.
#[derive(Clone, Debug, Default)]
pub struct NamePath {
    parts: Vec<String>,
}

/// Containers whose parts have no name in checkpoints.
const UNNAMED: [&str; 8] = [
    "Enum:Weight",
    "Struct:PackedWeight",
    "Struct:BlockWeight",
    "Enum:Adapter",
    "Enum:EmbeddingAdapter",
    "Enum:Qkv",
    "Enum:Mlp",
    "Enum:FeedForward",
];

impl NamePath {
    /// Follows `enter_module` of a visitor or mapper.
    pub fn enter(&mut self, name: &str, container: &str) {
        let part = match name {
            "backbone" => "",
            // PEFT names an adapter's tensors after the layer.
            "adapter"
                if matches!(container, "Struct:Linear" | "Struct:Conv1d" | "Struct:Embedding") =>
            {
                ""
            }
            "Tokens" if matches!(container, "Enum:Adapter" | "Enum:EmbeddingAdapter") => {
                "token_adapter"
            }
            "lora" if container == "Struct:DoraAdapter" => "",
            // How a weight is stored, which method an adapter uses and which form a layer has is no part of a name.
            _ if UNNAMED.contains(&container) => "",
            "qkv" if container == "Struct:SelfAttention" => "",
            variant if container == "Enum:Backbone" => {
                Backbone::prefix_of(variant).unwrap_or(variant)
            }
            name => name,
        };
        self.parts.push(part.to_owned());
    }

    /// Follows `exit_module` of a visitor or mapper.
    pub fn exit(&mut self) {
        self.parts.pop();
    }

    /// The Hugging Face name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub fn name(&self) -> String {
        let parts: Vec<&str> =
            self.parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        parts.join(".")
    }
}

/// A parameter without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedParameter {
    /// Its Hugging Face name.
    pub name: String,
    /// Its shape as stored.
    pub shape: Vec<usize>,
    /// Whether it is trained.
    pub requires_grad: bool,
    /// burn's id, good for looking up gradients within this process.
    pub id: ParamId,
}

/// Every parameter in module order.
pub fn named_parameters<M: Module>(model: &M) -> Vec<NamedParameter> {
    let mut visitor = Collect::default();
    model.visit(&mut visitor);
    visitor.found.into_iter().map(|(parameter, _)| parameter).collect()
}

/// The names of every parameter in module order.
pub fn parameter_names<M: Module>(model: &M) -> Vec<String> {
    named_parameters(model).into_iter().map(|parameter| parameter.name).collect()
}

/// Calls `visit(name, shape, values)` for every parameter in module order; stops at the first error.
pub fn visit_tensors<M: Module, E>(
    model: &M,
    mut visit: impl FnMut(&str, &[usize], &[f32]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut visitor = Collect::default();
    model.visit(&mut visitor);
    for (parameter, values) in visitor.found {
        kernels::with_host_values(&values, |values| {
            visit(&parameter.name, &parameter.shape, values)
        })?;
    }
    Ok(())
}

/// Whether two models have the same names, shapes and values. Values that share their memory are not read; models with packed
/// weights are never the same.
pub fn has_same_parameters<M: Module>(a: &M, b: &M) -> bool {
    let [a, b] = [a, b].map(|model| {
        let mut visitor = Collect::default();
        model.visit(&mut visitor);
        visitor
    });
    let same = |((a, x), (b, y)): (&(NamedParameter, Tensor<1>), &(NamedParameter, Tensor<1>))| {
        let equal = |x: &[f32], y: &[f32]| std::ptr::eq(x, y) || x == y;
        a.name == b.name
            && a.shape == b.shape
            && kernels::with_host_values(x, |x| kernels::with_host_values(y, |y| equal(x, y)))
    };
    let is_dense = a.packed.is_empty() && b.packed.is_empty();
    is_dense && a.found.len() == b.found.len() && a.found.iter().zip(&b.found).all(same)
}

/// Writes parameters as a safetensors file of exactly `specs`, in that order; those that the model does not have are
/// written as zeros. A packed weight is an error.
pub fn write_parameters<M: Module>(
    model: &M,
    specs: &[ParamSpec],
    dtype: Dtype,
    out: &mut dyn io::Write,
) -> Result<()> {
    let mut visitor = Collect::default();
    model.visit(&mut visitor);
    if let Some(name) = visitor.packed.into_iter().next() {
        return Err(Error::Packed { name });
    }
    let mut found: BTreeMap<String, (NamedParameter, Tensor<1>)> = visitor
        .found
        .into_iter()
        .map(|(parameter, values)| (parameter.name.clone(), (parameter, values)))
        .collect();
    let weights = specs.iter().map(|spec| (spec.name.clone(), spec.shape.clone()));
    let mut writer = SafetensorsWriter::begin_weights(out, weights, dtype)?;
    let out_of_order = |name| Err(tensor_file::Error::OutOfOrder { name }.into());
    for spec in specs {
        match found.remove(&spec.name) {
            Some((parameter, values)) if parameter.shape == spec.shape => {
                kernels::with_host_values(&values, |values| writer.weights(&spec.name, values))?;
            }
            Some(_) => return out_of_order(spec.name.clone()),
            None => writer.weights(&spec.name, &vec![0.0; spec.shape.iter().product()])?,
        }
    }
    match found.into_keys().next() {
        Some(name) => out_of_order(name),
        None => Ok(writer.finish()?),
    }
}

/// The model with every parameter's values replaced by those of `source`, requested by name in
/// module order; identity, device and `require_grad` stay.
pub fn load_state_dict<M: Module>(model: M, source: &mut dyn ParameterSource) -> Result<M> {
    let mut mapper = Replace { path: NamePath::default(), source, error: None };
    let model = model.map(&mut mapper);
    match mapper.error {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

/// The model with the values of the named parameters replaced, which are taken out of `values`; all others stay.
#[must_use]
pub fn replace_parameters<M: Module>(model: M, values: &mut BTreeMap<String, Vec<f32>>) -> M {
    model.map(&mut ReplaceSome { path: NamePath::default(), values })
}

struct ReplaceSome<'a> {
    path: NamePath,
    values: &'a mut BTreeMap<String, Vec<f32>>,
}

impl ModuleMapper for ReplaceSome<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(values) = self.values.remove(&self.path.name()) else { return param };
        kernels::update_param(param, |old| {
            Tensor::from_data(TensorData::new(values, old.dims()), &old.device())
        })
    }
}

/// The model with gradients only for the parameters whose names `trained` accepts.
///
/// This is the one place that freezes: a frozen parameter gets no gradient, no update and no optimizer state.
/// On a model without autodiff it changes nothing.
#[must_use]
pub fn train_only<M: Module>(model: M, trained: &dyn Fn(&str) -> bool) -> M {
    model.map(&mut Freeze { path: NamePath::default(), trained })
}

/// The model with its matrices stored in bf16 and frozen. Norms, biases, a head of one row and the parameters whose names
/// `keeps` accepts stay f32.
#[must_use]
pub fn store_in_bf16<M: Module>(model: M, keeps: &dyn Fn(&str) -> bool) -> M {
    model.map(&mut StoreInBf16 { path: NamePath::default(), keeps })
}

struct StoreInBf16<'a> {
    path: NamePath,
    keeps: &'a dyn Fn(&str) -> bool,
}

impl ModuleMapper for StoreInBf16<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 || param.val().dims()[0] == 1 || (self.keeps)(&self.path.name()) {
            return param;
        }
        kernels::update_param(param, kernels::round_weight).set_require_grad(false)
    }
}

struct Freeze<'a> {
    path: NamePath,
    trained: &'a dyn Fn(&str) -> bool,
}

impl ModuleMapper for Freeze<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.val().is_autodiff() {
            return param;
        }
        param.set_require_grad((self.trained)(&self.path.name()))
    }
}

#[derive(Default)]
struct Collect {
    path: NamePath,
    found: Vec<(NamedParameter, Tensor<1>)>,
    /// Names of packed weights.
    packed: Vec<String>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let parameter = NamedParameter {
            name: self.path.name(),
            shape: value.dims().to_vec(),
            requires_grad: value.is_require_grad(),
            id: param.id,
        };
        let n: usize = parameter.shape.iter().product();
        // A handle, no copy: values are read one parameter at a time.
        self.found.push((parameter, value.inner().reshape([n])));
    }

    fn visit_int<const D: usize>(&mut self, _: &Param<Tensor<D, Int>>) {
        self.packed.push(self.path.name());
    }
}

struct Replace<'a> {
    path: NamePath,
    source: &'a mut dyn ParameterSource,
    error: Option<Error>,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        kernels::update_param(param, |old| {
            let shape = old.dims();
            match self.source.values(&self.path.name(), &shape) {
                Ok(values) => Tensor::from_data(TensorData::new(values, shape), &old.device()),
                Err(error) => {
                    self.error = Some(error);
                    old
                }
            }
        })
    }
}
