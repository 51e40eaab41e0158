//! What each subject uses, asked of its file server beside the view: one that is stopped takes two seconds to find out.

use super::gather::unknown;
use super::model::Usage;
use crate::run::{Exit, Failure, Places};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// What the view asks, and what was found.
#[derive(Default)]
struct Shared {
    board: Mutex<Board>,
    changed: Condvar,
}

#[derive(Default)]
struct Board {
    /// Whom to ask for; taken by the asker. `None` once it was.
    wanted: Option<Vec<String>>,
    found: BTreeMap<String, Usage>,
}

/// The view's side.
pub(super) struct Usages {
    shared: Arc<Shared>,
}

impl Usages {
    /// Starts the asker, which ends with the process.
    pub(super) fn start(places: &Places) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::default());
        let (asker, places) = (Arc::clone(&shared), places.clone());
        std::thread::Builder::new()
            .name("usage".to_owned())
            .spawn(move || ask_for_ever(&asker, &places))
            .map_err(|error| Failure::new(Exit::Internal, format!("cannot start a thread: {error}")))?;
        Ok(Self { shared })
    }

    /// What is known of these by now; has them asked for anew.
    pub(super) fn of(&self, subjects: Vec<String>) -> BTreeMap<String, Usage> {
        let mut board = self.shared.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.found.retain(|name, _| subjects.binary_search(name).is_ok());
        board.wanted = Some(subjects);
        self.shared.changed.notify_all();
        board.found.clone()
    }

    /// What is known of these, asked for by [`Usages::of`], once it is known of all, or by then.
    pub(super) fn all_of(&self, subjects: &[String], until: Instant) -> BTreeMap<String, Usage> {
        let board = self.shared.board.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        let lacks = |board: &mut Board| subjects.iter().any(|name| !board.found.contains_key(name));
        let waited = self.shared.changed.wait_timeout_while(board, left, lacks);
        waited.unwrap_or_else(PoisonError::into_inner).0.found.clone()
    }
}

fn ask_for_ever(shared: &Shared, places: &Places) {
    loop {
        let wanted = {
            let board = shared.board.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = shared.changed.wait_while(board, |board| board.wanted.is_none());
            waited.unwrap_or_else(PoisonError::into_inner).wanted.take()
        };
        for subject in wanted.unwrap_or_default() {
            let usage = ask(places, &subject);
            let mut board = shared.board.lock().unwrap_or_else(PoisonError::into_inner);
            board.found.insert(subject, usage);
            shared.changed.notify_all();
        }
    }
}

fn ask(places: &Places, subject: &str) -> Usage {
    match vfsd::look(&places.state, &places.runtime, subject) {
        Ok(Some(usage)) => Usage::Known(usage),
        Ok(None) => unknown("its file server does not run"),
        Err(error) => unknown(format!("its file server does not say: {error}")),
    }
}
