//! Checks that stop a wrong run in its first minute, each named in `[checks]` of the recipe.
//!
//! They read, they never repair. A loss or gradient that is not finite stops a run in any case.

use std::fmt;

use burn::module::Module;
use recipe::ChecksSection;

use crate::gradients::Gradients;
use crate::parameters::{Fingerprint, ParameterNames, fingerprints, max_abs};
use crate::{Error, Result};

/// The step at hand and the numbers of the samples in it, for messages.
#[derive(Clone, Copy, Debug)]
pub struct StepPlace<'a> {
    /// The update that is being made, from 1.
    pub step: u64,
    /// Sample numbers.
    pub samples: &'a [u64],
}

impl StepPlace<'_> {
    pub(crate) fn to_owned(self) -> FailedStep {
        FailedStep {
            step: self.step,
            samples: self.samples.iter().copied().take(8).collect(),
            n_samples: self.samples.len(),
        }
    }
}

/// Where a check failed; prints as `step 12, samples 3, 17, 40 and 5 more`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStep {
    step: u64,
    samples: Vec<u64>,
    n_samples: usize,
}

impl fmt::Display for FailedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}", self.step)?;
        let samples: Vec<String> = self.samples.iter().map(u64::to_string).collect();
        match self.n_samples.saturating_sub(samples.len()) {
            _ if samples.is_empty() => Ok(()),
            0 => write!(f, ", samples {}", samples.join(", ")),
            more => write!(f, ", samples {} and {more} more", samples.join(", ")),
        }
    }
}

/// What the first loss is measured against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FirstLoss {
    /// Untrained weights predict every token about equally: the loss is near ln(vocabulary).
    Fresh {
        /// Number of logits.
        vocab_size: usize,
    },
    /// Trained weights do no worse than that, or hardly.
    Pretrained {
        /// Number of logits.
        vocab_size: usize,
    },
    /// A new head on a trained model cannot yet tell anything apart.
    Near {
        /// The loss of equal scores.
        loss: f64,
    },
    /// Nothing is known: a resumed run, or a loss that is no cross-entropy.
    Unknown,
}

/// The checks of one stage.
#[derive(Debug)]
pub struct Checks {
    on: ChecksSection,
    names: ParameterNames,
    first_loss: FirstLoss,
    updates: Option<FirstUpdates>,
}

/// What the first updates must show; gone once they have.
#[derive(Debug)]
struct FirstUpdates {
    before: Vec<Fingerprint>,
    had_gradient: Vec<bool>,
    /// Updates with a learning rate above 0.
    n_updates: u64,
    lr_sum: f64,
}

/// Updates after which every trained parameter must have moved. Tensors behind a zero-initialised
/// one have no gradient in the first update, and may need one more.
const UPDATES_TO_MOVE: u64 = 2;

impl Checks {
    /// Remembers what the weights are before the first update.
    pub fn start<M: Module>(
        on: ChecksSection,
        model: &M,
        names: &ParameterNames,
        first_loss: FirstLoss,
    ) -> Self {
        let updates = (on.gradients || on.frozen).then(|| FirstUpdates {
            before: fingerprints(model),
            had_gradient: vec![false; names.len()],
            n_updates: 0,
            lr_sum: 0.0,
        });
        Self { on, names: names.clone(), first_loss, updates }
    }

    /// A step must have something to learn.
    pub fn targets(&self, n_targets: u64, place: StepPlace<'_>) -> Result<()> {
        if self.on.targets && n_targets == 0 {
            return Err(Error::NoTargets { place: place.to_owned() });
        }
        Ok(())
    }

    /// The loss must be finite, and the first one near what the vocabulary allows.
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

    /// Notes which parameters have a gradient; call it before the update takes the gradients.
    pub fn gradients(&mut self, gradients: &Gradients) {
        let Some(updates) = &mut self.updates else { return };
        for (had, is_nonzero) in updates.had_gradient.iter_mut().zip(gradients.are_nonzero()) {
            *had = *had || is_nonzero;
        }
    }

    /// By the second update every trained parameter has had a gradient and moved, and no frozen
    /// one moved.
    pub fn updated<M: Module>(&mut self, model: &M, lr: f64, place: StepPlace<'_>) -> Result<()> {
        let Some(updates) = &mut self.updates else { return Ok(()) };
        updates.n_updates += u64::from(lr > 0.0);
        updates.lr_sum += lr;
        if lr <= 0.0 || updates.n_updates < UPDATES_TO_MOVE {
            return Ok(());
        }
        let problem = updates.find_problem(model, self.on);
        let (idx, problem) = match problem {
            None => {
                self.updates = None;
                return Ok(());
            }
            // One more update for what lies behind a zero.
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
    /// The first parameter in module order that breaks a rule.
    fn find_problem<M: Module>(&self, model: &M, on: ChecksSection) -> Option<(usize, Problem)> {
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
                return Some((idx, Problem::NoGradient));
            }
            if moved {
                continue;
            }
            // Adam moves an element by about the learning rate. Where that is below the spacing of
            // its floats (a gain of 1 in a long warm-up), standing still is no mistake.
            let sizes = sizes.get_or_insert_with(|| max_abs(model));
            let size = f64::from(sizes.get(idx).copied().unwrap_or_default());
            if self.lr_sum > 2.0 * f64::from(f32::EPSILON) * size {
                return Some((idx, Problem::Unmoved));
            }
        }
        None
    }
}
