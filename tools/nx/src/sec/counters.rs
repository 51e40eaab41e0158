//! `nx sec counters`: how often, exactly.

use super::lost::{self, Lost, Recorded};
use super::output::{Said, VERSION};
use super::{journal, known};
use crate::run::{Exit, Failure, plain};
use nexus_audit::Counter;
use nexus_sys::counters::{CounterReader, CounterRow};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::Write as _;

/// `nx sec counters`.
#[derive(Debug, clap::Args)]
pub(crate) struct CountersArgs {
    /// Only this subject
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Say it as one JSON object
    #[arg(long, conflicts_with = "prometheus")]
    json: bool,
    /// Say it in Prometheus' text format, as a node exporter's textfile collector takes it
    #[arg(long)]
    prometheus: bool,
}

impl CountersArgs {
    pub(super) const fn says_json(&self) -> bool {
        self.json
    }
}

pub(super) fn counters(args: &CountersArgs) -> Result<Said, Failure> {
    let directory = journal::directory()?;
    // First: what is written down while this is read is counted by then.
    let recorded = match lost::recorded(&directory) {
        Err(error) if journal::is_absent(&error) => {
            journal::never_was()?;
            Ok(Recorded::new())
        }
        other => other,
    };
    let mut rows = all()?;
    if rows.is_empty() && recorded.as_ref().is_ok_and(Recorded::is_empty) {
        // Each session has a row from its beginning on.
        journal::never_was()?;
    }
    let mut lost = match &recorded {
        Ok(recorded) => lost::lost(&rows, recorded),
        Err(error) if rows.is_empty() => {
            let what = "no counters are there, and the journal, which would say whether some were, cannot be read";
            return Err(Failure {
                message: format!("{what}: {}", journal::whole(error)),
                ..journal::unreadable(error)
            });
        }
        Err(error) => {
            // They are what they are.
            let why = plain(&journal::whole(error));
            let _ = writeln!(
                std::io::stderr(),
                "nx: not held to the journal, which cannot be read: {why}"
            );
            Vec::new()
        }
    };
    if let Some(subject) = args.subject.as_deref() {
        rows.retain(|(name, _)| name == subject);
        lost.retain(|lost| lost.subject == subject);
        if rows.is_empty() && lost.is_empty() {
            // Nothing of it was ever counted: a zero for a subject that there is, and no zero for a word that was mistyped.
            known::in_policy(subject, &format!("nothing was ever counted for `{}`", plain(subject)))?;
            rows.push((subject.to_owned(), [0; _]));
        }
    }
    let code = if lost.is_empty() { 0 } else { Exit::Missing.code() };
    if args.json {
        return Ok(Said::json(&json(&rows, &lost), code));
    }
    let lines: Vec<String> = lost.iter().map(|lost| plain(&lost.text())).collect();
    Ok(Said {
        text: if args.prometheus {
            // A comment, which readers of the format pass over.
            let comments: String = lines.iter().map(|line| format!("# {line}\n")).collect();
            format!("{}{comments}", prometheus(&rows))
        } else {
            text(&rows, &lines)
        },
        code,
    })
}

/// What was counted, by the bytes of the subjects' names; nothing where nothing ever ran.
pub(super) fn all() -> Result<Vec<CounterRow>, Failure> {
    let path = journal::directory()?.join("counters");
    let read =
        CounterReader::open(&path).and_then(|reader| reader.map_or_else(|| Ok(Vec::new()), |all| all.read_all()));
    read.map_err(|error| {
        let message = format!("`{}`: {}", path.display(), journal::whole(&error));
        Failure::new(Exit::Missing, message).with_help("`nx sec doctor` tries whether the state directory can be used")
    })
}

/// The counters of a row by their names, in the order of [`Counter::ALL`].
fn named(row: &CounterRow) -> impl Iterator<Item = (&'static str, u64)> {
    let values = row.1;
    Counter::ALL
        .into_iter()
        .map(move |counter| (counter.name(), values.get(counter.index()).copied().unwrap_or(0)))
}

fn text(rows: &[CounterRow], lost: &[String]) -> String {
    let tail: String = lost.iter().map(|line| format!("{line}\n")).collect();
    if rows.is_empty() {
        return if lost.is_empty() {
            "nothing was counted yet\n".to_owned()
        } else {
            tail
        };
    }
    let names: Vec<String> = rows.iter().map(|(name, _)| plain(name)).collect();
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .chain([7])
        .max()
        .unwrap_or(7);
    let mut out = format!("{:width$}", "SUBJECT");
    for counter in Counter::ALL {
        let _ = write!(out, "  {}", counter.name());
    }
    out.push('\n');
    for (row, name) in rows.iter().zip(names) {
        let _ = write!(out, "{name:width$}");
        for (counter, value) in named(row) {
            let width = counter.len();
            let _ = write!(out, "  {value:>width$}");
        }
        out.push('\n');
    }
    out + &tail
}

/// One object: `{"version":1,"ok":true,"subjects":{NAME:{COUNTER:N}},"lost":[]}`.
pub(super) fn json(rows: &[CounterRow], lost: &[Lost]) -> Value {
    let subjects: Map<String, Value> = rows
        .iter()
        .map(|row| {
            let values: Map<String, Value> = named(row)
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            (row.0.clone(), values.into())
        })
        .collect();
    let ok = lost.is_empty();
    let lost: Vec<Value> = lost.iter().map(Lost::json).collect();
    json!({"version": VERSION, "ok": ok, "subjects": subjects, "lost": lost})
}

/// What a counter means, for `# HELP`.
const fn help(counter: Counter) -> &'static str {
    match counter {
        Counter::QuotaDenies => "Requests refused because of a budget.",
        Counter::EgressDenies => "Destinations refused.",
        Counter::EgressAllows => "Destinations outside that were let through.",
        Counter::AbiDenies => "Syscalls refused.",
    }
}

/// The text exposition format, version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
fn prometheus(rows: &[CounterRow]) -> String {
    let mut out = String::new();
    for counter in Counter::ALL {
        let name = counter.name();
        let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} counter", help(counter));
        for (subject, values) in rows {
            let value = values.get(counter.index()).copied().unwrap_or(0);
            let _ = writeln!(out, "{name}{{subject=\"{}\"}} {value}", label(subject));
        }
    }
    out
}

/// A label's value: what the format wants escaped, and before that what would speak to a terminal, so that two names are
/// never one.
fn label(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for one in plain(&name.replace('\\', "\\\\")).chars() {
        match one {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn row(name: &str, values: [u64; 4]) -> CounterRow {
        let mut row = [0; _];
        for (to, from) in row.iter_mut().zip(values) {
            *to = from;
        }
        (name.to_owned(), row)
    }

    #[test]
    fn the_exposition_text_is_the_formats() {
        assert_eq!(
            prometheus(&[row("a\"b", [1, 2, 3, 4]), row("demo", [0, 0, 0, u64::MAX])]),
            "# HELP quota_denies_total Requests refused because of a budget.\n\
             # TYPE quota_denies_total counter\n\
             quota_denies_total{subject=\"a\\\"b\"} 1\n\
             quota_denies_total{subject=\"demo\"} 0\n\
             # HELP egress_denies_total Destinations refused.\n\
             # TYPE egress_denies_total counter\n\
             egress_denies_total{subject=\"a\\\"b\"} 2\n\
             egress_denies_total{subject=\"demo\"} 0\n\
             # HELP egress_allows_total Destinations outside that were let through.\n\
             # TYPE egress_allows_total counter\n\
             egress_allows_total{subject=\"a\\\"b\"} 3\n\
             egress_allows_total{subject=\"demo\"} 0\n\
             # HELP abi_denies_total Syscalls refused.\n\
             # TYPE abi_denies_total counter\n\
             abi_denies_total{subject=\"a\\\"b\"} 4\n\
             abi_denies_total{subject=\"demo\"} 18446744073709551615\n"
        );
    }

    /// A strict reader of the format: every sample after its own HELP and TYPE, every series once, a newline at the end.
    /// Gives each series' label value as it was before it was escaped.
    fn strict(text: &str) -> Result<BTreeSet<(String, String)>, String> {
        let mut series = BTreeSet::new();
        let (mut helped, mut typed) = (BTreeSet::new(), String::new());
        let body = text.strip_suffix('\n').ok_or("the last line has no newline")?;
        for line in body.split('\n') {
            let wrong = || format!("{line:?}");
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').ok_or_else(wrong)?;
                if words.contains('\\') || !helped.insert(name.to_owned()) {
                    return Err(wrong());
                }
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, "counter") = kind.split_once(' ').ok_or_else(wrong)? else {
                    return Err(wrong());
                };
                if !helped.contains(name) || !name.ends_with("_total") {
                    return Err(wrong());
                }
                typed = name.to_owned();
            } else {
                let (name, rest) = line.split_once("{subject=\"").ok_or_else(wrong)?;
                let valid = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
                if name != typed || !valid {
                    return Err(wrong());
                }
                let (mut value, mut chars) = (String::new(), rest.chars());
                loop {
                    match chars.next().ok_or_else(wrong)? {
                        '"' => break,
                        '\\' => match chars.next() {
                            Some('\\') => value.push('\\'),
                            Some('"') => value.push('"'),
                            Some('n') => value.push('\n'),
                            _ => return Err(wrong()),
                        },
                        other => value.push(other),
                    }
                }
                let number = chars.as_str().strip_prefix("} ").ok_or_else(wrong)?;
                number.parse::<u64>().map_err(|_| wrong())?;
                if !series.insert((name.to_owned(), value)) {
                    return Err(format!("{line:?} is there twice"));
                }
            }
        }
        Ok(series)
    }

    #[test]
    fn the_strict_reader_refuses_what_the_format_does() {
        let good = prometheus(&[row("demo", [1, 2, 3, 4])]);
        assert_eq!(strict(&good).unwrap().len(), 4);
        for (from, to) in [
            ("# TYPE abi_denies_total counter\n", ""),
            ("\"demo\"} 2", "\"de\"mo\"} 2"),
            ("\"demo\"} 2", "\"de\\mo\"} 2"),
            ("\"demo\"} 2", "\"demo\"} two"),
            ("} 4\n", "} 4"),
            ("quota_denies_total{", "quota denies_total{"),
        ] {
            assert!(strict(&good.replacen(from, to, 1)).is_err(), "{from:?} → {to:?}");
        }
        assert!(strict(&prometheus(&[row("a", [0; 4]), row("a", [0; 4])])).is_err());
    }

    proptest! {
        #[test]
        fn any_names_give_valid_text_with_a_series_for_each(names in prop::collection::btree_set("(?s).{1,20}|[\\\\u{1b}\"n\u{1b}\n]{1,8}", 0..20)) {
            let rows: Vec<_> = names.iter().map(|name| row(name, [1, 2, 3, 4])).collect();
            let out = prometheus(&rows);
            prop_assert_eq!(strict(&out).unwrap().len(), names.len() * 4);
            prop_assert!(!out.chars().any(|one| one.is_control() && one != '\n'));
        }
    }

    #[test]
    fn a_name_cannot_begin_a_line_of_the_table() {
        let out = text(&[row("a\nb\u{1b}[31m", [1, 2, 3, 4]), row("demo", [0, 0, 0, 7])], &[]);
        assert_eq!(out.lines().count(), 3, "{out}");
        assert!(!out.contains('\u{1b}'));
    }
}
