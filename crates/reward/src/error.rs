//! What can stop the training of a reward model; each part says so itself.

/// The result of the stage.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the stage stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Training, its files or its checks.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// Measuring on what is held out.
    #[error(transparent)]
    Evaluate(#[from] evaluate::Error),
    /// Writing `model/`.
    #[error(transparent)]
    Export(#[from] export::Error),
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Train(error) => error.hint(),
            Self::Evaluate(error) => error.hint(),
            Self::Export(error) => error.hint(),
        }
    }
}
