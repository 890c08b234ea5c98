//! Where threads meet: each brings something, and all go on with what was made of it.
//!
//! It deliberately knows neither tensors nor gradients.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Somebody has left: who is waiting would wait for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left;

/// A place to which every one of so many threads comes again and again.
#[derive(Debug)]
pub(super) struct Meeting<T, R> {
    round: Mutex<Round<T, R>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Round<T, R> {
    /// By rank.
    brought: Vec<Option<T>>,
    /// What was made of it, until everybody has it.
    outcome: Option<R>,
    n_taken: usize,
    somebody_left: bool,
}

impl<T, R: Clone> Meeting<T, R> {
    pub(super) fn of(world_size: usize) -> Self {
        let brought = (0..world_size).map(|_| None).collect();
        let round = Round { brought, outcome: None, n_taken: 0, somebody_left: false };
        Self { round: Mutex::new(round), changed: Condvar::new() }
    }

    /// Brings something and waits for the others; whoever comes last makes of it what all get.
    pub(super) fn meet(
        &self,
        rank: usize,
        mine: T,
        combine: impl FnOnce(Vec<T>) -> R,
    ) -> Result<R, Left> {
        // The round before is over once everybody has its outcome.
        let mut round = self.wait_while(self.lock(), |round| round.outcome.is_some())?;
        if let Some(place) = round.brought.get_mut(rank) {
            *place = Some(mine);
        }
        if round.brought.iter().all(Option::is_some) {
            let all = round.brought.iter_mut().filter_map(Option::take).collect();
            round.outcome = Some(combine(all));
            self.changed.notify_all();
        }
        let mut round = self.wait_while(round, |round| round.outcome.is_none())?;
        round.n_taken += 1;
        if round.n_taken < round.brought.len() {
            return round.outcome.clone().ok_or(Left);
        }
        round.n_taken = 0;
        let outcome = round.outcome.take();
        self.changed.notify_all();
        outcome.ok_or(Left)
    }

    /// Says that one of the threads will not come again.
    pub(super) fn leave(&self) {
        self.lock().somebody_left = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Round<T, R>> {
        // Whoever panicked in here says so by leaving.
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &self,
        mut round: MutexGuard<'a, Round<T, R>>,
        not_yet: impl Fn(&Round<T, R>) -> bool,
    ) -> Result<MutexGuard<'a, Round<T, R>>, Left> {
        while not_yet(&round) {
            if round.somebody_left {
                return Err(Left);
            }
            round = self.changed.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(round)
    }
}
