//! How large a policy tree may be. Each bound has its reason beside it and, past it, an error of its own.

/// Bytes of one file. Room for 100,000 egress rules of a line each; what the TOML reader builds from it stays below
/// 256 MiB.
pub const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of all files of a tree together: the texts are kept, to show rules in their source.
pub const TREE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Files of a tree: one per team and matter in a large company, and an include list that nobody wrote by hand stops here.
pub const FILES_MAX: usize = 256;

/// How deep includes nest: root, matter, team and one more; deeper and no reader finds the rule.
pub const INCLUDE_DEPTH_MAX: usize = 4;

/// Bytes of an include's path: `NAME_MAX` of Linux file systems, so that the error comes from here and not from `open`.
pub const INCLUDE_PATH_BYTES_MAX: usize = 255;

/// Lexical tokens of one file: the reader keeps about 60 bytes for each before it builds anything.
pub const TOKENS_MAX: usize = 2_000_000;

/// Brackets within brackets: the deepest the format needs is a list of ports in a table in a list of rules, 3.
pub const NESTING_MAX: usize = 6;

/// Dots of one line outside strings: the deepest header is `[domain.NAME.limits]`; an array of tables on a line has few
/// more. With [`NESTING_MAX`] it bounds the recursion of whoever walks or drops what was read.
pub const LINE_DOTS_MAX: usize = 64;

/// Subjects of a tree: one for each of 10,000 services, and some.
pub const SUBJECTS_MAX: usize = 16_384;

/// Domains of a tree: groups of subjects that people name.
pub const DOMAINS_MAX: usize = 1_024;

/// Bytes of a subject's or domain's name: it becomes a directory's name and stands in every record.
pub const NAME_BYTES_MAX: usize = 64;

/// Rules of a tree, of every kind together: 100,000 egress rules and as many others; a rule's place fits 32 bits.
pub const RULES_MAX: usize = 262_144;

/// Egress rules that bear on one subject, its domain's included: the matcher promises its speed for 100,000.
pub const EGRESS_RULES_PER_SUBJECT_MAX: usize = 131_072;

/// Port ranges of one egress rule: more is a table, not a rule.
pub const PORT_RANGES_PER_RULE_MAX: usize = 64;

/// Rules by name that bear on one subject: each may hold pinned addresses.
pub const NAME_RULES_PER_SUBJECT_MAX: usize = 4_096;

/// Bytes of a DNS name in text form (RFC 1035, section 2.3.4).
pub const DNS_NAME_BYTES_MAX: usize = 253;

/// Syscall rules of one scope after groups are spread out: every call of the kernel with several conditional rules
/// each; a seccomp program holds 4,096 instructions, so the filter's maker will refuse sooner what is not simple.
pub const SYSCALL_RULES_PER_SCOPE_MAX: usize = 4_096;

/// Conditions of one syscall rule: six arguments, each from two sides, and the two that are judged outside the kernel.
pub const CONDITIONS_PER_RULE_MAX: usize = 16;

/// Values of one `in` list: each is a compare instruction in the kernel's filter.
pub const ARG_VALUES_MAX: usize = 128;

/// Paths of one `read` list: each is a mount in every session.
pub const VIEW_PATHS_MAX: usize = 512;

/// Bytes of a path: `PATH_MAX` with its NUL (limits.h).
pub const PATH_BYTES_MAX: usize = 4_095;

/// Entries of one environment list: a login's environment has about 50.
pub const ENV_ENTRIES_MAX: usize = 256;

/// Bytes of a fixed environment value: `PATH_MAX`, for lists of directories.
pub const ENV_VALUE_BYTES_MAX: usize = 4_096;

/// Errors that are told of one tree; whoever mends these sees the next.
pub const DIAGNOSTICS_MAX: usize = 50;

/// The unit in which budgets count: a page, and the block of usual file systems.
pub const BUDGET_BLOCK_BYTES: u64 = 4_096;

/// The largest size that may be written: file offsets are signed 64 bit numbers (`off_t`).
pub const SIZE_BYTES_MAX: u64 = i64::MAX as u64;
