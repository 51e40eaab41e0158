//! Paths of the view, as text: nothing here looks at a file system.

use crate::limits::PATH_BYTES_MAX;

/// Directories that every session has of its own; the host's are never shown there.
const OWN: [&str; 6] = ["/proc", "/dev", "/tmp", "/var/tmp", "/state", "/run/nexus"];

/// What is wrong with a path of the view, and what would be right.
pub(crate) fn view_path_problem(path: &str) -> Option<(&'static str, &'static str)> {
    if path == "/" || path == "~" || path == "~/" {
        return Some((
            "shows everything",
            "name the directories that the program needs, such as \"/usr\"",
        ));
    }
    let absolute = match path.strip_prefix("~/") {
        Some(rest) => rest,
        None => match path.strip_prefix('/') {
            Some(rest) => rest,
            None => {
                return Some((
                    "is not an absolute path",
                    "begin with `/`, or with `~/` for the caller's home",
                ));
            }
        },
    };
    if let Some(problem) = parts_problem(absolute) {
        return Some(("is not a plain path", problem));
    }
    if path.len() > PATH_BYTES_MAX {
        return Some(("is too long", "the kernel takes paths of at most 4095 bytes"));
    }
    if OWN.iter().any(|own| is_within(path, own)) {
        return Some(("is the session's own", "every session has its own there; take it out"));
    }
    if path == "/var" || path == "/run" {
        return Some((
            "holds sockets and scratch space of the whole system",
            "name the directory below it that is needed",
        ));
    }
    None
}

/// What is wrong with a path that is relative to `work`.
pub(crate) fn relative_path_problem(path: &str) -> Option<&'static str> {
    if path.starts_with('/') || path.starts_with('~') {
        return Some("write it relative to the work directory, such as \".git/hooks\"");
    }
    if path.len() > PATH_BYTES_MAX {
        return Some("the kernel takes paths of at most 4095 bytes");
    }
    parts_problem(path)
}

fn parts_problem(path: &str) -> Option<&'static str> {
    if path
        .chars()
        .any(|character| character.is_control() || crate::document::is_invisible(character))
    {
        return Some("take the control or invisible character out");
    }
    for part in path.split('/') {
        match part {
            "" => return Some("write it without `//` and without `/` at the end"),
            "." | ".." => return Some("write it without `.` and `..`"),
            _ if part.len() > 255 => return Some("no part of a path is longer than 255 bytes"),
            _ => {}
        }
    }
    None
}

/// Whether a path is the directory or lies below it. Both are plain and absolute.
pub(crate) fn is_within(path: &str, directory: &str) -> bool {
    match path.strip_prefix(directory) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// A path with `~/` replaced, `None` where the home cannot be told: it is empty, relative, the root, or not plain.
pub(crate) fn expand(path: &str, home: Option<&str>) -> Option<String> {
    let Some(rest) = path.strip_prefix("~/") else {
        return Some(path.to_owned());
    };
    let home = home?.trim_end_matches('/');
    let inner = home.strip_prefix('/')?;
    if parts_problem(inner).is_some() {
        return None;
    }
    let whole = format!("{home}/{rest}");
    view_path_problem(&whole).is_none().then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_holds_itself_and_what_is_below_and_no_namesake() {
        assert!(is_within("/usr", "/usr"));
        assert!(is_within("/usr/lib", "/usr"));
        assert!(!is_within("/usrlocal", "/usr"));
        assert!(!is_within("/us", "/usr"));
    }

    #[test]
    fn what_is_no_plain_path_is_refused() {
        for path in [
            "",
            "/",
            "~",
            "~/",
            "usr",
            "/usr/",
            "/usr//lib",
            "/usr/../etc",
            "/./usr",
            "/a\0b",
            "/a\u{202e}b",
            "/proc/1",
        ] {
            assert!(view_path_problem(path).is_some(), "{path:?}");
        }
        for path in ["/usr", "/etc/ssl/certs", "~/.cargo/bin", "/procx", "/var/lib/x", "/a b"] {
            assert_eq!(view_path_problem(path), None, "{path:?}");
        }
    }

    #[test]
    fn a_home_that_is_none_shows_nothing() {
        assert_eq!(expand("~/a", Some("/home/u/")), Some("/home/u/a".into()));
        assert_eq!(expand("/usr", None), Some("/usr".into()));
        for home in [
            None,
            Some(""),
            Some("/"),
            Some("home"),
            Some("/home/../etc"),
            Some("/proc"),
        ] {
            assert_eq!(expand("~/a", home), None, "{home:?}");
        }
    }
}
