use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::sync::PoisonError;

use fuser::{FileType, INodeNo};
use rustix::fs::{RawDir, SeekFrom};
use rustix::io::Errno;

use super::attr::kind;
use super::node::Key;
use super::table::ROOT_ID;
use super::{Vfs, Zone};

/// What one look into a directory reads: about what one answer to the kernel holds.
const LISTING_BYTES: usize = 4096;

impl Vfs {
    /// Lists from `offset` on, which is where the host's own listing continues, until `add` says that it is full.
    ///
    /// So what POSIX says of a directory that changes while it is read holds as far as the host keeps it.
    pub(crate) fn op_readdir(
        &self,
        id: u64,
        number: u64,
        offset: u64,
        mut add: impl FnMut(INodeNo, u64, FileType, &std::ffi::OsStr) -> bool,
    ) -> Result<(), Errno> {
        if id == ROOT_ID {
            return self.list_root(offset, add);
        }
        let handle = self.handle(number)?;
        let mut standing = handle.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if *standing != Some(offset) {
            rustix::fs::seek(&handle.file, SeekFrom::Start(offset))?;
        }
        // Whatever goes wrong from here, the next call seeks.
        *standing = None;
        let mut last = offset;
        let mut buffer = [MaybeUninit::uninit(); LISTING_BYTES];
        let mut entries = RawDir::new(&handle.file, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            let known = self.table.id_of(Key {
                dev: handle.node.key.dev,
                ino: entry.ino(),
            });
            // 0 would end the listing.
            let shown = if known == 0 { u64::MAX } else { known };
            if add(INodeNo(shown), entry.next_entry_cookie(), kind(entry.file_type()), name) {
                return Ok(());
            }
            last = entry.next_entry_cookie();
            if entries.is_buffer_empty() {
                *standing = Some(last);
                // One look is one answer: the kernel asks again for more.
                return Ok(());
            }
        }
        *standing = Some(last);
        Ok(())
    }

    fn list_root(
        &self,
        offset: u64,
        mut add: impl FnMut(INodeNo, u64, FileType, &std::ffi::OsStr) -> bool,
    ) -> Result<(), Errno> {
        let zones = Zone::ALL.into_iter().filter_map(|zone| {
            let node = self.zones.iter().find(|node| node.zone == zone)?;
            Some((node.id, zone.name()))
        });
        let entries = [(ROOT_ID, ".".into()), (ROOT_ID, "..".into())].into_iter().chain(zones);
        for (place, (id, name)) in (1_u64..).zip(entries) {
            if place > offset
                && add(
                    INodeNo(id),
                    place,
                    FileType::Directory,
                    std::ffi::OsStr::new(name.as_ref()),
                )
            {
                break;
            }
        }
        Ok(())
    }
}
