//! Extended attributes: those of `user.*`, charged like a file of their own.
//!
//! What names and values of one inode take, with a byte for each name's end, is charged in whole blocks. Other
//! namespaces are the host's (`security`, `trusted`) or mean access rights (`system`), and are not shown.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use nexus_abi::Operation;
use nexus_quota::{Amount, charged_bytes};
use rustix::fs::{FileType, XattrFlags};
use rustix::io::Errno;

use super::Vfs;
use super::books::Asker;
use super::node::proc_path;
use super::protocol::Answer;

/// How many bytes the attributes of one inode have at most: what Linux lists, and what it lets a value have
/// (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`). A host may have less room and says so.
const ATTRIBUTES_BYTES_MAX: u64 = 65536;

/// The same, as a buffer.
const LIST_BYTES_MAX: usize = 65536;

/// The attribute by which whoever has a descriptor of an area can tell: every inode has it, it is listed nowhere and cannot be changed.
pub(crate) const AREA: &CStr = c"system.nexus_area";

/// What it says.
const AREA_VALUE: &[u8] = b"1";

/// Whether a descriptor is of some subject's area. Asks whoever serves it and waits for the answer: not for those who serve files.
pub(crate) fn is_of_an_area(fd: &OwnedFd) -> bool {
    // Who may not look into it cannot have it served either.
    rustix::fs::getxattr_query(proc_path(fd).as_c_str(), AREA).is_ok()
}

/// Whether it is one of those that are served.
fn ours(name: &CStr) -> bool {
    name.to_bytes()
        .strip_prefix(b"user.")
        .is_some_and(|rest| !rest.is_empty())
}

/// What one attribute takes.
fn cost(name: &CStr, value: usize) -> u64 {
    let bytes = name.count_bytes().saturating_add(1).saturating_add(value);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The names in a list as listxattr(2) gives it.
fn names(list: &[u8]) -> impl Iterator<Item = &CStr> {
    list.split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .filter(|name| ours(name))
}

/// The list of what is at `path`, a link there being followed only if it is a descriptor of ours.
fn list(path: &CStr) -> Result<Vec<u8>, Errno> {
    match rustix::fs::listxattr_query(path) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(errno) => return Err(errno),
    }
    let mut list = vec![0; LIST_BYTES_MAX];
    let count = rustix::fs::listxattr(path, &mut list)?;
    list.truncate(count);
    Ok(list)
}

/// What the attributes of the inode at `path` take, which is a descriptor's in `/proc`.
pub(crate) fn measure(path: &CStr) -> Result<u64, Errno> {
    sum(&list(path)?, |name| rustix::fs::getxattr_query(path, name))
}

/// What the attributes of a directory's entry at `path` take. A link there is not followed.
pub(crate) fn measure_entry(path: &CStr) -> Result<u64, Errno> {
    if matches!(rustix::fs::llistxattr_query(path), Ok(0) | Err(Errno::OPNOTSUPP)) {
        return Ok(0);
    }
    let mut list = vec![0; LIST_BYTES_MAX];
    let count = rustix::fs::llistxattr(path, &mut list)?;
    list.truncate(count);
    sum(&list, |name| rustix::fs::lgetxattr_query(path, name))
}

fn sum(list: &[u8], value: impl Fn(&CStr) -> Result<usize, Errno>) -> Result<u64, Errno> {
    let mut sum = 0_u64;
    for name in names(list) {
        let value = match value(name) {
            // On a file that is somebody else's, who put it there from outside: its value is not ours to serve either.
            Err(Errno::ACCESS) => 0,
            value => value?,
        };
        sum = sum.saturating_add(cost(name, value));
    }
    Ok(sum)
}

impl Vfs {
    pub(crate) fn op_setxattr(&self, id: u64, name: &CStr, value: &[u8], flags: u32, pid: u32) -> Result<(), Errno> {
        self.change_attributes(id, name, pid, |path, old| {
            let flags = XattrFlags::from_bits_retain(flags);
            // What the host would refuse must not be charged: a denial would be told where none was.
            if old.is_some() && flags.contains(XattrFlags::CREATE) {
                return Err(Errno::EXIST);
            }
            if old.is_none() && flags.contains(XattrFlags::REPLACE) {
                return Err(Errno::NODATA);
            }
            let path = path.to_owned();
            Ok((cost(name, value.len()), move || {
                rustix::fs::setxattr(path.as_c_str(), name, value, flags)
            }))
        })
    }

    pub(crate) fn op_removexattr(&self, id: u64, name: &CStr) -> Result<(), Errno> {
        self.change_attributes(id, name, 0, |path, old| {
            if old.is_none() {
                return Err(Errno::NODATA);
            }
            let path = path.to_owned();
            Ok((0, move || rustix::fs::removexattr(path.as_c_str(), name)))
        })
    }

    /// Changes one attribute: `plan` is told what it takes now, and says what it will take and how to do it.
    ///
    /// `INVARIANT(paid-for)`: what is missing is charged first, and given back if it was not used.
    fn change_attributes<A: FnOnce() -> Result<(), Errno>>(
        &self,
        id: u64,
        name: &CStr,
        pid: u32,
        plan: impl FnOnce(&CStr, Option<u64>) -> Result<(u64, A), Errno>,
    ) -> Result<(), Errno> {
        if !ours(name) {
            return Err(Errno::OPNOTSUPP);
        }
        let node = self.table.get(id)?;
        if !matches!(node.kind, FileType::RegularFile | FileType::Directory) {
            return Err(Errno::PERM);
        }
        let fd = self.fd(&node)?;
        let path = proc_path(&fd);
        let mut state = node.state();
        if state.reclaimed {
            return Err(Errno::STALE);
        }
        let before = match state.attributes {
            Some(known) => known,
            None => measure(&path)?,
        };
        state.attributes = Some(before);
        let old = match rustix::fs::getxattr_query(path.as_c_str(), name) {
            Ok(value) => Some(cost(name, value)),
            Err(Errno::NODATA) => None,
            Err(errno) => return Err(errno),
        };
        let (new, act) = plan(&path, old)?;
        let after = before.saturating_sub(old.unwrap_or_default()).saturating_add(new);
        if after > ATTRIBUTES_BYTES_MAX && new > 0 {
            return Err(Errno::NOSPC);
        }
        let area = node.zone.area();
        let blocks = |bytes| charged_bytes(bytes).ok_or(Errno::FBIG);
        let (had, needs) = (blocks(before)?, blocks(after)?);
        let more = Amount::of_bytes(needs.saturating_sub(had));
        if more != Amount::ZERO {
            let (operation, name) = (Operation::Write, node.name());
            let name = &name;
            self.books.charge(area, more, Asker { operation, name, pid })?;
        }
        let done = act();
        match done {
            Ok(()) => {
                state.attributes = Some(after);
                self.books.release(area, Amount::of_bytes(had.saturating_sub(needs)));
            }
            Err(_) => self.books.release(area, more),
        }
        if state.unlinked && state.handles == 0 {
            // What an orphan costs stands in the books as well.
            self.books.orphaned(&node, node.cost(&state));
        }
        done
    }

    pub(crate) fn op_getxattr(&self, id: u64, name: &CStr, size: u32, answer: &mut Answer) -> Result<(), Errno> {
        let size = usize::try_from(size).map_err(|_| Errno::RANGE)?;
        if name == AREA {
            return match size {
                0 => {
                    answer.written(u32::try_from(AREA_VALUE.len()).map_err(|_| Errno::RANGE)?);
                    Ok(())
                }
                room if room < AREA_VALUE.len() => Err(Errno::RANGE),
                _ => {
                    answer.bytes(AREA_VALUE);
                    Ok(())
                }
            };
        }
        if !ours(name) {
            return Err(Errno::OPNOTSUPP);
        }
        let fd = self.with_attributes(id)?;
        let path = proc_path(&fd);
        if size == 0 {
            let count = rustix::fs::getxattr_query(path.as_c_str(), name)?;
            answer.written(u32::try_from(count).map_err(|_| Errno::RANGE)?);
            return Ok(());
        }
        let count = rustix::fs::getxattr(path.as_c_str(), name, answer.room(size))?;
        answer.used(count);
        Ok(())
    }

    pub(crate) fn op_listxattr(&self, id: u64, size: u32, answer: &mut Answer) -> Result<(), Errno> {
        let fd = self.with_attributes(id)?;
        let list = list(&proc_path(&fd))?;
        let total: usize = names(&list).map(|name| name.count_bytes().saturating_add(1)).sum();
        let size = usize::try_from(size).map_err(|_| Errno::RANGE)?;
        if size == 0 {
            answer.written(u32::try_from(total).map_err(|_| Errno::RANGE)?);
            return Ok(());
        }
        if total > size {
            return Err(Errno::RANGE);
        }
        for name in names(&list) {
            answer.bytes(name.to_bytes_with_nul());
        }
        Ok(())
    }

    /// A handle of what can have attributes.
    fn with_attributes(&self, id: u64) -> Result<std::sync::Arc<OwnedFd>, Errno> {
        let node = self.table.get(id)?;
        match node.kind {
            FileType::RegularFile | FileType::Directory => self.fd(&node),
            _ => Err(Errno::OPNOTSUPP),
        }
    }
}
