//! `nx policy explain`

use super::args::ExplainArgs;
use super::json::{self, VERSION};
use super::{Result, Said, at, in_force, plain, subject};
use crate::run::{Failure, enforceable};
use nexus_abi::{Area, Effect, Protocol, RuleRef, Verdict, syscall};
use nexus_abi_policy::Call;
use nexus_net_egress::HostAddresses;
use nexus_policy::{Explanation, Policy, Question, parse_argument, parse_size};
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// Lines of a rule that are shown: enough for any rule that a person wrote.
const SOURCE_LINES_MAX: usize = 12;

pub(crate) fn explain(args: &ExplainArgs) -> Result<Said> {
    let question = question(args)?;
    let loaded = in_force(args.policy.as_ref())?;
    let policy = &loaded.policy;
    let rules = subject(policy, &args.subject)?;
    let host = nexus_sys::interface::addresses()
        .ok()
        .and_then(|addresses| HostAddresses::new(addresses).ok())
        .ok_or_else(|| Failure::internal("the host's own addresses cannot be listed".to_owned()))?;
    let mut explanation = rules
        .explain(&question, &host)
        .map_err(|error| Failure::rejected(error.to_string(), "see `nx policy validate`"))?;
    if let Err(failure) = enforceable::check(&rules, policy) {
        explanation.notes.push(format!(
            "`nx run` starts nothing under this subject here: {}",
            failure.message
        ));
    }
    let asked = args.question.join(" ");
    let text = if args.json {
        format!("{}\n", to_json(&explanation, policy, &args.subject, &asked))
    } else {
        to_text(&explanation, policy, &args.subject, &asked)
    };
    // Saying what would become of it is no failure, whatever it is.
    Ok(Said::fine(text))
}

const QUESTIONS: &str = "ask one of: connect tcp ADDRESS:PORT · connect tcp NAME:PORT · bind tcp ADDRESS:PORT · \
                         sendto udp ADDRESS:PORT · syscall NAME [ARGUMENT…] · write AREA SIZE · open PATH";

fn wrong(message: String) -> Failure {
    Failure::usage(message).with_help(QUESTIONS)
}

fn question(args: &ExplainArgs) -> std::result::Result<Question, Failure> {
    let words: Vec<&str> = args.question.iter().map(String::as_str).collect();
    // A question may begin a word with `-`, as in `syscall ioctl -1`, so what stands behind it is never an option.
    if let Some(option) = words.iter().find(|word| word.starts_with("--")) {
        let help = format!(
            "options stand before the subject: `nx policy explain {option} … {} …`",
            args.subject
        );
        return Err(Failure::usage(format!("`{option}` is no part of a question")).with_help(&help));
    }
    match words.as_slice() {
        ["connect", rest @ ..] => {
            let (protocol, to) = protocol(rest, Protocol::Tcp)?;
            match address(to) {
                Some(address) => Ok(Question::Connect(protocol, address)),
                None => name(to, protocol),
            }
        }
        ["bind", rest @ ..] => {
            let (protocol, to) = protocol(rest, Protocol::Tcp)?;
            let address = address(to).ok_or_else(|| wrong(format!("`{to}` is no ADDRESS:PORT")))?;
            Ok(Question::Bind(protocol, address))
        }
        ["sendto", rest @ ..] => {
            let (protocol, to) = protocol(rest, Protocol::Udp)?;
            let address = address(to).ok_or_else(|| wrong(format!("`{to}` is no ADDRESS:PORT")))?;
            Ok(Question::SendTo(protocol, address))
        }
        ["syscall", name, arguments @ ..] => call(name, arguments),
        ["write", area, wanted] => {
            let area = Area::ALL
                .into_iter()
                .find(|known| known.as_str() == *area)
                .ok_or_else(|| wrong(format!("`{area}` is no area: tmp, state or work")))?;
            let size = |text: &str| {
                parse_size(text).map_err(|help| Failure::usage(format!("`{text}` is no size")).with_help(help))
            };
            Ok(Question::Write {
                area,
                bytes: size(wanted)?,
                used_bytes: args.used.as_deref().map_or(Ok(0), size)?,
            })
        }
        ["open", path] if path.starts_with('/') && !path.split('/').any(|part| matches!(part, "." | "..")) => {
            let work = args.work.as_deref().and_then(|work| std::fs::canonicalize(work).ok());
            Ok(Question::Open {
                path: (*path).to_owned(),
                home: std::env::var("HOME").ok(),
                work: work.map(|work| work.to_string_lossy().into_owned()),
            })
        }
        ["open", path] => Err(wrong(format!("`{path}` is no absolute path without `.` and `..`"))),
        _ => Err(wrong(format!("`{}` is no question", words.join(" ")))),
    }
}

fn protocol<'w>(words: &[&'w str], default: Protocol) -> std::result::Result<(Protocol, &'w str), Failure> {
    match words {
        ["tcp", to] => Ok((Protocol::Tcp, to)),
        ["udp", to] => Ok((Protocol::Udp, to)),
        [to] => Ok((default, to)),
        _ => Err(wrong("a protocol and one destination are needed".to_owned())),
    }
}

/// `203.0.113.7:443`, `[2001:db8::1]:443`
fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

fn name(text: &str, protocol: Protocol) -> std::result::Result<Question, Failure> {
    let (name, port) = text
        .rsplit_once(':')
        .and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)))
        .ok_or_else(|| wrong(format!("`{text}` is neither ADDRESS:PORT nor NAME:PORT")))?;
    let is_name = !name.is_empty()
        && name.parse::<IpAddr>().is_err()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !is_name {
        return Err(wrong(format!("`{name}` is neither an address nor a DNS name")));
    }
    Ok(Question::ConnectName(protocol, name.to_owned(), port))
}

fn call(name: &str, arguments: &[&str]) -> std::result::Result<Question, Failure> {
    let number = syscall::number(name)
        .or_else(|| name.parse().ok())
        .ok_or_else(|| wrong(format!("this machine has no call `{name}`")))?;
    let mut args = [0_u64; 6];
    if arguments.len() > args.len() {
        return Err(wrong("a call has at most six arguments".to_owned()));
    }
    for (to, text) in args.iter_mut().zip(arguments) {
        *to =
            parse_argument(text).ok_or_else(|| wrong(format!("`{text}` is neither a number nor a known constant")))?;
    }
    Ok(Question::Syscall(Call::native(number, args)))
}

fn effect(effect: Option<Effect>) -> &'static str {
    match effect {
        Some(Effect::Allow) => "allow",
        Some(Effect::Deny) => "deny",
        None => "",
    }
}

fn to_text(explanation: &Explanation, policy: &Policy, subject: &str, asked: &str) -> String {
    let mut out = String::new();
    let decided = match explanation.verdict {
        Verdict::Allow { rule } => {
            let _ = writeln!(out, "allowed      {subject}: {}", plain(asked));
            rule
        }
        Verdict::Deny { reason, errno, rule } => {
            let _ = writeln!(out, "denied       {subject}: {}", plain(asked));
            let _ = writeln!(out, "reason       {reason} (errno {errno})");
            rule
        }
    };
    if let Some(rule) = decided {
        let info = policy.rule(rule);
        let id = info.as_ref().map(|info| info.id.to_string()).unwrap_or_default();
        let _ = writeln!(out, "rule         {} {id}", at(policy, rule));
        source(&mut out, policy, rule);
    }
    for note in &explanation.notes {
        let _ = writeln!(out, "note         {note}");
    }
    let _ = writeln!(out, "policy       {}", policy.version());
    out.push_str("considered\n");
    for judged in &explanation.judged {
        let says = match judged.verdict {
            Verdict::Allow { .. } => "allowed".to_owned(),
            Verdict::Deny { reason, .. } => format!("denied: {reason}"),
        };
        let _ = writeln!(out, "  {} {}: {says}", judged.by, plain(&judged.asked));
        for step in &judged.considered {
            let place = step.rule.map(|rule| at(policy, rule)).unwrap_or_default();
            let _ = writeln!(
                out,
                "    {place:<28} {:<6} {}",
                effect(step.effect),
                plain(&step.outcome)
            );
        }
        if judged.is_cut {
            out.push_str("    and more\n");
        }
    }
    out
}

/// The rule as it stands in its file, with its line's number.
fn source(out: &mut String, policy: &Policy, rule: RuleRef) {
    let Some(info) = policy.rule(rule) else { return };
    let line = info
        .at
        .rsplit(':')
        .next()
        .and_then(|line| line.parse::<usize>().ok())
        .unwrap_or(0);
    let lines: Vec<&str> = info.text.lines().collect();
    for (number, text) in (line..).zip(lines.iter().take(SOURCE_LINES_MAX)) {
        let _ = writeln!(out, "  {number:>6} | {}", plain(text));
    }
    if lines.len() > SOURCE_LINES_MAX {
        let _ = writeln!(out, "         | … {} lines more", lines.len() - SOURCE_LINES_MAX);
    }
}

fn to_json(explanation: &Explanation, policy: &Policy, subject: &str, asked: &str) -> Value {
    let judged: Vec<Value> = explanation
        .judged
        .iter()
        .map(|judged| {
            let considered: Vec<Value> = judged
                .considered
                .iter()
                .map(|step| {
                    json!({
                        "rule": step.rule.map(|rule| json::rule(policy, rule)),
                        "effect": step.effect.map(|which| effect(Some(which))),
                        "outcome": step.outcome,
                    })
                })
                .collect();
            json!({
                "by": judged.by,
                "asked": judged.asked,
                "said": json::verdict(policy, judged.verdict),
                "considered": considered,
                "cut": judged.is_cut,
            })
        })
        .collect();
    json!({
        "version": VERSION,
        "ok": true,
        "policy": policy.version().to_string(),
        "subject": subject,
        "question": asked,
        "said": json::verdict(policy, explanation.verdict),
        "judged": judged,
        "notes": explanation.notes,
    })
}
