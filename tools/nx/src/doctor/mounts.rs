//! The mounts that a view is made of.

use super::child::{Failure, Refused, run};
use super::container::Lack;
use super::facts::Facts;
use super::report::{Mend, State};
use nexus_sys::mount::{Attributes, restrict};
use nexus_sys::process::CloneFlags;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use std::os::fd::OwnedFd;

/// A file system in a mount of its own, attached nowhere: fsopen(2), Linux 5.2.
pub(crate) fn detached(kind: &str, options: &[(&str, &str)]) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

pub(crate) fn view(facts: &Facts) -> State {
    let build = || {
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(Refused::at("cut the mount namespace off"))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let copy = rustix::mount::open_tree(CWD, "/usr", flags).map_err(Refused::at("take a copy of a mount"))?;
        let attributes = Attributes {
            read_only: true,
            no_suid: true,
            no_dev: true,
            no_exec: false,
        };
        restrict(&copy, attributes, true).map_err(Refused::io("restrict a mount (mount_setattr, Linux 5.12)"))?;
        let root = detached("tmpfs", &[("mode", "755"), ("size", "64k")]).map_err(Refused::at("mount a tmpfs"))?;
        let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&root, "", CWD, "/proc", onto).map_err(Refused::at("attach a mount"))?;
        let point = rustix::fs::Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(&root, "usr", point).map_err(Refused::at("make a mount point"))?;
        let inside = rustix::fs::openat(
            &root,
            "usr",
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(Refused::at("open a mount point"))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&copy, "", &inside, "", flags).map_err(Refused::at("attach a copied mount"))?;
        let pivot = || {
            rustix::process::fchdir(&root)?;
            rustix::process::pivot_root(".", ".")?;
            rustix::mount::unmount(".", UnmountFlags::DETACH)?;
            rustix::process::chdir("/")
        };
        pivot().map_err(Refused::at("leave the old root (pivot_root)"))?;
        match rustix::fs::mkdir("/usr/.nx-doctor", point) {
            Err(Errno::ROFS) => Ok("built a view of `/usr` alone, read-only, and entered it".to_owned()),
            Err(errno) => Err(Refused::at("see that a read-only mount is read-only")(errno)),
            // Cannot be: but then the mount is writable, and what was made is taken back.
            Ok(()) => {
                let _ = rustix::fs::rmdir("/usr/.nx-doctor");
                Err(Refused::at("make a mount read-only")(Errno::PERM))
            }
        }
    };
    match run(CloneFlags::ALL_NAMESPACES, build) {
        Ok(seen) => State::available(seen),
        Err(failure) => explain(&failure, facts),
    }
}

/// Why a mount was refused inside namespaces that themselves were granted.
pub(crate) fn explain(failure: &Failure, facts: &Facts) -> State {
    let mend = match (failure.errno(), facts.container) {
        (Some(Errno::NOSYS), None) => vec![Mend::words("boot Linux 5.19 or later")],
        (Some(Errno::ACCESS), Some(container)) => vec![container.mend(Lack::Profile)],
        (Some(Errno::PERM | Errno::NOSYS), Some(container)) => vec![container.mend(Lack::Filter)],
        (Some(Errno::INVAL), _) => vec![Mend::words(
            "if this machine still runs from its initramfs, move to a real root first (switch_root): nothing can leave that one",
        )],
        (Some(Errno::NODEV), _) => vec![Mend::words("boot a kernel that has this file system")],
        (Some(Errno::PERM | Errno::ACCESS), None) => vec![Mend::words(
            "look for the refusal in the kernel's log (`sudo dmesg | tail`): a security module forbids mounts to this program",
        )],
        _ => vec![],
    };
    State::missing(failure.to_string(), mend)
}

pub(crate) fn processes(facts: &Facts) -> State {
    let mount = || {
        let mount = detached("proc", &[]).map_err(Refused::at("mount /proc"))?;
        rustix::fs::statat(&mount, "1", rustix::fs::AtFlags::empty())
            .map_err(Refused::at("see the first process in a new /proc"))?;
        Ok("mounted one for a pid namespace of its own".to_owned())
    };
    match run(CloneFlags::ALL_NAMESPACES, mount) {
        Ok(seen) => State::available(seen),
        Err(failure) => covered(&failure, facts),
    }
}

fn covered(failure: &Failure, facts: &Facts) -> State {
    if failure.errno() != Some(Errno::PERM) {
        return explain(failure, facts);
    }
    // mount_namespaces(7), "Restrictions on mount namespaces": a new /proc may not show more than the old one does.
    let mend = match facts.container {
        Some(container) => vec![container.mend(Lack::CoveredProc)],
        None => vec![
            Mend::command("grep ' /proc/' /proc/self/mountinfo"),
            Mend::words("unmount what that shows, or start nx from where it is not mounted"),
        ],
    };
    State::missing(
        format!("a part of `/proc` is covered here, so the kernel forbids a new one: {failure}"),
        mend,
    )
}

pub(crate) fn terminals(facts: &Facts) -> State {
    let mount = || {
        let mount =
            detached("devpts", &[("ptmxmode", "0666"), ("mode", "620")]).map_err(Refused::at("mount /dev/pts"))?;
        rustix::fs::statat(&mount, "ptmx", rustix::fs::AtFlags::empty()).map_err(Refused::at("see its ptmx"))?;
        Ok("mounted a terminal file system of its own".to_owned())
    };
    match run(CloneFlags::ALL_NAMESPACES, mount) {
        Ok(seen) => State::available(seen),
        Err(failure) => explain(&failure, facts),
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::Container;
    use super::*;

    #[test]
    fn a_covered_proc_is_told_by_its_errno_and_named_with_the_containers_flag() {
        let docker = Facts {
            container: Some(Container::Docker),
            ..Facts::default()
        };
        let failure = |errno| Failure::Refused(Refused::at("mount /proc")(errno));
        let text = |state| format!("{state:?}");
        assert!(text(covered(&failure(Errno::PERM), &docker)).contains("systempaths=unconfined"));
        assert!(text(covered(&failure(Errno::ACCESS), &docker)).contains("apparmor=unconfined"));
        assert!(text(covered(&failure(Errno::PERM), &Facts::default())).contains("mountinfo"));
    }
}
