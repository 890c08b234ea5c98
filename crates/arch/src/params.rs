//! Parameter tables: name, shape, kind and initial values of each parameter, and the linear layers among them.

/// The role of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParamKind {
    /// Rows that are looked up by token or position.
    Embedding,
    /// Weight of a linear layer inside a block.
    Matrix,
    /// Gain of a normalisation.
    Norm,
    /// Bias of a linear layer or of a normalisation.
    Bias,
    /// Weight of the output layer: logits or a score.
    Head,
}

/// The order of the two axes of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AxisOrder {
    /// `[out, in]`, as in `torch.nn.Linear`. Also all embeddings (`[rows, width]`) and all vectors.
    OutIn,
    /// `[in, out]`, as in the `Conv1D` of GPT-2.
    InOut,
}

/// Initial values of a parameter in a model that is trained from scratch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Independent samples of a normal distribution with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
}

/// A parameter of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Name in a Hugging Face checkpoint.
    pub name: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// Role.
    pub kind: ParamKind,
    /// Axis order of a matrix.
    pub axis_order: AxisOrder,
    /// Initial values.
    pub init: Init,
}

impl ParamSpec {
    /// Number of elements. Shapes come from checked configurations, so the product cannot overflow.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// The linear layer that this parameter is the weight of.
    fn linear_layer(&self) -> Option<LinearLayer> {
        let name = self.name.strip_suffix(".weight")?.to_owned();
        let axis_order = self.axis_order;
        match (self.kind, axis_order, self.shape.as_slice()) {
            (ParamKind::Matrix, AxisOrder::OutIn, &[d_out, d_in])
            | (ParamKind::Matrix, AxisOrder::InOut, &[d_in, d_out]) => {
                Some(LinearLayer { name, d_in, d_out, axis_order })
            }
            (
                ParamKind::Matrix
                | ParamKind::Embedding
                | ParamKind::Head
                | ParamKind::Norm
                | ParamKind::Bias,
                _,
                _,
            ) => None,
        }
    }
}

/// A linear layer inside a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearLayer {
    /// Module name in a Hugging Face checkpoint: the weight's name without `.weight`.
    pub name: String,
    /// Input width.
    pub d_in: usize,
    /// Output width.
    pub d_out: usize,
    /// Axis order of the weight.
    pub axis_order: AxisOrder,
}

/// All linear layers inside blocks, in the order of `parameters`.
pub(crate) fn linear_layers(parameters: &[ParamSpec]) -> Vec<LinearLayer> {
    parameters.iter().filter_map(ParamSpec::linear_layer).collect()
}

/// Builds a family's parameter table in module order.
#[derive(Debug, Default)]
pub(crate) struct ParamTable {
    specs: Vec<ParamSpec>,
}

/// The shape of a linear layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearShape {
    pub(crate) d_in: usize,
    pub(crate) d_out: usize,
    pub(crate) bias: bool,
    /// Standard deviation of the initial weight.
    pub(crate) std: f64,
}

impl ParamTable {
    pub(crate) fn embedding(&mut self, name: String, shape: [usize; 2], std: f64) {
        let init = Init::Normal { std };
        self.push(name, shape.to_vec(), ParamKind::Embedding, AxisOrder::OutIn, init);
    }

    pub(crate) fn head(&mut self, name: &str, d_out: usize, d_in: usize, std: f64) {
        let (shape, init) = (vec![d_out, d_in], Init::Normal { std });
        self.push(name.to_owned(), shape, ParamKind::Head, AxisOrder::OutIn, init);
    }

    /// Adds `prefix.weight`, and `prefix.bias` if the layer has a bias.
    pub(crate) fn linear(&mut self, prefix: &str, axis_order: AxisOrder, shape: LinearShape) {
        let LinearShape { d_in, d_out, bias, std } = shape;
        let shape = match axis_order {
            AxisOrder::OutIn => vec![d_out, d_in],
            AxisOrder::InOut => vec![d_in, d_out],
        };
        let init = Init::Normal { std };
        self.push(format!("{prefix}.weight"), shape, ParamKind::Matrix, axis_order, init);
        if bias {
            self.bias(format!("{prefix}.bias"), d_out);
        }
    }

    /// Adds `prefix.weight`, and `prefix.bias` if the normalisation has a bias.
    pub(crate) fn norm(&mut self, prefix: &str, width: usize, bias: bool) {
        let name = format!("{prefix}.weight");
        self.push(name, vec![width], ParamKind::Norm, AxisOrder::OutIn, Init::Ones);
        if bias {
            self.bias(format!("{prefix}.bias"), width);
        }
    }

    pub(crate) fn finish(self) -> Vec<ParamSpec> {
        self.specs
    }

    fn bias(&mut self, name: String, width: usize) {
        self.push(name, vec![width], ParamKind::Bias, AxisOrder::OutIn, Init::Zeros);
    }

    fn push(
        &mut self,
        name: String,
        shape: Vec<usize>,
        kind: ParamKind,
        axis_order: AxisOrder,
        init: Init,
    ) {
        self.specs.push(ParamSpec { name, shape, kind, axis_order, init });
    }
}
