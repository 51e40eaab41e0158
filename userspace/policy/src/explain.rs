//! Why a request gets its verdict: the evaluators that enforcement uses, with what they looked at.

use std::net::SocketAddr;

use nexus_abi::{Area, Effect, Errno, Protocol, Reason, RuleRef, Verdict, syscall};
use nexus_abi_policy::{
    Call, CompileError as ProfileError, Destination, Fact, Facts, Growth, Guard, NoFacts, Outcome, Request, Step,
};
use nexus_net_egress::{
    Cidr, CompileError, EgressRule, HostAddresses, Reach, SpecialKind, acted_on, judged_as, special_block,
};
use nexus_quota::{Account, Amount, charged_bytes};

use crate::effective::SubjectPolicy;
use crate::gate::EgressGate;
use crate::paths::is_within;
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

struct Known<'a> {
    gate: &'a EgressGate,
    host: &'a HostAddresses,
}

impl Facts for Known<'_> {
    fn egress(&self, to: &Destination) -> Verdict {
        self.gate
            .judge(to.protocol, to.address.ip(), to.address.port(), self.host)
            .verdict
    }

    fn budget(&self, growth: &Growth) -> Verdict {
        NoFacts.budget(growth)
    }
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
                if self.socket(*protocol, at.is_ipv4())? && self.call("bind", None)? {
                    self.out.notes.push(format!(
                        "{at} is one of the program's own network: nobody outside of the session reaches it"
                    ));
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
        let known = Known {
            gate: &self.gate,
            host: self.host,
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

    /// Each layer has to open the name, and none may close it; the addresses that it is resolved to are judged besides.
    fn name(&mut self, protocol: Protocol, name: &str, port: u16) {
        let mut considered = Vec::new();
        let mut verdict = Verdict::Allow { rule: None };
        for layer in self.subject.egress.iter() {
            let speaking = layer
                .names
                .iter()
                .filter(|rule| rule.protocol == protocol && rule.pattern.covers(name));
            let has = |rule: &crate::NameRule| rule.ports.iter().any(|range| range.contains(port));
            let mut said = None;
            for rule in speaking {
                considered.push(Considered {
                    rule: Some(rule.rule),
                    effect: Some(rule.effect),
                    outcome: if has(rule) {
                        "matched".to_owned()
                    } else {
                        format!("covers {name} and not port {port}")
                    },
                });
                if has(rule) && (said.is_none() || rule.effect == Effect::Deny) {
                    said = Some((rule.effect, rule.rule));
                }
            }
            let of_layer = match said {
                Some((Effect::Allow, rule)) => Verdict::Allow { rule: Some(rule) },
                Some((Effect::Deny, rule)) => denied(Reason::EgressDenyRule, rule),
                None => {
                    considered.push(Considered {
                        rule: Some(layer.no_rule),
                        effect: None,
                        outcome: format!("no rule allows {protocol} {name}:{port}"),
                    });
                    denied(Reason::EgressNoRule, layer.no_rule)
                }
            };
            verdict = of_layer;
            if !of_layer.is_allow() {
                break;
            }
        }
        let is_cut = considered.len() > EXPLAIN_STEPS_MAX;
        considered.truncate(EXPLAIN_STEPS_MAX);
        self.out
            .notes
            .push("judged by name alone: the addresses behind it are judged too, when they are known".to_owned());
        self.push(Judged {
            by: "names",
            asked: format!("{protocol} {name}:{port}"),
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

    fn path(&mut self, path: &str, home: Option<&str>, work: Option<&str>) {
        let setting = |key: &str| {
            let mut layers = self.subject.settings.iter();
            layers.next_back().and_then(|layer| layer.get(key)).copied()
        };
        let found = self.place(path, home, work, &setting);
        let (verdict, considered) = match found {
            Some((rule, outcome)) => (
                Verdict::Allow { rule },
                Considered {
                    rule,
                    effect: None,
                    outcome,
                },
            ),
            None => (
                Verdict::Deny {
                    reason: Reason::VfsOutsideView,
                    errno: Errno::from_name("ENOENT").unwrap_or(Errno::EPERM),
                    rule: None,
                },
                plain("no rule shows it: to the program it is not there"),
            ),
        };
        self.push(Judged {
            by: "view",
            asked: path.to_owned(),
            verdict,
            considered: vec![considered],
            is_cut: false,
        });
    }

    /// What the view shows at a path, by which rule.
    fn place(
        &self,
        path: &str,
        home: Option<&str>,
        work: Option<&str>,
        setting: &dyn Fn(&str) -> Option<RuleRef>,
    ) -> Option<(Option<RuleRef>, String)> {
        let budget = |area: Area| self.subject.budgets.get(area).and_then(|given| given.hard_rule);
        for (at, area) in [("/tmp", Area::Tmp), ("/var/tmp", Area::Tmp), ("/state", Area::State)] {
            if is_within(path, at) {
                return Some((
                    budget(area),
                    format!("lies in the area `{area}`: reading and writing within its budget"),
                ));
            }
        }
        if let Some(name) = path.strip_prefix("/dev/") {
            let name = name.split('/').next().unwrap_or_default();
            let device = self.subject.dev.iter().find(|device| device.as_str() == name)?;
            return Some((setting("dev"), format!("the device `{device}`")));
        }
        if path == "/proc" || is_within(path, "/proc") {
            return Some((None, "the session's own processes".to_owned()));
        }
        let shown = self.subject.view(home);
        let shown = shown.iter().rfind(|shown| is_within(path, &shown.path));
        // The work directory is mounted over what else is shown there.
        if let Some(work) = work.filter(|work| is_within(path, work) && self.subject.work != WorkMode::None) {
            let below = path.strip_prefix(work).unwrap_or_default().trim_start_matches('/');
            let protected = self.subject.work_protect.iter().any(|own| is_within(below, own));
            let (key, what) = match self.subject.work {
                WorkMode::None | WorkMode::ReadOnly => ("work", "read-only"),
                _ if protected => ("work_protect", "read-only: it is protected"),
                WorkMode::Metered => ("work", "reading, and writing within its budget"),
                WorkMode::Unmetered => ("work", "reading and writing"),
            };
            return Some((setting(key), format!("lies in the work directory: {what}")));
        }
        let shown = shown?;
        let optional = if shown.optional { ", where it is there" } else { "" };
        Some((
            Some(shown.rule),
            format!("shown read-only by `{}`{optional}", shown.path),
        ))
    }
}

fn plain(text: &str) -> Considered {
    Considered {
        rule: None,
        effect: None,
        outcome: text.to_owned(),
    }
}

fn denied(reason: Reason, rule: RuleRef) -> Verdict {
    Verdict::Deny {
        reason,
        errno: Errno::EPERM,
        rule: Some(rule),
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
