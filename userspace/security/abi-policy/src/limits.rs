//! Every bound of this crate, with its reason.

use nexus_abi::syscall::NUMBERS_MAX;

/// Arguments of a call: what the kernel passes in registers (syscall(2)).
pub const ARGUMENTS: usize = 6;

/// Rules of one profile: a domain's and its subject's, 4096 each. The whole table is some 390 calls; ten rules for each
/// is past what anyone can review.
pub const RULES_MAX: usize = 8192;

/// Conditions of one rule: each argument twice, and the four predicates that the supervisor judges.
pub const CONDITIONS_MAX: usize = 16;

/// Values of one set. A program's ioctl commands or socket options come to some tens; 256 costs at most 512
/// instructions of the 4096 that a filter may have.
pub const SET_MAX: usize = 256;

/// Probed calls of one profile: the whole table.
pub const PROBED_MAX: usize = NUMBERS_MAX as usize;

/// Profiles that are judged together: an administrator's ceiling for the domain and for the subject, the user's own, one to
/// spare, and the floor.
pub const PROFILES_MAX: usize = 5;

/// Patterns that a caller of [`compile`](crate::compile()) wants to see whatever the profiles say. Eight calls are
/// mediated today, socket's twice.
pub const MEDIATED_MAX: usize = 64;

/// Instructions of one filter: the kernel refuses more (`BPF_MAXINSNS`, linux/bpf_common.h).
pub const PROGRAM_MAX: usize = 4096;

/// Steps that a trace keeps. A call rarely has more than ten rules; a reader gives up earlier than this.
pub const TRACE_STEPS_MAX: usize = 64;
