//! kill(2) with pid 0
//!
//! The program shares its first process group with `nx run` and with whatever else stands in the shell's pipeline; the
//! kernel would let a signal to that group out of the sandbox.

use crate::caller::Caller;
use crate::{Answer, Netd, Outcome, int};
use nexus_sys::seccomp::Notification;
use nexus_wire::broker::Request;

pub(crate) fn run(netd: &mut Netd, call: &Notification) -> Outcome {
    let [_, signal, ..] = call.args;
    let signal = int(signal);
    // `_NSIG`, asm-generic/signal.h
    const SIGNAL_MAX: i32 = 64;
    if !(0..=SIGNAL_MAX).contains(&signal) {
        return Err(nexus_abi::Errno::EINVAL.into());
    }
    let pid = Caller::of(call, &netd.listener).inner_number()?;
    netd.broker.ask(&Request::SignalGroup { pid, signal }, &[])?;
    Ok(Answer::Value(0))
}
