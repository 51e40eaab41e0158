use rustix::fs::{FileType, Stat};

/// Who may own a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    /// The user id that may, besides root.
    pub uid: u32,
}

/// Why a file or directory is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It belongs to somebody else.
    #[error("it belongs to user {uid}, neither to root nor to the caller ({caller})")]
    Owner {
        /// Whose it is.
        uid: u32,
        /// Who may own it besides root.
        caller: u32,
    },
    /// Everybody may write it.
    #[error("everybody may write it (mode {mode:04o})")]
    OthersWrite {
        /// The permission bits.
        mode: u32,
    },
    /// A group may write it.
    #[error("group {gid} may write it (mode {mode:04o})")]
    GroupWrites {
        /// The group.
        gid: u32,
        /// The permission bits.
        mode: u32,
    },
}

impl Distrust {
    /// The command that mends it, for this path.
    #[must_use]
    pub fn help(&self, path: &str) -> String {
        match self {
            Self::Owner { .. } => format!("copy the tree to a directory of your own, or let root `chown root: {path}`"),
            Self::OthersWrite { .. } | Self::GroupWrites { .. } => format!("`chmod go-w {path}`"),
        }
    }
}

const WRITE_OTHERS: u32 = 0o002;
const WRITE_GROUP: u32 = 0o020;
const STICKY: u32 = 0o1000;

impl Owners {
    fn owner(self, stat: &Stat) -> Result<(), Distrust> {
        if stat.st_uid == 0 || stat.st_uid == self.uid {
            Ok(())
        } else {
            Err(Distrust::Owner {
                uid: stat.st_uid,
                caller: self.uid,
            })
        }
    }

    /// Whether a file or directory of the tree itself can be trusted.
    ///
    /// # Errors
    /// [`Distrust`]. A group that may write is a stranger, unless it is the user's own by the usual convention: the same
    /// number as the user's.
    pub fn member(self, stat: &Stat) -> Result<(), Distrust> {
        self.owner(stat)?;
        let mode = stat.st_mode & 0o7777;
        if mode & WRITE_OTHERS != 0 {
            return Err(Distrust::OthersWrite { mode });
        }
        if mode & WRITE_GROUP != 0 && stat.st_gid != 0 && (stat.st_gid != self.uid || stat.st_uid != self.uid) {
            return Err(Distrust::GroupWrites { gid: stat.st_gid, mode });
        }
        Ok(())
    }

    /// Whether a directory that leads to the tree can be trusted not to lead elsewhere tomorrow.
    ///
    /// # Errors
    /// [`Distrust`]. One that everybody may write is trusted where it is sticky, as `/tmp` is: there nobody can rename
    /// what belongs to somebody else. A group is not looked at: who shares a directory with colleagues shares what is in
    /// it.
    pub fn ancestor(self, stat: &Stat) -> Result<(), Distrust> {
        self.owner(stat)?;
        let mode = stat.st_mode & 0o7777;
        if mode & WRITE_OTHERS != 0 && mode & STICKY == 0 {
            return Err(Distrust::OthersWrite { mode });
        }
        Ok(())
    }
}

/// Whether it is a regular file.
pub(crate) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(uid: u32, gid: u32, mode: u32) -> Stat {
        let mut stat = rustix::fs::stat("/").unwrap();
        stat.st_uid = uid;
        stat.st_gid = gid;
        stat.st_mode = mode;
        stat
    }

    #[test]
    fn a_tree_of_the_callers_or_roots_is_trusted_and_a_strangers_is_not() {
        let owners = Owners { uid: 1000 };
        assert_eq!(owners.member(&stat(1000, 100, 0o755)), Ok(()));
        assert_eq!(owners.member(&stat(0, 0, 0o755)), Ok(()));
        assert_eq!(
            owners.member(&stat(1001, 100, 0o755)),
            Err(Distrust::Owner {
                uid: 1001,
                caller: 1000
            })
        );
        assert!(
            Owners { uid: 0 }.member(&stat(1000, 1000, 0o700)).is_err(),
            "root trusts only root"
        );
    }

    #[test]
    fn what_others_may_write_is_not_trusted() {
        let owners = Owners { uid: 1000 };
        assert_eq!(
            owners.member(&stat(1000, 1000, 0o757)),
            Err(Distrust::OthersWrite { mode: 0o757 })
        );
        assert_eq!(
            owners.member(&stat(1000, 100, 0o775)),
            Err(Distrust::GroupWrites { gid: 100, mode: 0o775 })
        );
        assert_eq!(
            owners.member(&stat(0, 1000, 0o775)),
            Err(Distrust::GroupWrites { gid: 1000, mode: 0o775 })
        );
        assert_eq!(owners.member(&stat(1000, 1000, 0o775)), Ok(()), "a group of one's own");
    }

    #[test]
    fn a_sticky_directory_may_lead_to_a_tree_and_one_that_all_may_rename_in_may_not() {
        let owners = Owners { uid: 1000 };
        assert_eq!(owners.ancestor(&stat(0, 0, 0o1777)), Ok(()));
        assert_eq!(
            owners.ancestor(&stat(0, 0, 0o777)),
            Err(Distrust::OthersWrite { mode: 0o777 })
        );
        assert!(owners.ancestor(&stat(1001, 0, 0o755)).is_err());
    }
}
