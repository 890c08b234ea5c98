//! Logits, hidden states, loss and every gradient against the reference implementation.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use loss::cross_entropy;
use model::{NamePath, load_causal_lm, load_causal_lm_cast_as_a_whole};
use testkit::{Golden, Tolerance, assert_close, golden_dir, values};

use crate::support::{Io, golden_models, logits, targets_tensor};

#[test]
fn logits_and_hidden_states() {
    let device = Device::flex();
    for dir in golden_models() {
        let io = Io::open(&dir);
        let model = load_causal_lm(&dir, &device).expect("a golden model");
        let tokens = io.tokens(&device);
        let states = model.backbone.hidden_states(&tokens);
        let mut worst: f64 = 0.0;
        for (idx, state) in states.iter().enumerate() {
            let want = io.unpadded(&io.golden.f32(&format!("hidden_states.{idx}")));
            let got = io.unpadded(&values(state));
            let name = format!("{} hidden_states.{idx}", dir.display());
            worst = worst.max(assert_close(&name, &got, &want, Tolerance::LOGITS));
        }
        assert!(!io.golden.has(&format!("hidden_states.{}", states.len())));
        let want = io.unpadded(&io.golden.f32("logits"));
        let got = io.unpadded(&logits(&model, &tokens));
        let name = format!("{} logits", dir.display());
        let difference = assert_close(&name, &got, &want, Tolerance::LOGITS);
        println!("{name}: {difference:e}, hidden states: {worst:e}");
    }
}

#[test]
fn loss_and_every_gradient() {
    let device = Device::flex().autodiff();
    for dir in golden_models() {
        let io = Io::open(&dir);
        let model = load_causal_lm(&dir, &device).expect("a golden model");
        let targets = io.targets();
        let count = targets.iter().filter(|target| **target >= 0).count() as u64;
        let hidden_nd = model.forward(&io.tokens(&device)).hidden_nd();
        let sum = cross_entropy(hidden_nd, model.head_weight(), targets_tensor(&targets), count);
        let loss = sum.mean_over(count);
        let want = io.golden.f32("loss");
        let tolerance = Tolerance::absolute(1e-5);
        let difference = assert_close("loss", &values(&loss), &want, tolerance);
        let mut visitor = Compare {
            path: NamePath::default(),
            got: loss.backward(),
            want: Golden::open(&dir.join("grads.safetensors")),
            seen: Vec::new(),
            worst: 0.0,
        };
        model.visit(&mut visitor);
        println!("{} loss: {difference:e}, gradients: {:e}", dir.display(), visitor.worst);
        let mut seen = visitor.seen;
        seen.sort();
        assert_eq!(seen, visitor.want.names(), "{}", dir.display());
    }
}

struct Compare {
    path: NamePath,
    got: Gradients,
    want: Golden,
    seen: Vec<String>,
    worst: f64,
}

impl ModuleVisitor for Compare {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        let got = param.val().grad(&self.got).unwrap_or_else(|| panic!("{name}: no gradient"));
        assert_eq!(got.dims().to_vec(), self.want.shape(&name), "{name}");
        let want = self.want.f32(&name);
        let difference = assert_close(&name, &values(&got), &want, Tolerance::GRADIENTS);
        self.worst = self.worst.max(difference);
        self.seen.push(name);
    }
}

#[test]
fn bf16_weights_in_shards() {
    let dir = golden_dir("models/llama-bf16-sharded");
    let device = Device::flex();
    let io = Io::open(&dir);
    // The reference's module was cast to bf16 and back as a whole, its RoPE frequencies included.
    let model = load_causal_lm_cast_as_a_whole(&dir, &device).expect("a golden model");
    let got = logits(&model, &io.tokens(&device));
    let want = io.golden.f32("logits_of_weights_widened_to_f32");
    let difference = assert_close("logits", &got, &want, Tolerance::LOGITS);
    println!("{}: {difference:e}", dir.display());
    // Loaded as a user loads it, the frequencies are exact: position 0 is the same, others differ.
    let exact = load_causal_lm(&dir, &device).expect("a golden model");
    let exact = logits(&exact, &io.tokens(&device));
    let v = exact.len() / io.ids.len();
    assert_close("position 0", &exact[..v], &want[..v], Tolerance::LOGITS);
    assert_close("later", &exact, &want, Tolerance::absolute(1e-2));
}

#[test]
fn the_older_spelling_gives_the_same_model() {
    let device = Device::flex();
    for name in ["llama", "llama-tied-rope3", "llama-bias-headdim"] {
        let dir = testkit::golden_dir(&format!("models/{name}"));
        let older = tempfile::tempdir().expect("a folder");
        let copy = |from: &str, to: &str| {
            std::fs::copy(dir.join(from), older.path().join(to)).expect("a copy");
        };
        copy("config.legacy.json", "config.json");
        copy("model.safetensors", "model.safetensors");
        let io = Io::open(&dir);
        let tokens = io.tokens(&device);
        let today = load_causal_lm(&dir, &device).expect("a golden model");
        let older = load_causal_lm(older.path(), &device).expect("the same model");
        assert_eq!(logits(&today, &tokens), logits(&older, &tokens));
    }
}
