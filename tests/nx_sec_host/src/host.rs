//! A host without a kernel: the evaluators, records and counters of a session, put together over a probe that makes calls.

use nexus_abi::{Errno, Operation, Reason, RuleRef, Verdict, syscall};
use nexus_abi_policy::{Call, Guard, NoFacts, Request};
use nexus_audit::{Counter, Counters, Judgement, Record, UnixMillis};
use nexus_policy::Policy;
use std::sync::Arc;

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
    /// What was counted.
    pub counters: Counters,
    /// What was recorded, oldest first.
    pub records: Vec<Record>,
}

impl Host {
    /// A host for a subject of a policy.
    ///
    /// # Panics
    /// Where the policy has no such subject.
    #[must_use]
    pub fn new(policy: &Policy, subject: &str) -> Self {
        let rules = policy.subject(subject).expect("a subject of the policy");
        let last = rules.syscalls.iter().next_back().expect("a layer");
        let profiles = rules.profiles_in_force();
        let profiles: Vec<_> = profiles.iter().map(AsRef::as_ref).collect();
        Self {
            guard: Guard::new(&profiles).expect("rules that make a guard"),
            no_rule: last.no_rule,
            policy: policy.clone(),
            subject: subject.into(),
            counters: Counters::new(),
            records: Vec::new(),
        }
    }

    /// Judges a call, records and counts a deny, and says what the probe sees.
    ///
    /// # Panics
    /// For a call that no Linux has.
    pub fn attempt(&mut self, attempt: &Attempt) -> Outcome {
        let number = syscall::number(attempt.call).expect("a known call");
        let request = Request::scalar(Call::native(number, attempt.args));
        match self.guard.judge(&request, &NoFacts) {
            Verdict::Allow { .. } => Outcome {
                errno: None,
                reason: None,
            },
            Verdict::Deny { reason, errno, rule } => {
                let verdict = Judgement::Deny(errno);
                let counter = Counter::of_record(verdict, reason).expect("every deny is counted");
                self.counters.add(&self.subject, counter, 1).expect("room to count");
                let info = self.policy.rule(rule.unwrap_or(self.no_rule));
                self.records.push(Record {
                    mono_ns: 0,
                    time: UnixMillis::new(0),
                    subject: Arc::clone(&self.subject),
                    session: "0123456789ab".into(),
                    op: Operation::Syscall,
                    object: attempt.call.into(),
                    verdict,
                    reason,
                    rule: info.as_ref().map(|info| info.id.to_string().into()),
                    at: info.map(|info| info.at.into()),
                    policy: self.policy.version().to_string().into(),
                    suppressed: 0,
                });
                Outcome {
                    errno: Some(errno),
                    reason: Some(reason),
                }
            }
        }
    }

    /// How many denied calls were counted, whichever rules denied them.
    #[must_use]
    pub fn denies(&self) -> u64 {
        [Counter::AbiDenies, Counter::EgressDenies, Counter::QuotaDenies]
            .into_iter()
            .map(|counter| self.counters.get(&self.subject, counter))
            .sum()
    }
}
