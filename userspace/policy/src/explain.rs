//! Why a request gets its verdict: the evaluators that enforcement uses, with what they looked at.

use std::net::SocketAddr;

use nexus_abi::{Area, Effect, Errno, Protocol, Reason, RuleRef, Verdict, syscall};
use nexus_abi_policy::{Call, CompileError as ProfileError, Destination, Fact, Guard, Outcome, Request, Step};
use nexus_net_egress::{
    Cidr, CompileError, EgressRule, HostAddresses, Reach, SpecialKind, acted_on, judged_as, special_block,
};
use nexus_quota::{Account, Amount, charged_bytes};

mod view;

use crate::effective::SubjectPolicy;
use crate::gate::{EgressFacts, EgressGate};
use crate::settings::WorkMode;

/// Steps of one judge that are kept, as the guard's own trace keeps them: past this no reader follows.
pub const EXPLAIN_STEPS_MAX: usize = nexus_abi_policy::TRACE_STEPS_MAX;

/// What somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// connect(2) to an address.
    Connect(Protocol, SocketAddr),
    /// connect(2) to an address that a name was resolved to.
    ConnectName(Protocol, String, u16),
    /// bind(2).
    Bind(Protocol, SocketAddr),
    /// sendto(2) on a socket that is not connected.
    SendTo(Protocol, SocketAddr),
    /// A call by its registers.
    Syscall(Call),
    /// Growing an area by so many bytes, of which so many are used.
    Write {
        /// Which area.
        area: Area,
        /// By how many bytes a file grows.
        bytes: u64,
        /// What is used before.
        used_bytes: u64,
    },
    /// Opening a path.
    Open {
        /// Absolute.
        path: String,
        /// The caller's home.
        home: Option<String>,
        /// The work directory of the run, if it has one.
        work: Option<String>,
    },
}

/// One thing that a judge looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The rule, if it is one.
    pub rule: Option<RuleRef>,
    /// Whether it opens or closes.
    pub effect: Option<Effect>,
    /// What became of it, in words.
    pub outcome: String,
}

/// What one judge said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Who: `syscalls`, `egress`, `names`, `budget`, `view`.
    pub by: &'static str,
    /// What was asked of it.
    pub asked: String,
    /// What it said.
    pub verdict: Verdict,
    /// What it looked at, in its order.
    pub considered: Vec<Considered>,
    /// Whether there was more than is kept.
    pub is_cut: bool,
}

/// How a verdict came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict, with the rule that decided or that stands for the lack of one.
    pub verdict: Verdict,
    /// Every judge that was asked, in the order of enforcement. The last one decided.
    pub judged: Vec<Judged>,
    /// What follows besides.
    pub notes: Vec<String>,
}

/// Why nothing can be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The egress rules make no table.
    #[error(transparent)]
    Egress(#[from] CompileError),
    /// The syscall rules make no guard.
    #[error("{0}")]
    Profile(ProfileError),
    /// This machine's table lacks the call.
    #[error("this machine has no call `{0}`")]
    Call(&'static str),
}

struct Explainer<'p> {
    subject: &'p SubjectPolicy,
    guard: Guard,
    gate: EgressGate,
    host: &'p HostAddresses,
    out: Explanation,
}

impl SubjectPolicy {
    /// Judges a question by the very evaluators that enforce, and says what they looked at. `host` are the host's own
    /// addresses.
    ///
    /// # Errors
    /// [`ExplainError`]: then `nx run` refuses the subject for the same reason.
    pub fn explain(&self, question: &Question, host: &HostAddresses) -> Result<Explanation, ExplainError> {
        let mut explainer = Explainer {
            subject: self,
            guard: Guard::new(&self.profiles()).map_err(ExplainError::Profile)?,
            gate: self.egress_gate()?,
            host,
            out: Explanation {
                verdict: Verdict::Allow { rule: None },
                judged: Vec::new(),
                notes: Vec::new(),
            },
        };
        explainer.judge(question)?;
        Ok(explainer.out)
    }
}

fn native(name: &'static str, args: [u64; 6]) -> Result<Call, ExplainError> {
    let number = syscall::number(name).ok_or(ExplainError::Call(name))?;
    Ok(Call::native(number, args))
}

impl Explainer<'_> {
    fn judge(&mut self, question: &Question) -> Result<(), ExplainError> {
        match question {
            Question::Connect(protocol, to) => {
                if self.socket(*protocol, to.is_ipv4())? && self.call("connect", Some((*protocol, *to)))? {
                    self.egress(*protocol, *to);
                }
            }
            Question::ConnectName(protocol, name, port) => {
                if self.socket(*protocol, true)? {
                    self.name(*protocol, name, *port);
                }
            }
            Question::SendTo(protocol, to) => {
                if self.socket(*protocol, to.is_ipv4())? && self.call("sendto", Some((*protocol, *to)))? {
                    self.egress(*protocol, *to);
                }
            }
            Question::Bind(protocol, at) => {
                if self.socket(*protocol, at.is_ipv4())? && self.call("bind", Some((*protocol, *at)))? {
                    self.bind(*protocol, *at);
                }
            }
            Question::Syscall(call) => {
                self.guard(Request::scalar(*call), describe(call));
            }
            Question::Write {
                area,
                bytes,
                used_bytes,
            } => {
                if self.call("write", None)? {
                    self.budget(*area, *bytes, *used_bytes);
                }
            }
            Question::Open { path, home, work } => {
                if self.call("openat", None)? {
                    self.path(path, home.as_deref(), work.as_deref());
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, judged: Judged) -> bool {
        self.out.verdict = judged.verdict;
        self.out.judged.push(judged);
        self.out.verdict.is_allow()
    }

    /// Making the socket comes first.
    fn socket(&mut self, protocol: Protocol, is_v4: bool) -> Result<bool, ExplainError> {
        // AF_INET, AF_INET6; SOCK_STREAM, SOCK_DGRAM (socket(2)).
        let domain = if is_v4 { 2 } else { 10 };
        let (kind, word) = match protocol {
            Protocol::Tcp => (1, "SOCK_STREAM"),
            Protocol::Udp => (2, "SOCK_DGRAM"),
        };
        let call = native("socket", [domain, kind, 0, 0, 0, 0])?;
        let family = if is_v4 { "AF_INET" } else { "AF_INET6" };
        Ok(self.guard(Request::scalar(call), format!("socket({family}, {word}, 0)")))
    }

    /// A call whose registers are descriptors, addresses and lengths: zeros stand for them.
    fn call(&mut self, name: &'static str, to: Option<(Protocol, SocketAddr)>) -> Result<bool, ExplainError> {
        let request = Request {
            destination: match to {
                Some((protocol, address)) => Fact::Is(Destination { protocol, address }),
                None => Fact::Nothing,
            },
            growth: Fact::Nothing,
            ..Request::scalar(native(name, [0; 6])?)
        };
        Ok(self.guard(request, name.to_owned()))
    }

    fn guard(&mut self, request: Request, asked: String) -> bool {
        let known = EgressFacts {
            gate: &self.gate,
            host: self.host,
            names: &[],
        };
        let judgement = self.guard.explain(&request, &known);
        let mut verdict = judgement.verdict;
        let layers: Vec<RuleRef> = self.subject.syscalls.iter().map(|layer| layer.no_rule).collect();
        let considered = judgement.trace.steps().iter().map(|step| {
            let stands_for = |profile: &u8| layers.get(usize::from(*profile)).copied();
            match step {
                Step::Foreign => plain("the call comes through another ABI"),
                Step::Rule {
                    rule, effect, outcome, ..
                } => Considered {
                    rule: Some(*rule),
                    effect: Some(*effect),
                    outcome: match outcome {
                        Outcome::Matched => "matched".to_owned(),
                        Outcome::Failed { condition } => {
                            format!("condition {} does not hold", u16::from(*condition) + 1)
                        }
                        Outcome::Refused { condition, reason } => {
                            format!("condition {} is refused: {reason}", u16::from(*condition) + 1)
                        }
                        Outcome::Unknown { condition } => {
                            format!(
                                "condition {} cannot be known from the registers",
                                u16::from(*condition) + 1
                            )
                        }
                    },
                },
                Step::Probed { profile } => Considered {
                    rule: self.probe(usize::from(*profile), request.call.number),
                    effect: None,
                    outcome: "probed: answered as by a kernel without it".to_owned(),
                },
                Step::NoRule { profile, reason } => Considered {
                    rule: stands_for(profile),
                    effect: None,
                    outcome: format!("no rule allows it: {reason}"),
                },
            }
        });
        let considered: Vec<Considered> = considered.collect();
        if let Verdict::Deny { rule: rule @ None, .. } = &mut verdict {
            *rule = considered.last().and_then(|last| last.rule);
        }
        self.push(Judged {
            by: "syscalls",
            asked,
            verdict,
            considered,
            is_cut: judgement.trace.is_cut(),
        })
    }

    /// The rule that lists a number as probed.
    fn probe(&self, profile: usize, number: u32) -> Option<RuleRef> {
        let layer = self.subject.syscalls.iter().nth(profile)?;
        let found = layer.probes.iter().find(|(numbers, _)| numbers.contains(&number));
        found.map(|(_, rule)| *rule).or(Some(layer.no_rule))
    }

    fn egress(&mut self, protocol: Protocol, to: SocketAddr) {
        let route = self.gate.judge(protocol, to.ip(), to.port(), self.host);
        let judged = judged_as(to.ip());
        let block = special_block(judged);
        let is_host = self.host.contains(judged);
        let mut considered = Vec::new();
        if judged != to.ip() {
            considered.push(plain(&format!("{} is judged as {judged}", to.ip())));
        }
        let is_loopback = block.is_some_and(|block| block.kind == SpecialKind::Loopback);
        // Loopback stays loopback, whatever else it is.
        let naming = match block {
            _ if is_host && !is_loopback => Some(Cidr::host(judged).prefix()),
            block => block.map(|block| block.prefix),
        };
        if is_host && !is_loopback {
            considered.push(plain(&format!(
                "{judged} is an address of this host: only a rule for exactly it opens it"
            )));
        } else if let Some(block) = block {
            considered.push(plain(&format!(
                "{judged} is special ({:?}): only a rule inside {}/{} opens it",
                block.kind, block.address, block.prefix
            )));
        }
        let mut is_cut = false;
        for layer in self.subject.egress.iter() {
            let speaks = |rule: &&EgressRule| rule.protocol == protocol && rule.cidr.contains(judged);
            let mut rules: Vec<&EgressRule> = layer.rules.iter().filter(speaks).collect();
            rules.sort_by_key(|rule| {
                let deny_first = rule.effect == Effect::Allow;
                (deny_first, std::cmp::Reverse(rule.cidr.prefix()), rule.rule)
            });
            for rule in &rules {
                let has_port = rule.ports.iter().any(|range| range.contains(to.port()));
                let is_wide = naming.is_some_and(|shortest| rule.cidr.prefix() < shortest);
                let outcome = if !has_port {
                    format!("covers {judged} and not port {}", to.port())
                } else if rule.effect == Effect::Allow && is_wide {
                    "too wide to open a special address".to_owned()
                } else {
                    "matched".to_owned()
                };
                considered.push(Considered {
                    rule: Some(rule.rule),
                    effect: Some(rule.effect),
                    outcome,
                });
            }
            if rules.is_empty() {
                considered.push(Considered {
                    rule: Some(layer.no_rule),
                    effect: None,
                    outcome: format!("no rule speaks of {protocol} {judged}"),
                });
            }
            if considered.len() > EXPLAIN_STEPS_MAX {
                considered.truncate(EXPLAIN_STEPS_MAX);
                is_cut = true;
            }
        }
        match route.reach {
            Some(Reach::OwnLoopback) => self
                .out
                .notes
                .push("it is the subject's own loopback, which reaches nobody else".to_owned()),
            Some(Reach::Outside) if acted_on(to.ip()) != to.ip() => {
                self.out.notes.push(format!("{} is acted on", acted_on(to.ip())));
            }
            _ => {}
        }
        self.push(Judged {
            by: "egress",
            asked: format!("{protocol} {to}"),
            verdict: route.verdict,
            considered,
            is_cut,
        });
    }

    /// Whether a name may be resolved, and whether a port of its addresses is then open.
    fn name(&mut self, protocol: Protocol, name: &str, port: u16) {
        let verdict = match self.gate.judge_name(name) {
            Ok(grants) => self.gate.judge_port(&grants, protocol, port),
            Err(denied) => denied,
        };
        let mut considered = Vec::new();
        for layer in self.subject.egress.iter() {
            let before = considered.len();
            for rule in layer.names.iter().filter(|rule| rule.pattern.covers(name)) {
                let has_port = rule.ports.iter().any(|range| range.contains(port));
                considered.push(Considered {
                    rule: Some(rule.rule),
                    effect: Some(rule.effect),
                    outcome: match (rule.protocol == protocol, has_port) {
                        (false, _) => format!("covers {name} and not {protocol}"),
                        (true, false) => format!("covers {name} and not port {port}"),
                        (true, true) => "matched".to_owned(),
                    },
                });
            }
            if considered.len() == before {
                considered.push(Considered {
                    rule: Some(layer.no_rule),
                    effect: None,
                    outcome: format!("no rule speaks of {name}"),
                });
            }
        }
        let is_cut = considered.len() > EXPLAIN_STEPS_MAX;
        considered.truncate(EXPLAIN_STEPS_MAX);
        if verdict.is_allow() {
            self.out.notes.push(
                "the addresses that it is resolved to are judged too: one that a rule denies stays denied, and a special one \
                 closed"
                    .to_owned(),
            );
        }
        self.push(Judged {
            by: "names",
            asked: format!("{protocol} {name}:{port}"),
            verdict,
            considered,
            is_cut,
        });
    }

    /// A local address is one of the program's own network, but where a rule gives a port of the host's to send from.
    fn bind(&mut self, protocol: Protocol, at: SocketAddr) {
        let (ip, port) = (at.ip().to_canonical(), at.port());
        let mut considered = Vec::new();
        for rule in self.subject.egress.iter().flat_map(|layer| &layer.binds) {
            if rule.protocol == protocol && rule.ports.iter().any(|range| range.contains(port)) {
                considered.push(Considered {
                    rule: Some(rule.rule),
                    effect: Some(Effect::Allow),
                    outcome: "matched".to_owned(),
                });
            }
        }
        let is_cut = considered.len() > EXPLAIN_STEPS_MAX;
        considered.truncate(EXPLAIN_STEPS_MAX);
        let by_rule = port != 0 && self.gate.allows_bind(protocol, port);
        let rule = considered.first().filter(|_| by_rule).and_then(|first| first.rule);
        let is_own = !self.gate.opens(protocol) || ip.is_loopback();
        let is_host = self.host.contains(judged_as(ip)) && !ip.is_unspecified();
        let verdict = match () {
            () if is_own || by_rule || !is_host || port == 0 => Verdict::Allow { rule },
            () => Verdict::Deny {
                reason: Reason::EgressNoRule,
                errno: Errno::EPERM,
                rule: self.gate.bind_rule_missing(),
            },
        };
        if verdict.is_allow() {
            self.out.notes.push(if !is_own && (by_rule || is_host) {
                format!("{at} is the host's, to send from: nothing listens there")
            } else {
                format!("{at} is one of the program's own network: nobody outside of the session reaches it")
            });
        }
        self.push(Judged {
            by: "egress",
            asked: format!("bind {protocol} {at}"),
            verdict,
            considered,
            is_cut,
        });
    }

    fn budget(&mut self, area: Area, bytes: u64, used_bytes: u64) {
        let Some(given) = self.subject.budgets.get(area) else {
            return;
        };
        let used = Amount {
            bytes: charged_bytes(used_bytes).unwrap_or(u64::MAX),
            ..Amount::ZERO
        };
        let mut account = Account::new(given.budget, used);
        // What no file can be long is more than any budget.
        let wanted = Amount {
            bytes: charged_bytes(bytes).unwrap_or(u64::MAX),
            ..Amount::ZERO
        };
        let decision = account.charge(wanted);
        let mut verdict = decision.verdict;
        match &mut verdict {
            Verdict::Allow { rule } | Verdict::Deny { rule, .. } => *rule = given.hard_rule,
        }
        let mut considered = vec![plain(&format!(
            "{} bytes are charged in blocks of 4096, {} are used, {} fit",
            wanted.bytes, used.bytes, given.budget.hard_bytes
        ))];
        match (given.hard_rule, given.budget.hard_bytes) {
            (None, _) => considered.push(plain("no rule gives the area a budget: nothing may be written")),
            (rule, bytes) => considered.push(Considered {
                rule,
                effect: None,
                outcome: format!("the hard limit, {bytes} bytes"),
            }),
        }
        if let Some(soft) = given.budget.soft_bytes {
            considered.push(Considered {
                rule: given.soft_rule,
                effect: None,
                outcome: match decision.warning {
                    Some(reason) => format!("the soft limit, {soft} bytes, is crossed: {reason} is recorded"),
                    None => format!("the soft limit, {soft} bytes"),
                },
            });
        }
        if area == Area::Work && self.subject.work != WorkMode::Metered {
            self.out.notes.push(format!(
                "`work` is `{}` for this subject, not metered",
                self.subject.work
            ));
        }
        self.push(Judged {
            by: "budget",
            asked: format!("{area} +{bytes} bytes"),
            verdict,
            considered,
            is_cut: false,
        });
    }
}

fn plain(text: &str) -> Considered {
    Considered {
        rule: None,
        effect: None,
        outcome: text.to_owned(),
    }
}

fn describe(call: &Call) -> String {
    let Some(known) = syscall::by_number(call.number) else {
        return format!("syscall {}", call.number);
    };
    let args: Vec<String> = call
        .args
        .iter()
        .take(known.arguments())
        .map(|arg| format!("{arg:#x}"))
        .collect();
    format!("{}({})", known.name(), args.join(", "))
}

/// An argument of a call as a policy writes it: `42`, `0x2a`, `-100`, `AF_INET`, `O_RDWR|O_CREAT`. `None`: it is none.
#[must_use]
pub fn parse_argument(text: &str) -> Option<u64> {
    text.split('|').try_fold(0_u64, |all, part| {
        let part = part.trim();
        let value = match part.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None if part.starts_with('-') => part.parse::<i64>().ok().map(i64::cast_unsigned),
            None => part.parse().ok().or_else(|| crate::constants::constant(part)),
        }?;
        Some(all | value)
    })
}
