//! `nx sec test`: a probe in the subject's real sandbox tries what policy speaks of, and nothing is called proven that was
//! not seen from three sides: what the probe was told, what the journal holds, and what the counters count.
//!
//! The session is made by the code that makes every other (`run::prove`): the same plan, filter, file server, judge and
//! journal, under the same policy and identity. What differs is said in docs/security/nx-sec.md.

mod args;
mod claim;
mod context;
mod deny;
mod evidence;
mod live;
mod network;
mod report;
mod scratch;
mod tamper;

pub(crate) use args::TestCommand;
pub(crate) use tamper::Honest;
pub use tamper::{Tamper, prove_with};

use crate::run::{Exit, Failure};
use args::{DenyArgs, Format};
use claim::{Claim, Finding, Status};
use context::Context;
use live::{Live, Setup};
use nexus_policy::parse_argument;
use std::io::Write;

/// Everything that was found for one subject.
pub(crate) struct Found {
    subject: String,
    version: String,
    session: String,
    findings: Vec<Finding>,
    /// What policy says and no proof looked at, each with why.
    left_out: Vec<String>,
}

/// Does what the command line says, and gives the status that `nx` ends with.
pub(crate) fn main(command: &TestCommand, tamper: &dyn Tamper) -> u8 {
    let (result, format) = match command {
        TestCommand::Deny(args) => (deny(args, tamper), args.common.how.format()),
        _ => (Err(Failure::internal("not yet".into())), Format::Text),
    };
    match result {
        Ok(found) => say(&found, format),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.code()
        }
    }
}

fn say(found: &[Found], format: Format) -> u8 {
    let text = report::write(found, format);
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let mut statuses = found.iter().flat_map(|found| &found.findings).map(|finding| &finding.status);
    if statuses.clone().any(|status| *status == Status::Failed) {
        Exit::Rejected.code()
    } else if statuses.all(|status| *status == Status::Skipped) {
        Exit::Unsupported.code()
    } else {
        0
    }
}

fn deny(args: &DenyArgs, tamper: &dyn Tamper) -> Result<Vec<Found>, Failure> {
    let number = deny::number(&args.syscall)?;
    let context = Context::load(args.common.how.policy.as_deref(), &args.common.subject)?;
    let denied = if args.arguments.is_empty() {
        deny::denied(&context, number).ok_or_else(|| deny::allowed(&context, number))?
    } else {
        deny::denied_with(&context, number, arguments(&args.arguments)?)?
    };
    let (claim, attempt) = deny::claim(&context, &denied);
    let mut live = start(&context, &[], tamper)?;
    let seen = deny::attempt(&mut live, attempt);
    finish(&context, live, &[(claim, seen)], tamper).map(|found| vec![found])
}

fn arguments(texts: &[String]) -> Result<[u64; 6], Failure> {
    let mut args = [0; 6];
    if texts.len() > args.len() {
        return Err(Failure::usage("a call has at most six arguments".into()));
    }
    for (to, text) in args.iter_mut().zip(texts) {
        *to = parse_argument(text)
            .ok_or_else(|| Failure::usage(format!("`{text}` is neither a number nor a known constant")))?;
    }
    Ok(args)
}

fn start(context: &Context, ports: &[(nexus_abi::Protocol, u16)], tamper: &dyn Tamper) -> Result<Live, Failure> {
    let setup = Setup {
        policy: context.policy_directory.as_deref(),
        subject: context.subject(),
        own: &context.own,
        ports,
        tamper,
    };
    Live::start(&setup, &context.places.state)
}

fn finish(
    context: &Context,
    live: Live,
    claims: &[(Claim, claim::Seen)],
    tamper: &dyn Tamper,
) -> Result<Found, Failure> {
    let session = live.session.clone();
    let mut evidence = live.finish(tamper)?;
    let findings = claim::judge(context, &session, claims, &mut evidence);
    Ok(Found {
        subject: context.subject().to_owned(),
        version: context.version().to_owned(),
        session,
        findings,
        left_out: Vec::new(),
    })
}
