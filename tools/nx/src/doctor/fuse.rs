//! FUSE: the file system of the areas. fuse(4).

use super::child::{Failure, Refused, run};
use super::container::Lack;
use super::facts::Facts;
use super::mounts;
use super::report::{Mend, State};
use nexus_sys::process::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::{AsRawFd, OwnedFd};

const DEVICE: &str = "/dev/fuse";
const OPEN_INSIDE: &str = "open `/dev/fuse` in a user namespace";

fn open() -> Result<OwnedFd, Errno> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

pub(crate) fn device(facts: &Facts) -> State {
    match run(CloneFlags::NONE, || {
        open().map_err(Refused::at("open `/dev/fuse`")).map(|_| String::new())
    }) {
        Ok(_) => State::available("`/dev/fuse` opens for reading and writing"),
        Err(failure) => {
            let everybody = rustix::fs::stat(DEVICE).ok().map(|stat| stat.st_mode & 0o006 == 0o006);
            explain(&failure, everybody, facts)
        }
    }
}

/// `everybody`: whether the device's mode lets everybody read and write; `None` if it is not there.
fn explain(failure: &Failure, everybody: Option<bool>, facts: &Facts) -> State {
    let module = || {
        vec![
            Mend::command("sudo modprobe fuse"),
            Mend::command("echo fuse | sudo tee /etc/modules-load.d/nx-fuse.conf"),
        ]
    };
    let Some(errno) = failure.errno() else {
        return State::missing(failure.to_string(), vec![]);
    };
    let (cause, mend) = match (errno, facts.container) {
        (Errno::NOENT | Errno::PERM, Some(container)) => (
            format!("{} does not hand it in", container.name()),
            vec![container.mend(Lack::Fuse)],
        ),
        (Errno::NOENT | Errno::NODEV | Errno::NXIO, _) => ("the module `fuse` is not loaded".to_owned(), module()),
        (Errno::ACCESS, _) if everybody == Some(false) => (
            "its mode lets only some users in; most machines give it to everybody (0666)".to_owned(),
            vec![
                Mend::command("sudo chmod 666 /dev/fuse"),
                Mend::command(r#"echo 'KERNEL=="fuse", MODE="0666"' | sudo tee /etc/udev/rules.d/90-nx-fuse.rules"#),
            ],
        ),
        (Errno::ACCESS, _) => (
            "its mode lets everybody in, so `/dev` is mounted `nodev` or a security module forbids it".to_owned(),
            vec![Mend::command("findmnt -T /dev/fuse")],
        ),
        _ => return State::missing(failure.to_string(), vec![]),
    };
    State::missing(format!("{failure}; {cause}"), mend)
}

pub(crate) fn mount(facts: &Facts) -> State {
    let mount = || {
        // Opened in here: the kernel wants the device's opener and the mount in one user namespace.
        let device = open().map_err(Refused::at(OPEN_INSIDE))?;
        let create = || {
            let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
            let number = device.as_raw_fd().to_string();
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            rustix::mount::fsconfig_set_string(&context, "source", "nx-doctor")?;
            rustix::mount::fsconfig_set_string(&context, "fd", number)?;
            rustix::mount::fsconfig_set_string(&context, "rootmode", "40000")?;
            rustix::mount::fsconfig_set_string(&context, "user_id", uid.as_raw().to_string())?;
            rustix::mount::fsconfig_set_string(&context, "group_id", gid.as_raw().to_string())?;
            rustix::mount::fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        let _mount = create().map_err(Refused::at("mount a FUSE file system"))?;
        // The kernel has greeted its new server by now: the request must be there to be read.
        let mut greeting = [0; 8192];
        let count = rustix::io::read(&device, &mut greeting).map_err(Refused::at("read the kernel's greeting"))?;
        Ok(format!(
            "mounted one in a namespace of its own; the kernel's greeting is {count} bytes"
        ))
    };
    match run(CloneFlags::ALL_NAMESPACES, mount) {
        Ok(seen) => State::available(seen),
        Err(Failure::Refused(refused)) if refused.step == OPEN_INSIDE => {
            State::missing("it cannot be tried without `fuse-device`, which is missing", vec![])
        }
        Err(failure) if failure.errno() == Some(Errno::NODEV) => {
            State::missing(failure.to_string(), vec![Mend::command("sudo modprobe fuse")])
        }
        Err(failure) => mounts::explain(&failure, facts),
    }
}

#[cfg(test)]
mod tests {
    use super::super::container::Container;
    use super::*;

    fn check(errno: Errno, everybody: Option<bool>, container: Option<Container>, word: &str) {
        let facts = Facts {
            container,
            ..Facts::default()
        };
        let failure = Failure::Refused(Refused::at("open `/dev/fuse`")(errno));
        let text = format!("{:?}", explain(&failure, everybody, &facts));
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }

    #[test]
    fn each_lack_of_the_device_is_told_with_what_mends_it() {
        check(Errno::ACCESS, Some(false), None, "sudo chmod 666 /dev/fuse");
        check(Errno::ACCESS, Some(true), None, "findmnt");
        check(Errno::NOENT, None, None, "sudo modprobe fuse");
        check(Errno::NODEV, Some(true), None, "sudo modprobe fuse");
        check(
            Errno::NOENT,
            None,
            Some(Container::Docker),
            "docker run --device /dev/fuse",
        );
        check(
            Errno::PERM,
            Some(true),
            Some(Container::Podman),
            "podman run --device /dev/fuse",
        );
    }
}
