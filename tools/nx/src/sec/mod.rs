//! `nx sec`: what is in force here, and the proof of it.

mod about;
mod args;
mod audit;
mod counters;
mod doctor;
mod egress;
mod export;
mod help;
mod journal;
mod known;
mod lost;
pub(crate) mod output;
mod policy;
mod ps;
mod quotas;
mod readback;
mod sandbox;
mod syscalls;
pub(crate) mod test;
mod time;
mod top;
pub(crate) mod view;
mod words;

pub(crate) use args::SecCommand;
pub(crate) use help::SEC as HELP;

/// Does what the command line says, and gives the status that `nx` ends with.
pub(crate) fn main(command: &SecCommand) -> u8 {
    match command {
        SecCommand::Audit(args) => audit::audit(args),
        SecCommand::Counters(args) => output::finish(counters::counters(args), args.says_json()),
        SecCommand::Doctor { json } => doctor::doctor(*json),
        SecCommand::Policy(args::PolicyCommand::Show(args)) => output::finish(policy::show(args), args.json),
        SecCommand::Ps { json } => output::finish(ps::ps(*json), *json),
        SecCommand::Export(args) => output::finish(export::export(args), args.says_json()),
        SecCommand::Top(args) => output::finish(top::top(args), args.says_json()),
        SecCommand::Syscalls { about, all, read_back } => {
            output::finish(syscalls::syscalls(about, *all, *read_back, about.json), about.json)
        }
        SecCommand::Sandbox { about } => output::finish(sandbox::sandbox(about, about.json), about.json),
        SecCommand::Quotas { about } => output::finish(quotas::quotas(about, about.json), about.json),
        SecCommand::Egress { about } => output::finish(egress::egress(about, about.json), about.json),
        SecCommand::Test(command) => test::main(command, &test::Honest),
    }
}
