//! The superblock: sessions get detached copies of its mount.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::Identity;
use crate::fs::Zone;

/// Opens the device. In the user namespace that will mount: the kernel wants both to be the same.
pub(crate) fn open_device() -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Where the superblock is mounted, in this process's own mount namespace: on top of the root, which no path of this
/// process crosses. Before Linux 6.15 a part of a mount that is nowhere cannot be copied.
const POINT: &std::ffi::CStr = c"/";

/// Makes the superblock and mounts it, for nobody but this process; until [`release`].
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
pub(crate) fn release(mount: OwnedFd) {
    // It fails only if it is not there.
    let _ = rustix::mount::unmount(POINT, UnmountFlags::DETACH);
    drop(mount);
}

/// A detached mount of one of the root's directories, for a session.
pub(crate) fn copy(mount: BorrowedFd<'_>, zone: Zone) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(
        mount,
        zone.name().as_ref(),
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
}
