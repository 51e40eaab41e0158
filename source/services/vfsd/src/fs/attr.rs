//! What `stat` says.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Stat, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use super::Vfs;
use super::node::Node;
use super::protocol::{Answer, Attr, Time};
use super::shared::SHARED_TTL;
use super::table::ROOT_ID;

/// How long the kernel may believe what it was told of files that only it changes, by us.
pub(crate) const TTL: Duration = Duration::from_secs(3600);

/// The block size that `stat` advises: what one request carries comfortably.
const ADVISED_BYTES: u32 = 128 * 1024;

/// File type and permissions, without set-id bits, whoever set them on the host: the kernel was told that there are none.
const MODE_SHOWN: u32 = FileType::RegularFile.as_raw_mode()
    | FileType::Directory.as_raw_mode()
    | FileType::Symlink.as_raw_mode()
    | FileType::Fifo.as_raw_mode()
    | FileType::Socket.as_raw_mode()
    | FileType::BlockDevice.as_raw_mode()
    | 0o1777;

/// How long the kernel may believe these attributes.
pub(crate) const fn ttl(attr: &Attr) -> Duration {
    if attr.shared { SHARED_TTL } else { TTL }
}

impl Vfs {
    /// The attributes of an inode.
    pub(crate) fn attr(&self, node: &Node, stat: &Stat) -> Attr {
        Attr {
            id: node.id,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            blocks: u64::try_from(stat.st_blocks).unwrap_or_default(),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            mode: stat.st_mode & MODE_SHOWN,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid: self.gid(stat.st_uid, stat.st_gid),
            block_bytes: ADVISED_BYTES,
            shared: node.zone.is_shared(),
        }
    }

    /// The attributes of the root, which is on no disk.
    pub(crate) fn root_attr(&self) -> Attr {
        Attr {
            id: ROOT_ID,
            size: 0,
            blocks: 0,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
            mode: FileType::Directory.as_raw_mode() | 0o555,
            links: 2,
            uid: self.owner.uid,
            gid: self.owner.gid,
            block_bytes: ADVISED_BYTES,
            shared: false,
        }
    }

    /// The group that is shown. That of one's own file is one's own: no other is mapped, and the kernel would let nobody
    /// write to a file of a group that is not.
    const fn gid(&self, uid: u32, gid: u32) -> u32 {
        if uid == self.owner.uid { self.owner.gid } else { gid }
    }

    /// The inode, and a descriptor of it: of the open file if there is one, else its handle.
    fn with_fd<T>(
        &self,
        id: u64,
        handle: Option<u64>,
        act: impl FnOnce(&Arc<Node>, &OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if let Some(handle) = handle.and_then(|number| self.handle(number).ok())
            && handle.node.id == id
        {
            return act(&handle.node, &handle.file);
        }
        let node = self.table.get(id)?;
        let fd = self.fd(&node)?;
        act(&node, &fd)
    }

    pub(crate) fn op_getattr(&self, id: u64, handle: Option<u64>) -> Result<Attr, Errno> {
        if id == ROOT_ID {
            return Ok(self.root_attr());
        }
        self.with_fd(id, handle, |node, fd| {
            let stat = self.catch_up(node, fd, rustix::fs::fstat(fd)?)?;
            Ok(self.attr(node, &stat))
        })
    }

    /// `statx`, which the kernel asks for where a program wants to know when a file was made (`struct fuse_statx_out`).
    pub(crate) fn op_statx(&self, id: u64, handle: Option<u64>, answer: &mut Answer) -> Result<(), Errno> {
        if id == ROOT_ID {
            // Nobody made it, and the kernel can do without.
            return Err(Errno::OPNOTSUPP);
        }
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let (valid, stat) = self.with_fd(id, handle, |node, fd| {
            let attr = self.attr(node, &self.catch_up(node, fd, rustix::fs::fstat(fd)?)?);
            let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted)?;
            Ok((ttl(&attr), stat))
        })?;
        answer.u64(valid.as_secs());
        answer.u64(0);
        answer.bytes(&[0; 16]);
        // struct fuse_statx
        answer.u32(stat.stx_mask & wanted.bits());
        answer.u32(ADVISED_BYTES);
        // Attributes of the host's file (append-only, compressed …) are not this file system's.
        answer.u64(0);
        answer.u32(stat.stx_nlink);
        answer.u32(stat.stx_uid);
        answer.u32(self.gid(stat.stx_uid, stat.stx_gid));
        answer.u16(u16::try_from(u32::from(stat.stx_mode) & MODE_SHOWN).unwrap_or_default());
        answer.u16(0);
        answer.u64(id);
        answer.u64(stat.stx_size);
        answer.u64(stat.stx_blocks);
        answer.u64(0);
        for time in [&stat.stx_atime, &stat.stx_btime, &stat.stx_ctime, &stat.stx_mtime] {
            exact(answer, time);
        }
        // Devices, and what is spare.
        answer.bytes(&[0; 16 + 112]);
        Ok(())
    }
}

/// `struct fuse_sx_time`.
fn exact(answer: &mut Answer, time: &StatxTimestamp) {
    answer.u64(time.tv_sec.cast_unsigned());
    answer.u32(time.tv_nsec);
    answer.u32(0);
}

fn time(seconds: i64, nanoseconds: u64) -> Time {
    Time {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or_default(),
    }
}
