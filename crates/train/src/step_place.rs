//! The step and samples that error messages name.

use std::fmt;

/// The current step and its samples, for messages.
#[derive(Clone, Copy, Debug)]
pub struct StepPlace<'a> {
    /// 1-based number of the update.
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

/// The step at which a check failed; displays as `step 12, samples 3, 17, 40 and 5 more`.
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
