//! What of the host's files a subject sees: what policy shows is there and cannot be changed, what it does not is not there.

use super::claim::{Claim, Finding, Seen, Wants};
use super::context::{Context, Rule};
use super::live::Live;
use nexus_abi::{Errno, Verdict, syscall};
use nexus_policy::Device;
use nexus_sys::probe::{DATA_ADDRESS, DATA_BYTES, Frame};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The most paths that policy shows: a few dozen are the usual view.
const PATHS_MAX: usize = 128;

/// The most paths in each of the host's directories that are looked for: they are all absent for one reason.
const OUTSIDE_MAX: usize = 32;

/// What every session has of its own, whatever policy shows.
const OWN: [&str; 6] = ["/dev", "/nx-probe", "/proc", "/state", "/tmp", "/var/tmp"];

/// What a session that may resolve names has of its own.
const OF_NAMES: [&str; 4] = ["/etc/host.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"];

// linux/fcntl.h, linux/stat.h
const AT_FDCWD: u64 = (-100_i64).cast_unsigned();
const O_PATH_NOFOLLOW_CLOEXEC: u64 = 0o12_400_000;
const FILE_0600: u64 = 0o100_600;

const OPEN: (&str, [u64; 6]) = ("openat", [AT_FDCWD, DATA_ADDRESS, O_PATH_NOFOLLOW_CLOEXEC, 0, 0, 0]);
const MAKE: (&str, [u64; 6]) = ("mknodat", [AT_FDCWD, DATA_ADDRESS, FILE_0600, 0, 0, 0]);

/// Looks at what is shown and at what is not.
pub(super) fn attempt(context: &Context, live: &mut Live, left_out: &mut Vec<String>) -> Vec<(Claim, Seen)> {
    let home = context
        .places
        .home
        .as_ref()
        .map(|home| home.to_string_lossy().into_owned());
    let shown: Vec<_> = context
        .session
        .rules
        .view(home.as_deref())
        .into_iter()
        .filter_map(|path| {
            let found = std::fs::symlink_metadata(&path.path).ok()?;
            Some((path, found))
        })
        .collect();
    let mut claims = Vec::new();
    if shown.len() > PATHS_MAX {
        left_out.push(format!(
            "{} more paths that policy shows, past {PATHS_MAX}",
            shown.len() - PATHS_MAX
        ));
    }
    for (path, found) in shown.iter().take(PATHS_MAX) {
        let rule = context.rule(Some(path.rule), None);
        let there = (format!("{} is there", path.path), Wants::Passage(None));
        claims.extend(one(live, &OPEN, Path::new(&path.path), there, rule.clone()));
        if found.is_dir() && allows(context, &MAKE) {
            let inside = Path::new(&path.path).join("nx-proof");
            let closed = (
                format!("nothing is made in {}", path.path),
                // The mount is read-only; a kernel that asks Landlock or the directory's mode first says the other.
                Wants::Errno(&[Errno::EROFS, Errno::EACCES]),
            );
            claims.extend(one(live, &MAKE, &inside, closed, rule));
        }
    }
    let visible: Vec<PathBuf> = shown
        .iter()
        .map(|(path, _)| PathBuf::from(&path.path))
        .chain(OWN.iter().chain(&OF_NAMES).map(PathBuf::from))
        .collect();
    for path in outside(context, &visible) {
        let name = format!("{} is not there", path.display());
        let absent = (name, Wants::Errno(&[Errno::ENOENT]));
        claims.extend(one(live, &OPEN, &path, absent, Rule::default()));
    }
    claims
}

/// What of the view no proof tries, and why.
pub(super) const NOT_TRIED: [&str; 3] = [
    "work: the proof has no work directory, so nothing of `work` and `work_protect` is tried",
    "view: what lies inside of a path that is shown: all of it is read-only, for the reason that its top is",
    "view: what a device does that is shown: it is the kernel's own; which requests it takes is a rule for `ioctl`",
];

/// Devices that a host may have and that no policy can show.
const NEVER_SHOWN: [&str; 16] = [
    "cpu_dma_latency",
    "dri",
    "fuse",
    "input",
    "kmsg",
    "kvm",
    "loop-control",
    "loop0",
    "mapper",
    "mem",
    "net",
    "port",
    "sda",
    "snd",
    "vda",
    "vsock",
];

/// Looks at the devices that policy shows, and at those that it does not.
pub(super) fn devices(context: &Context, live: &mut Live) -> Vec<(Claim, Seen)> {
    let shown = &context.session.rules.dev;
    // Every session has the one, and a terminal where it was handed one.
    let named = Device::ALL
        .into_iter()
        .filter(|device| *device != Device::Null && *device != Device::Tty);
    let named = named.map(|device| (device.as_str(), shown.contains(&device)));
    let others = NEVER_SHOWN
        .into_iter()
        .filter(|name| Path::new("/dev").join(name).exists())
        .map(|name| (name, false));
    let all = std::iter::once((Device::Null.as_str(), true))
        .chain(named)
        .chain(others);
    let claims = all.filter_map(|(name, is_shown)| {
        let path = Path::new("/dev").join(name);
        let wants = if is_shown {
            (format!("{} is there", path.display()), Wants::Passage(None))
        } else {
            (
                format!("{} is not there", path.display()),
                Wants::Errno(&[Errno::ENOENT]),
            )
        };
        one(live, &OPEN, &path, wants, Rule::default())
    });
    claims.collect()
}

/// Why the view cannot be looked at.
pub(super) fn obstacle(context: &Context) -> Option<Finding> {
    let why = "the probe may not call `openat`".to_owned();
    (!allows(context, &OPEN)).then(|| Finding::skipped("view", "paths".to_owned(), why))
}

fn allows(context: &Context, (name, args): &(&str, [u64; 6])) -> bool {
    let number = syscall::number(name);
    number.is_some_and(|number| matches!(context.judge_call(number, *args), Verdict::Allow { .. }))
}

/// What is there on the host and neither shown, nor inside of what is, nor on the way to it.
fn outside(context: &Context, visible: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut places = vec![
        PathBuf::from("/"),
        PathBuf::from("/etc"),
        PathBuf::from("/var"),
        PathBuf::from("/run"),
    ];
    places.extend(context.places.home.clone());
    let is_outside = |path: &PathBuf| {
        let seen = |shown: &PathBuf| path.starts_with(shown) || shown.starts_with(path);
        !visible.iter().any(seen) && path.as_os_str().len() < DATA_BYTES
    };
    let listed = places.iter().flat_map(|place| {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.path()).filter(is_outside).collect();
        names.sort_unstable();
        names.truncate(OUTSIDE_MAX);
        names
    });
    // The journal and the areas above all.
    let own = std::iter::once(context.places.state.clone()).filter(is_outside);
    own.chain(listed).collect()
}

fn one(
    live: &mut Live,
    (call, args): &(&str, [u64; 6]),
    path: &Path,
    (name, wants): (String, Wants),
    rule: Rule,
) -> Option<(Claim, Seen)> {
    let mut data = path.as_os_str().as_encoded_bytes().to_vec();
    data.push(0);
    let number = syscall::number(call)?;
    let reply = live.call(&Frame {
        number: number.into(),
        args: *args,
        data: &data,
        ..Frame::default()
    });
    let value = reply.map(|reply| reply.value);
    if let (Ok(fd), Some(close)) = (value, syscall::number("close"))
        && fd > 0
    {
        // One that stays open is no harm: the session may have more than there are claims.
        let _ = live.call(&Frame {
            number: close.into(),
            args: [fd.unsigned_abs(), 0, 0, 0, 0, 0],
            ..Frame::default()
        });
    }
    let claim = Claim {
        part: "view",
        name,
        wants,
        rule,
    };
    Some((claim, Seen::value(value)))
}
