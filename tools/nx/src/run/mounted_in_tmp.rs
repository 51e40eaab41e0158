//! What a session mounts in `tmp`, which all sessions of the subject share: every name on the way to it is the file server's
//! to hold.

use execd::{AreaMount, Entry};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use vfsd::PlacePart;

/// Where `tmp` is mounted.
const TMP: [&str; 2] = ["/tmp", "/var/tmp"];

/// Every name on the way to a mount point, parents first.
pub(crate) fn places(view: &[Entry], is_directory: impl Fn(&Path) -> bool) -> Vec<PlacePart> {
    let mut covered: Vec<&Path> = Vec::new();
    let mut numbers: BTreeMap<PathBuf, u32> = BTreeMap::new();
    let mut places = Vec::new();
    for entry in view {
        let (at, is_file) = match entry {
            Entry::Bind { at, source, .. } => (at, !is_directory(source)),
            Entry::Area {
                area: AreaMount::Work,
                at,
            } => (at, false),
            _ => continue,
        };
        let below = TMP.iter().find_map(|tmp| at.strip_prefix(tmp).ok());
        let Some(below) = below.filter(|below| !below.as_os_str().is_empty()) else {
            continue;
        };
        // What lies in a mount that came before is not in `tmp`.
        if covered.iter().any(|outer| at.starts_with(outer)) {
            continue;
        }
        covered.push(at);
        let (mut parent, mut so_far) = (0, PathBuf::new());
        for part in below.components() {
            so_far.push(part);
            let is_last = so_far == below;
            parent = *numbers.entry(so_far.clone()).or_insert_with(|| {
                places.push(PlacePart {
                    parent,
                    name: part.as_os_str().as_bytes().to_vec(),
                    is_file: is_last && is_file,
                });
                // A list that does not fit 32 bits is refused for its length.
                u32::try_from(places.len()).unwrap_or(u32::MAX)
            });
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use execd::Access;

    fn bind(at: &str) -> Entry {
        Entry::Bind {
            source: at.into(),
            at: at.into(),
            access: Access::ReadWrite,
        }
    }

    fn of(view: &[Entry]) -> Vec<(u32, String, bool)> {
        let places = places(view, |path| !path.ends_with("file"));
        let text = |name| String::from_utf8(name).unwrap();
        let parts = places.into_iter();
        parts.map(|part| (part.parent, text(part.name), part.is_file)).collect()
    }

    #[test]
    fn every_name_on_the_way_to_a_mount_in_tmp_is_held_once_and_nothing_elsewhere() {
        let area = |area, at: &str| Entry::Area { area, at: at.into() };
        let view = [
            bind("/home/ann/project"),
            area(AreaMount::Tmp, "/tmp"),
            bind("/tmp/a/b"),
            bind("/tmp/a/file"),
            bind("/tmp/a/b/inside"),
            bind("/tmpfile"),
            area(AreaMount::Tmp, "/var/tmp"),
            area(AreaMount::Work, "/var/tmp/a/work"),
            Entry::Hide { at: "/tmp/x".into() },
        ];
        let expected = [
            (0, "a".to_owned(), false),
            (1, "b".into(), false),
            (1, "file".into(), true),
            (1, "work".into(), false),
        ];
        assert_eq!(of(&view), expected);
        assert_eq!(of(&[area(AreaMount::Work, "/home/ann")]), []);
    }
}
