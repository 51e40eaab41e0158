//! What a subject's policy comes to, as JSON: made by a session's supervisor of what is in force, or here of a tree.

use super::{egress, quotas, sandbox, syscalls};
use crate::policy::show;
use execd::Plan;
use netd::OpenNames;
use nexus_abi::RuleRef;
use nexus_policy::{Policy, SubjectPolicy};
use nexus_wire::session::Question;
use serde_json::{Value, json};

/// Whose, by which policy.
#[derive(Clone, Copy)]
pub(crate) struct Of<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) rules: &'a SubjectPolicy,
    /// What is in force; `None` where nothing runs.
    pub(crate) live: Option<InForce<'a>>,
}

/// What is in force in a session.
#[derive(Clone, Copy)]
pub(crate) struct InForce<'a> {
    pub(crate) plan: &'a Plan,
    /// The names that are open; `None` as long as the program has not begun.
    pub(crate) names: Option<&'a OpenNames>,
}

impl Of<'_> {
    /// A rule by its stable id and where it stands.
    pub(super) fn rule(&self, rule: RuleRef) -> Value {
        crate::policy::json::rule(self.policy, rule)
    }

    /// The answer to a question.
    pub(crate) fn answer(&self, question: Question) -> Result<Value, String> {
        Ok(match question {
            Question::Policy => show::value(self.rules, self.policy),
            Question::Syscalls => syscalls::value(self),
            Question::Sandbox => sandbox::value(self),
            Question::Quotas => quotas::value(self),
            Question::Egress => egress::value(self),
            Question::Filter => {
                let plan = self.live.ok_or("no filter is loaded")?.plan;
                let one =
                    |one: &nexus_sys::seccomp::Instruction| json!([one.code, one.jump_true, one.jump_false, one.k]);
                json!({"instructions": plan.filter.iter().map(one).collect::<Vec<_>>()})
            }
        })
    }
}

/// A field of an answer as text, without what a terminal would act on.
pub(super) fn field(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => crate::run::plain(text),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(flag)) => flag.to_string(),
        _ => String::new(),
    }
}

/// A list in an answer.
pub(super) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A list of words, on lines of a width that a terminal of 100 columns holds, each begun with two spaces.
pub(super) fn wrap(words: impl Iterator<Item = String>) -> String {
    const WIDTH: usize = 96;
    let mut out = String::new();
    let mut column = 0_usize;
    for word in words {
        let long = word.chars().count().saturating_add(1);
        if column == 0 || column.saturating_add(long) > WIDTH {
            if column > 0 {
                out.push('\n');
            }
            out.push(' ');
            column = 1;
        }
        out.push(' ');
        out.push_str(&word);
        column = column.saturating_add(long);
    }
    if column > 0 {
        out.push('\n');
    }
    out
}
