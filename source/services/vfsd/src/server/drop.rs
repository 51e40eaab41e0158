//! What the file server gives up before it looks at anything that the program made.

use std::os::fd::{AsFd, BorrowedFd};

use nexus_sys::signal::{SignalSet, set_default, set_ignored, set_mask};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::Identity;
use crate::fs::Limits;

/// Descriptors for neither inodes nor open files: sessions, the device, the walk of a scan.
const DESCRIPTORS_RESERVED: u64 = 1024;

/// More handles on inodes than this gain nothing.
const NODE_HANDLES_MAX: u64 = 1 << 16;

/// More open files than this a subject's programs do not have; one session has half of it at most, three quarters while it is alone. It bounds the handles on
/// inodes that have no name and are open as well.
const FILE_HANDLES_MAX: u64 = 1 << 16;

/// Linux numbers signals to 64.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

/// `SIGPIPE` and `SIGXFSZ` (signal(7)): both come as errors instead.
const IGNORED: [i32; 2] = [13, 25];

/// Leaves the starter's session, signal handling, descriptors, working directory and umask.
pub(crate) fn leave_starter(keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    // Fails only for a group's leader, which a fresh child is not.
    let _ = rustix::process::setsid();
    for signal in SIGNALS {
        // Ignoring drops what is pending: it was for the starter's process group, and other sessions will come here.
        set_ignored(signal);
        set_default(signal);
    }
    for signal in IGNORED {
        set_ignored(signal);
    }
    let _ = set_mask(&SignalSet::empty());
    rustix::process::umask(Mode::empty());
    let null = rustix::fs::openat(CWD, c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    rustix::stdio::dup2_stderr(null.as_fd())?;
    drop(null);
    nexus_sys::process::close_all_but(3, keep).map_err(errno_of)?;
    rustix::process::chdir(c"/")?;
    rustix::thread::set_name(c"nx-vfsd")
}

/// Raises what limits the file system, and says how many descriptors it may use.
pub(crate) fn limits() -> Limits {
    let unlimited = |resource| {
        let hard = rustix::process::getrlimit(resource).maximum;
        // Lowering or raising soft up to hard is always allowed.
        let _ = rustix::process::setrlimit(
            resource,
            Rlimit {
                current: hard,
                maximum: hard,
            },
        );
    };
    unlimited(Resource::Fsize);
    let _ = rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    let wanted = NODE_HANDLES_MAX
        .saturating_add(FILE_HANDLES_MAX)
        .saturating_add(DESCRIPTORS_RESERVED);
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    // Only with privilege; an ordinary user stays below hard.
    let raised = Rlimit {
        current: Some(wanted),
        maximum: Some(hard.map_or(wanted, |hard| hard.max(wanted))),
    };
    if rustix::process::setrlimit(Resource::Nofile, raised).is_err() {
        let _ = rustix::process::setrlimit(
            Resource::Nofile,
            Rlimit {
                current: hard,
                maximum: hard,
            },
        );
    }
    let have = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    let free = have.saturating_sub(DESCRIPTORS_RESERVED.min(have / 4));
    let part = |share: u64, most: u64| usize::try_from(share.min(most)).unwrap_or(usize::MAX);
    // Half for inodes, half for open files. An open file whose inode lost its name takes one of each.
    Limits {
        nodes: part(free / 2, NODE_HANDLES_MAX).max(16),
        handles: part(free / 2, FILE_HANDLES_MAX).max(16),
    }
}

/// Becomes `owner` for good, keeping over its own namespace only what serving needs: `CAP_SYS_ADMIN` to copy the mount
/// for a session, `CAP_DAC_OVERRIDE` to serve a file that its owner may execute but not read.
///
/// Both reach nothing but this process's own mounts and files of this very owner.
pub(crate) fn become_owner(owner: Identity, from_root: bool) -> Result<(), Errno> {
    if from_root {
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_keep_capabilities(true)?;
        let gid = rustix::fs::Gid::from_raw(owner.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        let uid = rustix::fs::Uid::from_raw(owner.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    let kept = CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_OVERRIDE;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// The errno of an I/O error.
pub(crate) fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
