//! `sandbox.toml`: `[domain.NAME]` and `[subject.NAME]`: the view, the environment, the descriptors, the limits.

use std::collections::{BTreeMap, BTreeSet};

use nexus_abi::RuleRef;
use toml::de::DeTable;

use crate::diagnostic::{Code, Diagnostic, Place};
use crate::fields::{Reader, Value, quote};
use crate::json::Json;
use crate::limits::{ENV_ENTRIES_MAX, ENV_VALUE_BYTES_MAX, VIEW_PATHS_MAX};
use crate::paths::{relative_path_problem, view_path_problem};
use crate::rules::{RuleKind, RuleTable};
use crate::scope::{Ruled, ScopeName};
use crate::settings::{Device, EnvPattern, OnJournalFailure, ViewPath, WorkMode};
use crate::size::parse_size;

/// What a scope says. A subject's key replaces its domain's; `None` and missing entries leave the domain's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sandbox {
    pub(crate) profile: Option<String>,
    /// `read`.
    pub(crate) read: Option<Vec<ViewPath>>,
    /// `read_optional`.
    pub(crate) read_optional: Option<Vec<ViewPath>>,
    pub(crate) env: Option<BTreeSet<EnvPattern>>,
    pub(crate) env_set: BTreeMap<String, String>,
    pub(crate) dev: Option<BTreeSet<Device>>,
    pub(crate) work: Option<WorkMode>,
    pub(crate) work_protect: Option<BTreeSet<String>>,
    pub(crate) allow_sockets: Option<bool>,
    pub(crate) allow_directories: Option<bool>,
    pub(crate) allow_devices: Option<bool>,
    pub(crate) memory_bytes: Option<Ruled<u64>>,
    pub(crate) processes: Option<Ruled<u64>>,
    pub(crate) open_files: Option<Ruled<u64>>,
    pub(crate) on_journal_failure: Option<OnJournalFailure>,
    pub(crate) audit_rate: Option<u64>,
    pub(crate) audit_burst: Option<u64>,
    /// The rule that stands for each key whose entries have none of their own.
    pub(crate) settings: BTreeMap<&'static str, RuleRef>,
}

/// The keys whose place a reader is shown as a whole: the entries of the others are rules each.
pub(crate) const SETTINGS: [&str; 9] = [
    "profile",
    "env",
    "env_set",
    "dev",
    "work",
    "work_protect",
    "fds",
    "on_journal_failure",
    "audit",
];

const KEYS: [&str; 12] = [
    "profile",
    "read",
    "read_optional",
    "env",
    "env_set",
    "dev",
    "work",
    "work_protect",
    "fds",
    "limits",
    "on_journal_failure",
    "audit",
];

/// Processes of a session at most: the highest pid of Linux (`PID_MAX_LIMIT`, 2^22).
const PROCESSES_MAX: u64 = 1 << 22;

/// Open files at most: what a kernel allows without being told otherwise (`fs.nr_open`).
const OPEN_FILES_MAX: u64 = 1 << 20;

/// The least memory that a dynamically linked program starts in, with room.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// Records per second at most: what a journal can write and a reader could ever want.
const AUDIT_RATE_MAX: u64 = 100_000;

impl Sandbox {
    pub(crate) fn canonical(&self) -> Json {
        let mut out = Json::object([]);
        let text = |text: &str| Json::text(text);
        if let Some(profile) = &self.profile {
            out.put("profile", text(profile));
        }
        for (key, paths) in [("read", &self.read), ("read_optional", &self.read_optional)] {
            if let Some(paths) = paths {
                out.force(
                    key,
                    Json::texts(paths.iter().map(|path| path.path.clone()).collect::<BTreeSet<_>>()),
                );
            }
        }
        if let Some(env) = &self.env {
            out.force("env", Json::texts(env.iter().map(ToString::to_string)));
        }
        let fixed = self
            .env_set
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        out.put("env_set", Json::Object(fixed));
        if let Some(dev) = &self.dev {
            out.force("dev", Json::texts(dev.iter().map(|device| device.as_str())));
        }
        if let Some(work) = self.work {
            out.put("work", text(work.as_str()));
        }
        if let Some(protect) = &self.work_protect {
            out.force("work_protect", Json::texts(protect.iter().cloned()));
        }
        let mut group = |name: &str, entries: &[(&str, Option<Json>)]| {
            let mut inner = Json::object([]);
            for (key, value) in entries {
                if let Some(value) = value {
                    inner.put(key, value.clone());
                }
            }
            out.put(name, inner);
        };
        group(
            "fds",
            &[
                ("allow_sockets", self.allow_sockets.map(Json::Bool)),
                ("allow_directories", self.allow_directories.map(Json::Bool)),
                ("allow_devices", self.allow_devices.map(Json::Bool)),
            ],
        );
        let number = |ruled: &Option<Ruled<u64>>| ruled.as_ref().map(|ruled| Json::Number(ruled.value));
        group(
            "limits",
            &[
                ("memory", number(&self.memory_bytes)),
                ("processes", number(&self.processes)),
                ("open_files", number(&self.open_files)),
            ],
        );
        group(
            "audit",
            &[
                ("rate", self.audit_rate.map(Json::Number)),
                ("burst", self.audit_burst.map(Json::Number)),
            ],
        );
        if let Some(failure) = self.on_journal_failure {
            out.put("on_journal_failure", text(failure.as_str()));
        }
        out
    }
}

pub(crate) fn parse(table: &DeTable<'_>, scope: &ScopeName, rules: &mut RuleTable, reader: &mut Reader<'_>) -> Sandbox {
    reader.known_keys(table, &KEYS);
    let mut out = Sandbox::default();
    if let Some(value) = table.get("profile") {
        out.profile = profile(value, reader);
    }
    let mut seen: BTreeMap<String, Place> = BTreeMap::new();
    out.read = paths(table.get("read"), "read", false, &mut seen, scope, rules, reader);
    out.read_optional = paths(
        table.get("read_optional"),
        "read_optional",
        true,
        &mut seen,
        scope,
        rules,
        reader,
    );
    if let Some(value) = table.get("env") {
        out.env = strings(value, "env", "[\"LANG\", \"LC_*\"]", ENV_ENTRIES_MAX, reader, |text| {
            EnvPattern::parse(text).ok_or("write a variable's name, with `*` only at its end")
        });
    }
    if let Some(value) = table.get("env_set") {
        out.env_set = env_set(value, reader);
    }
    if let Some(value) = table.get("dev") {
        let known = Device::ALL.map(Device::as_str).join(", ");
        let help = format!("known devices: {known}");
        out.dev = strings(
            value,
            "dev",
            "[\"null\", \"urandom\"]",
            Device::ALL.len(),
            reader,
            |text| {
                Device::ALL
                    .into_iter()
                    .find(|device| device.as_str() == text)
                    .ok_or(help.as_str())
            },
        );
    }
    if let Some(value) = table.get("work") {
        out.work = reader.word(value, "`work`", &WorkMode::ALL.map(|mode| (mode.as_str(), mode)));
    }
    if let Some(value) = table.get("work_protect") {
        out.work_protect = strings(
            value,
            "work_protect",
            "[\".git/hooks\"]",
            VIEW_PATHS_MAX,
            reader,
            |text| relative_path_problem(text).map_or_else(|| Ok(text.to_owned()), Err),
        );
    }
    if let Some(value) = table.get("on_journal_failure") {
        let words = OnJournalFailure::ALL.map(|failure| (failure.as_str(), failure));
        out.on_journal_failure = reader.word(value, "`on_journal_failure`", &words);
    }
    fds(table, &mut out, reader);
    limits(table, &mut out, scope, rules, reader);
    audit(table, &mut out, reader);
    settings(table, &mut out, scope, rules, reader);
    out
}

fn settings(table: &DeTable<'_>, out: &mut Sandbox, scope: &ScopeName, rules: &mut RuleTable, reader: &mut Reader<'_>) {
    let mut canonical = match out.canonical() {
        Json::Object(entries) => entries,
        _ => BTreeMap::new(),
    };
    for key in SETTINGS {
        let Some((name, value)) = table.get_key_value(key) else {
            continue;
        };
        let place = reader.place(name.span().start..value.span().end);
        let says = canonical.remove(key).unwrap_or(Json::Array(Vec::new()));
        let says = Json::object([(key, says)]);
        let rule = rules.add(RuleKind::Setting, &scope.canonical(), &says, place, reader.report);
        out.settings.insert(key, rule);
    }
}

fn profile(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.string(value, "`profile`", "\"tools\"")?;
    if let Some(problem) = crate::scope::name_problem(text) {
        let help = "use lower-case letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first";
        reader.error_help(
            Code::BadName,
            value.span(),
            format!("{} is no name: {problem}", quote(text)),
            help,
        );
        return None;
    }
    Some(text.to_owned())
}

fn paths(
    value: Option<&Value<'_>>,
    key: &str,
    optional: bool,
    seen: &mut BTreeMap<String, Place>,
    scope: &ScopeName,
    rules: &mut RuleTable,
    reader: &mut Reader<'_>,
) -> Option<Vec<ViewPath>> {
    let list = reader.list(value?, &format!("`{key}`"), "[\"/usr\"]", VIEW_PATHS_MAX)?;
    let mut out = Vec::new();
    for entry in list {
        let Some(text) = reader.string(entry, &format!("an entry of `{key}`"), "\"/usr\"") else {
            continue;
        };
        let place = reader.place(entry.span());
        if let Some((problem, help)) = view_path_problem(text) {
            reader.error_help(Code::BadPath, entry.span(), format!("{} {problem}", quote(text)), help);
            continue;
        }
        if let Some(first) = seen.get(text) {
            let diagnostic = Diagnostic::new(Code::Duplicate, place, format!("{} is listed twice", quote(text)))
                .label("the second time")
                .related(first.clone(), "the first time")
                .help("keep one of the two");
            reader.report.push(diagnostic);
            continue;
        }
        seen.insert(text.to_owned(), place.clone());
        let says = Json::object([("read", Json::text(text)), ("optional", Json::Bool(optional))]);
        let rule = rules.add(RuleKind::Path, &scope.canonical(), &says, place, reader.report);
        out.push(ViewPath {
            path: text.to_owned(),
            optional,
            rule,
        });
    }
    Some(out)
}

/// A list of strings as a set. The help of a bad one comes from `read`.
fn strings<'h, T: Ord>(
    value: &Value<'_>,
    key: &str,
    example: &str,
    entries_max: usize,
    reader: &mut Reader<'_>,
    read: impl Fn(&str) -> Result<T, &'h str>,
) -> Option<BTreeSet<T>> {
    let list = reader.list(value, &format!("`{key}`"), example, entries_max)?;
    let mut out = BTreeSet::new();
    for entry in list {
        let Some(text) = reader.string(entry, &format!("an entry of `{key}`"), example) else {
            continue;
        };
        match read(text) {
            Ok(read) if out.contains(&read) => {
                let message = format!("{} is listed twice", quote(text));
                reader.error_help(Code::Duplicate, entry.span(), message, "keep one of the two");
            }
            Ok(read) => {
                out.insert(read);
            }
            Err(help) => {
                let message = format!("{} is no entry of `{key}`", quote(text));
                reader.error_help(Code::BadValue, entry.span(), message, help);
            }
        }
    }
    Some(out)
}

fn env_set(value: &Value<'_>, reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Some(table) = reader.table(value, "`env_set`", "{ PATH = \"/usr/bin:/bin\" }") else {
        return out;
    };
    if table.len() > ENV_ENTRIES_MAX {
        let message = format!("`env_set` has more than {ENV_ENTRIES_MAX} entries");
        reader.error_help(Code::TooManyEntries, value.span(), message, "set fewer");
        return out;
    }
    for (name, value) in table.iter() {
        let text = name.get_ref().as_ref();
        if EnvPattern::parse(text).is_none_or(|pattern| pattern.is_open()) {
            let message = format!("{} is no name of a variable", quote(text));
            let help = "use letters, digits and `_`, no digit first";
            reader.error_help(Code::BadValue, name.span(), message, help);
            continue;
        }
        let Some(fixed) = reader.string(value, &format!("`{text}`"), "\"/usr/bin:/bin\"") else {
            continue;
        };
        if fixed.len() > ENV_VALUE_BYTES_MAX || fixed.contains('\0') {
            let message = format!("the value is longer than {ENV_VALUE_BYTES_MAX} bytes or holds a NUL");
            reader.error_help(Code::BadValue, value.span(), message, "no program could be given it");
            continue;
        }
        out.insert(text.to_owned(), fixed.to_owned());
    }
    out
}

fn fds(table: &DeTable<'_>, out: &mut Sandbox, reader: &mut Reader<'_>) {
    let Some(value) = table.get("fds") else { return };
    let Some(inner) = reader.table(value, "`fds`", "{ allow_sockets = true }") else {
        return;
    };
    reader.known_keys(inner, &["allow_sockets", "allow_directories", "allow_devices"]);
    let mut flag = |key: &str| {
        inner
            .get(key)
            .and_then(|value| reader.boolean(value, &format!("`{key}`")))
    };
    out.allow_sockets = flag("allow_sockets");
    out.allow_directories = flag("allow_directories");
    out.allow_devices = flag("allow_devices");
}

fn limits(table: &DeTable<'_>, out: &mut Sandbox, scope: &ScopeName, rules: &mut RuleTable, reader: &mut Reader<'_>) {
    let Some(value) = table.get("limits") else { return };
    let example = "{ memory = \"1GiB\", processes = 256, open_files = 1024 }";
    let Some(inner) = reader.table(value, "`limits`", example) else {
        return;
    };
    reader.known_keys(inner, &["memory", "processes", "open_files"]);
    let mut limit = |key: &str, reader: &mut Reader<'_>| {
        let (name, value) = inner.get_key_value(key)?;
        let number = match key {
            "memory" => memory(value, reader),
            "processes" => reader.integer(value, "`processes`", 1, PROCESSES_MAX),
            // Below a dozen no dynamic linker gets through its work.
            _ => reader.integer(value, "`open_files`", 16, OPEN_FILES_MAX),
        }?;
        let place = reader.place(name.span().start..value.span().end);
        let says = Json::object([(key, Json::Number(number))]);
        let rule = rules.add(RuleKind::Limit, &scope.canonical(), &says, place.clone(), reader.report);
        Some(Ruled {
            value: number,
            rule,
            place,
        })
    };
    out.memory_bytes = limit("memory", reader);
    out.processes = limit("processes", reader);
    out.open_files = limit("open_files", reader);
}

fn memory(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<u64> {
    let text = reader.string(value, "`memory`", "\"1GiB\"")?;
    match parse_size(text) {
        Ok(bytes) if bytes >= MEMORY_BYTES_MIN && bytes % crate::limits::BUDGET_BLOCK_BYTES == 0 => Some(bytes),
        Ok(_) => {
            let message = format!("{} is no limit of memory", quote(text));
            reader.error_help(
                Code::BadSize,
                value.span(),
                message,
                "write at least 1MiB, in whole pages of 4KiB",
            );
            None
        }
        Err(help) => {
            reader.error_help(Code::BadSize, value.span(), format!("{} is no size", quote(text)), help);
            None
        }
    }
}

fn audit(table: &DeTable<'_>, out: &mut Sandbox, reader: &mut Reader<'_>) {
    let Some(value) = table.get("audit") else { return };
    let Some(inner) = reader.table(value, "`audit`", "{ rate = 20, burst = 100 }") else {
        return;
    };
    reader.known_keys(inner, &["rate", "burst"]);
    let mut number = |key: &str| {
        inner
            .get(key)
            .and_then(|value| reader.integer(value, &format!("`{key}`"), 1, AUDIT_RATE_MAX))
    };
    out.audit_rate = number("rate");
    out.audit_burst = number("burst");
}
