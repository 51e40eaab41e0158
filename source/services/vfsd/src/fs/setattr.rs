use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nexus_quota::{Amount, LEN_BYTES_MAX, charged_bytes};
use rustix::fs::{AtFlags, CWD, FileType, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::Vfs;
use super::create::permissions;
use super::node::{Node, State, open_again, proc_path};
use super::protocol::{Attr, Changes, TimeChange};

const THIS: &CStr = c"";

impl Vfs {
    /// What `chmod`, `chown`, `truncate` and `utimensat` ask for.
    pub(crate) fn op_setattr(&self, id: u64, changes: Changes, pid: u32) -> Result<Attr, Errno> {
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
            let handle = changes.handle.and_then(|number| self.handle(number).ok());
            let file = handle.as_ref().filter(|handle| handle.node.id == id);
            self.truncate(&node, &fd, file.map(|handle| &handle.file), size, pid)?;
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

    /// Sets the length, through `file` if it is open for writing.
    pub(crate) fn truncate(
        &self,
        node: &Arc<Node>,
        fd: &OwnedFd,
        file: Option<&OwnedFd>,
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
        let file = match file {
            Some(file) => file,
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
        if state.reclaimed {
            return Err(Errno::STALE);
        }
        self.shorten(node, &mut state, file, size)
    }

    /// Lets a file end at `size`, which is no more than its length. What was preallocated goes as well: the host lets go
    /// of everything past the end.
    pub(crate) fn shorten(&self, node: &Arc<Node>, state: &mut State, file: &OwnedFd, size: u64) -> Result<(), Errno> {
        rustix::fs::ftruncate(file, size)?;
        let kept = charged_bytes(size).unwrap_or_default();
        let freed = state.paid.saturating_sub(kept);
        state.len = size;
        state.paid = kept;
        if state.unlinked && state.handles == 0 {
            // What an orphan costs stands in the books as well.
            self.books.orphaned(node, node.cost(state));
        }
        self.books.release(node.zone.area(), Amount::of_bytes(freed));
        Ok(())
    }

    /// Before the last close of a file: lets go of what was preallocated past its end. It is charged only while the file
    /// is open, since a restart measures lengths.
    pub(crate) fn trim(&self, node: &Arc<Node>) {
        let spare = |state: &State| {
            state.handles == state.closing && charged_bytes(state.len).is_some_and(|len| state.paid > len)
        };
        if node.kind != FileType::RegularFile || !spare(&node.state()) {
            return;
        }
        // Not with the state held: opening may have to look at directories.
        let Ok(fd) = self.fd(node) else { return };
        let Ok(file) = open_again(&fd, OFlags::WRONLY) else {
            return;
        };
        let mut state = node.state();
        if spare(&state) {
            let len = state.len;
            let _ = self.shorten(node, &mut state, &file, len);
        }
    }
}

fn timespec(time: Option<TimeChange>) -> Timespec {
    let (tv_sec, tv_nsec) = match time {
        None => (0, UTIME_OMIT),
        Some(TimeChange::Now) => (0, UTIME_NOW),
        Some(TimeChange::To(seconds, nanoseconds)) => (seconds, i64::from(nanoseconds)),
    };
    Timespec { tv_sec, tv_nsec }
}
