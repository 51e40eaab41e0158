//! What `/proc` says of a process that is not trusted. proc_pid_stat(5), proc_pid_status(5), proc_pid_fd(5), proc_pid_fdinfo(5).
//!
//! Where that tells of the process's memory the kernel holds it meanwhile, and so all files that are mapped in it; where it tells of a
//! descriptor, the file. Where the process is killed or closes it just then, the reading thread is the last that closes them. So it
//! hurries ([`Hurried`]), where somebody looks after it.

use crate::hurry::Hurried;
use rustix::fs::{CWD, Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The whole of `/proc/PID/NAME`.
///
/// # Errors
/// `ENOENT` or `ESRCH` if there is no such process (any more).
pub fn read(pid: u32, name: &str) -> io::Result<Vec<u8>> {
    let _hurried = Hurried::now();
    std::fs::read(format!("/proc/{pid}/{name}"))
}

/// As much of `/proc/PID/NAME`.
///
/// # Errors
/// As [`read`].
pub fn read_at_most(pid: u32, name: &str, bytes: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let _hurried = Hurried::now();
    let mut text = Vec::new();
    std::fs::File::open(format!("/proc/{pid}/{name}"))?
        .take(bytes)
        .read_to_end(&mut text)?;
    Ok(text)
}

/// What the process's descriptor of this number is called.
///
/// # Errors
/// As [`read`]; `ENOENT` if the number means nothing.
pub fn link(pid: u32, number: u32) -> io::Result<PathBuf> {
    let _hurried = Hurried::now();
    std::fs::read_link(format!("/proc/{pid}/fd/{number}"))
}

/// `/proc/PID/NAME`, kept open: it stays that process's, whoever has its number later.
#[derive(Debug)]
pub struct Kept(OwnedFd);

impl Kept {
    /// Opens it.
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(pid: u32, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(
            CWD,
            format!("/proc/{pid}/{name}"),
            flags,
            Mode::empty(),
        )?))
    }

    /// What it says now, as much as there is room for.
    ///
    /// # Errors
    /// As [`read`].
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let count = {
            let _hurried = Hurried::now();
            rustix::io::pread(&self.0, &mut *buffer, 0)?
        };
        Ok(buffer.get(..count).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::{while_closed, while_killed};

    #[test]
    fn who_looks_at_a_process_that_is_killed_does_not_wait_for_the_peer_of_what_it_has_mapped() {
        while_killed(300, |pid, _| read(pid, "stat").is_ok_and(|text| !text.is_empty()));
        let mut kept = None;
        while_killed(300, move |pid, is_new| {
            if is_new {
                kept = Kept::open(pid, "stat").ok();
            }
            kept.as_ref().is_some_and(|kept| kept.read(&mut [0; 1024]).is_ok())
        });
    }

    #[test]
    fn who_looks_at_a_descriptor_that_is_closed_does_not_wait_for_its_peer() {
        while_closed(3000, |pid, number| link(pid, number).is_ok());
        while_closed(300, |pid, number| read(pid, &format!("fdinfo/{number}")).is_ok());
        while_closed(300, |pid, number| {
            read_at_most(pid, &format!("fdinfo/{number}"), 1 << 20).is_ok()
        });
    }
}
