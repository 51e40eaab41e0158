//! A host without a kernel: the evaluators that enforce and the recorder that counts and writes, put together over a probe that
//! makes calls. What is counted and recorded is what that recorder made of it, read back from its files.

use logd::{Event, Handle, Journal, JournalLimits, Outcome as Told, Recorder, Settings, SystemClock};
use nexus_abi::{Errno, Operation, Reason, RuleRef, Verdict, syscall};
use nexus_abi_policy::{Call, Guard, NoFacts, Request};
use nexus_audit::{Counter, RateLimit, Record};
use nexus_policy::Policy;
use nexus_sys::counters::{CounterReader, SharedCounters};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A call that a probe makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its name.
    pub call: &'static str,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The errno that the probe sees; `None` if the call was let through.
    pub errno: Option<Errno>,
    /// Why.
    pub reason: Option<Reason>,
}

/// A subject, with what judges and writes down.
#[derive(Debug)]
pub struct Host {
    policy: Policy,
    subject: Arc<str>,
    guard: Guard,
    no_rule: RuleRef,
    place: TempDir,
    recorder: Recorder,
    handle: Handle,
}

impl Host {
    /// A host for a subject of a policy.
    ///
    /// # Panics
    /// Where the policy has no such subject, or nothing can be written down.
    #[must_use]
    pub fn new(policy: &Policy, subject: &str) -> Self {
        let rules = policy.subject(subject).expect("a subject of the policy");
        let last = rules.syscalls.iter().next_back().expect("a layer");
        let profiles = rules.profiles_in_force();
        let profiles: Vec<_> = profiles.iter().map(AsRef::as_ref).collect();
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("journal");
        let key = logd::load_key(&directory).expect("a key");
        let clock = Arc::new(SystemClock);
        let journal = Journal::open(
            &directory,
            JournalLimits::DEFAULT,
            key,
            Arc::<SystemClock>::clone(&clock),
        )
        .expect("a journal");
        let counters = SharedCounters::open(&directory.join("counters")).expect("counters");
        let settings = Settings {
            subject: subject.into(),
            // As in a proof: nothing is held back.
            rate: RateLimit {
                burst: u32::MAX,
                interval_ns: 0,
            },
        };
        let recorder = Recorder::start(settings, journal, Arc::new(counters), clock, None).expect("a recorder");
        Self {
            guard: Guard::new(&profiles).expect("rules that make a guard"),
            no_rule: last.no_rule,
            policy: policy.clone(),
            subject: subject.into(),
            handle: recorder.handle(),
            recorder,
            place,
        }
    }

    fn journal(&self) -> PathBuf {
        self.place.path().join("journal")
    }

    /// Judges a call, tells the recorder, and says what the probe sees.
    ///
    /// # Panics
    /// For a call that no Linux has.
    #[must_use]
    pub fn attempt(&self, attempt: &Attempt) -> Outcome {
        let number = syscall::number(attempt.call).expect("a known call");
        let request = Request::scalar(Call::native(number, attempt.args));
        let verdict = self.guard.judge(&request, &NoFacts);
        let (outcome, rule) = match verdict {
            Verdict::Allow { rule } => ((None, None), rule),
            Verdict::Deny { reason, errno, rule } => ((Some(errno), Some(reason)), Some(rule.unwrap_or(self.no_rule))),
        };
        let info = rule.and_then(|rule| self.policy.rule(rule));
        self.handle.record(Event {
            subject: Arc::clone(&self.subject),
            session: "0123456789ab".into(),
            op: Operation::Syscall,
            object: attempt.call.to_owned(),
            outcome: Told::from(verdict),
            rule: info.as_ref().map(|info| info.id.to_string().into()),
            at: info.map(|info| info.at.into()),
            policy: self.policy.version().to_string().into(),
        });
        let (errno, reason) = outcome;
        Outcome { errno, reason }
    }

    /// What the counters' file says now, in the order of [`Counter::ALL`].
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn counted(&self) -> Vec<u64> {
        let reader = CounterReader::open(&self.journal().join("counters")).expect("the counters");
        let rows = reader.expect("counters").read_all().expect("whole counters");
        let row = rows
            .into_iter()
            .find(|(name, _)| **name == *self.subject)
            .map(|(_, row)| row);
        let row = row.expect("the subject's counters are there before it begins");
        Counter::ALL.map(|counter| row[counter.index()]).to_vec()
    }

    /// Ends the host: the records that are in its journal, whose chain holds, oldest first.
    ///
    /// # Panics
    /// Where it cannot be read, or does not hold.
    #[must_use]
    pub fn records(self) -> Vec<Record> {
        let directory = self.journal();
        let Self { recorder, place, .. } = self;
        drop(recorder.finish());
        logd::verify(&directory, None).expect("a chain that holds");
        let entries = logd::read(&directory, logd::Filter::default()).expect("a journal");
        let records = entries.map(|entry| entry.expect("a whole record").record);
        // A file's first line is of no call.
        let records = records.filter(|record| record.reason != Reason::JournalStart).collect();
        drop(place);
        records
    }
}
