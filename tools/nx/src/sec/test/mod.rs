//! `nx sec test`: a probe in the subject's real sandbox tries what policy speaks of, and nothing is called proven that was
//! not seen from three sides: what the probe was told, what the journal holds, and what the counters count.
//!
//! The session is made by the code that makes every other (`run::prove`): the same plan, filter, file server, judge and
//! journal, under the same policy and identity. What differs is said in docs/security/nx-sec.md.

mod all;
mod args;
mod binds;
mod claim;
mod context;
mod deny;
mod egress;
mod evidence;
mod fences;
mod interrupt;
mod ipc;
mod kernel;
mod limits;
mod live;
mod names;
mod network;
mod others;
mod quota;
mod report;
mod scratch;
mod sockets;
mod tamper;
mod view;

pub(crate) use args::TestCommand;
pub(crate) use tamper::Honest;
pub use tamper::{Tamper, prove_with};

use super::output::{self, Said};
use crate::run::{Exit, Failure};
use args::{AllArgs, DenyArgs, EgressArgs, Expected, Format, How, QuotaArgs, TestedArea};
use claim::{Claim, Finding, Status};
use context::Context;
use egress::Target;
use evidence::Evidence;
use interrupt::Interrupt;
use live::{Live, Setup};
use nexus_abi::{Area, Protocol};
use nexus_policy::parse_argument;
use others::Others;
use std::net::SocketAddr;

/// Everything that was found for one subject.
pub(crate) struct Found {
    subject: String,
    version: String,
    sessions: Vec<String>,
    findings: Vec<Finding>,
    /// What policy says and no proof looked at, each with why.
    left_out: Vec<String>,
    /// Running sessions that are under another policy than what is proven.
    others: Others,
}

/// Does what the command line says, and gives the status that `nx` ends with.
pub(crate) fn main(command: &TestCommand, tamper: &dyn Tamper) -> u8 {
    let interrupt = match Interrupt::begin() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            let failure = Failure::internal(format!("signals cannot be blocked: {error}"));
            return output::finish(Err(failure), false);
        }
    };
    let (result, format) = match command {
        TestCommand::Deny(args) => (deny(args, tamper), args.common.how.format()),
        TestCommand::Egress(args) => (egress(args, tamper), args.common.how.format()),
        TestCommand::Quota(args) => (quota(args, tamper), args.common.how.format()),
        TestCommand::All(args) => (all(args, tamper), args.how.format()),
    };
    let said = result.map(|found| Said {
        text: report::write(&found, format),
        code: code(&found),
    });
    // What was found until then is no proof, and nobody is told.
    if let Some(code) = interrupt.end() {
        return code;
    }
    output::finish(said, format == Format::Json)
}

/// 3 if anything failed, 6 if nothing could be looked at, else 0.
fn code(found: &[Found]) -> u8 {
    let mut statuses = found
        .iter()
        .flat_map(|found| &found.findings)
        .map(|finding| &finding.status);
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
    if let Some(mute) = deny::mute(&context).filter(|mute| mute.attempt.number == number) {
        return unheard(&context, &mute, tamper).map(|found| vec![found]);
    }
    let denied = if args.arguments.is_empty() {
        deny::denied(&context, number).ok_or_else(|| deny::allowed_always(&context, number))?
    } else {
        deny::denied_with(&context, number, arguments(&args.arguments)?)?
    };
    if deny::is_addressed(number) && !deny::has_socket(&context) {
        return Err(Failure::unsupported(
            format!(
                "policy denies `{}`, and denies the probe the Unix socket on which that would be seen",
                args.syscall
            ),
            "`nx sec test deny --subject SUBJECT --syscall socket` proves that none can be made",
        ));
    }
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

fn egress(args: &EgressArgs, tamper: &dyn Tamper) -> Result<Vec<Found>, Failure> {
    let address: SocketAddr = args.to.parse().map_err(|_| {
        Failure::usage(format!("`{}` is no ADDRESS:PORT", args.to)).with_help(
            "such as `203.0.113.7:443` or `[2001:db8::1]:443`; a name is not asked for: a proof asks no name server",
        )
    })?;
    if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
        return Err(Failure::usage(format!("`{}` names an interface", args.to))
            .with_help("leave out what stands after `%`: policy speaks of addresses, whichever way they go"));
    }
    let protocol = if args.udp { Protocol::Udp } else { Protocol::Tcp };
    let target = Target { protocol, address };
    let context = Context::load(args.common.how.policy.as_deref(), &args.common.subject)?;
    let claim = egress::claim(&context, target);
    if let Some(expected) = args.expect
        && egress::contradicts(&claim, expected == Expected::Allow)
    {
        let (says, subject, rule) = (claim.wants.says(), context.subject(), claim.rule.text());
        return Err(Failure::rejected(
            format!("policy says {says} to {} for {subject}: rule {rule}", claim.name),
            "`nx policy explain` says how that came about; egress.toml is where it stands",
        ));
    }
    if let (Some(why), false) = (
        egress::unreachable(target),
        matches!(claim.wants, claim::Wants::Refusal(_)),
    ) {
        return Err(Failure::unsupported(
            format!("policy allows {}, and it cannot be seen to arrive: {why}", claim.name),
            "name another address of the same rule",
        ));
    }
    let ports: Vec<_> = Some((protocol, address.port()))
        .filter(|port| port.1 != 0)
        .into_iter()
        .collect();
    let mut live = start(&context, &ports, tamper)?;
    let seen = egress::attempt(&context, &mut live, target, &claim, Some(0));
    finish(&context, live, &[(claim, seen)], tamper).map(|found| vec![found])
}

fn quota(args: &QuotaArgs, tamper: &dyn Tamper) -> Result<Vec<Found>, Failure> {
    let context = Context::load(args.common.how.policy.as_deref(), &args.common.subject)?;
    if let Some(why) = quota::obstacle(&context) {
        return Err(Failure::unsupported(
            why,
            "the subject's syscall rules let it write nothing: see abi.toml",
        ));
    }
    let area = match args.area {
        TestedArea::Tmp => Area::Tmp,
        TestedArea::State => Area::State,
    };
    let mut live = start(&context, &[], tamper)?;
    let mut found = Found::none(&context);
    let (seen, other) = match quota::attempt(&context, &mut live, area, &mut found.left_out) {
        Ok(seen) => (seen, None),
        Err(finding) => (Vec::new(), Some(*finding)),
    };
    found.add(finish(&context, live, &seen, tamper)?);
    found.findings.extend(other);
    Ok(vec![found])
}

/// The most subjects of one run: what a person waits for. A larger policy is proven subject by subject.
const SUBJECTS_MAX: usize = 64;

fn all(args: &AllArgs, tamper: &dyn Tamper) -> Result<Vec<Found>, Failure> {
    let How { policy, .. } = &args.how;
    let subjects = match &args.subject {
        Some(subject) => vec![subject.clone()],
        None => {
            let places = policyd::Places::of_process(policy.clone());
            let loaded = policyd::load(&places).map_err(|error| crate::run::policy_failure(&error))?;
            loaded.policy.subjects().map(str::to_owned).collect()
        }
    };
    if subjects.len() > SUBJECTS_MAX {
        return Err(Failure::usage(format!(
            "policy speaks of {} subjects, and one run proves {SUBJECTS_MAX} at most",
            subjects.len()
        ))
        .with_help("name one: `--subject SUBJECT`"));
    }
    let prove = |subject: &String| all::prove(&Context::load(policy.as_deref(), subject)?, &args.part, tamper);
    subjects.iter().map(prove).collect()
}

/// Proves that the probe itself is refused what it needs: it tells the errno by how it ends.
fn unheard(context: &Context, mute: &deny::Denied, tamper: &dyn Tamper) -> Result<Found, Failure> {
    let live = start_as(context, &[], &[], true, tamper)?;
    let (claim, _) = deny::claim(context, mute);
    finish_as(context, live, tamper, |evidence| {
        let errno = evidence.status.map_or(0, |status| -i64::from(status));
        vec![(claim, claim::Seen::value(Ok(errno)))]
    })
}

fn start(context: &Context, ports: &[(Protocol, u16)], tamper: &dyn Tamper) -> Result<Live, Failure> {
    start_with(context, ports, &[], tamper)
}

/// The same with a proof that answers for these name servers.
fn start_with(
    context: &Context,
    ports: &[(Protocol, u16)],
    servers: &[SocketAddr],
    tamper: &dyn Tamper,
) -> Result<Live, Failure> {
    match deny::mute(context) {
        Some(mute) => Err(deny::unheard(&mute)),
        None => start_as(context, ports, servers, false, tamper),
    }
}

fn start_as(
    context: &Context,
    ports: &[(Protocol, u16)],
    servers: &[SocketAddr],
    mute: bool,
    tamper: &dyn Tamper,
) -> Result<Live, Failure> {
    let setup = Setup {
        policy: context.policy_directory.as_deref(),
        subject: context.subject(),
        own: &context.own,
        ports,
        servers,
        mute,
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
    finish_as(context, live, tamper, |_| claims.to_vec())
}

fn finish_as(
    context: &Context,
    live: Live,
    tamper: &dyn Tamper,
    claims: impl FnOnce(&Evidence) -> Vec<(Claim, claim::Seen)>,
) -> Result<Found, Failure> {
    let session = live.session.clone();
    let mut evidence = live.finish(tamper)?;
    let claims = claims(&evidence);
    let who = claim::Who {
        subject: context.subject(),
        session: &session,
        policy: context.version(),
    };
    let findings = claim::judge(who, &claims, &mut evidence);
    Ok(Found {
        sessions: vec![session],
        findings,
        ..Found::none(context)
    })
}

impl Found {
    fn none(context: &Context) -> Self {
        Self {
            subject: context.subject().to_owned(),
            version: context.version().to_owned(),
            sessions: Vec::new(),
            findings: Vec::new(),
            left_out: Vec::new(),
            others: Others::of(context),
        }
    }

    fn add(&mut self, other: Self) {
        self.sessions.extend(other.sessions);
        self.findings.extend(other.findings);
        self.left_out.extend(other.left_out);
    }
}
