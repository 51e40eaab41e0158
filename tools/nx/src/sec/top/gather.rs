//! Looking at what changes: nothing here waits for anybody whom the view must not wait for.

use super::model::{Journal, Model, Usage};
use super::usage::Usages;
use crate::run::Failure;
use crate::sec::lost::{self, Recorded};
use crate::sec::{counters, journal, output, ps};
use logd::{Filter, Followed, Follower};
use nexus_audit::Counter;
use std::collections::BTreeMap;
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
    /// Whether the last try to follow the journal failed.
    failed: bool,
    /// What of the journal cannot be read, as long as it is followed.
    partly: Option<String>,
    /// What the journal has of each counter, as far as it was read.
    recorded: Recorded,
    /// What cannot be told of who runs.
    unseen: Vec<String>,
}

impl Gather {
    pub(super) fn start() -> Result<Self, Failure> {
        Ok(Self {
            usages: Usages::start(&output::places()?)?,
            follower: None,
            followed_at: None,
            failed: false,
            partly: None,
            recorded: Recorded::new(),
            unseen: Vec::new(),
        })
    }

    /// Readable when the journal has more.
    pub(super) fn journal(&self) -> Option<BorrowedFd<'_>> {
        self.follower.as_ref().map(Follower::as_fd)
    }

    /// Who runs, and the counters.
    pub(super) fn look(&mut self, model: &mut Model) {
        let mut troubles = Vec::new();
        for subject in model.subjects.values_mut() {
            (subject.sessions, subject.wrong) = (0, None);
        }
        (model.sessions_unknown, model.in_doubt) = (false, 0);
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
                model.in_doubt = listing.troubles.len();
                for trouble in &listing.troubles {
                    troubles.push(format!("session {}: {}", trouble.session, trouble.why));
                }
            }
            Err(failure) => {
                model.sessions_unknown = true;
                troubles.push(format!("unknown who runs: {}", failure.message));
            }
        }
        self.unseen = troubles;
        self.count(model);
        let known = self.usages.of(running(model));
        used(model, known);
    }

    /// The counters, held to what was read of the journal before: of each deny that is written down a counter was stepped.
    pub(super) fn count(&self, model: &mut Model) {
        let mut troubles = self.unseen.clone();
        for subject in model.subjects.values_mut() {
            subject.denies = None;
        }
        match counters::all() {
            Ok(rows) => {
                let lost = lost::lost(&rows, &self.recorded);
                for (name, values) in rows {
                    let of = |counter: Counter| values.get(counter.index()).copied().unwrap_or(0);
                    let subject = model.subjects.entry(name).or_default();
                    subject.denies = Some([
                        of(Counter::QuotaDenies),
                        of(Counter::EgressDenies),
                        of(Counter::AbiDenies),
                    ]);
                }
                let mut less = 0_usize;
                for lost in lost {
                    let subject = model.subjects.entry(lost.subject).or_default();
                    if subject.denies.take().is_some() {
                        less = less.saturating_add(1);
                    }
                }
                if less > 0 {
                    troubles.push(format!(
                        "counts unknown: the counter file says less than the journal of {less} of the subjects: `nx sec counters` says what"
                    ));
                }
                // A session's row is there before its program is: where it is not, the file was taken away or begun again.
                let uncounted = model
                    .subjects
                    .values()
                    .filter(|subject| subject.denies.is_none())
                    .count()
                    .saturating_sub(less);
                if uncounted > 0 {
                    troubles.push(format!(
                        "counts unknown: the counter file has nothing of {uncounted} of the subjects: somebody removed or replaced it"
                    ));
                }
            }
            Err(failure) => troubles.push(format!("counts unknown: {}", failure.message)),
        }
        model.troubles = troubles;
    }

    /// Waits until every file server said what is used, or until then.
    pub(super) fn settle(&self, model: &mut Model, until: Instant) {
        let running = running(model);
        let mut known = self.usages.all_of(&running, until);
        for name in running {
            known
                .entry(name)
                .or_insert_with(|| unknown("its file server did not say in time"));
        }
        used(model, known);
    }

    /// Takes in what the journal has, for a moment; whether there is more to read at once.
    pub(super) fn read(&mut self, model: &mut Model) -> bool {
        let until = Instant::now() + READ_AT_ONCE;
        if let Err(trouble) = self.open(model) {
            self.give_up(model, trouble);
            return false;
        }
        let Some(follower) = &mut self.follower else {
            return false;
        };
        if let Err(error) = follower.look() {
            self.give_up(model, Some(journal::whole(&error)));
            return false;
        }
        while Instant::now() < until {
            match follower.read_next() {
                Ok(Some(Followed::Entry(entry))) => {
                    lost::add(&mut self.recorded, &entry.record);
                    // A file's first line is no news to anybody.
                    if entry.record.reason != nexus_abi::Reason::JournalStart {
                        model.record(*entry);
                    }
                }
                Ok(Some(Followed::Unreadable(unreadable))) => self.partly = Some(unreadable.to_string()),
                Ok(Some(Followed::Gap { after, next })) => {
                    self.partly = Some(format!("the journal has nothing between records {after} and {next}"));
                }
                Ok(None) => {
                    let first = model.journal == Journal::Reading;
                    model.journal = self.partly.clone().map_or(Journal::Read, Journal::Partly);
                    if first {
                        // What was counted was looked at before any of it was read.
                        self.count(model);
                    }
                    return false;
                }
                Err(error) => {
                    self.give_up(model, Some(journal::whole(&error)));
                    return false;
                }
            }
        }
        true
    }

    fn open(&mut self, model: &mut Model) -> Result<(), Option<String>> {
        let now = Instant::now();
        let waits = |at: Instant| now.saturating_duration_since(at) < TRY_AGAIN;
        if self.follower.is_some() || self.failed && self.followed_at.is_some_and(waits) {
            return Ok(());
        }
        self.followed_at = Some(now);
        let directory = journal::directory().map_err(|failure| Some(failure.message))?;
        match logd::follow(&directory, Filter::default()) {
            Ok(follower) => {
                // What was there before is read again from its start.
                model.records.clear();
                self.recorded.clear();
                model.journal = Journal::Reading;
                (self.follower, self.failed, self.partly) = (Some(follower), false, None);
                Ok(())
            }
            // Nothing ever ran: it will be made.
            Err(error) if journal::is_absent(&error) => Err(None),
            Err(error) => Err(Some(journal::whole(&error))),
        }
    }

    /// Without a trouble where there is no journal, which is as it should be as long as nobody runs.
    fn give_up(&mut self, model: &mut Model, trouble: Option<String>) {
        self.follower = None;
        self.failed = trouble.is_some();
        model.journal = match trouble {
            Some(why) => Journal::Unknown(format!("the journal cannot be followed: {why}")),
            None if model.subjects.is_empty() && journal::never_was().is_ok() => Journal::Absent,
            None => Journal::Unknown(
                "there is no journal, and something runs, ran or was counted here: somebody removed it".to_owned(),
            ),
        };
    }
}

/// The subjects of which a session runs, in order.
fn running(model: &Model) -> Vec<String> {
    let running = model.subjects.iter().filter(|(_, subject)| subject.sessions > 0);
    running.map(|(name, _)| name.clone()).collect()
}

fn used(model: &mut Model, mut known: BTreeMap<String, Usage>) {
    for (name, subject) in &mut model.subjects {
        subject.usage = known.remove(name).filter(|_| subject.sessions > 0);
    }
}

/// For the one that looks at usage beside the view.
pub(super) fn unknown(why: impl ToString) -> Usage {
    Usage::Unknown(why.to_string())
}
