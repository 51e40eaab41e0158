use std::fmt;

use nexus_abi::RuleRef;
use sha2::{Digest as _, Sha256};

use crate::diagnostic::{Code, Diagnostic, FileId, Place, Report, Sources};
use crate::json::Json;
use crate::limits::RULES_MAX;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RuleKind {
    /// A syscall rule, a group of them, or the lack of one.
    Abi,
    /// A destination by address, or the lack of a rule for it.
    Egress,
    /// A destination by name.
    Name,
    /// Ports to bind on the host.
    Bind,
    /// One limit of one area.
    Quota,
    /// A path of the view.
    Path,
    /// A limit of memory, processes or open files.
    Limit,
    /// Another key of `sandbox.toml`.
    Setting,
}

impl RuleKind {
    /// Every kind; a snapshot names one by its place here, so new ones come last.
    pub const ALL: [Self; 8] = [
        Self::Abi,
        Self::Egress,
        Self::Name,
        Self::Quota,
        Self::Path,
        Self::Limit,
        Self::Setting,
        Self::Bind,
    ];

    /// The first part of a rule's id.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Abi => "abi",
            Self::Egress => "egress",
            Self::Name => "name",
            Self::Bind => "bind",
            Self::Quota => "quota",
            Self::Path => "path",
            Self::Limit => "limit",
            Self::Setting => "setting",
        }
    }
}

/// A rule's stable id, such as `egress:1f2e3d4c5b6a7988`: its kind and the start of the SHA-256 over what it says and for
/// whom. Comments, order, spelling and file names don't change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    kind: RuleKind,
    hash: [u8; 8],
}

impl RuleId {
    fn of(kind: RuleKind, scope: &str, says: &Json) -> Self {
        let canonical = Json::object([
            ("kind", Json::text(kind.as_str())),
            ("scope", Json::text(scope)),
            ("says", says.clone()),
        ]);
        let digest = Sha256::digest(canonical.render().as_bytes());
        let mut hash = [0; 8];
        for (to, from) in hash.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
        Self { kind, hash }
    }

    pub(crate) const fn new(kind: RuleKind, hash: u64) -> Self {
        Self {
            kind,
            hash: hash.to_be_bytes(),
        }
    }

    pub(crate) const fn hash(self) -> u64 {
        u64::from_be_bytes(self.hash)
    }

    /// What the rule is about.
    #[must_use]
    pub const fn kind(self) -> RuleKind {
        self.kind
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.kind.as_str(), u64::from_be_bytes(self.hash))
    }
}

/// A rule as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// The stable id.
    pub id: RuleId,
    /// `FILE:LINE`, relative to its tree; with `ceiling:` before it where the rule is an administrator's ceiling's.
    pub at: String,
    /// The rule as it stands in its file.
    pub text: String,
}

#[derive(Clone, Debug)]
pub(crate) struct RuleEntry {
    pub(crate) id: RuleId,
    pub(crate) place: RulePlace,
}

/// Where a rule stands.
#[derive(Clone, Debug)]
pub(crate) enum RulePlace {
    /// In a file whose text is here.
    Source(Place),
    /// In a file that only the snapshot's maker saw; what stands there is a part of [`RuleTable::texts`].
    Printed {
        file: FileId,
        line: u32,
        text: std::ops::Range<usize>,
    },
}

/// The rules of a tree, each by its [`RuleRef`].
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleTable {
    entries: Vec<RuleEntry>,
    is_full_told: bool,
    /// The texts of a snapshot's rules, one after another.
    texts: String,
}

impl RuleTable {
    /// Adds a rule. Past [`RULES_MAX`] it is an error of the tree, told once, and the reference leads nowhere.
    pub(crate) fn add(
        &mut self,
        kind: RuleKind,
        scope: &str,
        says: &Json,
        place: Place,
        report: &mut Report,
    ) -> RuleRef {
        if self.entries.len() >= RULES_MAX {
            if !self.is_full_told {
                self.is_full_told = true;
                report.push(
                    Diagnostic::new(
                        Code::TooManyRules,
                        place,
                        format!("more than {RULES_MAX} rules in the tree"),
                    )
                    .help("write ranges and prefixes instead of single addresses"),
                );
            }
            return RuleRef(u32::MAX);
        }
        let rule = RuleRef(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.entries.push(RuleEntry {
            id: RuleId::of(kind, scope, says),
            place: RulePlace::Source(place),
        });
        rule
    }

    /// Adds a rule of a snapshot.
    pub(crate) fn add_printed(&mut self, id: RuleId, file: FileId, line: u32, text: &str) {
        let start = self.texts.len();
        self.texts.push_str(text);
        let text = start..self.texts.len();
        let place = RulePlace::Printed { file, line, text };
        self.entries.push(RuleEntry { id, place });
    }

    /// Room for a snapshot's rules.
    pub(crate) fn reserve(&mut self, rules: usize, text_bytes: usize) {
        self.entries.reserve(rules);
        self.texts.reserve(text_bytes);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full_told
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&RuleEntry> {
        self.entries.get(index)
    }

    /// File, line and text of a rule.
    pub(crate) fn shown<'t>(&'t self, index: usize, sources: &'t Sources) -> Option<(FileId, usize, &'t str)> {
        match &self.get(index)?.place {
            RulePlace::Source(place) => {
                let file = sources.get(place.file)?;
                let text = file.text().get(place.span.start..place.span.end);
                Some((place.file, file.position(place.span.start).0, text.unwrap_or_default()))
            }
            RulePlace::Printed { file, line, text } => {
                let text = self.texts.get(text.clone()).unwrap_or_default();
                Some((*file, usize::try_from(*line).ok()?, text))
            }
        }
    }

    pub(crate) fn info(&self, index: usize, sources: &Sources, prefix: &str) -> Option<RuleInfo> {
        let (file, line, text) = self.shown(index, sources)?;
        let path = sources.get(file)?.path();
        Some(RuleInfo {
            id: self.get(index)?.id,
            at: format!("{prefix}{path}:{line}"),
            text: text.to_owned(),
        })
    }
}
