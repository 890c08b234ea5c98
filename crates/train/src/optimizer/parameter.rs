//! A model's parameters as an optimizer sees them: name, shape, whether they are trained, order of the axes.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use model::NamePath;

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// Checkpoint name.
    pub(super) name: String,
    /// Shape as stored.
    pub(super) shape: Vec<usize>,
    pub(super) trained: bool,
    /// Whether a matrix is stored as `[in, out]`, which is what GPT-2's `Conv1D` does.
    pub(super) is_in_out: bool,
}

/// Every parameter in module order.
pub(super) fn parameters<M: Module>(model: &M) -> Vec<Parameter> {
    let mut collect = Collect::default();
    model.visit(&mut collect);
    collect.found
}

#[derive(Default)]
struct Collect {
    path: NamePath,
    /// Types of the modules around, the innermost last.
    containers: Vec<String>,
    found: Vec<Parameter>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
        self.containers.push(container.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        // How a weight is stored does not matter here; its layer does.
        let layer = self.containers.iter().rfind(|container| *container != "Enum:Weight");
        self.found.push(Parameter {
            name: self.path.name(),
            shape: value.dims().to_vec(),
            trained: value.is_require_grad(),
            is_in_out: layer.is_some_and(|layer| layer == "Struct:Conv1d"),
        });
    }
}
