//! What these tests share.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use nexus_audit::Judgement;
use security_v2_host::{Home, Output, Run, Tree, User};
pub(crate) use security_v2_host::{lacking, need as has};

/// Compilers and virtual machines take their time on a machine that builds something else besides.
const SLOW: Duration = Duration::from_secs(300);

/// A home whose work directory the program can write, if policy lets it: root's programs are somebody else than root.
pub(crate) fn place(user: User) -> Arc<Home> {
    let home = Home::new(user);
    if user == User::Root {
        std::fs::set_permissions(home.work(), std::fs::Permissions::from_mode(0o777))
            .expect("a mode of one's own directory");
    }
    home
}

/// The tree of `tests/fixtures/policy-room`.
pub(crate) fn room() -> Tree {
    let files = [
        (
            "nexus.policy.toml",
            include_str!("../../../fixtures/policy-room/nexus.policy.toml"),
        ),
        ("quotas.toml", include_str!("../../../fixtures/policy-room/quotas.toml")),
        ("egress.toml", include_str!("../../../fixtures/policy-room/egress.toml")),
        ("abi.toml", include_str!("../../../fixtures/policy-room/abi.toml")),
        (
            "sandbox.toml",
            include_str!("../../../fixtures/policy-room/sandbox.toml"),
        ),
    ];
    files
        .into_iter()
        .fold(Tree::shipped(), |tree, (file, text)| tree.replace(file, text))
}

/// A run under the policy with room.
pub(crate) fn in_room(home: &Arc<Home>) -> Run {
    Run::at(home).policy(&room()).subject("room").deadline(SLOW)
}

/// Runs a bash script that stops at its first failure; it must succeed.
pub(crate) fn works(home: &Arc<Home>, script: &str) -> Output {
    succeeds(in_room(home).bash(&format!("set -euo pipefail\n{script}")))
}

/// Runs a script as [`works`] does; nothing of it may be denied.
pub(crate) fn works_unhindered(home: &Arc<Home>, script: &str) -> Output {
    let done = works(home, script);
    assert_eq!(denied(&done), Vec::<String>::new(), "{done}");
    done
}

/// A run that must succeed.
pub(crate) fn succeeds(run: Run) -> Output {
    let done = run.run();
    assert_eq!(done.code(), Some(0), "{done}");
    done
}

/// What was denied, but for what libraries try first and do without.
pub(crate) fn denied(done: &Output) -> Vec<String> {
    let denies = done
        .records
        .iter()
        .filter(|record| matches!(record.verdict, Judgement::Deny(_)));
    let meant = denies.filter(|record| record.reason.as_str() != "abi.unknown");
    meant
        .map(|record| format!("{} {}", record.object, record.reason))
        .collect()
}

/// The last line that was printed.
pub(crate) fn last(done: &Output) -> String {
    done.out().lines().next_back().unwrap_or_default().to_owned()
}
