//! The table of a model's parameters: names, shapes, kinds, starting values. Holds no numbers of any model.

/// What a parameter is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParamKind {
    /// Rows looked up by token or position.
    Embedding,
    /// The weight of a product inside a block.
    Matrix,
    /// A gain of a normalisation.
    Norm,
    /// An addend, of a product or of a normalisation.
    Bias,
    /// The weight of the last product: to logits or to a score.
    Head,
}

/// How the two axes of a matrix are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AxisOrder {
    /// `[out, in]`, as `torch.nn.Linear` stores it; also every embedding (`[rows, width]`) and every vector.
    OutIn,
    /// `[in, out]`, as the `Conv1D` of GPT-2 stores it.
    InOut,
}

/// How a parameter starts when a model is trained from scratch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Independent draws from a normal distribution around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
}

/// One parameter of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// The name in a Hugging Face checkpoint.
    pub name: String,
    /// Sizes of the axes, in the order in which they are stored.
    pub shape: Vec<usize>,
    /// What it is used for.
    pub kind: ParamKind,
    /// Order of the axes of a matrix.
    pub layout: AxisOrder,
    /// How it starts.
    pub init: Init,
}

impl ParamSpec {
    /// Number of elements. Shapes come from checked configs, so the product cannot overflow.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// Whether weight decay applies: to everything with two axes, embeddings included.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() >= 2
    }

    /// Whether the parameter is the weight of a matrix product, which is what FLOP counts go by.
    pub fn is_product(&self) -> bool {
        matches!(self.kind, ParamKind::Matrix | ParamKind::Head)
    }
}

/// Collects a family's table in module order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    specs: Vec<ParamSpec>,
}

impl Table {
    pub(crate) fn embedding(&mut self, name: String, shape: [usize; 2], std: f64) {
        self.push(
            name,
            shape.to_vec(),
            ParamKind::Embedding,
            AxisOrder::OutIn,
            Init::Normal { std },
        );
    }

    pub(crate) fn head(&mut self, name: &str, n_out: usize, n_in: usize, std: f64) {
        let shape = vec![n_out, n_in];
        self.push(name.to_owned(), shape, ParamKind::Head, AxisOrder::OutIn, Init::Normal { std });
    }

    /// A product of `n_in` to `n_out` named `prefix.weight`, and `prefix.bias` where it has one.
    pub(crate) fn linear(&mut self, prefix: &str, layout: AxisOrder, product: Product) {
        let Product { n_in, n_out, bias, std } = product;
        let shape = match layout {
            AxisOrder::OutIn => vec![n_out, n_in],
            AxisOrder::InOut => vec![n_in, n_out],
        };
        let init = Init::Normal { std };
        self.push(format!("{prefix}.weight"), shape, ParamKind::Matrix, layout, init);
        if bias {
            self.bias(format!("{prefix}.bias"), n_out);
        }
    }

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
        layout: AxisOrder,
        init: Init,
    ) {
        self.specs.push(ParamSpec { name, shape, kind, layout, init });
    }
}

/// The sizes of one linear product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub(crate) n_in: usize,
    pub(crate) n_out: usize,
    pub(crate) bias: bool,
    pub(crate) std: f64,
}
