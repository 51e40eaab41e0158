//! Looking at what changes: nothing here waits for anybody whom the view must not wait for.

use super::model::{Model, Usage};
use super::usage::Usages;
use crate::run::Failure;
use crate::sec::{counters, journal, output, ps};
use logd::{Filter, Followed, Follower};
use nexus_audit::Counter;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long the journal may be read at once: the keys have an answer within that.
const READ_AT_ONCE: Duration = Duration::from_millis(50);

/// How long after a journal could not be followed it is tried again: a stopped process may hold its lock, and asking for
/// that takes a second.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Where everything comes from.
pub(super) struct Gather {
    usages: Usages,
    follower: Option<Follower>,
    followed_at: Option<Instant>,
    /// What was wrong with the journal at the last try.
    journal_trouble: Option<String>,
}

impl Gather {
    pub(super) fn start() -> Result<Self, Failure> {
        Ok(Self {
            usages: Usages::start(&output::places()?)?,
            follower: None,
            followed_at: None,
            journal_trouble: None,
        })
    }

    /// Readable when the journal has more.
    pub(super) fn journal(&self) -> Option<BorrowedFd<'_>> {
        self.follower.as_ref().map(Follower::as_fd)
    }

    /// Who runs, and the counters.
    pub(super) fn look(&mut self, model: &mut Model) {
        let mut troubles: Vec<String> = self.journal_trouble.iter().cloned().collect();
        for subject in model.subjects.values_mut() {
            (subject.sessions, subject.wrong) = (0, None);
        }
        match output::places().and_then(|places| ps::sessions(&places)) {
            Ok(listing) => {
                for live in &listing.live {
                    let subject = model.subjects.entry(live.facts.subject.clone()).or_default();
                    subject.sessions = subject.sessions.saturating_add(1);
                    let state = ps::state(live);
                    if matches!(state, "supervisor-stopped" | "unfiltered") {
                        subject.wrong = Some(state);
                    }
                }
                for trouble in &listing.troubles {
                    troubles.push(format!("session {}: {}", trouble.session, trouble.why));
                }
            }
            Err(failure) => troubles.push(failure.message),
        }
        match counters::all() {
            Ok(rows) => {
                for (name, values) in rows {
                    let of = |counter: Counter| values.get(counter.index()).copied().unwrap_or(0);
                    let subject = model.subjects.entry(name).or_default();
                    subject.denies = [
                        of(Counter::QuotaDenies),
                        of(Counter::EgressDenies),
                        of(Counter::AbiDenies),
                    ];
                }
            }
            Err(failure) => troubles.push(failure.message),
        }
        let running: Vec<String> = model
            .subjects
            .iter()
            .filter(|(_, subject)| subject.sessions > 0)
            .map(|(name, _)| name.clone())
            .collect();
        let known = self.usages.of(running);
        for (name, subject) in &mut model.subjects {
            subject.usage = if subject.sessions > 0 {
                known.get(name).cloned()
            } else {
                None
            };
        }
        model.troubles = troubles;
    }

    /// Takes in what the journal has, for a moment; whether there is more to read at once.
    pub(super) fn read(&mut self, model: &mut Model) -> bool {
        let until = Instant::now() + READ_AT_ONCE;
        if let Err(trouble) = self.open(model) {
            self.give_up(trouble);
            return false;
        }
        let Some(follower) = &mut self.follower else {
            return false;
        };
        if let Err(error) = follower.look() {
            self.give_up(Some(journal::whole(&error)));
            return false;
        }
        while Instant::now() < until {
            match follower.read_next() {
                Ok(Some(Followed::Entry(entry))) => {
                    // A file's first line is no news to anybody.
                    if entry.record.reason != nexus_abi::Reason::JournalStart {
                        model.record(*entry);
                    }
                }
                Ok(Some(Followed::Unreadable(unreadable))) => self.journal_trouble = Some(unreadable.to_string()),
                Ok(Some(Followed::Gap { after, next })) => {
                    self.journal_trouble = Some(format!("the journal has nothing between records {after} and {next}"));
                }
                Ok(None) => {
                    model.reading = false;
                    return false;
                }
                Err(error) => {
                    self.give_up(Some(journal::whole(&error)));
                    return false;
                }
            }
        }
        true
    }

    fn open(&mut self, model: &mut Model) -> Result<(), Option<String>> {
        let now = Instant::now();
        let waits = |at: Instant| now.saturating_duration_since(at) < TRY_AGAIN;
        if self.follower.is_some() || self.journal_trouble.is_some() && self.followed_at.is_some_and(waits) {
            return Ok(());
        }
        self.followed_at = Some(now);
        let directory = journal::directory().map_err(|failure| Some(failure.message))?;
        match logd::follow(&directory, Filter::default()) {
            Ok(follower) => {
                // What was there before is read again from its start.
                model.records.clear();
                model.reading = true;
                (self.follower, self.journal_trouble) = (Some(follower), None);
                Ok(())
            }
            // Nothing ever ran: it will be made.
            Err(error) if journal::is_absent(&error) => Err(None),
            Err(error) => Err(Some(journal::whole(&error))),
        }
    }

    fn give_up(&mut self, trouble: Option<String>) {
        self.follower = None;
        self.journal_trouble = trouble.map(|why| format!("the journal cannot be followed: {why}"));
    }
}

/// For the one that looks at usage beside the view.
pub(super) fn unknown(why: impl ToString) -> Usage {
    Usage::Unknown(why.to_string())
}
