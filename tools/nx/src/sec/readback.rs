//! What is known of the filter that is loaded, and from whom.

use super::about::Shown;
use crate::registry::Live;
use crate::run::filter_hash;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long all programs together may take to stop for it.
const WAIT: Duration = Duration::from_secs(2);

/// Why the kernel's filter is not known.
const NOT_ASKED: &str = "not asked: `--read-back` asks it, and needs root";

/// Says where the list of calls comes from. With `read_back` the filter that the kernel holds is compared to the one that the
/// list was made of; without, the kernel still says whether a filter is on.
pub(super) fn source(shown: &mut Shown, read_back: bool) {
    if shown.lives.is_empty() {
        let (words, why) = if shown.doubt {
            (
                "whether a filter is loaded is not known",
                "no session runs that can be vouched for",
            )
        } else {
            ("no filter is loaded", "no session runs")
        };
        shown.source = Some(format!("unsupported: {words}"));
        shown.source_json = Some(json!({"source": "unsupported", "why": why}));
        return;
    }
    let loaded = shown
        .value()
        .and_then(|value| value.pointer("/filter/hash"))
        .and_then(Value::as_str)
        .map(str::to_owned);
    let until = Instant::now() + WAIT;
    let mut kernel = true;
    let mut words: Vec<String> = Vec::new();
    let mut each: Vec<Value> = Vec::new();
    for live in &shown.lives {
        let found = look(live, loaded.as_deref(), read_back, until);
        kernel &= found.read == Some(true);
        shown.differs |= found.read == Some(false) || found.on == Some(false);
        if read_back && found.read.is_none() {
            // What was asked for cannot be had here, or somebody who could give it does not.
            shown.unsupported |= found.unsupported;
            shown.silent |= !found.unsupported;
        }
        each.push(json!({
            "session": live.facts.session,
            "filter_on": found.on,
            "same_in_kernel": found.read,
            "why": found.why,
        }));
        // The same of many is said once.
        if !words.contains(&found.words) {
            words.push(found.words);
        }
    }
    let source = if kernel { "kernel" } else { "installer" };
    let first = if kernel {
        "kernel: read back from the running program"
    } else {
        "installer: what the supervisor loaded"
    };
    words.insert(0, first.to_owned());
    shown.source = Some(words.join("; "));
    shown.source_json = Some(json!({"source": source, "sessions": each}));
}

struct Found {
    /// Whether the kernel says that a filter is on.
    on: Option<bool>,
    /// Whether the kernel's filter is the one that was loaded.
    read: Option<bool>,
    words: String,
    why: Option<String>,
    /// Nobody reads it back here.
    unsupported: bool,
}

fn look(live: &Live, loaded: Option<&str>, read_back: bool, until: Instant) -> Found {
    let Some(program) = &live.program else {
        let why = "the program has ended".to_owned();
        return Found {
            on: None,
            read: None,
            words: why.clone(),
            why: Some(why),
            unsupported: false,
        };
    };
    let on = program.filtered;
    let says = match (on, program.filters) {
        (Some(true), Some(1)) => "the kernel says that one filter is on".to_owned(),
        (Some(true), Some(count)) => format!("the kernel says that {count} filters are on"),
        (Some(true), None) => "the kernel says that a filter is on".to_owned(),
        (Some(false), _) => "the kernel says that NO filter is on: the program is not confined".to_owned(),
        (None, _) => "the kernel does not say whether a filter is on".to_owned(),
    };
    if !read_back {
        return Found {
            on,
            read: None,
            words: says,
            why: Some(NOT_ASKED.to_owned()),
            unsupported: false,
        };
    }
    let left = until.saturating_duration_since(Instant::now());
    match (nexus_sys::ptrace::filters(program.pid, left), loaded) {
        (Ok(filters), Some(loaded)) => {
            // The first is the one that was set first; a program may stack more on it, which only take away.
            let same = filters.first().is_some_and(|filter| filter_hash(filter) == loaded);
            let words = match (same, filters.len()) {
                (true, 1) => "it is the filter that was loaded".to_owned(),
                (true, _) => "the first is the filter that was loaded, the program added others".to_owned(),
                (false, 0) => "the program has NO filter".to_owned(),
                (false, _) => "it is ANOTHER filter than the one that was loaded".to_owned(),
            };
            Found {
                on,
                read: Some(same),
                words,
                why: None,
                unsupported: false,
            }
        }
        (Ok(_), None) => Found {
            on,
            read: None,
            words: says,
            why: Some("the supervisor does not say what it loaded".to_owned()),
            unsupported: false,
        },
        (Err(error), _) => {
            let (unsupported, why) = why_not(&error);
            let what = if unsupported {
                "reading the kernel's filter back is unsupported"
            } else {
                "the kernel's filter cannot be read back"
            };
            Found {
                on,
                read: None,
                words: format!("{says}; {what}: {why}"),
                why: Some(why),
                unsupported,
            }
        }
    }
}

/// Whether it is this machine or user that cannot, and why.
fn why_not(error: &std::io::Error) -> (bool, String) {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => (
            true,
            "that needs root outside of containers (CAP_SYS_ADMIN in the initial user namespace)".to_owned(),
        ),
        Some(Errno::IO | Errno::INVAL) => (
            true,
            "this kernel was built without CONFIG_CHECKPOINT_RESTORE".to_owned(),
        ),
        Some(Errno::TIMEDOUT) => (false, "the program does not stop for it".to_owned()),
        _ => (false, error.to_string()),
    }
}
