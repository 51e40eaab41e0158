//! The policy tree: from TOML to what each subject may do.
//!
//! # The tree
//! A directory whose root is `nexus.policy.toml`. It says `version = 1`, includes other files, and declares domains and
//! subjects. Every other file speaks of one matter, which its name says: `quotas.toml`, `egress.toml`, `abi.toml`,
//! `sandbox.toml`, or `WORD.MATTER.toml`; `WORD.policy.toml` declares more domains and subjects. Any file may include
//! others, by paths relative to its directory, beside or below it. Every file is included once, and each matter of a domain
//! or subject stands in one file.
//!
//! # What counts
//! A subject is in one domain or none. What it may do comes from both:
//! - **egress** and **syscalls**: the rules of both together. Deny beats allow, wherever either stands, then the matcher's
//!   own order; the lack of a rule denies.
//! - **quotas**: key by key (`soft`, `hard`, `inodes` of each area, and the limits of `ipc`): the subject's, else the
//!   domain's. Nothing given means that nothing may be written, or had.
//! - **sandbox**: key by key, the subject's, else the domain's; a list replaces the whole list. `env_set` is replaced
//!   variable by variable, `fds`, `limits` and `audit` key by key. Nothing given means the narrow thing: no path, no
//!   variable, no device, no `work`, no odd descriptors, stop when the journal fails; but no limit of memory, processes
//!   or files.
//!
//! # Ceilings
//! [`Policy::under_ceiling`] puts an administrator's tree over a user's. Then something is allowed only if both allow it:
//! egress, syscalls, paths and variables are judged by both ([`Layers`]), budgets and limits are the lower of both.
//!
//! # Versions and rules
//! [`Policy::version`] is the hash of the canonical JSON of what the tree declares: no comments, no order, no spelling, no
//! files. Groups of syscalls stand in it by name. Each rule has an id of the same kind ([`RuleId`]) and a place.
//!
//! This crate reads no file and no environment: a [`TreeSource`] gives it bytes.
#![forbid(unsafe_code)]

mod abi;
mod conditions;
mod constants;
mod diagnostic;
mod diff;
mod document;
mod effective;
mod egress;
mod explain;
mod fields;
mod gate;
mod ipc;
mod json;
mod layers;
pub mod limits;
mod names;
mod paths;
mod policy;
mod profile_id;
mod quotas;
mod rules;
mod sandbox;
mod scope;
mod settings;
mod size;
mod snapshot;
mod source;
mod tree;
mod tree_rules;

pub use constants::constants;
pub use diagnostic::{Code, Diagnostic, Diagnostics, FileId, Place, Related, SourceFile, Sources, SpanBytes};
pub use diff::{Change, Diff, DiffError, SubjectDiff, Where};
pub use effective::{
    AUDIT_BURST_DEFAULT, AUDIT_RATE_DEFAULT, AreaBudget, AuditSettings, Budgets, EgressLayer, EnvDecision,
    InheritedFds, Limit, Limits, SubjectPolicy, SyscallLayer,
};
pub use egress::BindRule;
pub use explain::{Considered, EXPLAIN_STEPS_MAX, ExplainError, Explanation, Judged, Question, parse_argument};
pub use gate::{EgressFacts, EgressGate, NameGrants};
pub use ipc::{IpcBudget, IpcLimit};
pub use layers::Layers;
pub use names::{NamePattern, NameRule};
pub use nexus_snapshot::{DecodeError, SNAPSHOT_BYTES_MAX, TreeHash};
pub use policy::{NoSubject, Policy, PolicyVersion};
pub use profile_id::ProfileId;
pub use rules::{RuleId, RuleInfo, RuleKind};
pub use scope::ANY_SUBJECT;
pub use settings::{Device, EnvPattern, OnJournalFailure, ViewPath, WorkMode};
pub use size::{parse_size, render_size};
pub use snapshot::{SnapshotError, is_fresh};
pub use source::{MemoryTree, ROOT_FILE, ReadError, TreeSource};
