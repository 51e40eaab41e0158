use thiserror::Error;

/// The smallest file, in bytes: one batch of records fits well.
pub const FILE_BYTES_MIN: u64 = 64 * 1024;
/// The fewest files: with one, a rotation would drop all there is.
pub const FILES_MIN: u32 = 2;
/// The most files: a rotation renames each of them.
pub const FILES_MOST: u32 = 1000;

/// How much disk a journal may take: at most `file_bytes_max` times `files_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// The longest file, in bytes; past it a new one is begun.
    pub file_bytes_max: u64,
    /// How many files are kept, the one that is written among them.
    pub files_max: u32,
}

impl JournalLimits {
    /// 64 MiB: some hundred thousand records, weeks of an ordinary user's denies.
    pub const DEFAULT: Self = Self {
        file_bytes_max: 8 * 1024 * 1024,
        files_max: 8,
    };

    /// The limits, if a journal can work with them.
    ///
    /// # Errors
    /// [`LimitsError`].
    pub const fn check(self) -> Result<Self, LimitsError> {
        if self.file_bytes_max < FILE_BYTES_MIN {
            return Err(LimitsError::FileBytes(self.file_bytes_max));
        }
        if self.files_max < FILES_MIN || self.files_max > FILES_MOST {
            return Err(LimitsError::Files(self.files_max));
        }
        Ok(self)
    }
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Limits that a journal cannot work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// Too short a file.
    #[error("a journal file of `{0}` bytes is too short, it needs {FILE_BYTES_MIN} at least")]
    FileBytes(u64),
    /// Too few files or too many.
    #[error("a journal of `{0}` files cannot be kept, it is {FILES_MIN} to {FILES_MOST}")]
    Files(u32),
}
