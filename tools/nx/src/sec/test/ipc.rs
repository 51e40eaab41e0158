//! How much IPC a subject may have: held by the kernel, with its errno and no record.

use super::claim::{Claim, Refusal, Seen, Wants};
use super::context::Context;
use super::deny;
use super::live::{Live, Lost};
use nexus_abi::{Errno, Operation, Reason, Verdict, syscall};
use nexus_policy::IpcLimit;
use nexus_sys::probe::{DATA_ADDRESS, Frame};

// linux/ipc.h
const IPC_PRIVATE: u64 = 0;
const IPC_RMID: u64 = 0;
const CREATE_0600: u64 = 0o1600;

/// The most bytes of memory files that a proof fills: they are memory.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// The most segments, and queues, that a proof makes.
const OBJECTS_MAX: u64 = 4096;

const PAGE: u64 = 4096;

/// Fills each limit to its last, and asks for one more.
pub(super) fn attempt(context: &Context, live: &mut Live, left_out: &mut Vec<String>) -> Vec<(Claim, Seen)> {
    let mut proof = Proof {
        context,
        live,
        claims: Vec::new(),
    };
    let value = |which| context.session.rules.budgets.ipc.value(which);
    if execd::SysV::of_this_kernel() == execd::SysV::Bounded {
        proof.shared_memory(value(IpcLimit::Shm));
        proof.segments(value(IpcLimit::Segments), value(IpcLimit::Shm), left_out);
        proof.semaphores(value(IpcLimit::Semaphores));
        proof.queues(value(IpcLimit::Queues), left_out);
    } else {
        left_out.push("ipc: this kernel bounds no System V IPC, so there is none".to_owned());
    }
    proof.memory_files(value(IpcLimit::Memfd), left_out);
    left_out.push(
        "ipc: the bytes of System V queues; and of POSIX queues, but that their limit is set (`--part limits`)"
            .to_owned(),
    );
    proof.claims
}

struct Proof<'a> {
    context: &'a Context,
    live: &'a mut Live,
    claims: Vec<(Claim, Seen)>,
}

impl Proof<'_> {
    fn call(&mut self, name: &str, args: [u64; 6]) -> Result<i64, Lost> {
        let number = syscall::number(name).unwrap_or(u32::MAX);
        let frame = Frame {
            number: number.into(),
            args,
            data: b"nx-proof\0",
            ..Frame::default()
        };
        self.live.call(&frame).map(|reply| reply.value)
    }

    fn allows(&self, name: &str, args: [u64; 6]) -> bool {
        let number = syscall::number(name);
        number.is_some_and(|number| matches!(self.context.judge_call(number, args), Verdict::Allow { .. }))
    }

    fn claim(&mut self, which: IpcLimit, name: String, wants: Wants, value: Result<i64, Lost>) {
        let limit = self.context.session.rules.budgets.ipc.get(which);
        let claim = Claim {
            part: "ipc",
            name,
            wants,
            rule: self.context.rule(limit.map(|limit| limit.rule), None),
        };
        self.claims.push((claim, Seen::value(value)));
    }

    fn shared_memory(&mut self, bytes: u64) {
        let get = |bytes| [IPC_PRIVATE, bytes, CREATE_0600, 0, 0, 0];
        if !self.allows("shmget", get(bytes)) {
            return;
        }
        if bytes > 0 {
            let made = self.call("shmget", get(bytes));
            self.claim(IpcLimit::Shm, "shared memory".to_owned(), Wants::Passage(None), made);
            if let Ok(id) = made {
                // What cannot be removed is in the way of the next claim, which says so.
                let _ = self.call("shmctl", [id.unsigned_abs(), IPC_RMID, 0, 0, 0, 0]);
            }
        }
        let more = self.call("shmget", get(bytes.saturating_add(1)));
        let wants = Wants::Errno(&[Errno::EINVAL, Errno::ENOSPC]);
        self.claim(IpcLimit::Shm, "shared memory + 1 byte".to_owned(), wants, more);
    }

    fn segments(&mut self, count: u64, bytes: u64, left_out: &mut Vec<String>) {
        let get = [IPC_PRIVATE, PAGE, CREATE_0600, 0, 0, 0];
        if !self.allows("shmget", get) {
            return;
        }
        if count > OBJECTS_MAX || count.saturating_mul(PAGE) > bytes {
            return left_out.push(format!("ipc: {count} segments"));
        }
        self.several(IpcLimit::Segments, "segment", count, "shmget", get);
    }

    fn queues(&mut self, count: u64, left_out: &mut Vec<String>) {
        let get = [IPC_PRIVATE, CREATE_0600, 0, 0, 0, 0];
        if !self.allows("msgget", get) {
            return;
        }
        if count > OBJECTS_MAX {
            return left_out.push(format!("ipc: {count} queues"));
        }
        self.several(IpcLimit::Queues, "queue", count, "msgget", get);
    }

    /// Makes as many as there may be, and one more.
    fn several(&mut self, which: IpcLimit, what: &str, count: u64, call: &str, args: [u64; 6]) {
        let mut last = Ok(0);
        for _ in 0..count {
            last = self.call(call, args);
            if !last.is_ok_and(|id| id >= 0) {
                break;
            }
        }
        if count > 0 {
            self.claim(which, format!("{what} {count}"), Wants::Passage(None), last);
        }
        let more = self.call(call, args);
        let name = format!("{what} {count} + 1");
        // Where there may be no segment there may be no byte in one, which the kernel sees first.
        let wants = Wants::Errno(&[Errno::ENOSPC, Errno::EINVAL]);
        self.claim(which, name, wants, more);
    }

    fn semaphores(&mut self, count: u64) {
        let get = |count| [IPC_PRIVATE, count, CREATE_0600, 0, 0, 0];
        if !self.allows("semget", get(count)) {
            return;
        }
        if count > 0 {
            let made = self.call("semget", get(count));
            self.claim(
                IpcLimit::Semaphores,
                format!("semaphore {count}"),
                Wants::Passage(None),
                made,
            );
            if let Ok(id) = made {
                let _ = self.call("semctl", [id.unsigned_abs(), 0, IPC_RMID, 0, 0, 0]);
            }
        }
        let more = self.call("semget", get(count.saturating_add(1)));
        let wants = Wants::Errno(&[Errno::EINVAL, Errno::ENOSPC]);
        self.claim(IpcLimit::Semaphores, format!("semaphore {count} + 1"), wants, more);
    }

    fn memory_files(&mut self, bytes: u64, left_out: &mut Vec<String>) {
        let create = [DATA_ADDRESS, 0, 0, 0, 0, 0];
        if !self.allows("memfd_create", create) || !self.allows("fallocate", [3, 0, 0, PAGE, 0, 0]) {
            return;
        }
        if bytes > MEMORY_BYTES_MAX {
            return left_out.push(format!(
                "ipc: {bytes} bytes of memory files are more than a proof fills"
            ));
        }
        let made = self.call("memfd_create", create);
        if bytes == 0 {
            let number = syscall::number("memfd_create").unwrap_or_default();
            let refusal = Refusal {
                op: Operation::Syscall,
                object: deny::described(number, create),
                reason: Reason::IpcNoRule,
                errno: Errno::EPERM,
            };
            return self.claim(IpcLimit::Memfd, "memory file".to_owned(), Wants::Refusal(refusal), made);
        }
        let fd = match made {
            Ok(fd) if fd >= 0 => fd.unsigned_abs(),
            other => return self.claim(IpcLimit::Memfd, "memory file".to_owned(), Wants::Passage(None), other),
        };
        let whole = self.call("fallocate", [fd, 0, 0, bytes, 0, 0]);
        self.claim(IpcLimit::Memfd, "memory files".to_owned(), Wants::Passage(None), whole);
        let more = self.call("fallocate", [fd, 0, bytes, PAGE, 0, 0]);
        let name = format!("memory files + {PAGE} bytes");
        self.claim(IpcLimit::Memfd, name, Wants::Errno(&[Errno::ENOSPC]), more);
        let _ = self.call("close", [fd, 0, 0, 0, 0, 0]);
    }
}
