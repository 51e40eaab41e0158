//! What must be kept of what a program was told: an account of its own, which asks neither the file server nor its ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::hostile::Numbers;

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

/// What a program does to the files of one directory.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// In one request, and makes the file where it is missing.
    Write {
        name: String,
        at: u64,
        length: usize,
        byte: u8,
    },
    SetLen {
        name: String,
        length: u64,
    },
    Rename(String, String),
    Link(String, String),
    MakeDir(String),
    Remove(String),
}

impl Deed {
    /// The next of a sequence.
    pub(crate) fn next(numbers: &mut Numbers) -> Self {
        let mut name = || format!("f{}", numbers.below(12));
        let (one, other) = (name(), name());
        let at = numbers.below(200_000);
        match numbers.below(8) {
            0..=2 => Self::Write {
                name: one,
                at,
                length: 1 + at as usize / 2,
                byte: 1 + numbers.below(255) as u8,
            },
            3 => Self::SetLen { name: one, length: at },
            4 => Self::Rename(one, other),
            5 => Self::Link(one, other),
            6 => Self::MakeDir(format!("d{}", numbers.below(4))),
            _ => Self::Remove(one),
        }
    }

    pub(crate) fn act(&self, dir: &Path) -> io::Result<()> {
        match self {
            Self::Write { name, at, length, byte } => File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(dir.join(name))?
                .write_all_at(&vec![*byte; *length], *at),
            Self::SetLen { name, length } => OpenOptions::new().write(true).open(dir.join(name))?.set_len(*length),
            Self::Rename(from, to) => fs::rename(dir.join(from), dir.join(to)),
            Self::Link(from, to) => fs::hard_link(dir.join(from), dir.join(to)),
            Self::MakeDir(name) => fs::create_dir(dir.join(name)),
            Self::Remove(name) => fs::remove_file(dir.join(name)),
        }
    }

    /// Whose content it changes, in steps that may be seen one by one where it is cut short.
    fn file(&self) -> Option<&str> {
        match self {
            Self::Write { name, .. } | Self::SetLen { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// A directory's files and directories.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// Which file each name means.
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Vec<u8>>,
    dirs: BTreeSet<String>,
}

impl Kept {
    /// What a directory on the host has, one entry after the other.
    pub(crate) fn on_disk(dir: &Path) -> Self {
        let mut kept = Self::default();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if metadata.is_dir() {
                kept.dirs.insert(name);
                continue;
            }
            assert!(metadata.is_file(), "{name}");
            kept.names.insert(name, metadata.ino());
            kept.files.insert(metadata.ino(), fs::read(&path).unwrap());
        }
        kept
    }

    /// Bytes and inodes that it costs.
    pub(crate) fn cost(&self) -> (u64, u64) {
        let bytes = self
            .files
            .values()
            .map(|content| (content.len() as u64).div_ceil(4096) * 4096);
        (bytes.sum(), (self.files.len() + self.dirs.len()) as u64)
    }

    /// Does it, or says with which errno it fails.
    pub(crate) fn apply(&mut self, deed: &Deed) -> Result<(), i32> {
        let known = |names: &BTreeMap<String, u64>, name: &String| names.get(name).copied().ok_or(ENOENT);
        match deed {
            Deed::Write { name, at, length, byte } => {
                let next = self.files.keys().max().map_or(1, |most| most + 1);
                let file = *self.names.entry(name.clone()).or_insert(next);
                let content = self.files.entry(file).or_default();
                let at = *at as usize;
                content.resize(content.len().max(at + length), 0);
                content[at..at + length].fill(*byte);
            }
            Deed::SetLen { name, length } => {
                let file = known(&self.names, name)?;
                self.files.entry(file).or_default().resize(*length as usize, 0);
            }
            Deed::Rename(from, to) => {
                let file = known(&self.names, from)?;
                // Two names of one file stay (rename(2)).
                if self.names.get(to) != Some(&file) {
                    self.names.remove(from);
                    self.names.insert(to.clone(), file);
                }
            }
            Deed::Link(from, to) => {
                let file = known(&self.names, from)?;
                if self.names.contains_key(to) {
                    return Err(EEXIST);
                }
                self.names.insert(to.clone(), file);
            }
            Deed::MakeDir(name) => {
                if !self.dirs.insert(name.clone()) {
                    return Err(EEXIST);
                }
            }
            Deed::Remove(name) => {
                known(&self.names, name)?;
                self.names.remove(name);
            }
        }
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
        Ok(())
    }

    fn content(&self, name: &str) -> &[u8] {
        self.names.get(name).map_or(&[], |file| &self.files[file])
    }

    /// Each name with the first name of the same file, and its content unless that is to be left out.
    fn shape(&self, without: Option<&str>) -> Vec<(&str, &str, &[u8])> {
        let left_out = without.and_then(|name| self.names.get(name));
        let first = |file: &u64| self.names.iter().find(|(_, known)| *known == file).unwrap().0;
        let shaped = self.names.iter().map(|(name, file)| {
            let content = if left_out == Some(file) {
                &[][..]
            } else {
                self.files[file].as_slice()
            };
            (name.as_str(), first(file).as_str(), content)
        });
        shaped.collect()
    }

    fn same(&self, other: &Self, without: Option<&str>) -> bool {
        self.dirs == other.dirs && self.shape(without) == other.shape(without)
    }

    /// Whether `disk` is what was acknowledged, and of `under_way`, which was not, as much as there is: nothing, all, or of a file's content a part.
    pub(crate) fn is_kept_by(&self, disk: &Self, under_way: &Deed) -> bool {
        let mut after = self.clone();
        let went = after.apply(under_way);
        if disk.same(self, None) || disk.same(&after, None) {
            return true;
        }
        let (Ok(()), Some(name)) = (went, under_way.file()) else {
            return false;
        };
        let (was, is, seen) = (self.content(name), after.content(name), disk.content(name));
        let lengths = was.len().min(is.len())..=was.len().max(is.len());
        // A file that grew before it was written has zeros there.
        let bytes = seen
            .iter()
            .enumerate()
            .all(|(at, byte)| Some(byte) == was.get(at) || Some(byte) == is.get(at) || (at >= was.len() && *byte == 0));
        disk.same(&after, Some(name)) && lengths.contains(&seen.len()) && bytes
    }

    /// In few words.
    pub(crate) fn told(&self) -> String {
        let names = self.shape(None).into_iter();
        let names: Vec<_> = names
            .map(|(name, first, content)| (name, first, content.len()))
            .collect();
        format!("{names:?} {:?}", self.dirs)
    }
}
