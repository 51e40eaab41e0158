//! From init to the program: limits, privileges, fences, filter, exec.

use crate::build::HOME;
use crate::ipc::Held;
use crate::landlock_fence;
use crate::limits::{Limit, Limits};
use crate::plan::{Fence, Plan};
use crate::step::{Failed, Step};
use nexus_sys::process::{CStringArray, CloneFlags, Fork, clone, execve, exit_now};
use nexus_sys::seccomp::{Listener, adopt_listener, install_with_listener};
use nexus_sys::shared::SharedPage;
use nexus_sys::signal::{SIGNAL_MAX, SignalSet, bit, pending, pipe_was_ignored, raise, set_default, set_mask};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;

/// A program whose exec is behind it, one way or the other.
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    /// The filter's listener; `None` once it was handed over.
    pub(crate) listener: Option<Listener>,
    /// Why exec failed; 0 if it did not.
    pub(crate) exec_errno: i32,
    /// The signal that ended the child before it could execute anything.
    pub(crate) signal: Option<i32>,
}

/// What the program has of whoever started `nx`.
pub(crate) struct Inherited {
    /// The signal mask.
    pub(crate) mask: SignalSet,
    /// The soft limit of open files, where `nx` has raised its own.
    pub(crate) open_files: Option<u64>,
}

// Cells of the page that parent and child share.
const LISTENER: usize = 0;
const ERRNO: usize = 1;
const FAILED_STEP: usize = 2;

fn load(page: &SharedPage, cell: usize) -> i32 {
    page.cell(cell)
        .and_then(|cell| i32::try_from(cell.load(Ordering::Acquire)).ok())
        .unwrap_or(0)
}

fn store(page: &SharedPage, cell: usize, value: i32) {
    if let Some(cell) = page.cell(cell) {
        cell.store(value.into(), Ordering::Release);
    }
}

/// Forks the program and waits until it executes, or until it failed.
///
/// Parent and child share one descriptor table until exec: so the listener that the filter makes in the child is in
/// the parent's hands without the child making another call, which the filter might already refuse. Between the filter
/// and exec the child makes no call but execve and `exit_group`, which a plan's filter must let through: nobody could
/// answer for them yet. `dispositions` is called in the child.
pub(crate) fn launch(
    plan: &Plan,
    inherited: &Inherited,
    held: &Held,
    dispositions: impl FnOnce(),
) -> Result<Launched, Failed> {
    let page = SharedPage::new().map_err(Failed::io(Step::Fork))?;
    let ready = Ready::of(plan)?;
    let child = match clone(CloneFlags::UNTIL_EXEC).map_err(Failed::io(Step::Fork))? {
        Fork::Child => {
            dispositions();
            run_child(plan, &ready, &page, inherited, held)
        }
        Fork::Parent(child) => child,
    };
    let pid = Pid::from_raw(child.pid).ok_or(Failed {
        step: Step::Fork,
        errno: Errno::SRCH.raw_os_error(),
    })?;
    let errno = load(&page, ERRNO);
    match load(&page, LISTENER) {
        0 if load(&page, FAILED_STEP) == 0 => {
            let status = rustix::process::waitpid(Some(pid), WaitOptions::empty()).map_err(Failed::at(Step::Fork))?;
            Ok(Launched {
                pid,
                listener: None,
                exec_errno: 0,
                signal: status.and_then(|(_, status)| status.terminating_signal()),
            })
        }
        0 => {
            let step = u32::try_from(load(&page, FAILED_STEP) - 1)
                .ok()
                .and_then(Step::from_number);
            Err(Failed {
                step: step.unwrap_or(Step::Fork),
                errno,
            })
        }
        number => {
            let listener = adopt_listener(number - 1).map_err(Failed::io(Step::Listener))?;
            Ok(Launched {
                pid,
                listener: Some(listener),
                exec_errno: errno,
                signal: None,
            })
        }
    }
}

/// Everything that exec needs, made before the fork: past the filter nothing may be allocated or looked up.
struct Ready {
    candidates: Vec<CString>,
    argv: CStringArray,
    script_argv: Vec<CStringArray>,
    envp: CStringArray,
}

impl Ready {
    fn of(plan: &Plan) -> Result<Self, Failed> {
        let invalid = Failed {
            step: Step::Fork,
            errno: Errno::INVAL.raw_os_error(),
        };
        let c = |text: &OsStr| CString::new(text.as_bytes()).map_err(|_| invalid);
        let arguments: Vec<CString> = plan
            .program
            .arguments
            .iter()
            .map(|argument| c(argument))
            .collect::<Result<_, _>>()?;
        let mut environment = Vec::with_capacity(plan.environment.len());
        for (name, value) in &plan.environment {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            environment.push(c(&pair)?);
        }
        let candidates = candidates(plan)
            .into_iter()
            .map(|path| CString::new(path).map_err(|_| invalid))
            .collect::<Result<Vec<_>, _>>()?;
        // execvp(3): a file that is no program the kernel knows is given to the shell.
        let script_argv = candidates
            .iter()
            .map(|path| {
                let rest = arguments.iter().skip(1).cloned();
                CStringArray::new([c"/bin/sh".to_owned(), path.clone()].into_iter().chain(rest).collect())
            })
            .collect();
        Ok(Self {
            candidates,
            argv: CStringArray::new(arguments),
            script_argv,
            envp: CStringArray::new(environment),
        })
    }
}

/// Where the program may be, in the order in which a shell looks.
fn candidates(plan: &Plan) -> Vec<Vec<u8>> {
    let name = plan.program.name.as_bytes();
    if name.contains(&b'/') || name.is_empty() {
        return vec![name.to_vec()];
    }
    let path = plan
        .environment
        .get(OsStr::new("PATH"))
        .map_or(&b"/usr/bin:/bin"[..], |path| path.as_bytes());
    path.split(|byte| *byte == b':')
        .map(|directory| {
            let mut full = if directory.is_empty() {
                b".".to_vec()
            } else {
                directory.to_vec()
            };
            full.push(b'/');
            full.extend(name);
            full
        })
        .collect()
}

fn run_child(plan: &Plan, ready: &Ready, page: &SharedPage, inherited: &Inherited, held: &Held) -> ! {
    let fail = |failed: Failed| {
        // One more than the number, so that 0 stays «none».
        store(page, FAILED_STEP, i32::try_from(failed.step.number()).unwrap_or(0) + 1);
        store(page, ERRNO, failed.errno);
        exit_now(1)
    };
    if let Err(failed) = confine(plan, &inherited.mask, held) {
        fail(failed);
    }
    let chosen = choose(ready);
    let as_inherited = inherited.open_files.filter(|_| plan.limits.open_files.is_none());
    match install(plan, as_inherited) {
        // One more than the number, so that 0 stays «not yet».
        Ok(number) => store(page, LISTENER, number + 1),
        Err(error) => fail(Failed::io(Step::Filter)(error)),
    }
    let Some((path, script)) = chosen else {
        store(page, ERRNO, Errno::NOENT.raw_os_error());
        exit_now(127)
    };
    let mut errno = execve(path, &ready.argv, &ready.envp).map_or_else(|error| error.raw_os_error(), |_| None);
    if errno == Some(Errno::NOEXEC.raw_os_error()) {
        errno = execve(c"/bin/sh", script, &ready.envp).map_or_else(|error| error.raw_os_error(), |_| None);
    }
    let errno = errno.unwrap_or(Errno::IO.raw_os_error());
    store(page, ERRNO, errno);
    exit_now(if errno == Errno::NOENT.raw_os_error() { 127 } else { 126 })
}

/// Installs the filter, under the soft limit of open files that the program is to have: past the filter nobody could set it.
/// The listener needs a descriptor below that limit, beside those of init; where there is none the limit stays as it is.
fn install(plan: &Plan, open_files: Option<u64>) -> std::io::Result<i32> {
    let Some(wanted) = open_files else {
        return install_with_listener(&plan.filter);
    };
    let before = rustix::process::getrlimit(Resource::Nofile);
    let lowered = Rlimit {
        current: Some(wanted),
        maximum: before.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, lowered)?;
    match install_with_listener(&plan.filter) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => {
            rustix::process::setrlimit(Resource::Nofile, before)?;
            install_with_listener(&plan.filter)
        }
        installed => installed,
    }
}

/// The first candidate that can be executed, else the first that exists, so that the error is the telling one.
fn choose(ready: &Ready) -> Option<(&CString, &CStringArray)> {
    let with = |access: Access| {
        ready.candidates.iter().zip(&ready.script_argv).find(|(path, _)| {
            let is_directory = rustix::fs::stat(path.as_c_str())
                .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
            !(is_directory && ready.candidates.len() > 1)
                && rustix::fs::accessat(CWD, path.as_c_str(), access, AtFlags::empty()).is_ok()
        })
    };
    with(Access::EXEC_OK).or_else(|| with(Access::EXISTS))
}

fn confine(plan: &Plan, mask: &SignalSet, held: &Held) -> Result<(), Failed> {
    // The runtime ignores SIGPIPE; an ignored signal stays ignored over exec.
    if !pipe_was_ignored() {
        set_default(Signal::PIPE.as_raw());
    }
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    enter(&plan.directory).map_err(Failed::at(Step::Directory))?;
    set_limits(&plan.limits, plan.ipc.mqueue_bytes).map_err(Failed::at(Step::Limits))?;
    drop_capabilities().map_err(Failed::at(Step::Privileges))?;
    rustix::thread::set_no_new_privs(true).map_err(Failed::at(Step::Privileges))?;
    // Init is not dumpable, and fork passes that on; exec makes the program dumpable again, as it should be.
    if plan.fence != Fence::Missing {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let standard: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        landlock_fence::apply(plan, standard, held).map_err(|error| Failed {
            step: Step::Landlock,
            errno: landlock_fence::errno_of(&error),
        })?;
    }
    catch_up_on_signals();
    set_mask(mask).map_err(Failed::io(Step::Prepare)).map(drop)
}

/// Enters the directory that the program starts in, over no link: this process still has capabilities, and another session
/// of the subject may write what leads there. Where the program's home is gone, in the area that it was in.
fn enter(directory: &Path) -> Result<(), Errno> {
    let open = |path: &Path| {
        rustix::fs::openat2(
            CWD,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
    };
    let found = match (open(directory), Path::new(HOME).parent()) {
        (Err(_), Some(area)) if directory == Path::new(HOME) => open(area),
        (found, _) => found,
    };
    rustix::process::fchdir(found?)
}

/// Sends this process what went to the whole process group before it was made: a program that the shell had started
/// itself would have been there. All signals are still blocked, here and in init.
///
/// The kernel signals a group's members from the youngest to the oldest, so whatever init got after the fork this
/// process got before it; init's set is read first.
fn catch_up_on_signals() {
    let init = std::fs::read_to_string("/proc/1/status").unwrap_or_default();
    let shared = init.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let of_init = shared
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    let missed = of_init & !pending() & !bit(Signal::CHILD.as_raw());
    for signal in (1..=SIGNAL_MAX).filter(|signal| missed & bit(*signal) != 0) {
        raise(signal);
    }
}

/// How many signals and timers of a session may be queued. They count for the user outside as well, who starts the next session with some.
const SIGNALS_MAX: u64 = 4096;

fn set_limits(limits: &Limits, mqueue_bytes: u64) -> Result<(), Errno> {
    let set = |resource, value: Option<u64>| match value {
        None => Ok(()),
        Some(value) => {
            // Never above what the caller itself may have.
            let hard = rustix::process::getrlimit(resource)
                .maximum
                .unwrap_or(u64::MAX)
                .min(value);
            rustix::process::setrlimit(
                resource,
                Rlimit {
                    current: Some(hard),
                    maximum: Some(hard),
                },
            )
        }
    };
    let value = |limit: &Option<Limit>| limit.as_ref().map(|limit| limit.value);
    // A core file would leave the areas' budgets out and hold what the program read. Not 0: that does not keep the kernel from
    // handing the dump to a program of the host's; 1 does, and no dump fits into it. core(5).
    set(Resource::Core, Some(1))?;
    // A second fence where a cgroup counts them.
    set(Resource::Nproc, value(&limits.processes))?;
    set(Resource::Nofile, value(&limits.open_files))?;
    set(Resource::Msgqueue, Some(mqueue_bytes))?;
    set(Resource::Sigpending, Some(SIGNALS_MAX))?;
    set(Resource::Data, limits.data_bytes())
}

/// Takes every capability out of the bounding set and makes uid 0 mean nothing, for this process and all that it makes.
/// capabilities(7).
pub(crate) fn bound_capabilities() -> Result<(), Errno> {
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(locked)?;
    rustix::thread::clear_ambient_capability_set()
}

/// Gives up every capability that this process has.
pub(crate) fn drop_capabilities() -> Result<(), Errno> {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}
