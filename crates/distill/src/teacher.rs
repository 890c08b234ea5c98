//! The teacher: a frozen language model of any family, with the student's tokenizer.
//!
//! Shape legend: m positions with a target, c positions of a chunk, d model width, v vocabulary.

use burn::tensor::{Device, Tensor};
use data::Batch;
use model::CausalLm;
use nn::TokenBatch;
use plan::{DistillPlan, StagePlan};
use train::{BaseModelCache, RunDir, start_dir};

use crate::Result;
use crate::targets::at_targets;

/// A frozen teacher.
#[derive(Debug)]
pub struct Teacher {
    model: CausalLm,
}

impl Teacher {
    /// Reads the weights that the plan names.
    ///
    /// Errors: they cannot be read, or the stage that trains them has not run.
    pub fn open(
        stage: &StagePlan,
        distill: &DistillPlan,
        run_dir: &RunDir,
        device: &Device,
    ) -> Result<Self> {
        // Its weights need no autodiff.
        let mut bases = BaseModelCache::new(&device.clone().inner());
        let model = match start_dir(stage, &distill.teacher, run_dir)? {
            Some(dir) => bases.open(&dir)?,
            // New weights teach nothing; the plan names a directory or an earlier stage.
            None => CausalLm::init(&distill.teacher_config, 0, &device.clone().inner()),
        };
        Ok(Self { model })
    }

    /// A teacher in memory.
    pub fn of(model: &CausalLm) -> Self {
        Self { model: generate::without_autodiff(model).into_owned() }
    }

    /// Hidden states at the targets of a batch, `[m, d]`.
    pub(crate) fn hidden(&self, batch: &Batch) -> Tensor<2> {
        let device = self.model.backbone.device();
        let (b, t) = (batch.rows, batch.sequence_length);
        let tokens = TokenBatch::new(&batch.ids, &batch.positions, &batch.segments, b, t, &device);
        at_targets(self.model.forward(&tokens).hidden_nd(), batch)
    }

    /// Logits of hidden states, `[c, v]`.
    pub(crate) fn logits(&self, hidden_cd: Tensor<2>) -> Tensor<2> {
        self.model.logits(hidden_cd)
    }
}
