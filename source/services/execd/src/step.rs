//! The steps in which a sandbox is built, so that a failure can say where.

use nexus_policy::IpcLimit;

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// A step of building a sandbox.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $($(#[$doc])* $name,)*
        }

        impl Step {
            const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What the step does, as "cannot …" goes on.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

steps! {
    /// Descriptors and signals.
    Prepare = "close inherited descriptors",
    /// Those of the namespaces that init makes itself.
    Namespaces = "make namespaces",
    /// `sethostname`, keyring.
    Identity = "take on an identity of its own",
    /// The loopback interface.
    Loopback = "bring the private loopback interface up",
    /// Private propagation.
    Propagation = "cut the mount namespace off from the host's",
    /// The root tmpfs.
    Root = "make a root file system",
    /// A bind's source.
    BindSource = "open a path that the view shows",
    /// A mount point.
    MountPoint = "make a mount point",
    /// A mount.
    Mount = "mount a part of the view",
    /// procfs.
    Processes = "mount /proc (a container that masks its own /proc forbids it)",
    /// devpts.
    Terminals = "mount /dev/pts",
    /// pivot_root.
    Pivot = "leave the host's root",
    /// The start directory.
    Directory = "enter the working directory",
    /// An IPC namespace, and the file systems of queues and memory files.
    Ipc = "make shared memory and message queues of its own",
    /// `kernel.shmmax` and `kernel.shmall`.
    IpcShm = "bound shared memory as `shm` of the `ipc` budget says",
    /// `kernel.shmmni`.
    IpcSegments = "bound shared memory as `segments` of the `ipc` budget says",
    /// `kernel.msgmax` and `kernel.msgmnb`.
    IpcQueue = "bound message queues as `queue` of the `ipc` budget says",
    /// `kernel.msgmni`.
    IpcQueues = "bound message queues as `queues` of the `ipc` budget says",
    /// `kernel.sem`.
    IpcSemaphores = "bound semaphores as `semaphores` of the `ipc` budget says",
    /// A tmpfs of that size.
    IpcMemfd = "bound memory files as `memfd` of the `ipc` budget says",
    /// Forking the program.
    Fork = "fork",
    /// setrlimit.
    Limits = "set resource limits",
    /// Capabilities and no_new_privs.
    Privileges = "drop privileges",
    /// Landlock.
    Landlock = "apply the Landlock fence",
    /// seccomp.
    Filter = "install the syscall filter",
    /// Handing the listener over.
    Listener = "hand the filter's listener to the supervisor",
    /// A read-only stdin.
    Input = "close the input file against writing (a pipe will do: `cat FILE | nx run …`)",
    /// The cgroup namespace.
    Cgroup = "make the session's cgroup its root",
}

impl Step {
    /// The number that goes over the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::try_from(Self::ALL.iter().position(|step| *step == self).unwrap_or(0)).unwrap_or(0)
    }

    /// The key of the `ipc` budget that it puts in force.
    #[must_use]
    pub const fn ipc_limit(self) -> Option<IpcLimit> {
        match self {
            Self::IpcShm => Some(IpcLimit::Shm),
            Self::IpcSegments => Some(IpcLimit::Segments),
            Self::IpcQueue => Some(IpcLimit::Queue),
            Self::IpcQueues => Some(IpcLimit::Queues),
            Self::IpcSemaphores => Some(IpcLimit::Semaphores),
            Self::IpcMemfd => Some(IpcLimit::Memfd),
            _ => None,
        }
    }

    /// The step of a number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// A step that failed, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub(crate) step: Step,
    /// 0 where a process that does it is gone without a word.
    pub(crate) errno: i32,
}

impl Failed {
    pub(crate) fn at(step: Step) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self {
            step,
            errno: errno.raw_os_error(),
        }
    }

    pub(crate) fn io(step: Step) -> impl Fn(std::io::Error) -> Self {
        move |error| Self {
            step,
            errno: error.raw_os_error().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_leads_back_to_its_step() {
        for step in Step::ALL {
            assert_eq!(Step::from_number(step.number()), Some(*step));
        }
        assert_eq!(Step::from_number(u32::MAX), None);
    }

    #[test]
    fn a_step_that_puts_an_ipc_limit_in_force_says_its_key() {
        for step in Step::ALL {
            if let Some(limit) = step.ipc_limit() {
                assert!(
                    step.as_str()
                        .contains(&format!("`{}` of the `ipc` budget", limit.as_str()))
                );
            }
        }
    }
}
