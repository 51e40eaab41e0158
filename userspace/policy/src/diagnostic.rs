use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::limits::DIAGNOSTICS_MAX;

/// A file of a tree, by its place in [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(crate) u32);

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    path: String,
    text: Arc<str>,
    line_starts: Vec<usize>,
}

impl SourceFile {
    /// The path relative to the tree, `/` between its parts.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the file says; bytes that were no UTF-8 are replaced by U+FFFD, and an error says so.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    #[must_use]
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= byte);
        let start = line
            .checked_sub(1)
            .and_then(|index| self.line_starts.get(index))
            .copied()
            .unwrap_or(0);
        let column = self
            .text
            .get(start..byte.min(self.text.len()))
            .map_or(0, |before| before.chars().count());
        (line.max(1), column.saturating_add(1))
    }
}

/// The files of a tree, each read once.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

impl Sources {
    pub(crate) fn add(&mut self, path: String, text: Arc<str>) -> FileId {
        let id = FileId(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at.saturating_add(1)))
            .collect();
        self.files.push(SourceFile {
            path,
            text,
            line_starts,
        });
        id
    }

    /// The file.
    #[must_use]
    pub fn get(&self, id: FileId) -> Option<&SourceFile> {
        self.files.get(usize::try_from(id.0).ok()?)
    }

    /// Every file, in the order in which they were read.
    pub fn iter(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.files.iter().map(|file| file.text.len()).sum()
    }

    /// `FILE:LINE` of a place.
    #[must_use]
    pub fn at(&self, place: &Place) -> String {
        match self.get(place.file) {
            Some(file) => format!("{}:{}", file.path, file.position(place.span.start).0),
            None => String::new(),
        }
    }
}

/// A stretch of a file, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which file.
    pub file: FileId,
    /// From where to where; on character boundaries and inside the file.
    pub span: SpanBytes,
}

/// A range of bytes of a file, half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanBytes {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl From<Range<usize>> for SpanBytes {
    fn from(range: Range<usize>) -> Self {
        Self {
            start: range.start,
            end: range.end.max(range.start),
        }
    }
}

impl Place {
    pub(crate) fn new(file: FileId, span: Range<usize>) -> Self {
        Self {
            file,
            span: span.into(),
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// What kind of error it is, with a stable text for programs that read it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code, in the order of this table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable text, such as `policy.unknown_key`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("policy.", $text),)*
                }
            }
        }
    };
}

codes! {
    /// A file that cannot be read: missing, no regular file, an I/O error.
    Unreadable = "unreadable",
    /// A file over its bound of bytes.
    FileTooLarge = "file_too_large",
    /// All files together over their bound of bytes.
    TreeTooLarge = "tree_too_large",
    /// More files than a tree may have.
    TooManyFiles = "too_many_files",
    /// More tokens than a file may have.
    TooManyTokens = "too_many_tokens",
    /// Bytes that are no UTF-8.
    NotUtf8 = "not_utf8",
    /// A character that a policy never needs and that hides or reorders what is written.
    ForbiddenCharacter = "forbidden_character",
    /// Brackets or dots nested too deep.
    TooDeep = "too_deep",
    /// The text is not TOML.
    Syntax = "syntax",
    /// The root lacks `version`, or it is not one that is known.
    Version = "version",
    /// An include that is no plain path inside the tree.
    IncludePath = "include_path",
    /// An include that leaves the tree by a symbolic link.
    IncludeLeaves = "include_leaves",
    /// A file that includes itself, by way of others or not.
    IncludeCycle = "include_cycle",
    /// A file that is included from two places.
    IncludeTwice = "include_twice",
    /// Includes nested too deep.
    IncludeTooDeep = "include_too_deep",
    /// A file whose name does not say of what it speaks.
    UnknownMatter = "unknown_matter",
    /// A key that means nothing here.
    UnknownKey = "unknown_key",
    /// A key that must be there and is not.
    MissingKey = "missing_key",
    /// A value of the wrong type.
    WrongType = "wrong_type",
    /// A value that is of the right type and still not possible.
    BadValue = "bad_value",
    /// A name of a subject or domain that is not possible.
    BadName = "bad_name",
    /// A subject, domain or rule that stands there twice.
    Duplicate = "duplicate",
    /// A subject or domain that no policy file declares.
    Undeclared = "undeclared",
    /// More subjects than a tree may have.
    TooManySubjects = "too_many_subjects",
    /// More domains than a tree may have.
    TooManyDomains = "too_many_domains",
    /// More rules than a tree may have.
    TooManyRules = "too_many_rules",
    /// More rules or entries than this list, scope or subject may have.
    TooManyEntries = "too_many_entries",
    /// Two rules of one scope that say the opposite of the very same thing.
    Contradiction = "contradiction",
    /// An address, prefix or name that is none.
    BadAddress = "bad_address",
    /// A prefix with bits set after its length.
    HostBits = "host_bits",
    /// A port or range of ports that is none.
    BadPorts = "bad_ports",
    /// A size that is none, or not of whole blocks.
    BadSize = "bad_size",
    /// A soft limit above the hard one.
    SoftAboveHard = "soft_above_hard",
    /// A syscall that is in no table.
    UnknownSyscall = "unknown_syscall",
    /// A group of syscalls that is not known.
    UnknownGroup = "unknown_group",
    /// A constant that is not known.
    UnknownConstant = "unknown_constant",
    /// A condition that cannot be, or that can never hold.
    BadCondition = "bad_condition",
    /// A path that the view cannot show.
    BadPath = "bad_path",
}

/// Another place that belongs to an error, such as where the same thing stood first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What is there.
    pub label: String,
}

/// One error of a tree: where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind.
    pub code: Code,
    /// Where.
    pub place: Place,
    /// What is wrong: a fragment, input in backticks.
    pub message: String,
    /// A few words for the place itself.
    pub label: String,
    /// What would be right.
    pub help: Option<String>,
    /// Where the other half of the error stands.
    pub related: Option<Related>,
}

impl Diagnostic {
    pub(crate) fn new(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self {
            code,
            place,
            message: message.into(),
            label: String::new(),
            help: None,
            related: None,
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related = Some(Related {
            place,
            label: label.into(),
        });
        self
    }
}

/// Everything that was found wrong with a tree, at most [`DIAGNOSTICS_MAX`] of it, and the files it speaks of.
///
/// [`fmt::Display`] gives plain text, a few lines for each; `nx` draws the same values with the source around them.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Diagnostics {
    sources: Sources,
    items: Vec<Diagnostic>,
    left_out: usize,
}

impl Diagnostics {
    /// The errors, in the order of files and places.
    #[must_use]
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// The files.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// How many more errors there are than [`Diagnostics::items`] holds.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let (path, line, column) = match self.sources.get(item.place.file) {
                Some(file) => {
                    let (line, column) = file.position(item.place.span.start);
                    (file.path(), line, column)
                }
                None => ("", 0, 0),
            };
            write!(f, "{path}:{line}:{column}: {} [{}]", item.message, item.code.as_str())?;
            if let Some(related) = &item.related {
                write!(f, "\n  {}: {}", self.sources.at(&related.place), related.label)?;
            }
            if let Some(help) = &item.help {
                write!(f, "\n  help: {help}")?;
            }
        }
        if self.left_out > 0 {
            write!(f, "\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}

/// Collects errors, a bounded number of them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    items: Vec<Diagnostic>,
    left_out: usize,
}

impl Report {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        // Subjects of one domain have its errors in common.
        if self.has_room() && !self.items.contains(&diagnostic) {
            self.items.push(diagnostic);
        }
    }

    /// Whether another error can be told; where not, it is counted. Asked before work that only its words need, so that a
    /// million errors cost no more than the first few.
    pub(crate) fn has_room(&mut self) -> bool {
        let has_room = self.items.len() < DIAGNOSTICS_MAX;
        if !has_room {
            self.left_out = self.left_out.saturating_add(1);
        }
        has_room
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn into_diagnostics(mut self, sources: Sources) -> Diagnostics {
        self.items.sort_by(|a, b| a.place.cmp(&b.place));
        Diagnostics {
            sources,
            items: self.items,
            left_out: self.left_out,
        }
    }
}
