//! The superblock: sessions get detached copies of its mount.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nexus_wire::packet::PacketSocket;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::drop::errno_of;
use crate::Identity;
use crate::fs::Zone;

/// Opens the device. In the user namespace that will mount: the kernel wants both to be the same.
pub(crate) fn open_device() -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Where the superblock is mounted, in this process's own mount namespace: on top of the root, which no path of this
/// process crosses. Before Linux 6.15 a part of a mount that is nowhere cannot be copied.
const POINT: &std::ffi::CStr = c"/";

/// Makes the superblock and mounts it, for nobody but this process; until [`Mounts`] is dropped.
///
/// Not `allow_other`: with it, processes of another user namespace than ours are refused; without it, whoever has our
/// user and group is let in, in whatever namespace. `default_permissions` lets the kernel judge access modes.
pub(crate) fn make(device: &OwnedFd, owner: Identity) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(context.as_fd(), key, value);
    set("source", "nexus")?;
    set("fd", &device.as_raw_fd().to_string())?;
    set("rootmode", "40000")?;
    set("user_id", &owner.uid.to_string())?;
    set("group_id", &owner.gid.to_string())?;
    rustix::mount::fsconfig_set_flag(context.as_fd(), "default_permissions")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    rustix::mount::move_mount(&mount, c"", CWD, POINT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(mount)
}

/// Lets go of the mount: the superblock now lives as long as the copies.
fn release(mount: OwnedFd) {
    // It fails only if it is not there.
    let _ = rustix::mount::unmount(POINT, UnmountFlags::DETACH);
    drop(mount);
}

/// A detached mount of one of the root's directories, for a session.
fn copy(mount: BorrowedFd<'_>, zone: Zone) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(
        mount,
        zone.name().as_ref(),
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
}

/// The file system that a descriptor is of, without asking who serves it.
///
/// With no attribute asked for FUSE sends no request (`fuse_update_get_attr`, fs/fuse/dir.c); what is told here, every inode
/// has from the start.
pub(crate) fn device_of(fd: BorrowedFd<'_>) -> Result<(u32, u32), Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(fd, c"", flags, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

/// Who copies the mount: a thread of this process that does not hold the device.
///
/// To look an area up is to wait for an answer of this very process. Killed meanwhile, a thread cannot be ended until the answer
/// comes or the device is closed, and a thread that held the device open itself would wait for ever. The same
/// goes for letting go of the mount. So nobody who holds the device does either.
#[derive(Debug)]
pub(crate) struct Mounts {
    asked: PacketSocket,
    device: (u32, u32),
}

impl Mounts {
    /// Begins the thread, which owns the mount from here on. In this process's own mount namespace, as who copies mounts.
    pub(crate) fn begin(mount: OwnedFd) -> Result<Self, Errno> {
        let device = device_of(mount.as_fd())?;
        let (asked, asks) = PacketSocket::pair()?;
        nexus_sys::apart::spawn("vfsd-mounts", [asks.into(), mount], serve).map_err(errno_of)?;
        Ok(Self { asked, device })
    }

    /// Whether a descriptor is of this superblock.
    pub(crate) fn are_of(&self, fd: BorrowedFd<'_>) -> Result<bool, Errno> {
        Ok(device_of(fd)? == self.device)
    }

    /// Detached mounts of these directories of the root.
    pub(crate) fn copies(&self, zones: &[Zone]) -> Result<Vec<OwnedFd>, Errno> {
        let names: Vec<u8> = zones.iter().map(|zone| zone.number()).collect();
        self.asked.send(&names, &[])?;
        let mut packet = self.asked.receive()?;
        match <[u8; 4]>::try_from(packet.bytes()).map(i32::from_le_bytes) {
            Ok(0) if packet.descriptors.len() == zones.len() => Ok(std::mem::take(&mut packet.descriptors)),
            Ok(errno @ 1..4096) => Err(Errno::from_raw_os_error(errno)),
            _ => Err(Errno::IO),
        }
    }
}

/// Makes copies until nobody can ask for more.
fn serve([socket, mount]: [OwnedFd; 2]) {
    let socket = PacketSocket::from(socket);
    while let Ok(packet) = socket.receive() {
        if packet.bytes().is_empty() {
            break;
        }
        let copies: Result<Vec<OwnedFd>, Errno> = packet
            .bytes()
            .iter()
            .map(|number| copy(mount.as_fd(), Zone::from_number(*number).ok_or(Errno::INVAL)?))
            .collect();
        let given = copies.and_then(|copies| {
            let descriptors: Vec<_> = copies.iter().map(AsFd::as_fd).collect();
            socket.send(&0_i32.to_le_bytes(), &descriptors)
        });
        // A user has only so many descriptors on their way, unix(7): that these are too many now says nothing of the next.
        let told = given.or_else(|errno| socket.send(&errno.raw_os_error().to_le_bytes(), &[]));
        if told.is_err() {
            break;
        }
    }
    release(mount);
}
