//! The report for programs.
//!
//! `{"version":1,"ready":bool,"findings":[{"what","state","required","needed_for","detail" | "why","mend"}]}` with
//! `state` one of `available`, `degraded` and `missing`, and `mend` a list of `{"command":…}` or `{"words":…}`. Keys
//! and names never change their meaning within a version; new ones may appear.

use super::report::{Finding, Mend, Report, State};
use serde::Serialize;

/// The version of the shape.
pub const JSON_VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    ready: bool,
    findings: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    what: &'a str,
    state: &'static str,
    required: bool,
    needed_for: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<Vec<Way<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Way<'a> {
    Command(&'a str),
    Words(&'a str),
}

impl Report {
    /// The report as one line of JSON, without a newline at the end.
    ///
    /// # Errors
    /// None in practice: every key is a string.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Document {
            version: JSON_VERSION,
            ready: self.ready(),
            findings: self.findings.iter().map(item).collect(),
        })
    }
}

fn item(finding: &Finding) -> Item<'_> {
    let (state, detail, lack) = match &finding.state {
        State::Available { detail } => ("available", Some(detail.as_str()), None),
        State::Degraded { why, mend } => ("degraded", None, Some((why.as_str(), mend))),
        State::Missing { why, mend } => ("missing", None, Some((why.as_str(), mend))),
    };
    Item {
        what: finding.what,
        state,
        required: finding.required,
        needed_for: finding.needed_for,
        detail,
        why: lack.map(|(why, _)| why),
        mend: lack.map(|(_, mend)| mend.iter().map(way).collect()),
    }
}

fn way(mend: &Mend) -> Way<'_> {
    match mend {
        Mend::Command(text) => Way::Command(text),
        Mend::Words(text) => Way::Words(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_the_documented_one() {
        let report = Report {
            findings: vec![
                Finding {
                    what: "a",
                    state: State::available("seen"),
                    needed_for: "x",
                    required: true,
                },
                Finding {
                    what: "b",
                    state: State::missing("\"gone\"\n", vec![Mend::command("c"), Mend::words("w")]),
                    needed_for: "y",
                    required: false,
                },
            ],
        };
        assert_eq!(
            report.json().unwrap(),
            concat!(
                r#"{"version":1,"ready":true,"findings":["#,
                r#"{"what":"a","state":"available","required":true,"needed_for":"x","detail":"seen"},"#,
                r#"{"what":"b","state":"missing","required":false,"needed_for":"y","why":"\"gone\"\n","#,
                r#""mend":[{"command":"c"},{"words":"w"}]}]}"#
            )
        );
    }
}
