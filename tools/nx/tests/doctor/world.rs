//! Worlds in which something is taken away, made for one closure and gone with it.

use nexus_abi::syscall::nr;
use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};
use nexus_sys::seccomp::{Instruction, install_with_listener};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use rustix::process::{Pid, WaitOptions, getegid, geteuid};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Runs `scene` in a child made with `flags` and fails where it fails. `maps` are lines of uid_map and gid_map.
fn inside(flags: CloneFlags, maps: Option<&str>, scene: impl FnOnce()) {
    let (go, go_end) = rustix::pipe::pipe().unwrap();
    match clone(flags).unwrap() {
        Fork::Child => {
            drop(go_end);
            rustix::io::read(&go, &mut [0; 1]).unwrap();
            let end = catch_unwind(AssertUnwindSafe(scene));
            exit_now(i32::from(end.is_err()));
        }
        Fork::Parent(child) => {
            if let Some(maps) = maps {
                let file = |name: &str| format!("/proc/{}/{name}", child.pid);
                std::fs::write(file("setgroups"), "deny").unwrap();
                std::fs::write(file("uid_map"), maps).unwrap();
                let gids = if geteuid().is_root() {
                    maps.to_owned()
                } else {
                    format!("{0} {0} 1", getegid().as_raw())
                };
                std::fs::write(file("gid_map"), gids).unwrap();
            }
            rustix::io::write(&go_end, &[1]).unwrap();
            let pid = Pid::from_raw(child.pid).unwrap();
            let (_, status) = rustix::process::waitpid(Some(pid), WaitOptions::empty())
                .unwrap()
                .unwrap();
            assert_eq!(status.exit_status(), Some(0), "the scene failed");
        }
    }
}

/// In namespaces of one's own, with a `/proc` that fits them.
pub(crate) fn in_namespaces(scene: impl FnOnce()) {
    let uid = geteuid().as_raw();
    in_namespaces_with(&format!("{uid} {uid} 1"), scene);
}

/// The same with these identity maps; only root may map others than itself.
pub(crate) fn in_namespaces_with(maps: &str, scene: impl FnOnce()) {
    inside(CloneFlags::ALL_NAMESPACES, Some(maps), || {
        mount("proc", "/proc");
        scene();
    });
}

/// Covers `at` by a new, empty file system.
pub(crate) fn mount(kind: &str, at: &str) {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    attach(&context, at);
}

fn attach(context: &std::os::fd::OwnedFd, at: &str) {
    let mount = rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    rustix::mount::move_mount(&mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
}

/// Covers `at` by a file system whose server never answers; lives as long as what is returned.
pub(crate) fn mount_dead(device: &Path, at: &str) -> std::fs::File {
    use std::os::fd::AsRawFd;
    let device = std::fs::OpenOptions::new().read(true).write(true).open(device).unwrap();
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for (key, value) in [
        ("source", "dead".to_owned()),
        ("fd", device.as_raw_fd().to_string()),
        ("rootmode", "40000".to_owned()),
        ("user_id", geteuid().as_raw().to_string()),
        ("group_id", getegid().as_raw().to_string()),
    ] {
        rustix::mount::fsconfig_set_string(&context, key, value).unwrap();
    }
    rustix::mount::fsconfig_create(&context).unwrap();
    attach(&context, at);
    device
}

/// With this syscall failing by this errno.
pub(crate) fn without_call(number: u32, errno: Errno, scene: impl FnOnce()) {
    inside(CloneFlags::NONE, None, || {
        rustix::thread::set_no_new_privs(true).unwrap();
        let fails = 0x0005_0000 | errno.raw_os_error().cast_unsigned();
        let step = |code, jump_false, k| Instruction {
            code,
            jump_true: 0,
            jump_false,
            k,
        };
        let program = [
            step(0x20, 0, 0),
            step(0x15, 1, number),
            step(0x06, 0, fails),
            step(0x06, 0, 0x7fff_0000),
        ];
        install_with_listener(&program).unwrap();
        scene();
    });
}

/// Under a filter of somebody else's that refuses what `nx run` refuses, on a host of the name that it gives.
pub(crate) fn under_nx(scene: impl FnOnce()) {
    in_namespaces(|| {
        rustix::system::sethostname(b"nexus").unwrap();
        without_call(nr::clone3, Errno::NOSYS, scene);
    });
}

pub(crate) fn make_directory(path: &str) {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).unwrap();
}
