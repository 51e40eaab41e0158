use crate::record::Judgement;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use nexus_abi::{Operation, Reason};
use thiserror::Error;

/// The most subjects that are counted: ten thousand is the largest policy that is tested.
pub const SUBJECTS_MAX: usize = 16_384;

/// What is counted, exactly, for each subject over all its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// Requests refused because of a budget.
    QuotaDenies,
    /// Destinations refused.
    EgressDenies,
    /// Destinations let through.
    EgressAllows,
    /// Syscalls refused.
    AbiDenies,
}

impl Counter {
    /// Every counter, in the order of its [`Counter::index`].
    pub const ALL: [Self; 4] = [
        Self::QuotaDenies,
        Self::EgressDenies,
        Self::EgressAllows,
        Self::AbiDenies,
    ];

    /// The stable name, with one label: `subject`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QuotaDenies => "quota_denies_total",
            Self::EgressDenies => "egress_denies_total",
            Self::EgressAllows => "egress_allows_total",
            Self::AbiDenies => "abi_denies_total",
        }
    }

    /// Its place in a table of counters. Files hold it: it never changes.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::QuotaDenies => 0,
            Self::EgressDenies => 1,
            Self::EgressAllows => 2,
            Self::AbiDenies => 3,
        }
    }

    /// What a request that was let through counts as: a destination, or nothing.
    #[must_use]
    pub const fn of_allow(op: Operation) -> Option<Self> {
        match op {
            Operation::Connect | Operation::Send | Operation::Bind => Some(Self::EgressAllows),
            _ => None,
        }
    }

    /// What a record counts as. By its reason, not by its operation: a `connect` that no syscall rule allows is a
    /// refused syscall. Warnings and notes count as nothing.
    #[must_use]
    pub const fn of_record(verdict: Judgement, reason: Reason) -> Option<Self> {
        if !matches!(verdict, Judgement::Deny(_)) {
            return None;
        }
        match reason {
            Reason::QuotaHardBytes | Reason::QuotaHardInodes | Reason::QuotaSoftBytes => Some(Self::QuotaDenies),
            Reason::EgressNoRule
            | Reason::EgressNameNoRule
            | Reason::EgressControl
            | Reason::EgressDenyRule
            | Reason::EgressSpecialAddress
            | Reason::EgressFamily => Some(Self::EgressDenies),
            Reason::AbiNoRule
            | Reason::AbiDenyRule
            | Reason::AbiArgMismatch
            | Reason::AbiUnknown
            | Reason::AbiForeign => Some(Self::AbiDenies),
            _ => None,
        }
    }
}

/// More than [`SUBJECTS_MAX`] subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("more than {SUBJECTS_MAX} subjects are counted")]
pub struct TooManySubjects;

/// Counters in memory, for tests and for summing up. Those that outlive a session are `nexus_sys`'s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    subjects: BTreeMap<Arc<str>, [u64; Counter::ALL.len()]>,
}

impl Counters {
    /// Nothing counted.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            subjects: BTreeMap::new(),
        }
    }

    /// Counts `n` more.
    ///
    /// # Errors
    /// [`TooManySubjects`], with nothing counted.
    pub fn add(&mut self, subject: &Arc<str>, counter: Counter, n: u64) -> Result<(), TooManySubjects> {
        if !self.subjects.contains_key(subject) && self.subjects.len() >= SUBJECTS_MAX {
            return Err(TooManySubjects);
        }
        let row = self.subjects.entry(Arc::clone(subject)).or_default();
        if let Some(value) = row.get_mut(counter.index()) {
            *value = value.saturating_add(n);
        }
        Ok(())
    }

    /// How many; 0 for a subject that was never counted.
    #[must_use]
    pub fn get(&self, subject: &str, counter: Counter) -> u64 {
        self.subjects
            .get(subject)
            .and_then(|row| row.get(counter.index()))
            .copied()
            .unwrap_or(0)
    }

    /// Every subject with its counters in the order of [`Counter::ALL`], by the bytes of its name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &[u64; Counter::ALL.len()])> {
        self.subjects.iter()
    }
}
