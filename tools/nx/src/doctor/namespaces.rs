//! Namespaces of its own, and whether their maker has power in them. namespaces(7), user_namespaces(7).

use super::child::{Failure, Refused, run};
use super::container::Lack;
use super::facts::{Facts, quoted};
use super::report::{Mend, State};
use nexus_sys::process::CloneFlags;
use rustix::io::Errno;

pub(crate) fn user(facts: &Facts) -> State {
    match run(CloneFlags::USER_NAMESPACE, || Ok(String::new())) {
        Ok(_) => State::available("made one and mapped this user into it"),
        Err(failure) => explain(&failure, facts),
    }
}

pub(crate) fn all(facts: &Facts) -> State {
    let powers = || {
        rustix::system::sethostname(b"nexus").map_err(Refused::at("set the host name"))?;
        nexus_sys::socket::loopback_up().map_err(Refused::io("bring the loopback interface up"))?;
        rustix::mount::mount_change(
            "/",
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
        )
        .map_err(Refused::at("cut the mount namespace off"))?;
        let pid = rustix::process::getpid();
        if pid != rustix::process::Pid::INIT {
            return Err(Refused::at("be the first process of a pid namespace")(Errno::INVAL));
        }
        Ok("user, mount, pid, ipc, uts, net and cgroup, with power in each".to_owned())
    };
    match run(CloneFlags::ALL_NAMESPACES, powers) {
        Ok(seen) => State::available(seen),
        Err(failure) => explain(&failure, facts),
    }
}

/// The cause of a refusal, the likeliest first, with what mends it.
fn explain(failure: &Failure, facts: &Facts) -> State {
    if facts.inside_nx() {
        return super::platform::nesting(facts);
    }
    let made = !matches!(failure, Failure::Clone(_));
    let Some(errno) = failure.errno() else {
        return State::missing(failure.to_string(), vec![]);
    };
    let denied = matches!(errno, Errno::PERM | Errno::ACCESS);
    if !made && matches!(errno, Errno::NOSPC | Errno::USERS) {
        return limited(failure, facts);
    }
    if !made && errno == Errno::INVAL {
        return State::missing(
            format!("the kernel knows no such namespace: {failure}"),
            vec![Mend::words(
                "boot a kernel with CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, CONFIG_IPC_NS, CONFIG_UTS_NS and CONFIG_CGROUPS",
            )],
        );
    }
    if denied && facts.uid != 0 && facts.apparmor_restricts.as_deref() == Some("1") {
        return apparmor(failure, facts);
    }
    if denied && !made && facts.uid != 0 && facts.userns_clone.as_deref() == Some("0") {
        return State::missing(
            format!("`kernel.unprivileged_userns_clone` is 0: {failure}"),
            sysctl("kernel.unprivileged_userns_clone=1"),
        );
    }
    if let Some(container) = facts.container.filter(|_| denied || errno == Errno::NOSYS) {
        let lacks: &[Lack] = match (made, errno) {
            (false, _) => &[Lack::Filter],
            // Podman's and Docker's filters let the namespace be made and then forbid what its maker may do in it: the same
            // errno as a profile's that takes the power away.
            (true, Errno::PERM) if facts.filtered => &[Lack::Filter, Lack::Profile],
            (true, _) => &[Lack::Profile],
        };
        return State::missing(
            format!("{} refuses it: {failure}", container.name()),
            lacks.iter().map(|lack| container.mend(*lack)).collect(),
        );
    }
    if !made && errno == Errno::NOSYS && !facts.filtered {
        return State::missing(
            format!("the kernel has no clone3: {failure}"),
            vec![Mend::words("boot Linux 5.19 or later")],
        );
    }
    if facts.filtered {
        return State::missing(
            format!("a syscall filter is on this process, and it is the likely cause: {failure}"),
            vec![Mend::words(
                "start nx outside of whatever filters it (a service with SystemCallFilter= or RestrictNamespaces=, another sandbox)",
            )],
        );
    }
    State::missing(
        failure.to_string(),
        vec![Mend::words(
            "look for the refusal in the kernel's log (`sudo dmesg | tail`): a security module, or a chroot, in which no user namespace can be made",
        )],
    )
}

fn limited(failure: &Failure, facts: &Facts) -> State {
    if facts.forbidden_namespaces.is_empty() {
        return State::missing(
            format!("this user's namespaces are used up, or a limit outside of this container is: {failure}"),
            vec![Mend::command("sysctl user | grep _namespaces")],
        );
    }
    // Twice what a small machine's kernel gives itself.
    const ROOM: u32 = 15_000;
    let names: Vec<_> = facts
        .forbidden_namespaces
        .iter()
        .map(|kind| format!("user.max_{kind}_namespaces"))
        .collect();
    State::missing(
        format!("`{}` is 0: {failure}", names.join("`, `")),
        names
            .iter()
            .flat_map(|name| sysctl(&format!("{name}={ROOM}")))
            .collect(),
    )
}

/// Now, and after the next boot.
fn sysctl(setting: &str) -> Vec<Mend> {
    vec![
        Mend::command(format!("sudo sysctl -w {setting}")),
        Mend::command(format!("echo {setting} | sudo tee -a /etc/sysctl.d/90-nx.conf")),
    ]
}

fn apparmor(failure: &Failure, facts: &Facts) -> State {
    let profile = facts.program.as_deref().and_then(std::path::Path::to_str).map_or_else(
        || Mend::words("or write an AppArmor profile for nx that allows `userns`"),
        |program| {
            Mend::words(format!(
                "or, for {} alone, put this into /etc/apparmor.d/nx and run `sudo apparmor_parser -r /etc/apparmor.d/nx`:\n\
                 abi <abi/4.0>,\ninclude <tunables/global>\nprofile nx \"{}\" flags=(unconfined) {{\n  userns,\n}}",
                quoted(std::path::Path::new(program)),
                program.escape_debug(),
            ))
        },
    );
    let mut mend = sysctl("kernel.apparmor_restrict_unprivileged_userns=0");
    mend.push(profile);
    State::missing(
        format!(
            "AppArmor takes the power out of user namespaces (`kernel.apparmor_restrict_unprivileged_userns` is 1): {failure}"
        ),
        mend,
    )
}

#[cfg(test)]
mod tests {
    use super::super::container::Container;
    use super::*;

    fn check(failure: &Failure, facts: &Facts, words: &[&str]) {
        let State::Missing { why, mend } = explain(failure, facts) else {
            panic!("not missing");
        };
        let text = format!("{why}\n{mend:?}");
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    }

    fn user() -> Facts {
        Facts {
            uid: 1000,
            ..Facts::default()
        }
    }

    fn refused(errno: Errno) -> Failure {
        Failure::Refused(Refused::at("set the host name")(errno))
    }

    #[test]
    fn each_lock_on_user_namespaces_is_told_with_its_key() {
        let ubuntu = Facts {
            apparmor_restricts: Some("1".into()),
            program: Some("/usr/bin/nx".into()),
            ..user()
        };
        let key = [
            "kernel.apparmor_restrict_unprivileged_userns=0",
            "profile nx",
            "userns,",
        ];
        check(&refused(Errno::PERM), &ubuntu, &key);
        check(&Failure::Clone(Errno::ACCESS), &ubuntu, &key);

        let debian = Facts {
            userns_clone: Some("0".into()),
            ..user()
        };
        check(
            &Failure::Clone(Errno::PERM),
            &debian,
            &["sudo sysctl -w kernel.unprivileged_userns_clone=1"],
        );

        let hardened = Facts {
            forbidden_namespaces: vec!["user"],
            ..user()
        };
        check(
            &Failure::Clone(Errno::NOSPC),
            &hardened,
            &["sudo sysctl -w user.max_user_namespaces=15000"],
        );
        check(&Failure::Clone(Errno::NOSPC), &user(), &["used up"]);
        check(&Failure::Clone(Errno::INVAL), &user(), &["CONFIG_USER_NS"]);
    }

    #[test]
    fn a_lock_that_is_open_is_not_blamed() {
        let open = Facts {
            apparmor_restricts: Some("0".into()),
            userns_clone: Some("1".into()),
            ..user()
        };
        check(&Failure::Clone(Errno::PERM), &open, &["dmesg"]);
        // Root is bound by neither.
        let root = Facts {
            apparmor_restricts: Some("1".into()),
            userns_clone: Some("0".into()),
            ..Facts::default()
        };
        check(&Failure::Clone(Errno::PERM), &root, &["dmesg"]);
    }

    #[test]
    fn a_container_is_told_its_flag_and_a_plain_machine_is_not() {
        let docker = Facts {
            container: Some(Container::Docker),
            filtered: true,
            ..user()
        };
        for errno in [Errno::PERM, Errno::NOSYS] {
            check(
                &Failure::Clone(errno),
                &docker,
                &["Docker refuses it", "seccomp=unconfined"],
            );
        }
        check(&refused(Errno::ACCESS), &docker, &["apparmor=unconfined"]);
        let both = ["seccomp=unconfined", "apparmor=unconfined"];
        check(&refused(Errno::PERM), &docker, &both);
        let service = Facts {
            filtered: true,
            ..user()
        };
        check(&Failure::Clone(Errno::PERM), &service, &["RestrictNamespaces="]);
        check(&Failure::Clone(Errno::NOSYS), &user(), &["Linux 5.19"]);
    }

    #[test]
    fn under_nx_the_words_are_those_of_nesting() {
        let inside = Facts {
            filtered: true,
            no_new_privs: true,
            node: "nexus".into(),
            ..user()
        };
        check(&Failure::Clone(Errno::PERM), &inside, &["already runs under nx"]);
    }

    #[test]
    fn a_stuck_probe_is_said_to_be_stuck() {
        check(&Failure::Stuck, &user(), &["no answer within 2 s"]);
    }
}
