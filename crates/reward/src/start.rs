//! The first weights of a reward model: a language model with a new head, or a scorer that is trained on.
//!
//! It deliberately decides by what the directory says it holds, never by its name.

use arch::{Architecture, Description};
use burn::tensor::Device;
use model::{CausalLm, ScalarHead, load_causal_lm, load_scalar_head};
use plan::{Plan, StagePlan};
use seed::Purpose;
use train::{FirstLoss, RunDir, start_dir};

/// The model that the stage starts from, and what its first loss must be near.
pub(crate) fn first_model(
    plan: &Plan,
    stage: &StagePlan,
    run_dir: &RunDir,
    margin: f64,
    device: &Device,
) -> train::Result<(ScalarHead, FirstLoss)> {
    let seed = |index| seed::derive(plan.seed, &stage.name, Purpose::Init, 0, index);
    let language_model = match start_dir(stage, run_dir)? {
        None => CausalLm::init(&stage.config, seed(0), device),
        Some(dir) => match Description::read(&dir).map_err(model::Error::from)?.architecture {
            // It has its own opinion already.
            Architecture::SequenceClassifier => {
                return Ok((load_scalar_head(&dir, device)?, FirstLoss::Unknown));
            }
            Architecture::CausalLm => load_causal_lm(&dir, device)?,
        },
    };
    let model = ScalarHead::from_backbone(language_model.backbone, &stage.config, seed(1));
    // Equal scores: −ln σ(−m).
    Ok((model, FirstLoss::Near { loss: margin.exp().ln_1p() }))
}
