//! What a session writes down.

use super::places::Places;
use super::session::Session;
use super::summary;
use super::supervisor::Options;
use super::watch::Watch;
use logd::{Event, Handle, Journal, JournalLimits, Outcome, Recorder, Settings, Summary, SystemClock};
use netd::Denial;
use nexus_abi::{Area, Errno, Operation, Reason, RuleRef};
use nexus_audit::{RateLimit, Record, object_text};
use nexus_policy::{AuditSettings, IpcLimit, OnJournalFailure};
use nexus_sys::counters::SharedCounters;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, Mutex, PoisonError};
use vfsd::VfsdMessage;

/// The session's recorder, with what every record of it says.
pub(crate) struct Records {
    session: &'static Session,
    recorder: Mutex<Option<Recorder>>,
    watch: Mutex<Option<Watch>>,
    handle: Handle,
}

impl Records {
    /// Opens the journal and the counters: whatever keeps them from being written is found here, before the program
    /// starts.
    pub(crate) fn open(session: &'static Session, places: &Places, options: &Options) -> Result<Self, String> {
        let directory = places.journal();
        // Nobody else's business: the names alone say what was run.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|error| format!("cannot make `{}`: {error}", directory.display()))?;
        let failed = |error: &dyn std::error::Error| {
            let source = error.source().map_or_else(String::new, |source| format!(": {source}"));
            format!(
                "the journal in `{}` cannot be written: {error}{source}",
                directory.display()
            )
        };
        let clock = Arc::new(SystemClock);
        let key = logd::load_key(&directory).map_err(|error| failed(&error))?;
        let journal = Journal::open(
            &directory,
            JournalLimits::DEFAULT,
            key,
            Arc::<SystemClock>::clone(&clock),
        )
        .map_err(|error| failed(&error))?;
        let counters = SharedCounters::open(&directory.join("counters")).map_err(|error| failed(&error))?;
        let settings = Settings {
            subject: Arc::clone(&session.subject),
            rate: rate(&session.rules.audit),
        };
        let as_json = options.json;
        let watch = options
            .tells()
            .then(|| Watch::start(move |record: &Record| summary::tell(record, as_json)))
            .transpose()
            .map_err(|error| failed(&error))?;
        let (watch, sink) = watch.unzip();
        let recorder =
            Recorder::start(settings, journal, Arc::new(counters), clock, sink).map_err(|error| failed(&error))?;
        let handle = recorder.handle();
        Ok(Self {
            session,
            recorder: Mutex::new(Some(recorder)),
            watch: Mutex::new(watch),
            handle,
        })
    }

    fn event(&self, op: Operation, object: String, outcome: Outcome, rule: Option<RuleRef>) -> Event {
        let floor = rule.and_then(nexus_abi_policy::floor_rule_name);
        let info = self.session.rule(rule);
        Event {
            subject: Arc::clone(&self.session.subject),
            session: Arc::clone(&self.session.id),
            op,
            object,
            outcome,
            rule: floor
                .map(Into::into)
                .or_else(|| info.as_ref().map(|info| info.id.to_string().into())),
            at: floor
                .map(|_| "built-in".into())
                .or_else(|| info.map(|info| info.at.into())),
            policy: Arc::clone(&self.session.version),
        }
    }

    /// Whether policy gives memory files.
    pub(crate) fn has_memory_files(&self) -> bool {
        self.session.rules.budgets.ipc.value(IpcLimit::Memfd) > 0
    }

    /// A call that was refused.
    pub(crate) fn denied(&self, denial: &Denial) {
        let Denial {
            operation,
            reason,
            errno,
            ..
        } = *denial;
        let rule = denial.rule.or_else(|| self.lack_of_rule(reason));
        let object = object_text(denial.object.as_bytes());
        self.handle
            .record(self.event(operation, object, Outcome::Deny { reason, errno }, rule));
    }

    /// Where a rule would be written that would have allowed it.
    fn lack_of_rule(&self, reason: Reason) -> Option<RuleRef> {
        let rules = &self.session.rules;
        match reason {
            Reason::AbiNoRule | Reason::AbiUnknown => rules.syscalls.iter().next_back().map(|layer| layer.no_rule),
            Reason::EgressNoRule => rules.egress.iter().next_back().map(|layer| layer.no_rule),
            _ => None,
        }
    }

    /// Outside destinations were allowed, so many: counted, not recorded.
    pub(crate) fn egress_allowed(&self, count: u64) {
        if count > 0 {
            self.handle.allowed(&self.session.subject, Operation::Connect, count);
        }
    }

    /// What the file server denied or warned of.
    pub(crate) fn quota(&self, message: &VfsdMessage) {
        match message {
            VfsdMessage::Event(event) => {
                let name = object_text(event.name.as_bytes());
                let object = match event.operation {
                    Operation::Create | Operation::Open => format!("{} {name}", event.area),
                    _ => format!("{} {name} {} bytes", event.area, event.asked),
                };
                self.quota_event(event.area, event.operation, event.reason, object);
            }
            VfsdMessage::Lost {
                area,
                operation,
                reason,
                count,
            } => {
                // Told as a number only because too many came at once; the counters are exact all the same.
                for _ in 0..*count {
                    self.quota_event(*area, *operation, *reason, area.to_string());
                }
            }
        }
    }

    fn quota_event(&self, area: Area, operation: Operation, reason: Reason, object: String) {
        let budget = self.session.rules.budgets.get(area);
        let rule = budget.and_then(|budget| match reason {
            Reason::QuotaSoftBytes => budget.soft_rule,
            Reason::QuotaHardInodes => budget.inodes_rule,
            Reason::VfsOpenFiles => None,
            _ => budget.hard_rule,
        });
        let outcome = match reason {
            Reason::QuotaSoftBytes => Outcome::Warn { reason },
            Reason::VfsOpenFiles => Outcome::Deny {
                reason,
                errno: Errno::ENFILE,
            },
            _ => Outcome::Deny {
                reason,
                errno: Errno::EDQUOT,
            },
        };
        self.handle.record(self.event(operation, object, outcome, rule));
    }

    /// Whether policy wants the program stopped now.
    pub(crate) fn must_stop(&self) -> bool {
        self.session.rules.audit.on_journal_failure == OnJournalFailure::Stop && self.handle.journal_failing()
    }

    /// Everything is written; what there was. Whoever still tells afterwards is counted and not recorded.
    pub(crate) fn finish(&self) -> Summary {
        let recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner).take();
        let done = recorder.map(Recorder::finish).unwrap_or_default();
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watch) = watch {
            watch.finish();
        }
        done
    }
}

/// Policy says how many a second; the limiter thinks in nanoseconds between two.
fn rate(audit: &AuditSettings) -> RateLimit {
    const SECOND_NS: u64 = 1_000_000_000;
    RateLimit {
        burst: u32::try_from(audit.burst).unwrap_or(u32::MAX).max(1),
        interval_ns: SECOND_NS.checked_div(audit.rate).unwrap_or(0),
    }
}
