//! Landlock: the second fence around a view. landlock(7).

use super::child::{Refused, run};
use super::facts::Facts;
use super::report::{Mend, State};
use landlock::{ABI, Access as _, AccessFs, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr};
use nexus_sys::process::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What each version brought that is of use here, and what a program sees or may do without it. A version that
/// brought nothing that nx uses is not in here: 4 (TCP ports; the network namespace is empty), 7 and later (logging).
const GAINS: [(i32, &str); 4] = [
    (
        2,
        "renaming or linking a file into another directory fails with EXDEV (before Linux 5.19)",
    ),
    (3, "truncating is not fenced a second time (before Linux 6.2)"),
    (5, "ioctls on devices are not fenced a second time (before Linux 6.10)"),
    (
        6,
        "signals and abstract sockets are not fenced a second time (before Linux 6.12)",
    ),
];

const WITHOUT: &str = concat!(
    "a view has no second fence, and `nx run` refuses a file that is handed in for reading only, because the program ",
    "could open it again for writing (hand it in through a pipe: `cat FILE | nx run …`)"
);

fn tried() -> Result<String, Refused> {
    let failed = |step| Refused::at(step)(Errno::OPNOTSUPP);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|_| failed("apply a Landlock fence"))?;
    let version = match status.landlock {
        LandlockStatus::NotEnabled => return Err(failed("apply a Landlock fence")),
        LandlockStatus::NotImplemented => return Err(Refused::at("apply a Landlock fence")(Errno::NOSYS)),
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => kernel_abi.unwrap_or(effective_abi as i32),
    };
    match rustix::fs::open("/", OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => Ok(version.to_string()),
        _ => Err(Refused::at("see the Landlock fence hold")(Errno::IO)),
    }
}

pub(crate) fn fence(_: &Facts) -> State {
    match run(CloneFlags::NONE, tried) {
        Ok(version) => judge(version.parse().unwrap_or(0)),
        Err(failure) if failure.errno() == Some(Errno::OPNOTSUPP) => State::degraded(
            format!("the kernel has Landlock but does not use it, so {WITHOUT}"),
            vec![
                Mend::command("cat /sys/kernel/security/lsm"),
                Mend::words("boot with `lsm=landlock,` put before what that shows on the kernel's command line"),
            ],
        ),
        Err(failure) => State::degraded(
            format!("{failure}: {WITHOUT}"),
            vec![Mend::words(
                "boot a kernel with CONFIG_SECURITY_LANDLOCK, Linux 6.12 or later for all of it",
            )],
        ),
    }
}

fn judge(version: i32) -> State {
    let lost: Vec<_> = GAINS
        .iter()
        .filter(|(since, _)| version < *since)
        .map(|(_, cost)| *cost)
        .collect();
    if lost.is_empty() {
        return State::available(format!("ABI {version}, and a fence was seen to hold"));
    }
    State::degraded(
        format!("ABI {version}: {}", lost.join("; ")),
        vec![Mend::words("boot Linux 6.12 or later")],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_says_what_it_lacks_and_the_newest_lacks_nothing() {
        let text = |version| format!("{:?}", judge(version));
        assert!(judge(6).is_available());
        assert!(judge(7).is_available());
        assert!(text(5).contains("abstract sockets") && !text(5).contains("ioctls"));
        assert!(text(4).contains("ioctls") && !text(4).contains("truncating"));
        assert!(text(2).contains("truncating") && !text(2).contains("EXDEV"));
        assert!(text(1).contains("EXDEV"));
    }
}
