//! What policy says, and whether that was seen.

use super::context::Rule;
use super::evidence::Evidence;
use super::live::Lost;
use nexus_abi::{Errno, Operation, Reason};
use nexus_audit::{Counter, Judgement, Record};

/// One thing that policy says, to be seen in the sandbox.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Which part of policy says it: `syscall`, `egress`, `quota`.
    pub(super) part: &'static str,
    /// What is attempted: stable words, unlike any other claim's of a proof.
    pub(super) name: String,
    /// What must be seen.
    pub(super) wants: Wants,
    /// The rule that says so.
    pub(super) rule: Rule,
}

/// What must be seen.
#[derive(Clone, Debug)]
pub(super) enum Wants {
    /// A refusal: its errno, its record, and a step of its counter.
    Refusal(Refusal),
    /// A name is answered as none that there is: its record, and a step of its counter. What was seen is the answer's code.
    NoName(Refusal),
    /// It goes through, and this counter steps, if any.
    Passage(Option<Counter>),
    /// It reaches the kernel, which says of its own what it says; nothing is recorded and no counter steps.
    Kernel,
    /// The kernel itself says one of these, because what is asked for is not there, or is at its limit; nothing is recorded
    /// and no counter steps.
    Errno(&'static [Errno]),
    /// It goes through, and a warning is recorded, once.
    Warning(Refusal),
    /// Something is as it has to be, of which the checks alone speak: nothing was attempted.
    Held,
}

/// The counter that a refusal for this reason has to step: its area's, by the reason's own word. Not asked of what counts: that
/// might count nothing, and would expect nothing.
fn counter_of(reason: Reason) -> Option<Counter> {
    match reason.as_str().split_once('.')? {
        ("abi", _) => Some(Counter::AbiDenies),
        ("egress", _) => Some(Counter::EgressDenies),
        ("quota", _) => Some(Counter::QuotaDenies),
        // Of `ipc` and `vfs` there is none.
        _ => None,
    }
}

/// The code of an answer that there is no such name (`NXDOMAIN`, RFC 1035 4.1.1).
const NO_SUCH_NAME: i64 = 3;

/// A refusal as it is told and recorded.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) op: Operation,
    pub(super) object: String,
    pub(super) reason: Reason,
    pub(super) errno: Errno,
}

/// Of whom records have to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) subject: &'a str,
    pub(super) session: &'a str,
    /// The PolicyVersion.
    pub(super) policy: &'a str,
}

/// What was seen of an attempt.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// What the call returned.
    pub(super) value: Result<i64, Lost>,
    /// What else was looked at: as it has to be, or what it is instead.
    pub(super) checks: Vec<Result<String, String>>,
}

/// How a claim fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Proven,
    Failed,
    /// It could not be looked at.
    Skipped,
}

/// A claim and what was seen of it.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) part: &'static str,
    pub(super) name: String,
    pub(super) status: Status,
    /// What policy says: `deny`, `allow` or `warn`.
    pub(super) says: &'static str,
    pub(super) rule: Rule,
    /// What was seen, in order: a word and what.
    pub(super) seen: Vec<(&'static str, String)>,
    /// What should have been seen and was not.
    pub(super) lacks: Vec<String>,
}

impl Wants {
    pub(super) const fn says(&self) -> &'static str {
        match self {
            Self::Refusal(_) | Self::NoName(_) => "deny",
            Self::Passage(_) | Self::Kernel => "allow",
            Self::Errno(_) | Self::Held => "bound",
            Self::Warning(_) => "warn",
        }
    }

    fn counter(&self) -> Option<Counter> {
        match self {
            Self::Refusal(refusal) | Self::NoName(refusal) => counter_of(refusal.reason),
            Self::Passage(counter) => *counter,
            Self::Warning(_) | Self::Kernel | Self::Errno(_) | Self::Held => None,
        }
    }
}

impl Seen {
    /// What was looked at and not attempted.
    pub(super) fn looked(check: Result<String, String>) -> Self {
        Self {
            value: Ok(0),
            checks: vec![check],
        }
    }

    pub(super) fn value(value: Result<i64, Lost>) -> Self {
        Self {
            value,
            checks: Vec::new(),
        }
    }
}

/// An errno as people write it.
pub(super) fn errno_text(value: i64) -> String {
    let errno = value
        .checked_neg()
        .and_then(|errno| u16::try_from(errno).ok())
        .and_then(Errno::from_raw);
    match errno {
        Some(errno) => errno.to_string(),
        None => format!("returned {value}"),
    }
}

/// Judges claims by what was seen and by what was written down, in this order; and after them what belongs to none.
pub(super) fn judge(who: Who<'_>, claims: &[(Claim, Seen)], evidence: &mut Evidence) -> Vec<Finding> {
    let mut findings: Vec<Finding> = claims
        .iter()
        .map(|(claim, seen)| judge_one(who, claim, seen, evidence))
        .collect();
    for counter in Counter::ALL {
        let of_counter = |claim: &Claim| claim.wants.counter() == Some(counter);
        let expected = claims.iter().filter(|(claim, _)| of_counter(claim)).count() as u64;
        let stepped = evidence.counter(counter);
        let name = counter.name();
        if stepped == expected {
            for (finding, (claim, _)) in findings.iter_mut().zip(claims) {
                if of_counter(claim) {
                    let of = if expected == 1 {
                        String::new()
                    } else {
                        format!(", one of {expected}")
                    };
                    finding.seen.push(("counter", format!("{name} +1{of}")));
                }
            }
            continue;
        }
        // Of one claim it is that one's; of several nobody can tell whose.
        let lack = format!("the counter {name} stepped by {stepped}, not by {expected}");
        let mut of_claims = findings
            .iter_mut()
            .zip(claims)
            .filter(|(_, (claim, _))| of_counter(claim));
        match (of_claims.next(), expected) {
            (Some((finding, _)), 1) => finding.lack(lack),
            _ => findings.push(Finding::failed("counter", name.to_owned(), lack)),
        }
    }
    for record in evidence.rest() {
        let lack = format!(
            "a record that nothing attempted here explains: {} {}",
            record.reason, record.object
        );
        findings.push(Finding::failed(
            "journal",
            format!("no other record, such as {}", record.op),
            lack,
        ));
    }
    if let Some(flaw) = evidence.flaw.take() {
        findings.push(Finding::failed("journal", "the chain holds".to_owned(), flaw));
    }
    findings
}

fn judge_one(who: Who<'_>, claim: &Claim, seen: &Seen, evidence: &mut Evidence) -> Finding {
    let mut finding = Finding {
        part: claim.part,
        name: claim.name.clone(),
        status: Status::Proven,
        says: claim.wants.says(),
        rule: claim.rule.clone(),
        seen: Vec::new(),
        lacks: Vec::new(),
    };
    match (&claim.wants, &seen.value) {
        (Wants::Refusal(_), Err(lost)) => finding.lack(format!("{lost}: nothing refused it")),
        (_, Err(lost)) => finding.lack(lost.to_string()),
        (Wants::Held, Ok(_)) => {}
        (Wants::Kernel, Ok(value)) => {
            let got = if *value < 0 {
                errno_text(*value)
            } else {
                "done".to_owned()
            };
            finding.seen.push(("kernel", format!("answered: {got}")));
        }
        (Wants::Refusal(refusal), Ok(value)) => {
            let wanted = -i64::from(refusal.errno.raw());
            if *value == wanted {
                finding.seen.push(("errno", refusal.errno.to_string()));
            } else {
                let (got, errno) = (errno_text(*value), refusal.errno);
                finding.lack(format!("{got}, not {errno}: nothing refused it"));
            }
        }
        (Wants::NoName(_), Ok(NO_SUCH_NAME)) => finding.seen.push(("answer", "no such name".to_owned())),
        (Wants::NoName(_), Ok(code)) => {
            finding.lack(format!(
                "answered with code {code}, not {NO_SUCH_NAME}: nothing refused the name"
            ));
        }
        (Wants::Errno(errnos), Ok(value)) => {
            let got = errno_text(*value);
            if errnos.iter().any(|errno| *value == -i64::from(errno.raw())) {
                finding.seen.push(("errno", got));
            } else {
                let wanted: Vec<_> = errnos.iter().map(Errno::to_string).collect();
                finding.lack(format!("{got}, not {}", wanted.join(" or ")));
            }
        }
        (Wants::Passage(_) | Wants::Warning(_), Ok(value)) if *value >= 0 => {
            finding.seen.push(("result", "goes through".to_owned()));
        }
        (Wants::Passage(_) | Wants::Warning(_), Ok(value)) => {
            finding.lack(format!("{}, where policy allows it", errno_text(*value)));
        }
    }
    for check in &seen.checks {
        match check {
            Ok(text) => finding.seen.push(("seen", text.clone())),
            Err(text) => finding.lack(text.clone()),
        }
    }
    let (refusal, verdict) = match &claim.wants {
        Wants::Refusal(refusal) | Wants::NoName(refusal) => (refusal, Judgement::Deny(refusal.errno)),
        Wants::Warning(refusal) => (refusal, Judgement::Warn),
        Wants::Passage(_) | Wants::Kernel | Wants::Errno(_) | Wants::Held => return finding,
    };
    let same = |record: &Record| {
        record.op == refusal.op && *record.object == *refusal.object && record.reason == refusal.reason
    };
    let Some(record) = evidence.take(same) else {
        let Refusal { op, object, reason, .. } = refusal;
        finding.lack(format!("no record of it in the journal: {op} `{object}` {reason}"));
        return finding;
    };
    for (what, is, wanted) in [
        ("verdict", record.verdict == verdict, verdict.as_str()),
        ("subject", *record.subject == *who.subject, who.subject),
        ("session", *record.session == *who.session, who.session),
        (
            "rule",
            record.rule == claim.rule.id,
            claim.rule.id.as_deref().unwrap_or("none"),
        ),
        (
            "place",
            record.at == claim.rule.at,
            claim.rule.at.as_deref().unwrap_or("none"),
        ),
        ("policy", *record.policy == *who.policy, who.policy),
    ] {
        if !is {
            finding.lack(format!("its record's {what} is not {wanted}"));
        }
    }
    finding
        .seen
        .push(("record", format!("{} {} {}", record.op, record.object, record.reason)));
    if verdict != Judgement::Warn && claim.wants.counter().is_none() {
        finding
            .seen
            .push(("counter", format!("none counts {}", refusal.reason)));
    }
    finding
}

impl Finding {
    fn lack(&mut self, lack: String) {
        self.status = Status::Failed;
        self.lacks.push(lack);
    }

    pub(super) fn failed(part: &'static str, name: String, lack: String) -> Self {
        Self {
            part,
            name,
            status: Status::Failed,
            says: "",
            rule: Rule::default(),
            seen: Vec::new(),
            lacks: vec![lack],
        }
    }

    /// Something that could not be looked at, and why.
    pub(super) fn skipped(part: &'static str, name: String, why: String) -> Self {
        Self {
            status: Status::Skipped,
            ..Self::failed(part, name, why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_audit::UnixMillis;

    const WHO: Who<'static> = Who {
        subject: "demo",
        session: "0123456789ab",
        policy: "77",
    };

    fn rule() -> Rule {
        Rule {
            id: Some("abi:1".into()),
            at: Some("abi.toml:7".into()),
        }
    }

    fn claim() -> Claim {
        let refusal = Refusal {
            op: Operation::Syscall,
            object: "unshare(0x0)".into(),
            reason: Reason::AbiNoRule,
            errno: Errno::EPERM,
        };
        Claim {
            part: "syscall",
            name: "unshare(0x0)".into(),
            wants: Wants::Refusal(refusal),
            rule: rule(),
        }
    }

    fn record() -> Record {
        Record {
            mono_ns: 0,
            time: UnixMillis::new(0),
            subject: "demo".into(),
            session: "0123456789ab".into(),
            op: Operation::Syscall,
            object: "unshare(0x0)".into(),
            verdict: Judgement::Deny(Errno::EPERM),
            reason: Reason::AbiNoRule,
            rule: rule().id,
            at: rule().at,
            policy: "77".into(),
            suppressed: 0,
        }
    }

    /// What is lacking of one denied call that returned this, with these records and this many steps.
    fn lacks(value: i64, records: Vec<Record>, steps: u64) -> Vec<String> {
        let mut evidence = Evidence::of(records, [(Counter::AbiDenies, steps)]);
        let findings = judge(WHO, &[(claim(), Seen::value(Ok(value)))], &mut evidence);
        findings.into_iter().flat_map(|finding| finding.lacks).collect()
    }

    const EPERM: i64 = -1;

    #[test]
    fn all_three_together_are_a_proof_and_none_of_them_alone() {
        assert_eq!(lacks(EPERM, vec![record()], 1), Vec::<String>::new());
        for (value, records, steps, lack) in [
            (-22, vec![record()], 1, "EINVAL, not EPERM"),
            (0, vec![record()], 1, "returned 0, not EPERM"),
            (EPERM, vec![], 1, "no record of it"),
            (EPERM, vec![record()], 0, "stepped by 0, not by 1"),
            (EPERM, vec![record()], 2, "stepped by 2, not by 1"),
            (
                EPERM,
                vec![record(), record()],
                1,
                "a record that nothing attempted here explains",
            ),
        ] {
            let found = lacks(value, records, steps);
            assert!(found.len() == 1 && found[0].contains(lack), "{lack}: {found:?}");
        }
    }

    #[test]
    fn every_reason_of_an_area_that_is_counted_has_that_areas_counter_and_what_counts_agrees() {
        for reason in Reason::ALL.iter().copied() {
            let counted = Counter::of_record(Judgement::Deny(Errno::EPERM), reason);
            assert_eq!(counter_of(reason), counted, "{reason}");
        }
    }

    #[test]
    fn a_record_of_anything_else_is_not_this_ones() {
        type Change = fn(&mut Record);
        let changes: [(&str, Change); 6] = [
            ("subject", |record| record.subject = "other".into()),
            ("session", |record| record.session = "000000000000".into()),
            ("rule", |record| record.rule = Some("abi:2".into())),
            ("place", |record| record.at = None),
            ("policy", |record| record.policy = "78".into()),
            ("verdict", |record| record.verdict = Judgement::Deny(Errno::EACCES)),
        ];
        for (what, change) in changes {
            let mut other = record();
            change(&mut other);
            let found = lacks(EPERM, vec![other], 1);
            assert!(
                found.len() == 1 && found[0].contains(&format!("record's {what}")),
                "{found:?}"
            );
        }
        let changes: [Change; 3] = [
            |record| record.op = Operation::Connect,
            |record| record.object = "unshare(0x1)".into(),
            |record| record.reason = Reason::AbiDenyRule,
        ];
        for change in changes {
            let mut other = record();
            change(&mut other);
            // It is missed, and it is one too many.
            assert_eq!(lacks(EPERM, vec![other], 1).len(), 2);
        }
    }

    #[test]
    fn what_goes_through_leaves_no_record_and_no_step() {
        let passage = Claim {
            wants: Wants::Kernel,
            ..claim()
        };
        let judged = |records, steps| {
            let mut evidence = Evidence::of(records, [(Counter::AbiDenies, steps)]);
            let findings = judge(WHO, &[(passage.clone(), Seen::value(Ok(-22)))], &mut evidence);
            findings.iter().any(|finding| finding.status == Status::Failed)
        };
        assert!(!judged(vec![], 0));
        assert!(judged(vec![record()], 0));
        assert!(judged(vec![], 1));
    }

    #[test]
    fn a_call_that_did_not_return_proves_nothing() {
        for lost in [Lost::Ended, Lost::Waits] {
            let mut evidence = Evidence::of(vec![record()], [(Counter::AbiDenies, 1)]);
            let seen = Seen::value(Err(lost));
            let findings = judge(WHO, &[(claim(), seen)], &mut evidence);
            assert_eq!(findings[0].status, Status::Failed);
        }
    }
}
