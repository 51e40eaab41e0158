//! One look, for programs.

use super::gather::Gather;
use super::model::{Journal, Model, Subject, Usage};
use crate::run::{Exit, Failure};
use crate::sec::output::{Said, VERSION};
use crate::sec::quotas::areas;
use nexus_audit::line_of;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// How long file servers, and a long journal, are waited for; what did not come by then is said to be unknown.
const WAIT: Duration = Duration::from_secs(2);

pub(super) fn once() -> Result<Said, Failure> {
    let until = Instant::now() + WAIT;
    let mut gather = Gather::start()?;
    let mut model = Model::default();
    gather.look(&mut model);
    while gather.read(&mut model) && Instant::now() < until {}
    if model.journal == Journal::Reading {
        model.journal = Journal::Partly(format!("it was not read to its end within {} s", WAIT.as_secs()));
        gather.count(&mut model);
    }
    gather.settle(&mut model, until);
    let code = if model.is_partial() { Exit::Missing.code() } else { 0 };
    Ok(Said::json(&frame(&model), code))
}

fn frame(model: &Model) -> Value {
    let (word, why) = match &model.journal {
        Journal::Reading => ("reading", None),
        Journal::Absent => ("absent", None),
        Journal::Read => ("read", None),
        Journal::Partly(why) => ("partly", Some(why)),
        Journal::Unknown(why) => ("unknown", Some(why)),
    };
    let records: Vec<Value> = model
        .records
        .iter()
        .filter_map(|entry| serde_json::from_str(&line_of(entry.seq, &entry.record, entry.mac)).ok())
        .collect();
    let subjects: Map<String, Value> = model
        .subjects
        .iter()
        .map(|(name, one)| (name.clone(), subject(one, model.sessions_of(one))))
        .collect();
    json!({
        "version": VERSION,
        "ok": !model.is_partial(),
        "subjects": subjects,
        "sessions_in_doubt": model.in_doubt,
        "journal": {"state": word, "why": why, "records": records},
        "troubles": model.troubles,
    })
}

fn subject(subject: &Subject, sessions: Option<usize>) -> Value {
    let usage = match &subject.usage {
        None => Value::Null,
        Some(Usage::Known(usage)) => json!({"source": "ledger", "areas": areas(usage), "why": Value::Null}),
        Some(Usage::Unknown(why)) => json!({"source": "unsupported", "areas": Value::Null, "why": why}),
    };
    json!({
        "sessions": sessions,
        "wrong": subject.wrong,
        "usage": usage,
        "denies": subject.denies.map(|[quota, egress, abi]| json!({"quota": quota, "egress": egress, "abi": abi})),
    })
}
