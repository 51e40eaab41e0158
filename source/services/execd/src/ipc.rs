//! Shared memory, queues and semaphores of a session: bounded by the kernel's own limits of its IPC namespace.
//!
//! Only the root of the user namespace that an IPC namespace belongs to may set them, and nobody in a session is root. So
//! init has a child enter a user namespace in which it is, with an IPC namespace of that one, and set the limits there;
//! then init, which stands above, moves into that IPC namespace. The kernel takes the program for that root when it opens a
//! setting, because its user is the same on the host: in the view `/proc/sys` is read-only.

use crate::plan::{Ipc, SysV};
use crate::step::{Failed, Step};
use nexus_sys::process::{Child, CloneFlags, Fork, clone, exit_now};
use nexus_wire::packet::PacketSocket;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use rustix::process::{DumpableBehavior, WaitOptions};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, OwnedFd};

/// The pages that `kernel.shmall` counts in.
const PAGE_BYTES: u64 = 4096;

/// The most semaphore operations of one call (`SEMOPM` of sem_overview(7)).
const SEMAPHORE_OPERATIONS_MAX: u64 = 500;

/// How many memory files a session has at once, each some kilobyte of the kernel's: as many as one process has files.
const MEMORY_FILES_MAX: &str = "4096";

impl SysV {
    /// Whether this kernel lets the owner of an IPC namespace set its limits: Linux 6.9 and later. What is tried then is
    /// still seen to work, or nothing starts.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy();
        let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 9) => Self::Bounded,
            _ => Self::Denied,
        }
    }
}

/// What is written where, below `/proc/sys/kernel`. sysvipc(7), proc_sys_kernel(5).
fn settings(ipc: &Ipc) -> [(Step, &'static str, String); 7] {
    let semaphores = ipc.semaphores;
    let operations = semaphores.min(SEMAPHORE_OPERATIONS_MAX);
    [
        (Step::IpcShm, "shmmax", ipc.shm_bytes.to_string()),
        (
            Step::IpcShm,
            "shmall",
            ipc.shm_bytes.checked_div(PAGE_BYTES).unwrap_or(0).to_string(),
        ),
        (Step::IpcSegments, "shmmni", ipc.segments.to_string()),
        (Step::IpcQueue, "msgmax", ipc.queue_bytes.to_string()),
        (Step::IpcQueue, "msgmnb", ipc.queue_bytes.to_string()),
        (Step::IpcQueues, "msgmni", ipc.queues.to_string()),
        // The most in one set, in all, at once in one call, and sets: each semaphore may be a set of its own.
        (
            Step::IpcSemaphores,
            "sem",
            format!("{semaphores} {semaphores} {operations} {semaphores}"),
        ),
    ]
}

/// An IPC namespace with limits, while a child makes it.
#[derive(Debug)]
pub(crate) struct Bounding {
    child: Child,
    link: PacketSocket,
}

/// Has a child make an IPC namespace with these limits: that takes some hundred microseconds, in which this process may
/// do something else. It must have its capabilities, and be the user that the program is.
pub(crate) fn begin(ipc: &Ipc, uid: u32, gid: u32) -> Result<Bounding, Failed> {
    let failed = Failed::at(Step::Ipc);
    let (ours, theirs) = PacketSocket::pair().map_err(&failed)?;
    // The one that is mounted may be covered in parts, by a container.
    let proc = mount("proc", &[]).map_err(&failed)?;
    match clone(CloneFlags::USER_AND_IPC).map_err(Failed::io(Step::Ipc))? {
        Fork::Child => {
            drop(ours);
            let result = bound(ipc, &proc, uid, gid).and_then(|namespace| {
                theirs
                    .send(b"made", &[namespace.as_fd()])
                    .map_err(Failed::at(Step::Ipc))
            });
            if let Err(Failed { step, errno }) = result {
                let words = [step.number().to_le_bytes(), errno.to_le_bytes()];
                let _ = theirs.send(words.as_flattened(), &[]);
            }
            exit_now(0)
        }
        Fork::Parent(child) => Ok(Bounding { child, link: ours }),
    }
}

impl Bounding {
    /// Moves this process into the namespace that the child made, which ends meanwhile.
    pub(crate) fn enter(&self) -> Result<(), Failed> {
        let failed = Failed::at(Step::Ipc);
        let mut packet = self.link.receive().map_err(&failed)?;
        let Some(namespace) = packet.descriptors.pop() else {
            return Err(said(packet.bytes()));
        };
        let kind = Some(LinkNameSpaceType::InterProcessCommunication);
        move_into_link_name_space(namespace.as_fd(), kind).map_err(failed)
    }

    /// Waits until the child is gone: it must not be there when the program is, whose user it has.
    pub(crate) fn see_gone(self) {
        let pid = rustix::process::Pid::from_raw(self.child.pid);
        // It fails only when there is nothing to wait for.
        let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(pid, WaitOptions::empty()));
    }
}

/// What the child says of a failure: the step and the errno. Nothing, if it was ended.
fn said(words: &[u8]) -> Failed {
    let number = |words: Option<&[u8; 4]>| words.copied().unwrap_or_default();
    let (step, errno) = (words.first_chunk(), words.get(4..).and_then(<[u8]>::first_chunk));
    Failed {
        step: Step::from_number(u32::from_le_bytes(number(step)))
            .filter(|step| step.ipc_limit().is_some())
            .unwrap_or(Step::Ipc),
        errno: i32::from_le_bytes(number(errno)),
    }
}

/// Becomes root of the new user namespace, sets the limits, and reads one back: what was not refused may still not be in
/// force.
fn bound(ipc: &Ipc, proc: &OwnedFd, uid: u32, gid: u32) -> Result<OwnedFd, Failed> {
    let failed = Failed::at(Step::Ipc);
    // Else this process's own files in /proc are the host's root's.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(&failed)?;
    write(proc, "self/setgroups", "deny").map_err(&failed)?;
    write(proc, "self/uid_map", &format!("0 {uid} 1")).map_err(&failed)?;
    write(proc, "self/gid_map", &format!("0 {gid} 1")).map_err(&failed)?;
    for (step, name, value) in settings(ipc) {
        set(proc, name, &value).map_err(Failed::at(step))?;
    }
    rustix::fs::openat(proc, "self/ns/ipc", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
}

/// Sets one limit and sees that it is in force.
fn set(proc: &OwnedFd, name: &str, value: &str) -> Result<(), Errno> {
    let path = format!("sys/kernel/{name}");
    write(proc, &path, value)?;
    let is = read(proc, &path)?;
    if is.split_ascii_whitespace().ne(value.split_ascii_whitespace()) {
        return Err(Errno::NOTSUP);
    }
    Ok(())
}

fn write(proc: &OwnedFd, path: &str, text: &str) -> Result<(), Errno> {
    let file = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

fn read(proc: &OwnedFd, path: &str) -> Result<String, Errno> {
    let file = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = [0; 256];
    let count = rustix::io::read(&file, &mut bytes)?;
    Ok(String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned())
}

/// What init holds of a session's IPC.
#[derive(Debug)]
pub(crate) struct Held {
    /// Where memory files lie: a file system in memory of just so many bytes, which no path leads to. `None` where there is
    /// to be no memory file.
    pub(crate) memory: Option<OwnedFd>,
    /// Where POSIX queues lie, which Landlock has to be told of; `None` where this kernel has none.
    pub(crate) queues: Option<OwnedFd>,
}

impl Held {
    /// Of the IPC namespace that this process is in.
    pub(crate) fn new(ipc: &Ipc) -> Result<Self, Failed> {
        let failed = Failed::at(Step::Ipc);
        let queues = match mount("mqueue", &[]) {
            Ok(queues) => Some(queues),
            Err(Errno::NODEV) => None,
            Err(errno) => return Err(failed(errno)),
        };
        let size = ipc.memfd_bytes.to_string();
        let options = [("mode", "700"), ("size", &size), ("nr_inodes", MEMORY_FILES_MAX)];
        let memory = match ipc.memfd_bytes {
            // 0 would mean that there is no limit.
            0 => None,
            _ => Some(mount("tmpfs", &options).map_err(Failed::at(Step::IpcMemfd))?),
        };
        Ok(Self { memory, queues })
    }

    /// A file without a name, as memfd_create(2) gives one.
    pub(crate) fn memory_file(&self) -> Result<OwnedFd, Errno> {
        let root = self.memory.as_ref().ok_or(Errno::PERM)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(root, ".", flags, Mode::RWXU | Mode::RWXG | Mode::RWXO)
    }
}

/// Where what no path of the view leads to is mounted until the host's root is given up, and with it at once: a mount that
/// nothing holds makes whoever closes it last wait for all processors. Every system has it, and what the view shows of it was
/// opened before.
const APART: &str = "/dev";

fn mount(kind: &str, options: &[(&str, &str)]) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // Where it cannot be, it only takes longer.
    let _ = rustix::mount::move_mount(&mount, "", CWD, APART, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_written_in_the_unit_that_the_kernel_counts_in() {
        let ipc = Ipc {
            shm_bytes: 8192,
            segments: 3,
            queue_bytes: 4096,
            queues: 2,
            semaphores: 1000,
            mqueue_bytes: 0,
            memfd_bytes: 0,
            sysv: SysV::Bounded,
        };
        let written: Vec<_> = settings(&ipc).map(|(_, name, value)| format!("{name}={value}")).into();
        assert_eq!(
            written,
            [
                "shmmax=8192",
                "shmall=2",
                "shmmni=3",
                "msgmax=4096",
                "msgmnb=4096",
                "msgmni=2",
                "sem=1000 1000 500 1000"
            ]
        );
    }

    #[test]
    fn what_the_child_says_of_a_limit_is_heard_and_anything_else_is_no_limit() {
        let words = |step: Step, errno: i32| [step.number().to_le_bytes(), errno.to_le_bytes()].concat();
        for step in [Step::IpcShm, Step::IpcQueues, Step::IpcMemfd, Step::Ipc] {
            let failed = said(&words(step, 22));
            assert_eq!((failed.step, failed.errno), (step, 22));
        }
        // What was killed says nothing, and of that there is no errno.
        let failed = said(b"");
        assert_eq!((failed.step, failed.errno), (Step::Ipc, 0));
        for words in [&b""[..], b"made", &[255; 8], &words(Step::Filter, 1)] {
            assert_eq!(said(words).step, Step::Ipc);
        }
    }
}
