//! What this machine is.

use super::facts::Facts;
use super::report::{Mend, State};

pub(crate) fn architecture(facts: &Facts) -> State {
    // The syscall tables and the filter's argument layout are checked on this one only.
    const KNOWN: &str = "x86_64";
    if cfg!(target_arch = "x86_64") && facts.machine == KNOWN {
        return State::available(KNOWN);
    }
    State::missing(
        format!(
            "this is `{}`, and only `{KNOWN}` is supported today",
            facts.machine.escape_debug()
        ),
        vec![],
    )
}

pub(crate) fn kernel(facts: &Facts) -> State {
    State::available(format!("Linux {}", facts.release.escape_debug()))
}

pub(crate) fn container(facts: &Facts) -> State {
    match facts.container {
        None => State::available("none seen"),
        Some(container) => {
            let (Mend::Command(how) | Mend::Words(how)) = container.start();
            State::available(format!("{}; what nx needs of it in all: {how}", container.name()))
        }
    }
}

pub(crate) fn identity(facts: &Facts) -> State {
    State::available(if facts.uid == 0 {
        "root; a program never runs as root but as an unprivileged user of its own".to_owned()
    } else {
        format!("uid {}, gid {}; a program runs as the same user", facts.uid, facts.gid)
    })
}

pub(crate) fn nesting(facts: &Facts) -> State {
    if facts.inside_nx() {
        return State::missing(
            "this already runs under nx, and a program under nx cannot make another sandbox",
            vec![Mend::words("start this from a shell outside, as a subject of its own")],
        );
    }
    State::available("not inside another nx")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x86_64_is_supported_and_its_nearest_neighbours_are_not() {
        let on = |machine: &str| {
            architecture(&Facts {
                machine: machine.into(),
                ..Facts::default()
            })
        };
        assert!(on("x86_64").is_available());
        for machine in ["i686", "aarch64", "x86_64\n", ""] {
            assert!(on(machine).is_missing(), "{machine:?}");
        }
    }

    #[test]
    fn nx_inside_nx_is_refused_in_plain_words() {
        let inside = Facts {
            filtered: true,
            no_new_privs: true,
            node: "nexus".into(),
            ..Facts::default()
        };
        let State::Missing { why, mend } = nesting(&inside) else {
            panic!("not refused");
        };
        assert!(why.contains("already runs under nx"));
        assert_eq!(mend.len(), 1);
        assert!(nesting(&Facts::default()).is_available());
    }
}
