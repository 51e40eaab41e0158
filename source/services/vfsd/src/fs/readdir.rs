use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::sync::PoisonError;

use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::Errno;

use super::node::Key;
use super::protocol::Answer;
use super::table::ROOT_ID;
use super::{Vfs, Zone};

/// What one look into a directory reads at most.
const LISTING_BYTES: usize = 32 * 1024;

/// What one look reads at least: the longest entry.
const LISTING_BYTES_MIN: usize = 512;

impl Vfs {
    /// Lists from `offset` on, which is where the host's own listing continues, as much as fits `size`.
    ///
    /// So what POSIX says of a directory that changes while it is read holds as far as the host keeps it.
    pub(crate) fn op_readdir(
        &self,
        id: u64,
        number: u64,
        offset: u64,
        size: u32,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let limit = usize::try_from(size).unwrap_or(usize::MAX);
        if id == ROOT_ID {
            self.list_root(offset, limit, answer);
            return Ok(());
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
        // The host's entries are somewhat shorter than the protocol's: what fits there should fit here too.
        let look = (limit / 4 * 3).clamp(LISTING_BYTES_MIN, LISTING_BYTES);
        let mut entries = RawDir::new(&handle.file, buffer.get_mut(..look).unwrap_or_default());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let known = self.table.id_of(Key {
                dev: handle.node.key.dev,
                ino: entry.ino(),
            });
            // 0 would end the listing.
            let shown = if known == 0 { u64::MAX } else { known };
            if !answer.dirent(shown, entry.next_entry_cookie(), entry.file_type(), name, limit) {
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

    fn list_root(&self, offset: u64, limit: usize, answer: &mut Answer) {
        let zones = Zone::ALL.into_iter().filter_map(|zone| {
            let node = self.zones.iter().find(|node| node.zone == zone)?;
            Some((node.id, zone.name()))
        });
        let entries = [(ROOT_ID, ".".into()), (ROOT_ID, "..".into())].into_iter().chain(zones);
        for (place, (id, name)) in (1_u64..).zip(entries) {
            if place > offset && !answer.dirent(id, place, FileType::Directory, OsStr::new(name.as_ref()), limit) {
                break;
            }
        }
    }
}
