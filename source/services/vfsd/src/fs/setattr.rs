use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{FileAttr, TimeOrNow};
use nexus_quota::{Amount, LEN_BYTES_MAX, charged_bytes};
use rustix::fs::{AtFlags, CWD, FileType, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::Vfs;
use super::create::permissions;
use super::handle::Handle;
use super::node::{Node, open_again, proc_path};

const THIS: &CStr = c"";

/// What `chmod`, `chown`, `truncate` and `utimensat` change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<TimeOrNow>,
    pub(crate) mtime: Option<TimeOrNow>,
}

impl Vfs {
    pub(crate) fn op_setattr(
        &self,
        id: u64,
        handle: Option<u64>,
        changes: Changes,
        pid: u32,
    ) -> Result<FileAttr, Errno> {
        if id == super::ROOT_ID {
            return Err(Errno::PERM);
        }
        let node = self.table.get(id)?;
        let fd = self.fd(&node)?;
        let foreign = changes.uid.is_some_and(|uid| uid != self.owner.uid)
            || changes.gid.is_some_and(|gid| gid != self.owner.gid);
        if foreign {
            return Err(Errno::PERM);
        }
        if let Some(mode) = changes.mode {
            if node.kind == FileType::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            rustix::fs::chmodat(CWD, proc_path(&fd).as_c_str(), permissions(mode), AtFlags::empty())?;
        }
        if let Some(size) = changes.size {
            let handle = handle.and_then(|number| self.handle(number).ok());
            self.truncate(&node, &fd, handle.as_deref(), size, pid)?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(changes.atime),
                last_modification: timespec(changes.mtime),
            };
            rustix::fs::utimensat(&fd, THIS, &times, AtFlags::EMPTY_PATH)?;
        }
        Ok(self.attr(&node, &rustix::fs::fstat(&fd)?))
    }

    pub(super) fn truncate(
        &self,
        node: &Arc<Node>,
        fd: &OwnedFd,
        handle: Option<&Handle>,
        size: u64,
        pid: u32,
    ) -> Result<(), Errno> {
        if node.kind != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        if size > LEN_BYTES_MAX {
            return Err(Errno::FBIG);
        }
        let opened;
        let file = match handle {
            Some(handle) => &handle.file,
            None => {
                opened = open_again(fd, OFlags::WRONLY)?;
                &opened
            }
        };
        let mut state = node.state();
        if size > state.len {
            return self.grow(node, file, &mut state, size, pid, || {
                rustix::fs::ftruncate(file, size).map(|()| ((), size))
            });
        }
        rustix::fs::ftruncate(file, size)?;
        let paid = charged_bytes(state.len).unwrap_or_default();
        state.len = size;
        let kept = charged_bytes(size).unwrap_or_default();
        if state.unlinked && state.handles == 0 && !state.reclaimed {
            // What an orphan costs stands in the books as well.
            self.books.orphaned(node, node.cost(&state));
        }
        self.books
            .release(node.zone.area(), Amount::of_bytes(paid.saturating_sub(kept)));
        Ok(())
    }
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(TimeOrNow::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Timespec {
                tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(after.subsec_nanos()),
            },
            // Before 1970 the kernel counts nanoseconds upwards from the second before; the library has taken them for
            // part of the distance, and taking them so again undoes it.
            Err(before) => Timespec {
                tv_sec: i64::try_from(before.duration().as_secs())
                    .unwrap_or(i64::MAX)
                    .saturating_neg(),
                tv_nsec: i64::from(before.duration().subsec_nanos()),
            },
        },
    }
}
