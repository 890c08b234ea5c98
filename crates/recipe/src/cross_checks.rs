//! Checks the sections of a recipe against each other. Each section checks itself.

use crate::diagnostics::Diagnostics;
use crate::{BaseDtype, DpoSection, ModelSection, Precision, Recipe, StageSection, missing};

impl Recipe {
    /// Checks sections by themselves and against each other.
    pub(crate) fn check(&self, diagnostics: &mut Diagnostics) {
        if self.precision == Precision::Tf32 && !self.device.starts_with("cuda") {
            diagnostics.conflict(
                "precision",
                "`tf32` needs the tensor cores of a GPU: set `device = \"cuda\"`",
            );
        }
        if self.device.starts_with("wgpu") {
            self.check_wgpu(diagnostics);
        }
        if let Some(tokenizer) = &self.tokenizer {
            tokenizer.check(diagnostics);
        }
        if let Some(model) = &self.model {
            model.check(diagnostics);
        }
        for stage in self.stages() {
            stage.check(diagnostics);
        }
        if self.replicas > 1 && self.device.starts_with("cuda:") {
            let reason = "`device` names one GPU and each replica needs its own: \"cuda\" uses the first ones";
            diagnostics.conflict("replicas", reason);
        }
        if self.replicas > 1 && self.dpo.as_ref().is_some_and(DpoSection::compares_pairs) {
            let reason = "the loss of [dpo] sorts the pairs of a step, which replicas would split";
            diagnostics.conflict("replicas", reason);
        }
        self.check_starts(diagnostics);
        self.check_positions(diagnostics);
    }

    /// Checks that nothing asks for a number format or a sum that wgpu does not have.
    fn check_wgpu(&self, diagnostics: &mut Diagnostics) {
        if self.precision == Precision::Bf16 {
            let reason = "`wgpu` computes in f32: set `precision = \"f32\"`";
            diagnostics.conflict("precision", reason);
        }
        if self.replicas > 1 {
            let reason = "replicas on GPUs are summed by NCCL, which `wgpu` does not have";
            diagnostics.conflict("replicas", reason);
        }
        for stage in self.stages() {
            let (name, keys) = (stage.name(), stage.keys());
            if keys.lora.is_some_and(|lora| lora.base_dtype == Some(BaseDtype::Bf16)) {
                let key = format!("{name}.{}.base_dtype", keys.lora_key);
                diagnostics.conflict(&key, "`wgpu` stores no bf16: set `base_dtype = \"f32\"`");
            }
        }
    }

    /// Checks that every stage has weights to start from, and that some stage uses [model].
    fn check_starts(&self, diagnostics: &mut Diagnostics) {
        let stages = self.stages();
        if stages.is_empty() {
            diagnostics.section(
                "",
                "the recipe has no stage",
                &format!("add {}", StageSection::listed()),
            );
        }
        for (idx, stage) in stages.iter().enumerate() {
            let (path, keys) = (stage.name(), stage.keys());
            let earlier = stages.get(..idx).unwrap_or_default();
            for (key, start) in keys.weights {
                if stages.iter().skip(idx).any(|later| later.name() == start) {
                    let key = format!("{path}.{key}");
                    diagnostics.value(&key, "must be a stage that runs before this one", start);
                }
            }
            match (keys.start, &self.model) {
                (None, _) if !earlier.is_empty() => {
                    let last = earlier.last().map(|stage| stage.name()).unwrap_or_default();
                    missing::start(path, Some(last), diagnostics);
                }
                (None, None) => missing::start(path, None, diagnostics),
                (Some(_), _) | (None, Some(_)) => {}
            }
        }
        let uses_model = stages.iter().any(|stage| stage.keys().start.is_none());
        if self.model.is_some() && !uses_model && !stages.is_empty() {
            diagnostics.section(
                "model",
                "[model] is not used: every stage has a `start`",
                "remove [model], or the `start` of the first stage",
            );
        }
        let is_new = self.model.as_ref().is_some_and(ModelSection::is_new);
        if is_new && self.tokenizer.is_none() {
            missing::tokenizer(diagnostics);
        }
    }

    /// Checks that a new model has a position for every token of a sequence.
    fn check_positions(&self, diagnostics: &mut Diagnostics) {
        let Some((key, n_positions)) = self.model.as_ref().and_then(ModelSection::max_positions)
        else {
            return;
        };
        for stage in self.stages() {
            let (name, keys) = (stage.name(), stage.keys());
            let length = keys.sequence_length;
            let (others, together) = match keys.added_length_key {
                Some(added) => (format!("and `{added}` "), "together "),
                None => (String::new(), ""),
            };
            if length > n_positions {
                diagnostics.value(
                    &format!("{name}.{}", keys.length_key),
                    &format!(
                        "{others}must {together}be at most `{key}` of [{}] ({n_positions})",
                        ModelSection::PATH
                    ),
                    length,
                );
            }
        }
    }
}
