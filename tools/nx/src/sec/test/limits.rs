//! The limits of sandbox.toml: what the kernel says that they are, and how far the probe comes.

use super::claim::{Claim, Finding, Seen, Wants, errno_text};
use super::context::{Context, Rule};
use super::kernel::Kernel;
use super::live::{BATCH_MAX, Live, Lost};
use nexus_abi::{Errno, RuleRef, Verdict, syscall};
use nexus_policy::IpcLimit;
use nexus_sys::probe::Frame;
use rustix::process::Resource;

/// The most processes that a proof makes. Each takes some kilobytes of the kernel's until the session ends.
const PROCESSES_MAX: u64 = 4096;

/// The most descriptors that a proof asks for the last of: the table of so many takes 8 MiB.
const OPEN_FILES_MAX: u64 = 1 << 20;

/// Init and the probe.
const PROCESSES_AT_START: u64 = 2;

const PAGE: u64 = 4096;

/// `fork(2)`'s `SIGCHLD` for clone(2), asm-generic/signal.h.
const SIGCHLD: u64 = 17;

/// Everything about limits. What it leaves behind, processes that have ended, goes with the session.
pub(super) fn attempt(
    context: &Context,
    live: &mut Live,
    kernel: &Kernel,
    left_out: &mut Vec<String>,
) -> (Vec<(Claim, Seen)>, Vec<Finding>) {
    let mut proof = Proof {
        context,
        live,
        kernel,
        claims: Vec::new(),
        skipped: Vec::new(),
        left_out,
    };
    proof.own();
    let limits = context.session.rules.limits;
    for (name, limit) in [
        ("memory", limits.memory_bytes),
        ("open_files", limits.open_files),
        ("processes", limits.processes),
    ] {
        match limit {
            None => proof.left_out.push(format!("limits: policy sets none of {name}")),
            Some(limit) => match name {
                "memory" => proof.memory(limit.value, limit.rule),
                "open_files" => proof.open_files(limit.value, limit.rule),
                // Last: afterwards there is no room for a process more.
                _ => proof.processes(limit.value, limit.rule),
            },
        }
    }
    (proof.claims, proof.skipped)
}

struct Proof<'a> {
    context: &'a Context,
    live: &'a mut Live,
    kernel: &'a Kernel,
    claims: Vec<(Claim, Seen)>,
    skipped: Vec<Finding>,
    left_out: &'a mut Vec<String>,
}

impl Proof<'_> {
    fn claim(&mut self, name: String, wants: Wants, rule: Option<RuleRef>, seen: Seen) {
        let rule = rule.map_or_else(Rule::default, |rule| self.context.rule(Some(rule), None));
        let claim = Claim {
            part: "limits",
            name,
            wants,
            rule,
        };
        self.claims.push((claim, seen));
    }

    /// A resource limit that the kernel has to have set, both of its values: never above what the caller may have itself.
    fn is_set(&self, name: &str, resource: Resource, value: u64) -> Result<String, String> {
        let value = value.min(most(resource));
        match self.kernel.limit(name) {
            Some((Some(soft), Some(hard))) if soft == value && hard == value => {
                Ok(format!("the kernel says {name} {value}"))
            }
            Some((soft, hard)) => {
                let word = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
                Err(format!(
                    "the kernel says {name} {} {}, not {value}",
                    word(soft),
                    word(hard)
                ))
            }
            None => Err(format!("the kernel does not say {name}")),
        }
    }

    /// What every session is held to.
    fn own(&mut self) {
        let core = self.is_set("Max core file size", Resource::Core, 1);
        self.claim("no core file".to_owned(), Wants::Held, None, Seen::looked(core));
        let ipc = &self.context.session.rules.budgets.ipc;
        let (bytes, rule) = (
            ipc.value(IpcLimit::Mqueue),
            ipc.get(IpcLimit::Mqueue).map(|limit| limit.rule),
        );
        let queues = self.is_set("Max msgqueue size", Resource::Msgqueue, bytes);
        self.claim(
            format!("POSIX queues of {bytes} bytes are set"),
            Wants::Held,
            rule,
            Seen::looked(queues),
        );
    }

    fn call(&mut self, name: &str, args: [u64; 6], forks: bool) -> Result<Result<i64, Lost>, String> {
        let number = self.allowed(name, args)?;
        let frame = Frame {
            number,
            args,
            forks,
            ..Frame::default()
        };
        Ok(self.live.call(&frame).map(|reply| reply.value))
    }

    fn allowed(&self, name: &str, args: [u64; 6]) -> Result<u64, String> {
        let number = syscall::number(name);
        match number.map(|number| (number, self.context.judge_call(number, args))) {
            Some((number, Verdict::Allow { .. })) => Ok(number.into()),
            _ => Err(format!(
                "the probe may not call `{name}`, by which the last of it would be seen"
            )),
        }
    }

    fn skip(&mut self, name: &str, why: String) {
        self.skipped.push(Finding::skipped("limits", name.to_owned(), why));
    }

    fn open_files(&mut self, value: u64, rule: RuleRef) {
        let set = self.is_set("Max open files", Resource::Nofile, value);
        self.claim(
            format!("open_files {value} is set"),
            Wants::Held,
            Some(rule),
            Seen::looked(set),
        );
        let value = value.min(most(Resource::Nofile));
        let Some(last) = value.checked_sub(1).filter(|last| (3..OPEN_FILES_MAX).contains(last)) else {
            return self.left_out.push(format!(
                "limits: open_files {value}: the last descriptor is not asked for"
            ));
        };
        // dup2(2): EBADF for a number that no descriptor may have.
        let tried = [last, value].map(|number| self.call("dup2", [0, number, 0, 0, 0, 0], false));
        let [Ok(within), Ok(beyond)] = tried else {
            let why = tried.into_iter().find_map(Result::err).unwrap_or_default();
            return self.skip("open_files: the last", why);
        };
        self.claim(
            format!("open_files {value}"),
            Wants::Passage(None),
            Some(rule),
            Seen::value(within),
        );
        let wants = Wants::Errno(&[Errno::EBADF]);
        self.claim(
            format!("open_files {value} + 1"),
            wants,
            Some(rule),
            Seen::value(beyond),
        );
        // What stays open is in nobody's way.
        let _ = self.call("close", [last, 0, 0, 0, 0, 0], false);
    }

    fn memory(&mut self, value: u64, rule: RuleRef) {
        if self.kernel.cgroup.is_some() {
            // Not tried: the kernel would end the whole session.
            let set = self.in_cgroup("memory.max", value / PAGE * PAGE);
            let swap = match self.kernel.of_cgroup("memory.swap.max") {
                // A kernel that does not swap has no such file.
                Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    Ok("the kernel does not swap".to_owned())
                }
                _ => self.in_cgroup("memory.swap.max", 0),
            };
            let seen = Seen {
                value: Ok(0),
                checks: vec![set, swap],
            };
            self.claim(format!("memory {value} is set"), Wants::Held, Some(rule), seen);
            return self
                .left_out
                .push("limits: the last byte of memory: its cgroup ends the session there".to_owned());
        }
        let set = self.is_set("Max data size", Resource::Data, value);
        self.claim(
            format!("memory {value} is set"),
            Wants::Held,
            Some(rule),
            Seen::looked(set),
        );
        // What the probe has of it already: kilobytes, proc_pid_status(5).
        let used = self
            .kernel
            .status("VmData")
            .and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
        let Some(left) =
            used.and_then(|used| (value.min(most(Resource::Data)) / PAGE * PAGE).checked_sub(used.checked_mul(1024)?))
        else {
            return self
                .left_out
                .push(format!("limits: memory {value} is less than the probe has"));
        };
        // Private, writable, never touched and so of no host's memory; PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
        // MAP_NORESERVE (asm-generic/mman-common.h).
        let map = |bytes| [0, bytes, 3, 0x4022, u64::MAX, 0];
        let all = match self.call("mmap", map(left), false) {
            Ok(Ok(errno)) if errno < 0 => {
                let why = format!(
                    "the host itself gives the probe no {left} bytes: {}; see `ulimit -v` and vm.overcommit_memory",
                    errno_text(errno)
                );
                return self.skip("memory: the last page", why);
            }
            Ok(all) => all,
            Err(why) => return self.skip("memory: the last page", why),
        };
        let more = self.call("mmap", map(PAGE), false).unwrap_or(Err(Lost::Ended));
        self.claim(
            format!("memory {value}, of one process"),
            Wants::Passage(None),
            Some(rule),
            Seen::value(all),
        );
        let wants = Wants::Errno(&[Errno::ENOMEM]);
        self.claim(
            format!("memory {value} + {PAGE}, of one process"),
            wants,
            Some(rule),
            Seen::value(more),
        );
    }

    /// A file of the session's cgroup that has to hold this.
    fn in_cgroup(&self, name: &str, value: u64) -> Result<String, String> {
        match self.kernel.of_cgroup(name) {
            Some(Ok(text)) if text == value.to_string() => Ok(format!("the kernel says {name} {text}")),
            Some(Ok(text)) => Err(format!("the kernel says {name} {text}, not {value}")),
            Some(Err(error)) => Err(format!("`{name}` of its cgroup cannot be read: {error}")),
            None => Err("it is in no cgroup of its own".to_owned()),
        }
    }

    fn processes(&mut self, value: u64, rule: RuleRef) {
        let mut checks = vec![self.is_set("Max processes", Resource::Nproc, value)];
        if self.kernel.cgroup.is_some() {
            checks.push(self.in_cgroup("pids.max", value));
        }
        let seen = Seen { value: Ok(0), checks };
        self.claim(format!("processes {value} is set"), Wants::Held, Some(rule), seen);
        let value = value.min(most(Resource::Nproc));
        let room = value.saturating_sub(PROCESSES_AT_START);
        if value > PROCESSES_MAX {
            return self.left_out.push(format!(
                "limits: processes {value} are more than a proof makes ({PROCESSES_MAX})"
            ));
        }
        const TRIED: &str = "processes: the last";
        let ways = [("fork", [0; 6]), ("clone", [SIGCHLD, 0, 0, 0, 0, 0])];
        let Some((number, args)) = ways
            .into_iter()
            .find_map(|(name, args)| Some((self.allowed(name, args).ok()?, args)))
        else {
            return self.skip(TRIED, "the probe may make no process".to_owned());
        };
        let frame = Frame {
            number,
            args,
            forks: true,
            ..Frame::default()
        };
        let mut made = 0_u64;
        let mut last = Ok(0);
        // Each ends at once, and counts until somebody waits for it.
        while made < room && last.is_ok_and(|pid| pid >= 0) {
            let some = usize::try_from(room.saturating_sub(made))
                .unwrap_or(BATCH_MAX)
                .min(BATCH_MAX);
            match self.live.calls(&vec![frame; some]) {
                Err(lost) => last = Err(lost),
                Ok(replies) => {
                    for reply in replies {
                        last = Ok(reply.value);
                        if reply.value < 0 {
                            break;
                        }
                        made = made.saturating_add(1);
                    }
                }
            }
        }
        if made < room && last == Ok(-i64::from(Errno::EAGAIN.raw())) {
            let why = format!(
                "the host itself gives the probe's user no more than {made} beside those it has: see `ulimit -u`"
            );
            return self.skip(TRIED, why);
        }
        let more = self.live.call(&frame).map(|reply| reply.value);
        self.claim(
            format!("processes {value}"),
            Wants::Passage(None),
            Some(rule),
            Seen::value(last),
        );
        let wants = Wants::Errno(&[Errno::EAGAIN]);
        self.claim(format!("processes {value} + 1"), wants, Some(rule), Seen::value(more));
    }
}

/// What this process may have at most, and so every session of its.
fn most(resource: Resource) -> u64 {
    rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX)
}
