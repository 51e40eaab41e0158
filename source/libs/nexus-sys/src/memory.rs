//! Reading another process's memory, once.

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
    // SAFETY: `local` describes `buffer`, which is exclusively borrowed for the call; the remote address is only a
    // number to the kernel, which checks it in the other process; one entry in each array, no flags.
    let count = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
