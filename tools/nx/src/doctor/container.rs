//! Whether this is a container, which one, and how it is told to allow what nx needs.

use super::facts::read;
use super::report::Mend;
use execd::mountinfo;
use std::path::Path;

/// Who runs the container that this process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Docker,
    Podman,
    Kubernetes,
    Lxc,
    Nspawn,
    Other,
}

/// Something of nx's that containers refuse by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// The container's syscall filter.
    Filter,
    /// The container's AppArmor profile.
    Profile,
    /// Parts of `/proc` that the container covers, which makes the kernel refuse a new `/proc`.
    CoveredProc,
    /// `/dev/fuse`.
    Fuse,
}

/// What tells a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// `/.dockerenv` exists.
    pub(crate) docker_file: bool,
    /// `/run/.containerenv` exists.
    pub(crate) podman_file: bool,
    /// `/etc/hosts`, `/etc/hostname` or `/etc/resolv.conf` is a mount, as in every container of Docker's and Podman's. A
    /// machine whose disk was made from an image has the files above and not this.
    pub(crate) own_network_files: bool,
    /// A service account is mounted.
    pub(crate) service_account: bool,
    /// The text of `/run/systemd/container`, or of `/run/host/container-manager`.
    pub(crate) manager: Option<String>,
    /// The text of `/proc/self/cgroup`.
    pub(crate) cgroup: String,
}

impl Signs {
    pub(crate) fn gather() -> Self {
        Self {
            docker_file: Path::new("/.dockerenv").exists(),
            podman_file: Path::new("/run/.containerenv").exists(),
            own_network_files: mountinfo::parse(&read("/proc/self/mountinfo").unwrap_or_default()).any(|mount| {
                ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]
                    .iter()
                    .any(|file| mount.point == Path::new(file))
            }),
            service_account: Path::new("/run/secrets/kubernetes.io/serviceaccount").exists()
                || Path::new("/var/run/secrets/kubernetes.io/serviceaccount").exists(),
            manager: read("/run/systemd/container").or_else(|| read("/run/host/container-manager")),
            cgroup: read("/proc/self/cgroup").unwrap_or_default(),
        }
    }
}

pub(crate) fn detect(signs: &Signs) -> Option<Container> {
    let within = |part: &str| signs.cgroup.contains(part);
    // The narrowest first: Kubernetes starts its containers by others.
    if signs.service_account || within("/kubepods") {
        return Some(Container::Kubernetes);
    }
    if (signs.podman_file && signs.own_network_files) || within("/libpod-") || within("/libpod_parent") {
        return Some(Container::Podman);
    }
    if (signs.docker_file && signs.own_network_files) || within("/docker/") || within("/docker-") {
        return Some(Container::Docker);
    }
    match signs.manager.as_deref().map(str::trim) {
        Some("docker") => return Some(Container::Docker),
        Some("podman") => return Some(Container::Podman),
        Some("lxc" | "lxc-libvirt" | "incus") => return Some(Container::Lxc),
        Some("systemd-nspawn") => return Some(Container::Nspawn),
        // WSL sets the file too, and is a machine of its own.
        Some("wsl" | "") | None => {}
        Some(_) => return Some(Container::Other),
    }
    if within("/lxc/") || within("/lxc.payload") {
        return Some(Container::Lxc);
    }
    within("/containerd").then_some(Container::Other)
}

impl Container {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
            Self::Kubernetes => "Kubernetes",
            Self::Lxc => "LXC",
            Self::Nspawn => "systemd-nspawn",
            Self::Other => "a container of an unknown kind",
        }
    }

    /// How the container is started so that it allows everything that nx needs.
    pub(crate) fn start(self) -> Mend {
        match self {
            Self::Docker => Mend::command(concat!(
                "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ",
                "--security-opt systempaths=unconfined --device /dev/fuse IMAGE"
            )),
            Self::Podman => Mend::command(concat!(
                "podman run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ",
                "--security-opt label=disable --security-opt unmask=ALL --device /dev/fuse IMAGE"
            )),
            Self::Kubernetes => Mend::words(concat!(
                "give the container `securityContext: {seccompProfile: {type: Unconfined}, appArmorProfile: ",
                "{type: Unconfined}, procMount: Unmasked}`, the pod `hostUsers: false`, and `/dev/fuse` by a device plugin"
            )),
            Self::Lxc => Mend::command(
                "lxc config set CONTAINER security.nesting=true && lxc config device add CONTAINER fuse unix-char path=/dev/fuse",
            ),
            Self::Nspawn => Mend::command(
                "systemd-nspawn --system-call-filter='@mount @keyring seccomp' --bind=/dev/fuse --property=DeviceAllow='/dev/fuse rw' …",
            ),
            Self::Other => Mend::words(
                "start the container without a syscall filter and a security profile, with an uncovered /proc and with /dev/fuse",
            ),
        }
    }

    /// The one thing to start the container with that mends this lack.
    pub(crate) fn mend(self, lack: Lack) -> Mend {
        match (self, lack) {
            (Self::Docker, Lack::Filter) => Mend::command("docker run --security-opt seccomp=unconfined IMAGE"),
            (Self::Docker, Lack::Profile) => Mend::command("docker run --security-opt apparmor=unconfined IMAGE"),
            (Self::Docker, Lack::CoveredProc) => {
                Mend::command("docker run --security-opt systempaths=unconfined IMAGE")
            }
            (Self::Docker, Lack::Fuse) => Mend::command("docker run --device /dev/fuse IMAGE"),
            (Self::Podman, Lack::Filter) => Mend::command("podman run --security-opt seccomp=unconfined IMAGE"),
            (Self::Podman, Lack::Profile) => {
                Mend::command("podman run --security-opt apparmor=unconfined --security-opt label=disable IMAGE")
            }
            (Self::Podman, Lack::CoveredProc) => Mend::command("podman run --security-opt unmask=ALL IMAGE"),
            (Self::Podman, Lack::Fuse) => Mend::command("podman run --device /dev/fuse IMAGE"),
            (Self::Kubernetes, Lack::Filter) => {
                Mend::words("give the container `securityContext: {seccompProfile: {type: Unconfined}}`")
            }
            (Self::Kubernetes, Lack::Profile) => {
                Mend::words("give the container `securityContext: {appArmorProfile: {type: Unconfined}}`")
            }
            (Self::Kubernetes, Lack::CoveredProc) => Mend::words(
                "give the container `securityContext: {procMount: Unmasked}` and the pod `hostUsers: false`",
            ),
            (Self::Kubernetes, Lack::Fuse) => Mend::words("give the container `/dev/fuse` by a device plugin"),
            (Self::Lxc, Lack::Fuse) => Mend::command("lxc config device add CONTAINER fuse unix-char path=/dev/fuse"),
            (Self::Lxc, _) => Mend::command("lxc config set CONTAINER security.nesting=true"),
            (Self::Nspawn | Self::Other, _) => self.start(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(signs: Signs, expect: Option<Container>) {
        assert_eq!(detect(&signs), expect, "{signs:?}");
    }

    #[test]
    fn each_container_is_told_by_its_signs() {
        let cgroup = |text: &str| Signs {
            cgroup: text.into(),
            ..Signs::default()
        };
        let manager = |text: &str| Signs {
            manager: Some(text.into()),
            ..Signs::default()
        };
        check(Signs::default(), None);
        check(cgroup("0::/user.slice/user-1000.slice/session-2.scope\n"), None);
        check(cgroup("0::/system.slice/docker.service\n"), None);
        check(
            cgroup("12:pids:/docker/0123456789ab\n0::/docker/0123456789ab\n"),
            Some(Container::Docker),
        );
        check(cgroup("0::/system.slice/docker-0123.scope\n"), Some(Container::Docker));
        check(cgroup("0::/machine.slice/libpod-0123.scope\n"), Some(Container::Podman));
        check(
            cgroup("0::/kubepods/besteffort/pod1/docker-0123\n"),
            Some(Container::Kubernetes),
        );
        check(cgroup("0::/lxc.payload.box\n"), Some(Container::Lxc));
        check(manager("lxc\n"), Some(Container::Lxc));
        check(manager("systemd-nspawn"), Some(Container::Nspawn));
        check(manager("wsl"), None);
        check(manager("rkt"), Some(Container::Other));
        let docker = Signs {
            docker_file: true,
            own_network_files: true,
            ..Signs::default()
        };
        check(docker.clone(), Some(Container::Docker));
        check(
            Signs {
                podman_file: true,
                ..docker.clone()
            },
            Some(Container::Podman),
        );
        // A virtual machine whose disk was made from an image.
        check(
            Signs {
                own_network_files: false,
                podman_file: true,
                ..docker
            },
            None,
        );
        check(
            Signs {
                service_account: true,
                docker_file: true,
                ..Signs::default()
            },
            Some(Container::Kubernetes),
        );
    }

    #[test]
    fn docker_and_podman_are_each_told_their_own_flag_for_each_lack() {
        let flag = |container: Container, lack| match container.mend(lack) {
            Mend::Command(text) | Mend::Words(text) => text,
        };
        assert!(flag(Container::Docker, Lack::CoveredProc).contains("systempaths=unconfined"));
        assert!(flag(Container::Podman, Lack::CoveredProc).contains("unmask=ALL"));
        for lack in [Lack::Filter, Lack::Profile, Lack::CoveredProc, Lack::Fuse] {
            for container in [Container::Docker, Container::Podman] {
                // What mends all mends each.
                let (Mend::Command(all) | Mend::Words(all)) = container.start();
                for word in flag(container, lack).split(' ') {
                    assert!(all.contains(word), "{container:?} {lack:?}: `{word}` is not in `{all}`");
                }
            }
        }
    }

    #[test]
    fn the_documentation_says_the_same_commands() {
        let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doctor.md")).unwrap();
        for container in [Container::Docker, Container::Podman, Container::Lxc] {
            let (Mend::Command(text) | Mend::Words(text)) = container.start();
            assert!(
                docs.contains(&format!("`{text}`")),
                "`{text}` is not in the documentation"
            );
        }
    }

    #[test]
    fn the_documentation_names_every_finding() {
        let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doctor.md")).unwrap();
        for name in super::super::names() {
            assert!(
                docs.contains(&format!("`{name}`")),
                "`{name}` is not in the documentation"
            );
        }
    }
}
