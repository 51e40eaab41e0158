//! What is mounted: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which directory of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The file system's name.
    pub kind: String,
    /// Whether the mount or its file system is read-only.
    pub read_only: bool,
}

/// Every mount of a mountinfo text; lines that are none are left out.
pub fn parse(text: &str) -> impl DoubleEndedIterator<Item = Mount> + '_ {
    text.lines().filter_map(mount)
}

/// Every mount of one kind of file system; as [`parse()`] otherwise, and much cheaper where there are many others.
pub fn of_kind<'t>(text: &'t str, kind: &'t str) -> impl DoubleEndedIterator<Item = Mount> + 't {
    text.lines()
        .filter(move |line| line.contains(kind))
        .filter_map(mount)
        .filter(move |mount| mount.kind == kind)
}

// 36 35 98:0 /root /point rw,noatime master:1 … - ext3 /dev/root rw,errors=continue
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, point, options) = (fields.next()?, fields.next()?, fields.next()?);
    let mut fields = after.split(' ');
    let (kind, _source, super_options) = (fields.next()?, fields.next()?, fields.next()?);
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        root: unescape(root),
        point: unescape(point),
        kind: kind.to_owned(),
        read_only: read_only(options) || read_only(super_options),
    })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, more)) = rest.split_first() {
        let octal = more.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let digits = str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = more.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = more;
            }
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(line: &str, expect: Option<(&str, &str, &str, bool)>) {
        let expect = expect.map(|(root, point, kind, read_only)| Mount {
            root: root.into(),
            point: point.into(),
            kind: kind.into(),
            read_only,
        });
        assert_eq!(mount(line), expect, "{line}");
    }

    #[test]
    fn lines_are_read_as_the_manual_says() {
        check(
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
            Some(("/mnt1", "/mnt2", "ext3", false)),
        );
        check(
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
            Some(("/", "/sys/fs/cgroup/unified", "cgroup2", false)),
        );
        check(
            "30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:4 master:2 propagate_from:1 - cgroup2 cgroup rw,nsdelegate",
            Some(("/", "/sys/fs/cgroup", "cgroup2", true)),
        );
        check("1 2 0:1 / /a rw - tmpfs t ro", Some(("/", "/a", "tmpfs", true)));
        check(
            r"1 2 0:1 /a\040b\134 /c\012\09 rw - tmpfs t rw",
            Some(("/a b\\", "/c\n\\09", "tmpfs", false)),
        );
        check("1 2 0:1 / /a rw - tmpfs", None);
        check("1 2 0:1 / /a rw", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_read_without_panic(text in any::<String>()) {
            prop_assert!(parse(&text).count() <= text.lines().count());
            prop_assert!(of_kind(&text, "a").eq(parse(&text).filter(|mount| mount.kind == "a")));
        }

        #[test]
        fn arbitrary_fields_are_read_without_panic(text in r"[\\0-9a /,-]{0,60}") {
            let _ = unescape(&text);
            prop_assert!(parse(&text).count() <= 1);
        }

        #[test]
        fn the_mounts_of_a_kind_are_those_of_all_that_have_it(kinds in proptest::collection::vec("a|b|ab", 0..6)) {
            let text: String = kinds.iter().map(|kind| format!("1 2 0:1 /a /b rw - {kind} a rw\n")).collect();
            prop_assert!(of_kind(&text, "a").eq(parse(&text).filter(|mount| mount.kind == "a")));
        }
    }
}
