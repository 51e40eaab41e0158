use std::collections::BTreeMap;

/// The name of a tree's first file.
pub const ROOT_FILE: &str = "nexus.policy.toml";

/// Why a file of a tree could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is none of that name.
    #[error("there is no such file")]
    NotFound,
    /// It has more bytes than were asked for.
    #[error("the file is too large")]
    TooLarge,
    /// A symbolic link is in the way, or the path leads out of the tree.
    #[error("the path leaves the tree or leads over a symbolic link")]
    Leaves,
    /// It is a directory, a pipe, a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// It belongs to a stranger, or strangers may write it.
    #[error("{0}")]
    NotTrusted(String),
    /// What the system said.
    #[error("{0}")]
    Io(String),
}

/// A place that holds a policy tree: a directory, or the tree inside the binary.
pub trait TreeSource {
    /// The bytes of a file, each asked for once.
    ///
    /// `path` is relative, has `/` between its parts, and none of them is empty, `.` or `..`.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::TooLarge`] where the file has more than `bytes_max` bytes, without reading further.
    fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, ReadError>;
}

/// A tree in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    files: BTreeMap<String, Vec<u8>>,
}

impl MemoryTree {
    /// A tree of these files: path and content.
    pub fn new<P: Into<String>, C: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, C)>) -> Self {
        Self {
            files: files
                .into_iter()
                .map(|(path, content)| (path.into(), content.into()))
                .collect(),
        }
    }

    /// The tree that ships with nexus, as it was when this was built.
    #[must_use]
    pub fn shipped() -> Self {
        Self::new([
            (ROOT_FILE, include_str!("../../../recipes/security/nexus.policy.toml")),
            ("quotas.toml", include_str!("../../../recipes/security/quotas.toml")),
            ("egress.toml", include_str!("../../../recipes/security/egress.toml")),
            ("abi.toml", include_str!("../../../recipes/security/abi.toml")),
            ("sandbox.toml", include_str!("../../../recipes/security/sandbox.toml")),
        ])
    }

    /// The files, by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_slice()))
    }
}

impl TreeSource for MemoryTree {
    fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        let content = self.files.get(path).ok_or(ReadError::NotFound)?;
        if content.len() > bytes_max {
            Err(ReadError::TooLarge)
        } else {
            Ok(content.clone())
        }
    }
}
