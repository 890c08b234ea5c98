//! Run-time checks that stop a faulty run within its first updates; each has a key in `[checks]` of the recipe.
//!
//! A non-finite loss or gradient always stops the run.

use arch::AdapterTensorKind;
use burn::module::Module;
use recipe::ChecksSection;

use crate::gradients::Gradients;
use crate::parameters::{Fingerprint, ParameterNames, fingerprints, max_abs};
use crate::{Error, Result, StepPlace};

/// The expected first loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FirstLoss {
    /// Untrained weights: all tokens are about equally likely, so the loss is near ln(vocabulary size).
    Fresh {
        /// Number of logits.
        vocab_size: usize,
    },
    /// Trained weights: the loss is hardly above that.
    Pretrained {
        /// Number of logits.
        vocab_size: usize,
    },
    /// A known value, such as the loss of equal scores for a new head.
    Near {
        /// The expected loss.
        loss: f64,
    },
    /// No expectation: a resumed run, or a loss without a known starting value.
    Unknown,
}

/// The run-time checks of one stage.
#[derive(Debug)]
pub struct Checks {
    on: ChecksSection,
    names: ParameterNames,
    first_loss: FirstLoss,
    updates: Option<FirstUpdates>,
}

/// State of the checks of the first updates; dropped once they pass.
#[derive(Debug)]
struct FirstUpdates {
    before: Vec<Fingerprint>,
    had_gradient: Vec<bool>,
    /// Whether the next update may be without any gradient.
    is_silent: bool,
    /// Number of updates with a learning rate above 0.
    n_updates: u64,
    lr_sum: f64,
}

/// Updates after which every trainable parameter must have changed. Tensors behind a zero-initialized one have no gradient
/// in the first update and may need one more.
const UPDATES_TO_MOVE: u64 = 2;

impl Checks {
    /// Records fingerprints of the weights before the first update.
    pub fn start<M: Module>(
        on: ChecksSection,
        model: &M,
        names: &ParameterNames,
        first_loss: FirstLoss,
    ) -> Self {
        let updates = (on.gradients || on.frozen).then(|| FirstUpdates {
            before: fingerprints(model),
            had_gradient: vec![false; names.len()],
            is_silent: false,
            n_updates: 0,
            lr_sum: 0.0,
        });
        Self { on, names: names.clone(), first_loss, updates }
    }

    /// No check but that for a non-finite loss.
    pub fn none(names: &ParameterNames) -> Self {
        let on = ChecksSection {
            prompt_ids: true,
            targets: false,
            first_loss: false,
            gradients: false,
            frozen: false,
            dry_save: false,
        };
        Self { on, names: names.clone(), first_loss: FirstLoss::Unknown, updates: None }
    }

    /// Requires at least one target in the step.
    pub fn targets(&self, n_targets: u64, place: StepPlace<'_>) -> Result<()> {
        if self.on.targets && n_targets == 0 {
            return Err(Error::NoTargets { place: place.to_owned() });
        }
        Ok(())
    }

    /// Requires a finite loss, and a first loss within the expected range.
    pub fn loss(&mut self, loss: f64, place: StepPlace<'_>) -> Result<()> {
        if !loss.is_finite() {
            return Err(Error::NonFiniteLoss { loss, place: place.to_owned() });
        }
        let first_loss = std::mem::replace(&mut self.first_loss, FirstLoss::Unknown);
        if !self.on.first_loss {
            return Ok(());
        }
        let (low, high) = match first_loss {
            FirstLoss::Unknown => return Ok(()),
            FirstLoss::Fresh { vocab_size } => {
                let uniform = (vocab_size as f64).ln();
                (0.75 * uniform - 0.25, 1.25 * uniform + 1.0)
            }
            FirstLoss::Near { loss } => (0.5 * loss, 1.5 * loss + 0.5),
            FirstLoss::Pretrained { vocab_size } => {
                (f64::MIN_POSITIVE, 1.25 * (vocab_size as f64).ln() + 1.0)
            }
        };
        if loss < low || loss > high {
            return Err(Error::FirstLoss { loss, low, high, place: place.to_owned() });
        }
        Ok(())
    }

    /// The next update may have no gradient at all, such as one on completions with equal rewards. It does not count among the
    /// first updates.
    pub fn expect_no_gradient(&mut self) {
        if let Some(updates) = &mut self.updates {
            updates.is_silent = true;
        }
    }

    /// Records which parameters have a nonzero gradient. Call it before the optimizer consumes the gradients.
    pub fn gradients(&mut self, gradients: &Gradients) {
        let Some(updates) = &mut self.updates else { return };
        for (had, is_nonzero) in updates.had_gradient.iter_mut().zip(gradients.are_nonzero()) {
            *had = *had || is_nonzero;
        }
    }

    /// Requires that after the first updates every trainable parameter has had a gradient and has changed, and that no frozen
    /// parameter has changed.
    pub fn updated<M: Module>(&mut self, model: &M, lr: f64, place: StepPlace<'_>) -> Result<()> {
        let Some(updates) = &mut self.updates else { return Ok(()) };
        if std::mem::take(&mut updates.is_silent) {
            return Ok(());
        }
        updates.n_updates += u64::from(lr > 0.0);
        updates.lr_sum += lr;
        if lr <= 0.0 || updates.n_updates < UPDATES_TO_MOVE {
            return Ok(());
        }
        let problem = updates.find_problem(model, &self.names, self.on);
        let (idx, problem) = match problem {
            None => {
                self.updates = None;
                return Ok(());
            }
            // Parameters behind a zero-initialized one get one more update.
            Some((_, problem))
                if problem != Problem::FrozenMoved && updates.n_updates == UPDATES_TO_MOVE =>
            {
                return Ok(());
            }
            Some(found) => found,
        };
        let (parameter, place) = (self.names.get(idx).to_owned(), place.to_owned());
        Err(match problem {
            Problem::NoGradient => Error::NoGradient { parameter, place },
            Problem::Unmoved => Error::Unmoved { parameter, place },
            Problem::FrozenMoved => Error::FrozenMoved { parameter, place },
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    NoGradient,
    Unmoved,
    FrozenMoved,
}

impl FirstUpdates {
    /// The first parameter in module order that fails a check.
    ///
    /// An expert of a mixture may have had no token, and tokens whose rows are trained may not have occurred, so these may be
    /// without a gradient, and unmoved.
    fn find_problem<M: Module>(
        &self,
        model: &M,
        names: &ParameterNames,
        on: ChecksSection,
    ) -> Option<(usize, Problem)> {
        let now = fingerprints(model);
        let mut sizes: Option<Vec<f32>> = None;
        let rows = self.before.iter().zip(&now).zip(&self.had_gradient).enumerate();
        for (idx, ((before, now), had_gradient)) in rows {
            let moved = before.hash != now.hash;
            if !before.trained && moved && on.frozen {
                return Some((idx, Problem::FrozenMoved));
            }
            if !before.trained || !on.gradients {
                continue;
            }
            if !had_gradient {
                let name = names.get(idx);
                if arch::is_expert_parameter(name) || is_token_rows(name) {
                    continue;
                }
                return Some((idx, Problem::NoGradient));
            }
            if moved {
                continue;
            }
            // Adam changes an element by about the learning rate. Below the spacing of floats at its magnitude (a norm's
            // gain of 1 in a long warm-up), an unchanged element is no fault.
            let sizes = sizes.get_or_insert_with(|| max_abs(model));
            let size = f64::from(sizes.get(idx).copied().unwrap_or_default());
            if self.lr_sum > 2.0 * f64::from(f32::EPSILON) * size {
                return Some((idx, Problem::Unmoved));
            }
        }
        None
    }
}

/// Whether a parameter is the trained rows of some tokens.
fn is_token_rows(name: &str) -> bool {
    matches!(AdapterTensorKind::of_name(name), Some((_, AdapterTensorKind::Rows)))
}
