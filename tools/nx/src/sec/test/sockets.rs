//! Unix sockets: the subject's own areas take them, the host's are not there, and one that lies in a path which is shown is
//! refused.

use super::claim::{Claim, Refusal, Seen, Wants};
use super::context::{Context, Rule};
use super::deny::UNIX_SOCKET;
use super::egress::{call, close};
use super::live::{Live, Lost};
use nexus_abi::{Area, Errno, Operation, Reason, Verdict, syscall};
use nexus_sys::probe::DATA_ADDRESS;
use std::collections::BTreeSet;

/// The most of the host's sockets that are tried: a machine has hundreds, all absent for one reason.
const HOST_MAX: usize = 32;

/// The longest name of a socket, unix(7).
const PATH_BYTES_MAX: usize = 108;

/// Tries to bind in each area, and to connect to what listens on the host.
pub(super) fn attempt(context: &Context, live: &mut Live, left_out: &mut Vec<String>) -> Vec<(Claim, Seen)> {
    let mut claims = Vec::new();
    let allows = |name: &str, args| {
        let number = syscall::number(name);
        number.is_some_and(|number| matches!(context.judge_call(number, args), Verdict::Allow { .. }))
    };
    let named = [3, DATA_ADDRESS, 16, 0, 0, 0];
    for (name, args) in [("socket", UNIX_SOCKET), ("bind", named), ("connect", named)] {
        if !allows(name, args) {
            left_out.push(format!("Unix sockets: the probe may not call `{name}`"));
            return claims;
        }
    }
    for area in [Area::Tmp, Area::State] {
        let Some(budget) = context.session.rules.budgets.get(area) else {
            continue;
        };
        // The program's home is one.
        if budget.budget.hard_inodes <= 1 {
            left_out.push(format!("Unix sockets: {area} has no room for one"));
            continue;
        }
        let path = format!("/{area}/nx-socket");
        let seen = on_a_socket(context, live, "bind", &address(path.as_bytes()));
        let rule = context.rule(budget.inodes_rule, None);
        let name = format!("a Unix socket is made at {path}");
        claims.push((claim(name, Wants::Passage(None), rule), seen));
    }
    let (listening, more) = of_the_host(context);
    if more > 0 {
        left_out.push(format!("{more} more of the host's Unix sockets, past {HOST_MAX}"));
    }
    for (bytes, shown) in listening {
        let text = match bytes.split_first() {
            Some((0, rest)) => format!("@{}", String::from_utf8_lossy(rest)),
            _ => String::from_utf8_lossy(&bytes).into_owned(),
        };
        let wants = if shown {
            Wants::Refusal(Refusal {
                op: Operation::Connect,
                object: format!("unix {text}"),
                reason: Reason::IpcNoRule,
                errno: Errno::EPERM,
            })
        } else {
            // An abstract name is another network namespace's, a path is not in the view.
            Wants::Errno(&[Errno::ENOENT, Errno::ECONNREFUSED, Errno::EACCES])
        };
        let seen = on_a_socket(context, live, "connect", &address(&bytes));
        let name = format!("the host's Unix socket {text} is not reached");
        claims.push((claim(name, wants, Rule::default()), seen));
    }
    claims
}

fn claim(name: String, wants: Wants, rule: Rule) -> Claim {
    Claim {
        part: "view",
        name,
        wants,
        rule,
    }
}

/// What listens on the host, paths as they are and abstract names with their NUL, and whether policy shows its path; those
/// first. And how many more there are.
fn of_the_host(context: &Context) -> (Vec<(Vec<u8>, bool)>, usize) {
    let home = context
        .places
        .home
        .as_ref()
        .map(|home| home.to_string_lossy().into_owned());
    let view = context.session.rules.view(home.as_deref());
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut all = BTreeSet::new();
    for line in table.lines().skip(1) {
        let mut words = line.split_ascii_whitespace();
        // Num RefCount Protocol Flags Type St Inode Path, proc_net_unix(5): __SO_ACCEPTCON is bit 16 of the flags.
        let (Some(flags), Some(kind)) = (words.nth(3), words.next()) else {
            continue;
        };
        let listens = u64::from_str_radix(flags, 16).is_ok_and(|flags| flags & 0x1_0000 != 0);
        let (true, "0001", Some(name)) = (listens, kind, words.nth(2)) else {
            continue;
        };
        let bytes = match name.strip_prefix('@') {
            Some(name) => [b"\0", name.as_bytes()].concat(),
            None => name.as_bytes().to_vec(),
        };
        if bytes.len() >= PATH_BYTES_MAX {
            continue;
        }
        // The way that the kernel would walk: a path may lead through links.
        let real = std::fs::canonicalize(name);
        let below = |shown: &str| real.as_ref().is_ok_and(|real| real.starts_with(shown));
        let shown = name.starts_with('/') && view.iter().any(|path| below(&path.path));
        all.insert((!shown, bytes));
    }
    let more = all.len().saturating_sub(HOST_MAX);
    let some = all.into_iter().take(HOST_MAX);
    (some.map(|(hidden, bytes)| (bytes, !hidden)).collect(), more)
}

/// `struct sockaddr_un`, unix(7); an abstract name has no end but its length.
fn address(name: &[u8]) -> Vec<u8> {
    let mut bytes = 1_u16.to_ne_bytes().to_vec();
    bytes.extend(name);
    if name.first() != Some(&0) {
        bytes.push(0);
    }
    bytes
}

fn on_a_socket(context: &Context, live: &mut Live, name: &str, address: &[u8]) -> Seen {
    let mut act = || -> Result<i64, Lost> {
        let number = |name: &str| syscall::number(name).unwrap_or(u32::MAX);
        let socket = call(live, number("socket"), UNIX_SOCKET, &[])?;
        if socket < 0 {
            return Ok(socket);
        }
        let socket = socket.cast_unsigned();
        let args = [socket, DATA_ADDRESS, address.len() as u64, 0, 0, 0];
        let value = call(live, number(name), args, address)?;
        close(context, live, socket).map(|()| value)
    };
    Seen::value(act())
}
