//! Whose request was it? Asked by the thread that tells sessions, never by one that serves files.

use nexus_sys::procfs;
use std::collections::HashMap;

/// How many parents are followed: a chain of processes is no longer than a subject may have processes.
const PARENTS_MAX: u32 = 4096;

/// The session, of those whose init process is known, that the thread `pid` belongs to.
///
/// Every process of a pid namespace descends from its init process, or from one that was adopted by it. The parents are
/// followed because the namespace itself cannot be asked for: reading `/proc/PID/ns` of a process in a user namespace
/// that is not below ours is refused. `/proc/PID/stat` is everybody's.
pub(crate) fn session_of(pid: u32, inits: &HashMap<u32, u64>) -> Option<u64> {
    let mut at = pid;
    for _ in 0..PARENTS_MAX {
        if at <= 1 {
            return None;
        }
        if let Some(session) = inits.get(&at) {
            return Some(*session);
        }
        at = parent_of(&procfs::read(at, "stat").ok()?)?;
    }
    None
}

/// The parent in a line of `/proc/PID/stat` (proc_pid_stat(5)). The name, in parentheses, may hold anything.
fn parent_of(stat: &[u8]) -> Option<u32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end.checked_add(1)?..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_hide_the_parent() {
        assert_eq!(parent_of(b"12 (a) R 99 (b) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of(b"12 (sh) S 1 12"), Some(1));
        assert_eq!(parent_of(b"12 sh S 1"), None);
    }

    #[test]
    fn our_own_parent_is_found_and_a_stranger_is_not() {
        let me = std::process::id();
        assert_eq!(session_of(me, &HashMap::from([(me, 3)])), Some(3));
        let parent = std::os::unix::process::parent_id();
        if parent > 1 {
            assert_eq!(session_of(me, &HashMap::from([(parent, 4)])), Some(4));
        }
        assert_eq!(session_of(me, &HashMap::new()), None);
        assert_eq!(session_of(0, &HashMap::from([(0, 1)])), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_stat_line_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parent_of(&bytes);
        }
    }
}
