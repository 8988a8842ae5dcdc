//! What watchers of an object are told, and the last of it for those who come back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{config::MAX_WATCHED, handle::Note};

/// The last notes, at most [`MAX_WATCHED`], numbered without a hole.
#[derive(Debug)]
struct Recent<E> {
    /// The number of the first one that is held.
    first: u64,
    notes: VecDeque<Note<E>>,
}

impl<E> Recent<E> {
    fn end(&self) -> u64 {
        self.first + self.notes.len() as u64
    }
}

#[derive(Debug)]
struct Shared<E>(Mutex<Recent<E>>);

impl<E> Shared<E> {
    fn lock(&self) -> MutexGuard<'_, Recent<E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that tells. Watchers are at their end when it is dropped.
#[derive(Debug)]
pub(crate) struct Teller<E> {
    shared: Arc<Shared<E>>,
    end: watch::Sender<u64>,
}

/// Where watchers come from.
#[derive(Debug)]
pub(crate) struct Notes<E> {
    shared: Arc<Shared<E>>,
    end: watch::Receiver<u64>,
}

impl<E> Clone for Notes<E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), end: self.end.clone() }
    }
}

/// Both ends; the first note gets this number. Numbers of a later life are to be greater, so that those of
/// an earlier one are not taken for them.
pub(crate) fn notes<E>(first: u64) -> (Teller<E>, Notes<E>) {
    let shared = Arc::new(Shared(Mutex::new(Recent { first, notes: VecDeque::new() })));
    let (sender, receiver) = watch::channel(first);
    (Teller { shared: Arc::clone(&shared), end: sender }, Notes { shared, end: receiver })
}

impl<E> Teller<E> {
    pub(crate) fn tell(&self, note: Note<E>) {
        let mut recent = self.shared.lock();
        if recent.notes.len() >= MAX_WATCHED {
            recent.notes.pop_front();
            recent.first += 1;
        }
        recent.notes.push_back(note);
        let end = recent.end();
        drop(recent);
        self.end.send_replace(end);
    }
}

impl<E> Notes<E> {
    pub(crate) fn watch(&self, after: Option<u64>) -> Watch<E> {
        let recent = self.shared.lock();
        let is_held = |id: &u64| *id < recent.end() && *id + 1 >= recent.first;
        let held = after.filter(is_held);
        Watch {
            shared: Arc::clone(&self.shared),
            end: self.end.clone(),
            next: held.map_or(recent.end(), |id| id + 1),
            lost: after.is_some() && held.is_none(),
        }
    }
}

/// Notes of an object, from when it was made on, or from the place at which an earlier one ended.
#[derive(Debug)]
pub struct Watch<E> {
    shared: Arc<Shared<E>>,
    end: watch::Receiver<u64>,
    next: u64,
    /// The place to go on from is not known, or too far back.
    lost: bool,
}

impl<E: Clone> Watch<E> {
    /// The next note with its number, which is greater than those of earlier runs; none once the object is
    /// closed. A [`Note::Lagged`] has the number 0. Cancel-safe.
    pub async fn next(&mut self) -> Option<(u64, Note<E>)> {
        if std::mem::take(&mut self.lost) {
            return Some((0, Note::Lagged(0)));
        }
        loop {
            self.end.borrow_and_update();
            if let Some(note) = self.held() {
                return Some(note);
            }
            if self.end.changed().await.is_err() {
                // What was told last is still there.
                return self.held();
            }
        }
    }

    fn held(&mut self) -> Option<(u64, Note<E>)> {
        let recent = self.shared.lock();
        if self.next < recent.first {
            let missed = recent.first - self.next;
            self.next = recent.first;
            return Some((0, Note::Lagged(missed)));
        }
        let place = usize::try_from(self.next - recent.first).ok()?;
        let note = recent.notes.get(place)?.clone();
        let number = self.next;
        self.next += 1;
        Some((number, note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A note, told apart by how many it says were missed.
    fn note(n: u64) -> Note<()> {
        Note::Lagged(n)
    }

    async fn told(watch: &mut Watch<()>) -> Option<(u64, u64)> {
        let (number, note) = watch.next().await?;
        let Note::Lagged(n) = note else { panic!("{note:?}") };
        Some((number, n))
    }

    #[tokio::test]
    async fn who_comes_back_goes_on_where_it_was() {
        let (teller, notes) = notes(100);
        let mut watch = notes.watch(None);
        for n in 1..=5 {
            teller.tell(note(n));
        }
        assert_eq!(told(&mut watch).await, Some((100, 1)), "from when it was made");
        let mut back = notes.watch(Some(102));
        assert_eq!(told(&mut back).await, Some((103, 4)));
        assert_eq!(told(&mut back).await, Some((104, 5)));
        let mut last = notes.watch(Some(104));
        teller.tell(note(6));
        assert_eq!(told(&mut last).await, Some((105, 6)));
        drop(teller);
        assert_eq!(told(&mut last).await, None);
        assert_eq!(told(&mut back).await, Some((105, 6)), "and then the end");
        assert_eq!(told(&mut back).await, None);
    }

    #[tokio::test]
    async fn places_that_are_unknown_or_gone_are_told() {
        let (teller, notes) = notes(100);
        teller.tell(note(1));
        for unknown in [0, 98, 500, u64::MAX] {
            let mut watch = notes.watch(Some(unknown));
            assert_eq!(told(&mut watch).await, Some((0, 0)), "{unknown}");
            teller.tell(note(7));
            assert_eq!(told(&mut watch).await.map(|(_, n)| n), Some(7));
        }
        let mut slow = notes.watch(Some(100));
        for n in 0..MAX_WATCHED as u64 {
            teller.tell(note(n + 10));
        }
        assert_eq!(told(&mut slow).await, Some((0, 4)), "what is not held any more");
        assert_eq!(told(&mut slow).await, Some((105, 10)));
    }
}
