//! What `stat` says.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use rustix::fs::Stat;

use super::Vfs;
use super::node::Node;
use super::shared::SHARED_TTL;
use super::table::ROOT_ID;

/// How long the kernel may believe what it was told of files that only it changes, by us.
pub(crate) const TTL: Duration = Duration::from_secs(3600);

/// The block size that `stat` advises: what one request carries comfortably.
const ADVISED_BYTES: u32 = 128 * 1024;

/// In a field that the protocol does not carry on Linux: others change the file too.
const SHARED: u32 = 1;

/// How long the kernel may believe these attributes.
pub(crate) fn ttl(attr: &FileAttr) -> &'static Duration {
    if attr.flags == SHARED { &SHARED_TTL } else { &TTL }
}

impl Vfs {
    /// The attributes of an inode.
    ///
    /// The group of one's own file is shown as one's own: no other is mapped, and the kernel would let nobody write to a
    /// file of a group that is not.
    pub(crate) fn attr(&self, node: &Node, stat: &Stat) -> FileAttr {
        let gid = if stat.st_uid == self.owner.uid {
            self.owner.gid
        } else {
            stat.st_gid
        };
        FileAttr {
            ino: INodeNo(node.id),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            blocks: u64::try_from(stat.st_blocks).unwrap_or_default(),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            crtime: SystemTime::UNIX_EPOCH,
            kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
            // Without set-id bits, whoever set them on the host: the kernel was told that there are none.
            perm: u16::try_from(stat.st_mode & 0o1777).unwrap_or_default(),
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid,
            rdev: 0,
            blksize: ADVISED_BYTES,
            flags: if node.zone.is_shared() { SHARED } else { 0 },
        }
    }

    /// The attributes of the root, which is on no disk.
    pub(crate) fn root_attr(&self) -> FileAttr {
        FileAttr {
            ino: INodeNo(ROOT_ID),
            size: 0,
            blocks: 0,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind: FileType::Directory,
            perm: 0o555,
            nlink: 2,
            uid: self.owner.uid,
            gid: self.owner.gid,
            rdev: 0,
            blksize: ADVISED_BYTES,
            flags: 0,
        }
    }
}

/// A file type in the protocol's words. What has none is shown as a fifo without content: it cannot be opened.
pub(crate) fn kind(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::RegularFile => FileType::RegularFile,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        rustix::fs::FileType::Fifo | rustix::fs::FileType::Unknown => FileType::NamedPipe,
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let part = Duration::from_nanos(nanoseconds);
    let base = if seconds >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    };
    base.and_then(|base| base.checked_add(part))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
