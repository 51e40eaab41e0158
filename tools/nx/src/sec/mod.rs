//! `nx sec`: what is in force here, and the proof of it.

mod args;
mod audit;
mod counters;
mod doctor;
mod journal;
mod output;
mod ps;
pub(crate) mod test;
mod time;
mod top;

pub(crate) use args::SecCommand;

/// Does what the command line says, and gives the status that `nx` ends with.
pub(crate) fn main(command: &SecCommand) -> u8 {
    match command {
        SecCommand::Audit(args) => audit::audit(args),
        SecCommand::Counters(args) => output::finish(counters::counters(args), args.says_json()),
        SecCommand::Doctor { json } => doctor::doctor(*json),
        SecCommand::Ps { json } => output::finish(ps::ps(*json), *json),
        SecCommand::Top => output::finish(top::top(), false),
        SecCommand::Test(command) => test::main(command, &test::Honest),
    }
}
