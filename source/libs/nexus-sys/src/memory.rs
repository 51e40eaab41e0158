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
    // SAFETY: `local` describes `bytes`, which the call only reads; the remote address is only a number to the kernel,
    // which checks it in the other process; one entry in each array, no flags.
    let count = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
