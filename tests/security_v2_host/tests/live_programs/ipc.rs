//! Shared memory, queues and memory files: to the exact limit and no further.

use std::sync::Arc;

use crate::need::{has, lacking};
use security_v2_host::{Home, Output, Run, Tree, users};

/// Small limits, so that each is met.
fn tree(ipc: &str) -> Tree {
    let shipped = Tree::shipped().append("sandbox.toml", "[subject.demo]\nwork = \"ro\"\n");
    shipped.append("quotas.toml", &format!("[subject.demo.ipc]\n{ipc}\n"))
}

const SMALL: &str = "shm = \"64KiB\"\nsegments = 3\nqueue = \"4KiB\"\nqueues = 2\nsemaphores = 5\nmqueue = \"64KiB\"\nmemfd = \"64KiB\"";
const NONE: &str =
    "shm = \"0B\"\nsegments = 0\nqueue = \"0B\"\nqueues = 0\nsemaphores = 0\nmqueue = \"0B\"\nmemfd = \"0B\"";

/// What is tried, in Python's words for the C calls.
const CALLS: &str = "
import ctypes, errno, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def named(result): return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
def ok(result): return 'ok' if named(result) == result else named(result)
NEW = 0o1600
def shm(size): return libc.shmget(0, ctypes.c_size_t(size), NEW)
def queue(): return libc.msgget(0, NEW)
def sem(count): return libc.semget(0, count, NEW)
def send(to, size):
    message = ctypes.create_string_buffer(8 + size); message[0] = 1
    return libc.msgsnd(to, message, ctypes.c_size_t(size), 0o4000)
class Attributes(ctypes.Structure):
    _fields_ = [('words', ctypes.c_long * 8)]
def mq(name, count, size):
    attributes = Attributes(); attributes.words[1] = count; attributes.words[2] = size
    return libc.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, ctypes.byref(attributes))
def fill(fd):
    done = 0
    try:
        while True: done += os.write(fd, b'x' * 1024)
    except OSError as error: return done, errno.errorcode[error.errno]
def attempt(act):
    try: return act()
    except OSError as error: return errno.errorcode[error.errno]
";

fn try_out(home: &Arc<Home>, ipc: &str, script: &str) -> Output {
    let program = format!("{CALLS}\n{script}");
    Run::at(home).policy(&tree(ipc)).args(["python3", "-c", &program]).run()
}

fn says(script: &str, ipc: &str, wanted: &str) {
    if !has(&["python3"]) {
        return;
    }
    for user in users() {
        let home = Home::new(user);
        let done = try_out(&home, ipc, script);
        assert_eq!((done.code(), done.out().trim()), (Some(0), wanted), "{done}");
        done.assert_nothing_left();
    }
}

/// Whether this kernel lets a namespace's owner bound it; where not, there is no System V IPC at all.
fn bounds_sysv() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < (6, 9) {
        lacking("this kernel does not bound System V IPC: it is denied instead");
    }
    version >= (6, 9)
}

#[test]
fn shared_memory_is_given_to_the_last_page_and_no_further() {
    if bounds_sysv() {
        says(
            "print(ok(shm(65536 + 4096)), ok(shm(61440)), ok(shm(4096)), ok(shm(4096)))",
            SMALL,
            "EINVAL ok ok ENOSPC",
        );
    }
}

#[test]
fn segments_are_given_to_the_last_and_no_further() {
    if bounds_sysv() {
        says(
            "print([ok(shm(4096)) for _ in range(4)])",
            SMALL,
            "['ok', 'ok', 'ok', 'ENOSPC']",
        );
    }
}

#[test]
fn message_queues_are_given_to_the_last_byte_and_the_last_queue() {
    if bounds_sysv() {
        says(
            "a = queue(); b = queue(); print(ok(a), ok(b), ok(queue()))
print(ok(send(a, 4097)), ok(send(a, 4000)), ok(send(a, 96)), ok(send(a, 1)))",
            SMALL,
            "ok ok ENOSPC\nEINVAL ok ok EAGAIN",
        );
    }
}

#[test]
fn semaphores_are_given_to_the_last_and_no_further() {
    if bounds_sysv() {
        says(
            "print(ok(sem(6)), ok(sem(4)), ok(sem(1)), ok(sem(1)))",
            SMALL,
            "EINVAL ok ok ENOSPC",
        );
    }
}

#[test]
fn posix_queues_are_given_as_far_as_the_limit_reckons_them_and_no_further() {
    // Each costs its messages and two small structs for each of them: of 64 KiB, seven of eight kibibytes fit.
    says(
        "print([ok(mq(b'/q%d' % n, 1, 8192)) for n in range(8)])",
        SMALL,
        "['ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'EMFILE']",
    );
}

#[test]
fn memory_files_together_have_what_policy_says_and_no_more() {
    says(
        "a = os.memfd_create('a'); b = os.memfd_create('b')
os.ftruncate(a, 1 << 30); os.ftruncate(a, 0)
os.write(a, b'x' * 32768); print(fill(b), fill(a))
os.close(b); print(fill(a)); view = mmap.mmap(a, 65536); print(view[65535:], os.get_inheritable(a))",
        SMALL,
        "(32768, 'ENOSPC') (0, 'ENOSPC')\n(32768, 'ENOSPC')\nb'x' False",
    );
}

#[test]
fn a_memory_file_can_be_opened_again_and_executed_and_cannot_be_sealed() {
    says(
        "fd = os.memfd_create('a', 0)
os.write(fd, b'#!/bin/sh\\necho ran'); again = os.open('/proc/self/fd/%d' % fd, os.O_RDWR); os.write(again, b'#!/bin/sh\\necho again')
os.close(again); print(attempt(lambda: os.memfd_create('b', os.MFD_ALLOW_SEALING)), flush=True)
copy = os.open('/proc/self/fd/%d' % fd, os.O_RDONLY); os.close(fd); os.set_inheritable(copy, True)
os.execve(copy, ['x'], {'PATH': '/usr/bin:/bin'})",
        SMALL,
        "EINVAL\nagain",
    );
}

#[test]
fn what_policy_gives_nothing_of_there_is_none_of() {
    if !has(&["python3"]) {
        return;
    }
    for user in users() {
        let home = Home::new(user);
        let script = "print([type(named(one)) for one in (shm(4096), queue(), sem(1), mq(b'/q', 1, 1))], attempt(lambda: os.memfd_create('a')))";
        let done = try_out(&home, NONE, script);
        let nothing = "[<class 'str'>, <class 'str'>, <class 'str'>, <class 'str'>] EPERM";
        assert_eq!(done.out().trim(), nothing, "{done}");
        assert_eq!(
            done.records_for("ipc.no_rule").len(),
            if bounds_sysv() { 1 } else { 4 },
            "{done}"
        );
    }
}

#[test]
fn the_limits_cannot_be_changed_from_inside() {
    if !has(&["python3"]) {
        return;
    }
    for user in users() {
        let home = Home::new(user);
        let script = "
names = ['kernel/' + name for name in ('shmall', 'shmmax', 'shmmni', 'msgmax', 'msgmnb', 'msgmni', 'sem')] + ['fs/mqueue/msg_max']
def write(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b'4096')
    return 'changed'
for root in ('/proc/sys/', '/proc/self/root/proc/sys/', '/proc/thread-self/root/proc/sys/'):
    print(set(attempt(lambda: write(root + name)) for name in names))";
        let done = try_out(&home, SMALL, script);
        let out = done.out();
        assert_eq!(out.lines().count(), 3, "{done}");
        assert!(out.lines().all(|line| line == "{'EROFS'}"), "{done}");
    }
}

#[test]
fn each_session_has_its_own() {
    if bounds_sysv() {
        // What one session takes, the next finds free: the namespace went with it.
        says("print(ok(shm(65536)))", SMALL, "ok");
        says("print(ok(shm(65536)))", SMALL, "ok");
    }
}

#[test]
fn two_sessions_at_once_each_have_the_whole_of_it_and_nothing_of_the_others() {
    // The same key and the same name in both, each made as what is not there yet.
    const SCRIPT: &str = "
import time
own, other = sys.argv[1:]
taken = libc.shmget(0x4e58, ctypes.c_size_t(65536), NEW | 0o2000)
filled = fill(os.memfd_create('a'))
queue = libc.mq_open(b'/same', os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600, None)
open('/tmp/' + own, 'w').close()
while not os.path.exists('/tmp/' + other): time.sleep(0.02)
print(ok(taken), filled, ok(queue), ok(shm(4096)))";
    if !bounds_sysv() || !has(&["python3"]) {
        return;
    }
    let program = format!("{CALLS}\n{SCRIPT}");
    for user in users() {
        let home = Home::new(user);
        // Sessions that begin at once must not write the tree at once.
        drop(Run::at(&home).policy(&tree(&SMALL.replace("mqueue = \"64KiB\"", "mqueue = \"256KiB\""))));
        let run = |own: &'static str, other: &'static str| {
            let home = Arc::clone(&home);
            let program = program.clone();
            std::thread::spawn(move || {
                let run = Run::at(&home).policy_directory(home.policy());
                run.args(["python3", "-c", &program, own, other]).run()
            })
        };
        for session in [run("a", "b"), run("b", "a")] {
            let done = session.join().expect("a run");
            let out = done.out();
            assert_eq!(out.trim(), "ok (65536, 'ENOSPC') ok ENOSPC", "{done}");
        }
        home.assert_nothing_left();
    }
}
