//! The second fence around the view: Landlock, landlock(7), where the kernel has it.
//!
//! The view already holds nothing else. The fence holds what the view cannot: a descriptor that came from outside
//! cannot be opened again for more than it was given, and signals and abstract sockets end at the sandbox's edge.

use crate::ipc::Held;
use crate::plan::{Access, Entry, Fence, Plan};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

// The newest interface that this code was written against; older kernels get what they have.
const NEWEST: ABI = ABI::V6;

/// Fences the calling process in. Returns an error where the kernel refuses what it says it has.
pub(crate) fn apply(plan: &Plan, standard: [BorrowedFd<'_>; 3], held: &Held) -> Result<(), RulesetError> {
    let everything = AccessFs::from_all(NEWEST);
    // Each right that is fenced is looked up at each open that needs it, up to the root.
    let lean = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Truncate;
    let fenced = if plan.fence == Fence::Everything {
        everything
    } else {
        everything & !lean
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(fenced)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    // All of the view may be read and started: it holds nothing else. What a descriptor from outside leads to is not
    // below this root, wherever it is mounted on the host.
    rules = allow(rules, "/", AccessFs::from_read(NEWEST) & fenced)?;
    for entry in &plan.view {
        let at = entry.at();
        let access = match entry {
            Entry::Bind {
                access: Access::ReadWrite,
                ..
            }
            | Entry::Pin {
                access: Access::ReadWrite,
                ..
            }
            | Entry::PinArea {
                access: Access::ReadWrite,
                ..
            }
            | Entry::Area { .. } => everything,
            Entry::Bind { .. }
            | Entry::Pin { .. }
            | Entry::PinArea { .. }
            | Entry::File { .. }
            | Entry::Copy { .. }
            | Entry::Directory { .. }
            | Entry::Link { .. }
            | Entry::Hide { .. } => continue,
            Entry::Device { .. } | Entry::Terminals => {
                AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::IoctlDev | AccessFs::Truncate
            }
            Entry::Processes => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::Truncate,
        };
        rules = allow(rules, &at, access & fenced)?;
    }
    // No path leads to memory files and POSIX queues, and Landlock would refuse what it cannot see the way to.
    for root in [&held.memory, &held.queues].into_iter().flatten() {
        rules = rules.add_rule(PathBeneath::new(root, everything & fenced))?;
    }
    for fd in standard {
        if let Some(access) = reopen_access(fd)
            .map(|access| access & fenced)
            .filter(|access| !access.is_empty())
        {
            rules = rules.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    rules.restrict_self().map(drop)
}

/// What the kernel said; `EINVAL` where it was not asked, because the rules make no sense.
pub(crate) fn errno_of(error: &RulesetError) -> i32 {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(errno) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
        {
            return errno;
        }
        cause = error.source();
    }
    Errno::INVAL.raw_os_error()
}

fn allow(
    rules: RulesetCreated,
    at: impl AsRef<std::path::Path>,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(at.as_ref()) {
        // What takes only files' rights is told by the kernel; the crate trims directories' rights off files.
        Ok(fd) => rules.add_rule(PathBeneath::new(fd, access)),
        // Not there: nothing to open up.
        Err(_) => Ok(rules),
    }
}

/// What opening `/proc/self/fd/N` again may ask for: no more than the descriptor can do.
fn reopen_access(fd: BorrowedFd<'_>) -> Option<BitFlags<AccessFs>> {
    let stat = rustix::fs::fstat(fd).ok()?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::CharacterDevice) {
        // Pipes and sockets have no path to fence.
        return None;
    }
    let flags = rustix::fs::fcntl_getfl(fd).ok()?;
    let device: BitFlags<AccessFs> = if kind == FileType::CharacterDevice {
        AccessFs::IoctlDev.into()
    } else {
        BitFlags::EMPTY
    };
    // An appending descriptor cannot overwrite; opened again for writing it could.
    let write = if flags.contains(OFlags::APPEND) && kind == FileType::RegularFile {
        BitFlags::EMPTY
    } else {
        AccessFs::WriteFile | AccessFs::Truncate
    };
    let access = if flags.contains(OFlags::RDWR) {
        BitFlags::from(AccessFs::ReadFile) | write
    } else if flags.contains(OFlags::WRONLY) {
        write
    } else {
        AccessFs::ReadFile.into()
    };
    // A rule that gives nothing is one that the kernel refuses.
    let access = access | device;
    (!access.is_empty()).then_some(access)
}

/// Whether the kernel has Landlock and it is switched on. landlock_create_ruleset(2), Linux 5.13.
#[must_use]
pub fn landlock_available() -> bool {
    has(AccessFs::Execute)
}

/// Whether Landlock keeps a descriptor from being opened again for more than it was given: before Linux 6.2 it lets a file
/// be cut that may not be written, by truncate(2) or by `O_TRUNC` alone.
#[must_use]
pub fn landlock_holds_descriptors() -> bool {
    has(AccessFs::Truncate)
}

fn has(access: AccessFs) -> bool {
    // A rule set that must be understood: where it is not, there is none to be had.
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(access)
        .and_then(Ruleset::create)
        .is_ok()
}
