//! The frame that every matter shares: tables `[domain.NAME]` and `[subject.NAME]`.

use std::collections::BTreeMap;

use nexus_abi::RuleRef;
use toml::de::DeTable;

use crate::diagnostic::{Code, Diagnostic, Place};
use crate::fields::{Reader, nearest, quote};
use crate::limits::NAME_BYTES_MAX;
use crate::{abi, egress, quotas, sandbox};

/// The subject of a ceiling that stands for everybody whom the ceiling does not name.
pub const ANY_SUBJECT: &str = "*";

/// For whom a rule is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ScopeName {
    Domain(String),
    Subject(String),
}

impl ScopeName {
    /// `domain.tools`, `subject.demo`: what a rule's id covers.
    pub(crate) fn canonical(&self) -> String {
        match self {
            Self::Domain(name) => format!("domain.{name}"),
            Self::Subject(name) => format!("subject.{name}"),
        }
    }
}

/// A value and the rule that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruled<T> {
    pub(crate) value: T,
    pub(crate) rule: RuleRef,
    pub(crate) place: Place,
}

/// What one matter says of one scope, and where it begins to.
#[derive(Clone, Debug)]
pub(crate) struct Part<T> {
    pub(crate) header: Place,
    pub(crate) says: T,
}

/// What a tree says of one domain or subject.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) quotas: Option<Part<quotas::Quotas>>,
    pub(crate) egress: Option<Part<egress::Egress>>,
    pub(crate) abi: Option<Part<abi::Abi>>,
    pub(crate) sandbox: Option<Part<sandbox::Sandbox>>,
}

/// A subject or domain as a policy file declares it.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) at: Place,
    /// A subject's domain.
    pub(crate) domain: Option<(String, Place)>,
    pub(crate) scope: Scope,
    /// The rules that stand for the lack of one, where no matter speaks of the subject.
    pub(crate) no_egress: RuleRef,
    pub(crate) no_abi: RuleRef,
}

/// The declared domains and subjects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scopes {
    pub(crate) domains: BTreeMap<String, Declared>,
    pub(crate) subjects: BTreeMap<String, Declared>,
}

impl Scopes {
    pub(crate) fn get_mut(&mut self, name: &ScopeName) -> Option<&mut Declared> {
        match name {
            ScopeName::Domain(name) => self.domains.get_mut(name),
            ScopeName::Subject(name) => self.subjects.get_mut(name),
        }
    }

    fn names(&self, like: &ScopeName) -> impl Iterator<Item = &str> {
        match like {
            ScopeName::Domain(_) => self.domains.keys(),
            ScopeName::Subject(_) => self.subjects.keys(),
        }
        .map(String::as_str)
    }
}

/// What a name is made of.
pub(crate) const NAME_RULE: &str =
    "use lower-case letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first";

/// Why a name cannot be a subject's or domain's, if it cannot.
pub(crate) fn name_problem(name: &str) -> Option<&'static str> {
    let mut bytes = name.bytes();
    match bytes.next() {
        None => return Some("the name is empty"),
        Some(first) if !(first.is_ascii_lowercase() || first.is_ascii_digit()) => {
            return Some("the name begins with something else than a lower-case letter or digit");
        }
        Some(_) => {}
    }
    if name.len() > NAME_BYTES_MAX {
        return Some("the name is longer than 64 bytes");
    }
    if !bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)) {
        return Some("the name has a character that names don't have");
    }
    None
}

/// The tables below `domain` and `subject` of a file, each with its name and the place of its key.
pub(crate) fn scopes<'v, 't>(
    root: &'v DeTable<'t>,
    reader: &mut Reader<'_>,
) -> Vec<(ScopeName, Place, &'v DeTable<'t>)> {
    let mut out = Vec::new();
    for (key, make) in [
        ("domain", ScopeName::Domain as fn(String) -> ScopeName),
        ("subject", ScopeName::Subject),
    ] {
        let Some(value) = root.get(key) else { continue };
        let example = format!("[{key}.NAME]");
        let Some(table) = reader.table(value, &format!("`{key}`"), &example) else {
            continue;
        };
        for (name, value) in table.iter() {
            let text = name.get_ref().as_ref();
            let is_any = key == "subject" && text == ANY_SUBJECT;
            if let Some(problem) = name_problem(text).filter(|_| !is_any) {
                // A letter of another script may look like one that a name may have.
                let stranger = text.chars().find(|character| !character.is_ascii());
                let stranger = stranger.map(|character| format!(", U+{:04X}", u32::from(character)));
                reader.error_help(
                    Code::BadName,
                    name.span(),
                    format!(
                        "{} is no name for a {key}: {problem}{}",
                        quote(text),
                        stranger.unwrap_or_default()
                    ),
                    NAME_RULE,
                );
                continue;
            }
            let Some(inner) = reader.table(value, &format!("`{key}.{text}`"), &example) else {
                continue;
            };
            out.push((make(text.to_owned()), reader.place(value.span()), inner));
        }
    }
    out
}

/// The declared scope of a name that a matter speaks of, or an error that says so.
pub(crate) fn declared<'s>(
    scopes: &'s mut Scopes,
    name: &ScopeName,
    at: &Place,
    reader: &mut Reader<'_>,
) -> Option<&'s mut Declared> {
    // Asked twice, because the first borrow would last into the error's branch.
    if scopes.get_mut(name).is_some() {
        return scopes.get_mut(name);
    }
    if !reader.report.has_room() {
        return None;
    }
    let (kind, text) = match name {
        ScopeName::Domain(text) => ("domain", text),
        ScopeName::Subject(text) => ("subject", text),
    };
    let help = match nearest(text, scopes.names(name)) {
        Some(near) => format!(
            "did you mean `{near}`? else declare `[{kind}.{text}]` in {}",
            crate::source::ROOT_FILE
        ),
        None => format!("declare `[{kind}.{text}]` in {}", crate::source::ROOT_FILE),
    };
    let diagnostic = Diagnostic::new(
        Code::Undeclared,
        at.clone(),
        format!("no policy file declares {kind} {}", quote(text)),
    )
    .help(help);
    reader.report.push(diagnostic);
    None
}

/// Puts what a matter says of a scope in its slot, or says that another file has done so.
pub(crate) fn fill<T>(
    slot: &mut Option<Part<T>>,
    part: Part<T>,
    what: &str,
    name: &ScopeName,
    reader: &mut Reader<'_>,
) {
    if let Some(earlier) = slot {
        let diagnostic = Diagnostic::new(
            Code::Duplicate,
            part.header,
            format!("two files speak of the {what} of `{}`", name.canonical()),
        )
        .label("the second")
        .related(earlier.header.clone(), "the first")
        .help("put both into one file, so that a reader finds all of it");
        reader.report.push(diagnostic);
    } else {
        *slot = Some(part);
    }
}
