//! `nx` in which something is broken, so that `nx sec test` has a lie to catch: `broken WHAT sec test …`.
//!
//! The breaking lives here and nowhere else: `nx` itself has nothing that breaks it.

use execd::{Access, AreaMount, Entry, Plan};
use netd::Judges;
use nexus_policy::SubjectPolicy;
use nexus_sys::seccomp::Instruction;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

enum Broken {
    /// The kernel runs a filter that lets everything through.
    Filter,
    /// An area is a directory of the host's, which nobody charges.
    Ledger(PathBuf),
    /// The ledger has more than the policy gives.
    Budget,
    /// The journal loses its last record.
    Journal,
    /// A byte of the journal is another one.
    Chain,
    /// The counters begin again.
    Counters,
    /// Egress is judged by the policy of another directory.
    Egress(PathBuf),
    /// Records are held back after the first.
    Rate,
    /// The session begins this much later.
    Late(Duration),
    /// The session does not begin.
    Never,
}

impl nx::Tamper for Broken {
    fn decided(&self, plan: &mut Plan, judges: &mut Judges, rules: &mut SubjectPolicy) {
        match self {
            Self::Filter => {
                // BPF_RET | BPF_K, SECCOMP_RET_ALLOW (linux/seccomp.h)
                plan.filter = vec![Instruction {
                    code: 0x06,
                    jump_true: 0,
                    jump_false: 0,
                    k: 0x7fff_0000,
                }];
            }
            Self::Ledger(directory) => {
                for entry in &mut plan.view {
                    if let Entry::Area {
                        area: AreaMount::Tmp,
                        at,
                    } = entry
                    {
                        *entry = Entry::Bind {
                            source: directory.clone(),
                            at: at.clone(),
                            access: Access::ReadWrite,
                        };
                    }
                }
            }
            Self::Budget => {
                rules.budgets.tmp.budget.hard_bytes *= 2;
                rules.budgets.tmp.budget.hard_inodes *= 2;
            }
            Self::Egress(directory) => {
                let places = policyd::Places::of_process(Some(directory.clone()));
                let loaded = policyd::load(&places).expect("the other policy");
                let other = loaded.policy.subject(&rules.name).expect("its subject");
                judges.egress = other.egress_gate().expect("its rules");
            }
            Self::Rate => {
                rules.audit.rate = 1;
                rules.audit.burst = 1;
            }
            Self::Late(by) => std::thread::sleep(*by),
            Self::Never => std::thread::sleep(Duration::from_secs(600)),
            Self::Journal | Self::Chain | Self::Counters => {}
        }
    }

    fn patience(&self) -> Duration {
        match self {
            // As short as leaves room for the word that is said after two seconds.
            Self::Never => Duration::from_secs(3),
            _ => Duration::from_secs(20),
        }
    }

    fn over(&self, state: &Path) {
        let journal = state.join("journal");
        let current = journal.join("journal.jsonl");
        match self {
            Self::Journal => {
                let text = std::fs::read_to_string(&current).expect("the journal");
                let kept = text.lines().count().saturating_sub(1);
                let lines: Vec<&str> = text.lines().take(kept).collect();
                std::fs::write(&current, lines.join("\n") + "\n").expect("the journal again");
            }
            Self::Chain => {
                let text = std::fs::read_to_string(&current).expect("the journal");
                std::fs::write(&current, text.replace("\"suppressed\":0", "\"suppressed\":7"))
                    .expect("the journal again");
            }
            Self::Counters => std::fs::remove_file(journal.join("counters")).expect("the counters"),
            _ => {}
        }
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let what = words.next().expect("what is broken").into_string().expect("text");
    let mut directory = || PathBuf::from(words.next().expect("a directory"));
    let broken = match what.as_str() {
        "filter" => Broken::Filter,
        "ledger" => Broken::Ledger(directory()),
        "budget" => Broken::Budget,
        "journal" => Broken::Journal,
        "chain" => Broken::Chain,
        "counters" => Broken::Counters,
        "egress" => Broken::Egress(directory()),
        "rate" => Broken::Rate,
        "late" => Broken::Late(Duration::from_millis(2300)),
        "never" => Broken::Never,
        other => panic!("`{other}` cannot be broken"),
    };
    ExitCode::from(nx::prove_with(words, &broken))
}
