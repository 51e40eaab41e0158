//! Finds and reads the files of a tree.

use std::sync::Arc;

use toml::de::DeTable;

use crate::diagnostic::{Code, Diagnostic, FileId, Place, Report, Sources};
use crate::document;
use crate::fields::{Reader, quote};
use crate::limits::{FILE_BYTES_MAX, FILES_MAX, INCLUDE_DEPTH_MAX, INCLUDE_PATH_BYTES_MAX, TREE_BYTES_MAX};
use crate::source::{ROOT_FILE, ReadError, TreeSource};

/// Of what a file speaks, as the last part of its name says before `.toml`: `quotas.toml`, `web.quotas.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Matter {
    /// Which domains and subjects there are.
    Policy,
    Quotas,
    Egress,
    Abi,
    Sandbox,
}

impl Matter {
    const ALL: [(&'static str, Self); 5] = [
        ("policy", Self::Policy),
        ("quotas", Self::Quotas),
        ("egress", Self::Egress),
        ("abi", Self::Abi),
        ("sandbox", Self::Sandbox),
    ];

    fn of_path(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?.strip_suffix(".toml")?;
        let word = name.rsplit('.').next()?;
        Self::ALL
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, matter)| *matter)
    }

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, matter)| *matter == self)
            .map_or("", |(word, _)| word)
    }
}

/// What a tree's files are, before anything is made of them.
pub(crate) struct Files {
    pub(crate) sources: Sources,
    /// In the order of reading: a file before those that it includes, those in the order of its list.
    pub(crate) found: Vec<(FileId, Matter)>,
}

/// One wish to read a file.
struct Wish {
    path: String,
    /// Where the path is written; `None` for the root.
    from: Option<Place>,
    /// The files that led here, the root first.
    chain: Vec<String>,
}

/// Reads the root and what it includes, each file once. What is wrong is reported; what could be read is returned.
pub(crate) fn read_files(source: &dyn TreeSource, report: &mut Report) -> Files {
    let mut sources = Sources::default();
    let mut found = Vec::new();
    // A stack, so that hostile includes cost no recursion; it holds at most what the files' lists hold.
    let mut wishes = vec![Wish {
        path: ROOT_FILE.into(),
        from: None,
        chain: Vec::new(),
    }];
    let mut seen: std::collections::BTreeMap<String, Option<Place>> = std::collections::BTreeMap::new();
    while let Some(wish) = wishes.pop() {
        if let Some(first) = seen.get(&wish.path) {
            if let Some(from) = wish.from {
                report.push(again(&wish.path, from, &wish.chain, first.clone()));
            }
            continue;
        }
        if seen.len() >= FILES_MAX {
            if let Some(from) = wish.from {
                report.push(
                    Diagnostic::new(
                        Code::TooManyFiles,
                        from,
                        format!("the tree has more than {FILES_MAX} files"),
                    )
                    .help("put several subjects into one file"),
                );
            }
            break;
        }
        seen.insert(wish.path.clone(), wish.from.clone());
        let Some(file) = read_one(source, &wish, &mut sources, report) else {
            continue;
        };
        let Some(text) = sources.get(file).map(|file| Arc::clone(file.text())) else {
            continue;
        };
        let Some(matter) = Matter::of_path(&wish.path) else {
            continue;
        };
        found.push((file, matter));
        // Most large files include nothing, and are then read only once: a key is written as it is, or with an escape.
        if !text.contains("include") && !text.contains('\\') {
            continue;
        }
        // Read for its includes here and for its rules later: keeping the tables of all files would hold the whole tree
        // in memory several times over.
        let mut unheard = Report::default();
        let Some(table) = document::parse(&text, file, &mut unheard) else {
            continue;
        };
        let mut reader = Reader {
            file,
            text: &text,
            report,
        };
        let mut chain = wish.chain;
        chain.push(wish.path);
        let includes = includes(&table, &chain, &mut reader);
        wishes.extend(includes.into_iter().rev());
    }
    Files { sources, found }
}

fn again(path: &str, from: Place, chain: &[String], first: Option<Place>) -> Diagnostic {
    if let Some(start) = chain.iter().position(|earlier| earlier == path) {
        let mut round: Vec<&str> = chain.iter().skip(start).map(String::as_str).collect();
        round.push(path);
        return Diagnostic::new(Code::IncludeCycle, from, format!("{} includes itself", quote(path)))
            .label("closes the cycle")
            .help(format!("the cycle is {}; take one include out", round.join(" -> ")));
    }
    let diagnostic = Diagnostic::new(Code::IncludeTwice, from, format!("{} is included twice", quote(path)))
        .label("the second time")
        .help("include each file from one place");
    match first {
        Some(first) => diagnostic.related(first, "the first time"),
        None => diagnostic,
    }
}

fn read_one(source: &dyn TreeSource, wish: &Wish, sources: &mut Sources, report: &mut Report) -> Option<FileId> {
    let left = TREE_BYTES_MAX.saturating_sub(sources.bytes());
    let bytes = match source.read(&wish.path, FILE_BYTES_MAX.min(left)) {
        Ok(bytes) => bytes,
        Err(error) => {
            let place = match &wish.from {
                Some(from) => from.clone(),
                None => Place::new(sources.add(wish.path.clone(), Arc::from("")), 0..0),
            };
            report.push(unreadable(&error, &wish.path, place, left));
            return None;
        }
    };
    match document::check_bytes(&bytes) {
        Ok(text) => Some(sources.add(wish.path.clone(), Arc::from(text))),
        Err((span, code, message, help)) => {
            let file = sources.add(wish.path.clone(), Arc::from(String::from_utf8_lossy(&bytes)));
            report.push(Diagnostic::new(code, Place::new(file, span), message).help(help));
            None
        }
    }
}

fn unreadable(error: &ReadError, path: &str, place: Place, left: usize) -> Diagnostic {
    let path = quote(path);
    match error {
        ReadError::TooLarge if left < FILE_BYTES_MAX => Diagnostic::new(
            Code::TreeTooLarge,
            place,
            format!("with {path} the tree has more than {TREE_BYTES_MAX} bytes"),
        )
        .help("write ranges and prefixes instead of single addresses"),
        ReadError::TooLarge => Diagnostic::new(
            Code::FileTooLarge,
            place,
            format!("{path} has more than {FILE_BYTES_MAX} bytes"),
        )
        .help("split it, and include the parts"),
        ReadError::Leaves => Diagnostic::new(Code::IncludeLeaves, place, format!("{path} leaves the tree: {error}"))
            .help("put the file itself into the tree; symbolic links are not followed"),
        ReadError::NotFound if path == quote(ROOT_FILE) => {
            Diagnostic::new(Code::Unreadable, place, format!("{path} cannot be read: {error}")).help(format!(
                "a policy tree is a directory with `{ROOT_FILE}`, which names the other files"
            ))
        }
        ReadError::NotFound => Diagnostic::new(Code::Unreadable, place, format!("{path} cannot be read: {error}"))
            .help("include paths begin at the directory of the file that includes"),
        ReadError::NotAFile | ReadError::NotTrusted(_) | ReadError::Io(_) => {
            Diagnostic::new(Code::Unreadable, place, format!("{path} cannot be read: {error}"))
        }
    }
}

fn includes(table: &DeTable<'_>, chain: &[String], reader: &mut Reader<'_>) -> Vec<Wish> {
    let Some(value) = table.get("include") else {
        return Vec::new();
    };
    let Some(list) = reader.list(value, "`include`", "[\"quotas.toml\", \"egress.toml\"]", FILES_MAX) else {
        return Vec::new();
    };
    let mut wishes = Vec::new();
    for entry in list {
        let Some(text) = reader.string(entry, "an entry of `include`", "\"egress.toml\"") else {
            continue;
        };
        if let Some((problem, help)) = include_problem(text) {
            reader.error_help(
                Code::IncludePath,
                entry.span(),
                format!("{} {problem}", quote(text)),
                help,
            );
            continue;
        }
        let from = chain.last().map_or("", String::as_str);
        let path = match from.rsplit_once('/') {
            Some((directory, _)) => format!("{directory}/{text}"),
            None => text.to_owned(),
        };
        if path.len() > INCLUDE_PATH_BYTES_MAX {
            reader.error_help(
                Code::IncludePath,
                entry.span(),
                format!("the path is longer than {INCLUDE_PATH_BYTES_MAX} bytes"),
                "use shorter names",
            );
        } else if Matter::of_path(&path).is_none() {
            let words = Matter::ALL.map(|(word, _)| word).join(", ");
            reader.error_help(
                Code::UnknownMatter,
                entry.span(),
                format!("{} does not say of what it speaks", quote(text)),
                format!("name it MATTER.toml or WORD.MATTER.toml, where MATTER is one of {words}"),
            );
        } else if chain.len() >= INCLUDE_DEPTH_MAX {
            reader.error_help(
                Code::IncludeTooDeep,
                entry.span(),
                format!("includes are nested deeper than {INCLUDE_DEPTH_MAX}"),
                format!("{} leads here; include the file further up", chain.join(" -> ")),
            );
        } else {
            wishes.push(Wish {
                path,
                from: Some(reader.place(entry.span())),
                chain: chain.to_vec(),
            });
        }
    }
    wishes
}

fn include_problem(text: &str) -> Option<(&'static str, &'static str)> {
    if text.is_empty() {
        return Some(("names no file", "write a path such as \"egress.toml\""));
    }
    if text.starts_with('/') {
        return Some((
            "is an absolute path",
            "a tree includes only its own files: write the path relative to this file",
        ));
    }
    for part in text.split('/') {
        if part == ".." {
            return Some((
                "leads out of its directory",
                "a tree includes only files beside or below the file that includes",
            ));
        }
        if part.is_empty() || part == "." {
            return Some(("has an empty part", "write it without `//` and `./`"));
        }
        if !part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            || part.starts_with('.')
        {
            return Some((
                "has a character that file names of a tree don't have",
                "use letters, digits, `.`, `-` and `_`, and no `.` at the start",
            ));
        }
    }
    None
}
