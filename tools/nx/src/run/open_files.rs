//! How many files a process of `nx` may have open: raised where the shell says few, and named where there are too few.

use super::failure::Failure;
use execd::Entry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a session's processes have open besides what the view is made of: the links between them, the areas' mounts, the
/// journal, the file server's device and threads. 23 with the shipped policy; the rest is room for what nobody counted.
const WITHOUT_VIEW: u64 = 32;

/// Raises the soft limit to the hard one: most shells say 1024, which is little for a policy that shows much, and a user's
/// processes may send no descriptor while more are on their way than the one that sends may have open, unix(7): a program of a
/// session that sends them one after another, and has fewer, then holds up no other session. Says what it was, which the program is to
/// find again.
pub(crate) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let was = limit.current.filter(|soft| Some(*soft) < limit.maximum)?;
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).is_ok().then_some(was)
}

/// Whether there are enough for this view.
pub(crate) fn check(view: &[Entry]) -> Result<(), Failure> {
    let mounts = view
        .iter()
        .filter(|entry| matches!(entry, Entry::Bind { .. } | Entry::Pin { .. } | Entry::Device { .. }));
    let needed = WITHOUT_VIEW.saturating_add(u64::try_from(mounts.count()).unwrap_or(u64::MAX));
    match getrlimit(Resource::Nofile).current {
        Some(may) if may < needed => Err(too_few(may, needed)),
        _ => Ok(()),
    }
}

fn too_few(may: u64, needed: u64) -> Failure {
    Failure::unsupported(
        format!("nx may have no more than {may} files open here, and needs {needed} for this policy"),
        &format!(
            "raise the limit of the shell that starts it: `ulimit -n {needed}`; where that is refused, the hard limit is \
             somebody else's to raise: `nofile` in /etc/security/limits.conf, `LimitNOFILE=` of a systemd unit, `--ulimit \
             nofile=1024` of a container"
        ),
    )
}

/// What to do about a failure that is nothing but a process with too many files open.
pub(crate) fn help() -> String {
    let may = getrlimit(Resource::Nofile).current;
    let may = may.map_or_else(String::new, |may| format!(" (it is {may} now)"));
    format!("raise the limit of open files of the shell that starts nx{may}: `ulimit -n 1024`")
}

/// What to do about a failure that is nothing but a user who has too many files on their way, unix(7).
pub(crate) fn help_on_their_way() -> String {
    let may = getrlimit(Resource::Nofile).current;
    let may = may.map_or_else(String::new, |may| format!(" (it is {may} now)"));
    format!(
        "too many files of this user's are on their way in messages that nobody has received: end the program that sends \
         them, or raise the limit of open files of the shell that starts nx{may}, which is theirs as well"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_files_are_told_with_the_limit_what_is_needed_and_the_next_step() {
        let said = too_few(16, 40).to_string();
        assert!(said.contains("no more than 16") && said.contains("needs 40"), "{said}");
        assert!(
            said.contains("`ulimit -n 40`") && said.contains("limits.conf"),
            "{said}"
        );
        assert_eq!(too_few(16, 40).exit.code(), 6);
    }
}
