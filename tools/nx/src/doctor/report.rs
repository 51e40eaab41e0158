//! What was found, as a value.

use std::fmt::Write;

/// One thing that mends a lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// A command that can be typed as it is.
    Command(String),
    /// What to do, where no single command does it.
    Words(String),
}

impl Mend {
    pub(crate) fn command(text: impl Into<String>) -> Self {
        Self::Command(text.into())
    }

    pub(crate) fn words(text: impl Into<String>) -> Self {
        Self::Words(text.into())
    }
}

/// What this machine gives of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was tried and it works.
    Available {
        /// What was seen.
        detail: String,
    },
    /// nx works without it, but something is slower or weaker.
    Degraded {
        /// What is lost, and why.
        why: String,
        /// What gives it back; empty if nothing on this machine does.
        mend: Vec<Mend>,
    },
    /// It was tried and it does not work.
    Missing {
        /// Why not.
        why: String,
        /// What mends it; empty if nothing on this machine does.
        mend: Vec<Mend>,
    },
}

impl State {
    pub(crate) fn available(detail: impl Into<String>) -> Self {
        Self::Available { detail: detail.into() }
    }

    pub(crate) fn degraded(why: impl Into<String>, mend: Vec<Mend>) -> Self {
        Self::Degraded { why: why.into(), mend }
    }

    pub(crate) fn missing(why: impl Into<String>, mend: Vec<Mend>) -> Self {
        Self::Missing { why: why.into(), mend }
    }

    /// Whether it works in full.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        matches!(self, Self::Available { .. })
    }

    /// Whether it does not work at all.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its stable name.
    pub what: &'static str,
    /// What this machine gives of it.
    pub state: State,
    /// What nx does with it.
    pub needed_for: &'static str,
    /// Whether nothing runs without it.
    pub required: bool,
}

impl Finding {
    /// The words for a lack, several lines without a newline at the end; `None` if nothing lacks.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let (state, why, mend) = match &self.state {
            State::Available { .. } => return None,
            State::Degraded { why, mend } => ("degraded", why, mend),
            State::Missing { why, mend } => ("missing", why, mend),
        };
        let mut words = format!("`{}` is {state}: {why}\n  needed for: {}", self.what, self.needed_for);
        for mend in mend {
            words.push_str(match mend {
                Mend::Command(_) => "\n  mend: $ ",
                Mend::Words(_) => "\n  mend: ",
            });
            let (Mend::Command(text) | Mend::Words(text)) = mend;
            // A text of several lines, such as a profile, stays one block.
            words.push_str(&text.replace('\n', "\n        "));
        }
        Some(words)
    }
}

/// What this machine can give, in the order in which it was looked at: always the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Everything that was looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nx can run programs here.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.findings.iter().any(blocks)
    }

    /// The words for one lack: what `nx run` says when it refuses for it. `None` if nothing lacks, or for a name that
    /// is not in the report.
    #[must_use]
    pub fn words_for(&self, what: &str) -> Option<String> {
        self.findings
            .iter()
            .find(|finding| finding.what == what)
            .and_then(Finding::words)
    }

    /// The words for the first thing that keeps nx from running, `None` if nothing does.
    #[must_use]
    pub fn first_refusal(&self) -> Option<String> {
        self.findings
            .iter()
            .find(|finding| blocks(finding))
            .and_then(Finding::words)
    }

    /// The report for a reader: a line for what works, a block for what does not, a verdict at the end.
    #[must_use]
    pub fn text(&self) -> String {
        let width = self
            .findings
            .iter()
            .map(|finding| finding.what.len())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for finding in &self.findings {
            // Writing to a string cannot fail.
            let _ = match (&finding.state, finding.words()) {
                (State::Available { detail }, _) => writeln!(text, "ok        {:width$}  {detail}", finding.what),
                (State::Degraded { .. }, Some(words)) => writeln!(text, "degraded  {words}"),
                (_, words) => writeln!(text, "MISSING   {}", words.unwrap_or_default()),
            };
        }
        let missing: Vec<_> = self.findings.iter().filter(|f| blocks(f)).map(|f| f.what).collect();
        let _ = if missing.is_empty() {
            writeln!(text, "\nready: nx can run programs here")
        } else {
            writeln!(
                text,
                "\nnot ready: nx cannot run programs here without {}",
                missing.join(", ")
            )
        };
        text
    }
}

fn blocks(finding: &Finding) -> bool {
    finding.required && finding.state.is_missing()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(state: State, required: bool) -> Finding {
        Finding {
            what: "thing",
            state,
            needed_for: "the test",
            required,
        }
    }

    fn report(state: State, required: bool) -> Report {
        Report {
            findings: vec![finding(state, required)],
        }
    }

    #[test]
    fn a_missing_required_thing_is_not_ready() {
        assert!(!report(State::missing("gone", vec![]), true).ready());
    }

    #[test]
    fn a_missing_optional_or_degraded_required_thing_is_ready() {
        assert!(report(State::missing("gone", vec![]), false).ready());
        assert!(report(State::degraded("slow", vec![]), true).ready());
        assert!(report(State::available("here"), true).ready());
    }

    #[test]
    fn the_text_holds_the_very_words_of_the_refusal() {
        let state = State::missing(
            "gone",
            vec![Mend::command("sudo put it back"), Mend::words("or\nbuy another")],
        );
        let report = report(state, true);
        let words = report.words_for("thing").unwrap();
        assert_eq!(
            words,
            "`thing` is missing: gone\n  needed for: the test\n  mend: $ sudo put it back\n  mend: or\n        buy another"
        );
        assert!(report.text().contains(&words));
        assert_eq!(report.first_refusal(), Some(words));
        assert!(
            report
                .text()
                .ends_with("not ready: nx cannot run programs here without thing\n")
        );
    }

    #[test]
    fn what_works_and_what_is_unknown_have_no_words() {
        assert_eq!(report(State::available("here"), true).words_for("thing"), None);
        assert_eq!(report(State::missing("gone", vec![]), true).words_for("other"), None);
    }
}
