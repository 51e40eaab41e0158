//! Reading another process's memory, once.
//!
//! The kernel holds that meanwhile, and so all files that are mapped in it: where the process is killed just then, this thread is the
//! last that closes them. So it hurries ([`Hurried`]), where somebody looks after it.

use crate::hurry::Hurried;
use std::io;

/// `process_vm_readv(tid, …)` process_vm_readv(2), Linux 3.2.
///
/// Copies up to `buffer.len()` bytes at `address` of the task `tid` and returns how many were there. A short count
/// means that the rest is not mapped. The copy is the only thing to judge: the owner may change its memory meanwhile.
///
/// # Errors
/// `EFAULT` if nothing could be read, `EPERM` if the caller may not trace the task, `ESRCH` if it is gone.
pub fn read(tid: u32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let Ok(pid) = libc::pid_t::try_from(tid) else {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    };
    let Ok(base) = usize::try_from(address) else {
        return Err(io::Error::from_raw_os_error(libc::EFAULT));
    };
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(base),
        iov_len: buffer.len(),
    };
    let _hurried = Hurried::now();
    // SAFETY: `local` describes `buffer`, which is exclusively borrowed for the call; the remote address is only a
    // number to the kernel, which checks it in the other process; one entry in each array, no flags.
    let count = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// `process_vm_readv(tid, …)` process_vm_readv(2), Linux 3.2, from several places at once.
///
/// Copies `pieces` (address and length) of the task `tid` one after another into `buffer` and returns how many bytes were
/// there; the first piece that is not mapped ends it. At most 1024 pieces (`IOV_MAX`), which together are no longer than
/// the buffer.
///
/// # Errors
/// As [`read`]; `EINVAL` for more pieces.
pub fn gather(tid: u32, pieces: &[(u64, usize)], buffer: &mut [u8]) -> io::Result<usize> {
    let Ok(pid) = libc::pid_t::try_from(tid) else {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    };
    let mut remote = Vec::with_capacity(pieces.len());
    for (address, length) in pieces {
        let Ok(base) = usize::try_from(*address) else {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        };
        remote.push(libc::iovec {
            iov_base: std::ptr::without_provenance_mut(base),
            iov_len: *length,
        });
    }
    let count = libc::c_ulong::try_from(remote.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let _hurried = Hurried::now();
    // SAFETY: `local` describes `buffer`, which is exclusively borrowed for the call and bounds what is written; the remote
    // addresses are only numbers to the kernel; `count` is the length of `remote`, which lives over the call.
    let count = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), count, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// `process_vm_writev(tid, …)` process_vm_writev(2), Linux 3.2.
///
/// Writes `bytes` at `address` of the task `tid`, as a call that it made would have, and returns how many fitted.
///
/// # Errors
/// `EFAULT` if nothing could be written, `EPERM` if the caller may not trace the task, `ESRCH` if it is gone.
pub fn write(tid: u32, address: u64, bytes: &[u8]) -> io::Result<usize> {
    let Ok(pid) = libc::pid_t::try_from(tid) else {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    };
    let Ok(base) = usize::try_from(address) else {
        return Err(io::Error::from_raw_os_error(libc::EFAULT));
    };
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(base),
        iov_len: bytes.len(),
    };
    let _hurried = Hurried::now();
    // SAFETY: `local` describes `bytes`, which the call only reads; the remote address is only a number to the kernel,
    // which checks it in the other process; one entry in each array, no flags.
    let count = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::hurry::Hurrier;
    use crate::signal::set_interrupting;
    use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size};
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
    use std::thread;
    use std::time::Duration;

    /// How long a round may take before it counts as one that waits: each needs two threads more, which others' work holds up.
    const ROUND_WAIT: Duration = Duration::from_secs(60);

    /// One of the two below at a time: a process that one forks would hold the other's streams too, and be the last to.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody who takes nothing.
    fn who_takes_nothing() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_socket_recv_buffer_size(&listener, 4096).unwrap();
        rustix::net::listen(&listener, 4096).unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    /// A stream to there that has been sent all that fits and lingers for an hour.
    fn lingering(at: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(at).unwrap();
        set_socket_send_buffer_size(&stream, 4096).unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        set_socket_linger(&stream, Some(Duration::from_secs(3600))).unwrap();
        stream
    }

    /// Looks at many lingering streams of this process by their numbers, each until the number means nothing any more. Each is closed
    /// meanwhile. Fails if that does not end.
    pub(crate) fn while_closed(count: usize, mut look: impl FnMut(u32, u32) -> bool + Send + 'static) {
        /// Numbers that no other test gets to.
        const FROM: i32 = 500;
        let _alone = alone();
        let signal = libc::SIGUSR2;
        set_interrupting(signal).unwrap();
        let (listener, at) = who_takes_nothing();
        let (tell, told) = mpsc::channel();
        let (close, to_close) = mpsc::channel::<OwnedFd>();
        thread::spawn(move || {
            let hurrier = Hurrier::start(signal, Duration::from_millis(1)).unwrap();
            hurrier.look_after_here();
            for _ in 0..count {
                let first = lingering(at);
                let stream = rustix::io::fcntl_dupfd_cloexec(&first, FROM).unwrap();
                drop(first);
                let number = u32::try_from(stream.as_raw_fd()).unwrap();
                close.send(stream).unwrap();
                while look(std::process::id(), number) {}
                tell.send(()).unwrap();
            }
        });
        thread::spawn(move || {
            for stream in to_close {
                // Who closes it waits.
                thread::spawn(|| drop(stream));
            }
        });
        for _ in 0..count {
            told.recv_timeout(ROUND_WAIT).expect("it waits");
        }
        drop(listener);
    }

    /// A process that has nothing but a mapping of such a stream.
    fn with_a_mapping(at: SocketAddr) -> libc::pid_t {
        let stream = lingering(at);
        let (mut ready, tell) = std::io::pipe().unwrap();
        // SAFETY: the child makes system calls only.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let (fd, tell) = (stream.as_raw_fd(), tell.as_raw_fd());
            // SAFETY: a new mapping that nobody touches.
            let map = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
            let said: &[u8] = if map == libc::MAP_FAILED { b"n" } else { b"y" };
            // SAFETY: `said` is one byte.
            unsafe { libc::write(tell, said.as_ptr().cast(), 1) };
            // SAFETY: this process uses none of them, and ends by a signal.
            unsafe { libc::close_range(0, u32::MAX, 0) };
            loop {
                // SAFETY: no memory is involved.
                unsafe { libc::pause() };
            }
        }
        drop(tell);
        let mut said = Vec::new();
        ready.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"y");
        pid
    }

    /// Looks at `count` processes, one after another, each until it is dead; says which, and whether it is a new one. Each is
    /// killed in the middle of that. Fails if that does not end.
    pub(crate) fn while_killed(count: usize, mut look: impl FnMut(u32, bool) -> bool + Send + 'static) {
        let _alone = alone();
        let signal = libc::SIGUSR2;
        set_interrupting(signal).unwrap();
        let (listener, at) = who_takes_nothing();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let hurrier = Hurrier::start(signal, Duration::from_millis(1)).unwrap();
            hurrier.look_after_here();
            for _ in 0..count {
                let pid = with_a_mapping(at);
                let killer = thread::spawn(move || {
                    // In the middle of the looks, and with a processor free for it to die on.
                    thread::sleep(Duration::from_micros(100));
                    crate::signal::kill(pid, libc::SIGKILL).unwrap();
                });
                let tid = u32::try_from(pid).unwrap();
                let mut is_new = true;
                while look(tid, is_new) && !is_dead(tid) {
                    is_new = false;
                }
                killer.join().unwrap();
                // SAFETY: a child of this process that nobody else waits for; where it ended is not asked for.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                tell.send(()).unwrap();
            }
        });
        for _ in 0..count {
            told.recv_timeout(ROUND_WAIT).expect("it waits");
        }
        drop(listener);
    }

    /// Asked without its memory.
    fn is_dead(pid: u32) -> bool {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed());
        let options = rustix::process::WaitIdOptions::EXITED
            | rustix::process::WaitIdOptions::NOHANG
            | rustix::process::WaitIdOptions::NOWAIT;
        let is_over = |pid| rustix::process::waitid(rustix::process::WaitId::Pid(pid), options);
        pid.is_none_or(|pid| is_over(pid).is_ok_and(|status| status.is_some()))
    }

    #[test]
    fn who_reads_or_writes_in_a_process_that_is_killed_does_not_wait_for_the_peer_of_what_it_has_mapped() {
        // So much that it is nearly always being done. The process is a copy of this one.
        let here = vec![7_u8; 1 << 20];
        let (at, length) = (here.as_ptr().addr() as u64, here.len());
        let mut copy = vec![0; length];
        while_killed(30, move |tid, _| read(tid, at, &mut copy).is_ok());
        let mut copy = vec![0; length];
        while_killed(30, move |tid, _| gather(tid, &[(at, length)], &mut copy).is_ok());
        let copy = vec![0; length];
        while_killed(30, move |tid, _| write(tid, at, &copy).is_ok());
    }
}
