//! Rules about which tokens may follow, such as a grammar.

/// Decides which tokens may follow in one sequence.
pub trait Constraint: Send {
    /// Sets the logits of ids that must not follow to minus infinity.
    ///
    /// # Errors
    /// The reason, if no id may follow or it cannot be known.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), String>;

    /// Takes a chosen id that does not end the sequence.
    ///
    /// # Errors
    /// The reason, if the id must not follow.
    fn accept(&mut self, id: u32) -> Result<(), String>;
}
