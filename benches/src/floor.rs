//! The least that any file server of its own can take for a write: one that judges nothing, knows one file, takes each write from
//! the device and gives it to the host, bound to one core with who asks.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::{Result, measure};

/// The longest request: a write of 512 KiB and its head.
const REQUEST_BYTES_MAX: usize = (512 << 10) + 4096;

/// `struct fuse_in_header` and `struct fuse_write_in` (linux/fuse.h).
const HEADER_BYTES: usize = 40;
const WRITE_BYTES: usize = HEADER_BYTES + 40;

const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;

/// Nanoseconds for each write through such a server, which takes the data over a pipe or reads it.
pub(crate) fn least(way: &str, what: &str, dir: &Path, bytes: usize, count: u32) -> Result<u128> {
    let piped = match way {
        "pipe" => true,
        "copy" => false,
        _ => return Err("pipe or copy".into()),
    };
    let host_path = dir.join("bench-least");
    let mut options = OpenOptions::new();
    let host = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&host_path)?;
    let at = dir.join("bench-least-at");
    File::create(&at)?;
    let mut core = rustix::thread::CpuSet::new();
    core.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &core)?;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    nexus_sys::userns::unshare_user_and_mounts()?;
    nexus_sys::userns::map_self(uid, gid)?;
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [
        ("fd", device.as_raw_fd().to_string()),
        // A file and no directory: nothing has to be looked up.
        ("rootmode", "100600".to_owned()),
        ("user_id", uid.to_string()),
        ("group_id", gid.to_string()),
    ] {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, &*value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let Fork::Parent(server) = clone(CloneFlags::NONE)? else {
        drop((mount, context));
        exit_now(i32::from(serve(&device, &host.into(), piped).is_err()))
    };
    drop(device);
    rustix::mount::move_mount(&mount, "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let each = measure(&File::options().read(true).write(true).open(&at)?, what, bytes, count)?;
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH)?;
    drop((mount, context));
    rustix::process::waitpid(
        rustix::process::Pid::from_raw(server.pid),
        rustix::process::WaitOptions::empty(),
    )?;
    std::fs::remove_file(at)?;
    std::fs::remove_file(host_path)?;
    Ok(each)
}

fn number<const BYTES: usize>(request: &[u8], at: usize) -> Result<[u8; BYTES]> {
    let bytes = request.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or("short")?;
    Ok(*bytes)
}

/// Serves until the file system is gone.
fn serve(device: &OwnedFd, host: &OwnedFd, piped: bool) -> Result<()> {
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    let (from, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::pipe::fcntl_setpipe_size(&into, 1 << 20)?;
    let mut len = 0_u64;
    loop {
        let taken = if piped {
            rustix::pipe::splice(device, None, &into, None, REQUEST_BYTES_MAX, SpliceFlags::empty())
        } else {
            rustix::io::read(device, &mut buffer)
        };
        let count = match taken {
            Ok(count) => count,
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => continue,
            Err(Errno::NODEV) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        if piped {
            let head = buffer.get_mut(..WRITE_BYTES).ok_or("short")?;
            rustix::io::read(&from, head)?;
        }
        let opcode = u32::from_ne_bytes(number(&buffer, 4)?);
        let mut answer = Vec::with_capacity(128);
        let mut errno = 0;
        let attributes = |answer: &mut Vec<u8>, len: u64| {
            // Believed for an hour; the root's number; a file of one name.
            for number in [3600, 0, 1, len, 0, 0, 0, 0, 0] {
                answer.extend(number.to_ne_bytes());
            }
            for number in [0_u32, 0o100_600, 1, 0, 0, 0, 4096, 0] {
                answer.extend(number.to_ne_bytes());
            }
        };
        match opcode {
            INIT => {
                // Large writes, and as many pages.
                let flags = (1 << 5) | (1 << 22) | (1 << 28) & u32::from_ne_bytes(number(&buffer, 52)?);
                for number in [7_u32, 41, 0, flags, 0, 512 << 10, 1, 128] {
                    answer.extend(number.to_ne_bytes());
                }
                answer.extend([0; 32]);
            }
            OPEN => answer.extend([0; 16]),
            GETATTR => attributes(&mut answer, len),
            SETATTR => {
                let valid = u32::from_ne_bytes(number(&buffer, HEADER_BYTES)?);
                if valid & 8 != 0 {
                    len = u64::from_ne_bytes(number(&buffer, HEADER_BYTES + 16)?);
                    rustix::fs::ftruncate(host, len)?;
                }
                attributes(&mut answer, len);
            }
            WRITE => {
                let mut at = u64::from_ne_bytes(number(&buffer, HEADER_BYTES + 8)?);
                let mut left = count - WRITE_BYTES;
                answer.extend(u32::try_from(left)?.to_ne_bytes());
                answer.extend([0; 4]);
                if piped {
                    while left > 0 {
                        left -= rustix::pipe::splice(&from, None, host, Some(&mut at), left, SpliceFlags::empty())?;
                    }
                } else {
                    rustix::io::pwrite(host, buffer.get(WRITE_BYTES..count).ok_or("short")?, at)?;
                    at += u64::try_from(left)?;
                }
                len = len.max(at);
            }
            FLUSH | RELEASE => {}
            _ => errno = -Errno::NOSYS.raw_os_error(),
        }
        let mut head = Vec::with_capacity(16 + answer.len());
        head.extend(u32::try_from(16 + answer.len())?.to_ne_bytes());
        head.extend(errno.to_ne_bytes());
        head.extend(number::<8>(&buffer, 8)?);
        head.extend(&answer);
        // One that wants no answer, or is taken back, gets none.
        let _ = rustix::io::write(device, &head);
        if piped && opcode != WRITE && count > WRITE_BYTES {
            rustix::io::read(&from, buffer.get_mut(WRITE_BYTES..).ok_or("short")?)?;
        }
    }
}
