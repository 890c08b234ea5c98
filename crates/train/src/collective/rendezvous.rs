//! A rendezvous of threads: each contributes a value, and all receive the combined result.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A peer exited; waiting would deadlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerExited;

/// A reusable rendezvous of a fixed number of threads.
#[derive(Debug)]
pub(super) struct Rendezvous<T, R> {
    round: Mutex<Round<T, R>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Round<T, R> {
    /// Contributions by rank.
    contributions: Vec<Option<T>>,
    /// The combined result, until every thread has taken it.
    result: Option<R>,
    n_taken: usize,
    peer_exited: bool,
}

impl<T, R: Clone> Rendezvous<T, R> {
    pub(super) fn of(world_size: usize) -> Self {
        let contributions = (0..world_size).map(|_| None).collect();
        let round = Round { contributions, result: None, n_taken: 0, peer_exited: false };
        Self { round: Mutex::new(round), changed: Condvar::new() }
    }

    /// Contributes `mine` and waits for the other threads; the last one to arrive combines all contributions.
    pub(super) fn exchange(
        &self,
        rank: usize,
        mine: T,
        combine: impl FnOnce(Vec<T>) -> R,
    ) -> Result<R, PeerExited> {
        // The previous round ends when every thread has taken its result.
        let mut round = self.wait_while(self.lock(), |round| round.result.is_some())?;
        if let Some(place) = round.contributions.get_mut(rank) {
            *place = Some(mine);
        }
        if round.contributions.iter().all(Option::is_some) {
            let all = round.contributions.iter_mut().filter_map(Option::take).collect();
            round.result = Some(combine(all));
            self.changed.notify_all();
        }
        let mut round = self.wait_while(round, |round| round.result.is_none())?;
        round.n_taken += 1;
        if round.n_taken < round.contributions.len() {
            return round.result.clone().ok_or(PeerExited);
        }
        round.n_taken = 0;
        let result = round.result.take();
        self.changed.notify_all();
        result.ok_or(PeerExited)
    }

    /// Announces that this thread exits; threads that wait get [`PeerExited`].
    pub(super) fn exit(&self) {
        self.lock().peer_exited = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Round<T, R>> {
        // A thread that panics announces its exit when its replica is dropped.
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &self,
        mut round: MutexGuard<'a, Round<T, R>>,
        not_yet: impl Fn(&Round<T, R>) -> bool,
    ) -> Result<MutexGuard<'a, Round<T, R>>, PeerExited> {
        while not_yet(&round) {
            if round.peer_exited {
                return Err(PeerExited);
            }
            round = self.changed.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(round)
    }
}
