//! The report for programs.
//!
//! `{"findings":[{"detail" | "why","mend","needed_for","required","state","what"}],"ok":bool,"ready":bool,"version":1}` with
//! `state` one of `available`, `degraded` and `missing`, and `mend` a list of `{"command":…}` or `{"words":…}`; `ok` says
//! the same as `ready`. Keys and names never change their meaning within a version; new ones may appear.

use super::report::{Finding, Mend, Report, State};
use crate::run::json_line;
use serde_json::{Value, json};

/// The version of the shape.
pub const JSON_VERSION: u32 = 1;

impl Report {
    /// The report as one line of JSON, without a newline at the end.
    #[must_use]
    pub fn json(&self) -> String {
        json_line(&json!({
            "version": JSON_VERSION,
            "ok": self.ready(),
            "ready": self.ready(),
            "findings": self.findings.iter().map(item).collect::<Vec<_>>(),
        }))
    }
}

fn item(finding: &Finding) -> Value {
    let mut item = json!({
        "what": finding.what,
        "required": finding.required,
        "needed_for": finding.needed_for,
    });
    let (state, key, text, mend) = match &finding.state {
        State::Available { detail } => ("available", "detail", detail, None),
        State::Degraded { why, mend } => ("degraded", "why", why, Some(mend)),
        State::Missing { why, mend } => ("missing", "why", why, Some(mend)),
    };
    if let Some(fields) = item.as_object_mut() {
        fields.insert("state".to_owned(), state.into());
        fields.insert(key.to_owned(), text.as_str().into());
        fields.extend(mend.map(|mend| ("mend".to_owned(), mend.iter().map(way).collect())));
    }
    item
}

fn way(mend: &Mend) -> Value {
    match mend {
        Mend::Command(text) => json!({"command": text}),
        Mend::Words(text) => json!({"words": text}),
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
            report.json(),
            concat!(
                r#"{"findings":["#,
                r#"{"detail":"seen","needed_for":"x","required":true,"state":"available","what":"a"},"#,
                r#"{"mend":[{"command":"c"},{"words":"w"}],"needed_for":"y","required":false,"state":"missing","what":"b","#,
                r#""why":"\"gone\"\n"}],"#,
                r#""ok":true,"ready":true,"version":1}"#
            )
        );
    }
}
