//! From a tree's files to what it declares.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_abi::{Area, RuleRef};
use nexus_snapshot::TreeHash;
use toml::de::DeTable;

use crate::diagnostic::{Code, Diagnostic, FileId, Place, Report, Sources};
use crate::document;
use crate::fields::{Reader, nearest, quote};
use crate::json::Json;
use crate::limits::{
    DOMAINS_MAX, EGRESS_RULES_PER_SUBJECT_MAX, NAME_RULES_PER_SUBJECT_MAX, SUBJECTS_MAX, SYSCALL_RULES_PER_SCOPE_MAX,
};
use crate::quotas::Limits;
use crate::rules::{RuleKind, RuleTable};
use crate::scope::{Declared, Part, Scope, ScopeName, Scopes, declared, fill, scopes};
use crate::settings::WorkMode;
use crate::source::TreeSource;
use crate::tree::{Files, Matter, read_files};
use crate::{abi, egress, quotas, sandbox};

/// The version of the format: the root's `version`.
const FORMAT_VERSION: u64 = 1;

/// A tree that was read and is in order.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) sources: Sources,
    pub(crate) scopes: Scopes,
    pub(crate) rules: RuleTable,
    pub(crate) canonical: String,
    /// The hashes of the files, where the texts are not here.
    pub(crate) hashes: Option<BTreeMap<String, [u8; 32]>>,
    /// Where the canonical form speaks of whom; not known of a snapshot's.
    pub(crate) said: Option<Said>,
}

impl Tree {
    /// The hash of the files.
    pub(crate) fn hash(&self) -> TreeHash {
        let files = self.sources.iter();
        TreeHash::of(files.map(|file| (file.path(), self.file_hash(file.path()).unwrap_or_default())))
    }

    /// The hash of one file's content.
    pub(crate) fn file_hash(&self, path: &str) -> Option<[u8; 32]> {
        match &self.hashes {
            Some(hashes) => hashes.get(path).copied(),
            None => {
                let file = self.sources.iter().find(|file| file.path() == path)?;
                Some(nexus_snapshot::file_hash(file.text().as_bytes()))
            }
        }
    }

    /// Reads a tree whole. Nothing of a tree with an error is used.
    pub(crate) fn read(source: &dyn TreeSource) -> Result<Self, crate::Diagnostics> {
        let mut report = Report::default();
        let Files { sources, mut found } = read_files(source, &mut report);
        let mut scopes = Scopes::default();
        let mut rules = RuleTable::default();
        // Policy files first: they declare what the others speak of.
        found.sort_by_key(|(file, matter)| (*matter != Matter::Policy, *file));
        for (file, matter) in found {
            let Some(text) = sources.get(file).map(|file| Arc::clone(file.text())) else {
                continue;
            };
            let Some(table) = document::parse(&text, file, &mut report) else {
                continue;
            };
            let mut reader = Reader {
                file,
                text: &text,
                report: &mut report,
            };
            match matter {
                Matter::Policy => declarations(&table, &mut scopes, &mut reader),
                _ => speak(matter, &table, &mut scopes, &mut rules, &mut reader),
            }
        }
        undeclared(&scopes, &mut report);
        if report.is_empty() {
            defaults(&mut scopes, &mut rules, &mut report);
            check(&scopes, &mut report);
        }
        if !report.is_empty() {
            return Err(report.into_diagnostics(sources));
        }
        let (canonical, said) = canonical(&scopes);
        Ok(Self {
            sources,
            scopes,
            rules,
            canonical,
            hashes: None,
            said: Some(said),
        })
    }

    /// What the canonical form says of a subject and of its domain. `None`: it is not there, or not known where.
    pub(crate) fn says(&self, name: &str) -> Option<(&str, Option<&str>)> {
        let [domains, subjects] = self.said.as_ref()?;
        let subject = self.canonical.get(subjects.get(name)?.clone())?;
        let domain = match &self.scopes.subjects.get(name)?.domain {
            Some((domain, _)) => Some(self.canonical.get(domains.get(domain)?.clone())?),
            None => None,
        };
        Some((subject, domain))
    }

    /// A subject and its domain.
    pub(crate) fn subject(&self, name: &str) -> Option<(&Declared, Option<&Declared>)> {
        let subject = self.scopes.subjects.get(name)?;
        let domain = match &subject.domain {
            Some((domain, _)) => Some(self.scopes.domains.get(domain)?),
            None => None,
        };
        Some((subject, domain))
    }
}

/// `version`, `include`, `[domain.NAME]`, `[subject.NAME]`
fn declarations(table: &DeTable<'_>, out: &mut Scopes, reader: &mut Reader<'_>) {
    let is_root = reader.file == FileId(0);
    if is_root {
        reader.known_keys(table, &["version", "include", "domain", "subject"]);
        match table.get("version") {
            Some(value) => {
                let is = value.get_ref().as_integer().and_then(crate::fields::integer_value);
                if is != Some(i128::from(FORMAT_VERSION)) {
                    let shown = quote(reader.text.get(value.span()).unwrap_or_default());
                    let message = format!("version {shown} of the format is not known");
                    reader.error_help(
                        Code::Version,
                        value.span(),
                        message,
                        format!("write `version = {FORMAT_VERSION}`"),
                    );
                }
            }
            None => {
                let help = format!("write `version = {FORMAT_VERSION}` on the first line");
                reader.error_help(
                    Code::Version,
                    0..0,
                    "the tree does not say in which version it is written",
                    help,
                );
            }
        }
    } else {
        reader.known_keys(table, &["include", "domain", "subject"]);
    }
    let mut told = Vec::new();
    for (name, place, inner) in scopes(table, reader) {
        let (map, known, entries_max, code): (_, &[&str], _, _) = match &name {
            ScopeName::Domain(_) => (&mut out.domains, &[], DOMAINS_MAX, Code::TooManyDomains),
            ScopeName::Subject(_) => (&mut out.subjects, &["domain"], SUBJECTS_MAX, Code::TooManySubjects),
        };
        if known.is_empty() && !inner.is_empty() {
            let help = "here a domain is only declared; what it allows stands in the files of each matter";
            reader.error_help(
                Code::UnknownKey,
                place.span.start..place.span.end,
                "a domain has no keys here",
                help,
            );
        } else {
            reader.known_keys(inner, known);
        }
        let domain = inner.get("domain").and_then(|value| {
            let text = reader.string(value, "`domain`", "\"tools\"")?;
            Some((text.to_owned(), reader.place(value.span())))
        });
        let (ScopeName::Domain(text) | ScopeName::Subject(text)) = &name;
        if let Some(first) = map.get(text) {
            let message = format!("`{}` is declared twice", name.canonical());
            let diagnostic = Diagnostic::new(Code::Duplicate, place, message)
                .label("the second time")
                .related(first.at.clone(), "the first time")
                .help("keep one of the two");
            reader.report.push(diagnostic);
            continue;
        }
        if map.len() >= entries_max {
            if !told.contains(&code) {
                told.push(code);
                let message = format!("more than {entries_max} of them in the tree");
                reader.error_help(
                    code,
                    place.span.start..place.span.end,
                    message,
                    "put what is alike into one",
                );
            }
            continue;
        }
        let nowhere = RuleRef(u32::MAX);
        let declared = Declared {
            at: place,
            domain,
            scope: Scope::default(),
            no_egress: nowhere,
            no_abi: nowhere,
        };
        map.insert(text.clone(), declared);
    }
}

fn speak(matter: Matter, table: &DeTable<'_>, out: &mut Scopes, rules: &mut RuleTable, reader: &mut Reader<'_>) {
    reader.known_keys(table, &["include", "domain", "subject"]);
    for (name, header, inner) in scopes(table, reader) {
        if rules.is_full() {
            return;
        }
        // Read also where nobody declared it, so that its errors are told too.
        let word = matter.as_str();
        match matter {
            Matter::Quotas => {
                let says = quotas::parse(inner, &name, rules, reader);
                if let Some(declared) = declared(out, &name, &header, reader) {
                    fill(&mut declared.scope.quotas, Part { header, says }, word, &name, reader);
                }
            }
            Matter::Egress => {
                let says = egress::parse(inner, &name, rules, reader);
                if let Some(declared) = declared(out, &name, &header, reader) {
                    fill(&mut declared.scope.egress, Part { header, says }, word, &name, reader);
                }
            }
            Matter::Abi => {
                let says = abi::parse(inner, &name, rules, reader);
                if let Some(declared) = declared(out, &name, &header, reader) {
                    fill(&mut declared.scope.abi, Part { header, says }, word, &name, reader);
                }
            }
            Matter::Sandbox => {
                let says = sandbox::parse(inner, &name, rules, reader);
                if let Some(declared) = declared(out, &name, &header, reader) {
                    fill(&mut declared.scope.sandbox, Part { header, says }, word, &name, reader);
                }
            }
            Matter::Policy => {}
        }
    }
}

/// Gives each subject the rules that stand for the lack of one: where a reader would have written it.
fn defaults(scopes: &mut Scopes, rules: &mut RuleTable, report: &mut Report) {
    let Scopes { domains, subjects } = scopes;
    for (name, subject) in subjects {
        let domain = subject.domain.as_ref().and_then(|(domain, _)| domains.get(domain));
        let egress = |scope: &Scope| scope.egress.as_ref().map(|part| part.header.clone());
        let abi = |scope: &Scope| scope.abi.as_ref().map(|part| part.header.clone());
        let place = |of: &dyn Fn(&Scope) -> Option<Place>| {
            of(&subject.scope)
                .or_else(|| of(&domain?.scope))
                .unwrap_or_else(|| subject.at.clone())
        };
        let scope = ScopeName::Subject(name.clone()).canonical();
        let says = Json::object([("default", Json::text("deny"))]);
        let (egress, abi) = (place(&egress), place(&abi));
        subject.no_egress = rules.add(RuleKind::Egress, &scope, &says, egress, report);
        subject.no_abi = rules.add(RuleKind::Abi, &scope, &says, abi, report);
    }
}

/// What can be wrong only when all files are read.
fn check(scopes: &Scopes, report: &mut Report) {
    for domain in scopes.domains.values() {
        for limits in domain.scope.quotas.iter().flat_map(|part| &part.says.areas) {
            soft_above_hard(limits, report);
        }
    }
    for (name, subject) in &scopes.subjects {
        let domain = subject
            .domain
            .as_ref()
            .and_then(|(domain, _)| scopes.domains.get(domain));
        check_subject(name, subject, domain, report);
    }
}

/// Subjects of domains that nobody declares.
fn undeclared(scopes: &Scopes, report: &mut Report) {
    let wanted = scopes.subjects.values().filter_map(|subject| subject.domain.as_ref());
    for (domain, place) in wanted.filter(|(domain, _)| !scopes.domains.contains_key(domain)) {
        if !report.has_room() {
            continue;
        }
        let help = match nearest(domain, scopes.domains.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "declare it as `[domain.NAME]`, or take the key out".to_owned(),
        };
        let message = format!("no policy file declares domain {}", quote(domain));
        report.push(Diagnostic::new(Code::Undeclared, place.clone(), message).help(help));
    }
}

fn check_subject(name: &str, subject: &Declared, domain: Option<&Declared>, report: &mut Report) {
    let scopes = || {
        domain
            .into_iter()
            .chain(std::iter::once(subject))
            .map(|declared| &declared.scope)
    };
    let counts = [
        (
            "egress rules",
            scopes()
                .filter_map(|scope| scope.egress.as_ref())
                .map(|part| part.says.rules.len())
                .sum::<usize>(),
            EGRESS_RULES_PER_SUBJECT_MAX,
        ),
        (
            "egress rules by name",
            scopes()
                .filter_map(|scope| scope.egress.as_ref())
                .map(|part| part.says.names.len())
                .sum(),
            NAME_RULES_PER_SUBJECT_MAX,
        ),
        (
            "syscall rules",
            scopes()
                .filter_map(|scope| scope.abi.as_ref())
                .map(|part| part.says.rules.len())
                .sum(),
            SYSCALL_RULES_PER_SCOPE_MAX,
        ),
    ];
    for (what, count, count_max) in counts {
        if count > count_max {
            let message = format!("`{name}` has {count} {what} with its domain's, more than {count_max}");
            report.push(
                Diagnostic::new(Code::TooManyEntries, subject.at.clone(), message)
                    .help("say it in fewer and wider rules, or give the subject another domain"),
            );
        }
    }
    let merged = crate::effective::merged_limits(subject, domain);
    for (area, limits) in Area::ALL.iter().zip(&merged) {
        soft_above_hard(limits, report);
        let missing = match (&limits.hard, &limits.inodes, &limits.soft) {
            (Some(hard), None, _) => Some((hard.place.clone(), "inodes", "inodes = 4096")),
            (None, Some(given), _) | (None, None, Some(given)) => {
                Some((given.place.clone(), "hard", "hard = \"64MiB\""))
            }
            _ => None,
        };
        if let Some((place, key, example)) = missing {
            let message = format!("the budget of `{name}` for `{area}` lacks `{key}`");
            let help = format!("write `{example}` beside it, for the subject or its domain");
            report.push(Diagnostic::new(Code::MissingKey, place, message).help(help));
        }
    }
    let work = crate::effective::work_mode(subject, domain);
    let has_budget = Area::ALL
        .iter()
        .zip(&merged)
        .any(|(area, limits)| *area == Area::Work && limits.hard.is_some());
    if work == WorkMode::Metered && !has_budget {
        let message = format!("`work` of `{name}` is metered, and it has no budget for `work`");
        let help = format!("write `[subject.{name}.work]` in a quotas file, or `work = \"unmetered\"` openly");
        report.push(Diagnostic::new(Code::MissingKey, subject.at.clone(), message).help(help));
    }
}

fn soft_above_hard(limits: &Limits, report: &mut Report) {
    let (Some(soft), Some(hard)) = (&limits.soft, &limits.hard) else {
        return;
    };
    if soft.value > hard.value {
        let (soft_text, hard_text) = (
            crate::size::render_size(soft.value),
            crate::size::render_size(hard.value),
        );
        report.push(
            Diagnostic::new(
                Code::SoftAboveHard,
                soft.place.clone(),
                format!("soft limit {soft_text} is above hard limit {hard_text}"),
            )
            .label("never reached")
            .related(hard.place.clone(), "the hard limit")
            .help(format!(
                "write a soft limit of at most {hard_text}, or raise the hard one"
            )),
        );
    }
}

/// What a scope says, in canonical form.
fn of_scope(declared: &Declared) -> Json {
    let mut out = Json::object([]);
    if let Some((domain, _)) = &declared.domain {
        out.put("domain", Json::text(domain));
    }
    let scope = &declared.scope;
    if let Some(part) = &scope.quotas {
        out.put("quotas", part.says.canonical());
    }
    if let Some(part) = &scope.egress {
        out.put("egress", part.says.canonical());
    }
    if let Some(part) = &scope.abi {
        out.put("abi", part.says.canonical());
    }
    if let Some(part) = &scope.sandbox {
        out.put("sandbox", part.says.canonical());
    }
    out
}

/// Where the canonical form says what of each scope: domains, then subjects.
pub(crate) type Said = [BTreeMap<String, std::ops::Range<usize>>; 2];

/// The canonical form. One scope at a time: all of a large tree as values would take many times its text.
fn canonical(scopes: &Scopes) -> (String, Said) {
    let mut out = String::from("{");
    let all = |key: &str, map: &BTreeMap<String, Declared>, out: &mut String| {
        let mut said = BTreeMap::new();
        out.push_str(&Json::text(key).render());
        out.push_str(":{");
        for (number, (name, declared)) in map.iter().enumerate() {
            if number > 0 {
                out.push(',');
            }
            out.push_str(&Json::text(name).render());
            out.push(':');
            let start = out.len();
            out.push_str(&of_scope(declared).render());
            said.insert(name.clone(), start..out.len());
        }
        out.push('}');
        said
    };
    let domains = all("domains", &scopes.domains, &mut out);
    out.push_str(&format!(",\"format\":{FORMAT_VERSION},"));
    let subjects = all("subjects", &scopes.subjects, &mut out);
    out.push('}');
    (out, [domains, subjects])
}
