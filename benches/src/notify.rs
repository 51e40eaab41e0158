//! The floor of the mechanism: a notification that is answered by who does nothing else.

use super::Result;
use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};
use nexus_sys::seccomp::{Instruction, Listener, install_with_listener};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use std::io::{Read, Write};
use std::time::Instant;

/// Nanoseconds per call of a child whose `sethostname` is answered by this process.
pub(crate) fn round_trip(count: u32) -> Result<f64> {
    let (mut from_child, mut to_parent) = std::io::pipe()?;
    let (mut from_parent, mut to_child) = std::io::pipe()?;
    match clone(CloneFlags::NONE)? {
        Fork::Child => {
            let mut work = || -> Result<()> {
                rustix::thread::set_no_new_privs(true)?;
                let number = install_with_listener(&filter())?;
                to_parent.write_all(&number.to_le_bytes())?;
                from_parent.read_exact(&mut [0])?;
                let start = Instant::now();
                for _ in 0..count {
                    let _ = rustix::system::sethostname(b"x");
                }
                let each = u64::try_from(start.elapsed().as_nanos() / u128::from(count))?;
                Ok(to_parent.write_all(&each.to_le_bytes())?)
            };
            exit_now(i32::from(work().is_err()))
        }
        Fork::Parent(child) => {
            drop(to_parent);
            let mut number = [0; 4];
            from_child.read_exact(&mut number)?;
            let fd = pidfd_getfd(&child.pidfd, i32::from_le_bytes(number), PidfdGetfdFlags::empty())?;
            let listener = Listener::from(fd);
            let _ = listener.set_sync_wake_up();
            to_child.write_all(&[0])?;
            for _ in 0..count {
                let call = listener.receive()?;
                listener.fail(call.id, 1)?;
            }
            let mut each = [0; 8];
            from_child.read_exact(&mut each)?;
            rustix::process::waitpid(
                rustix::process::Pid::from_raw(child.pid),
                rustix::process::WaitOptions::empty(),
            )?;
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one call are far below 2^52")]
            Ok(u64::from_le_bytes(each) as f64)
        }
    }
}

/// `sethostname` (170 on x86-64) to the listener, everything else through.
fn filter() -> Vec<Instruction> {
    let one = |code, jump_true, jump_false, k| Instruction {
        code,
        jump_true,
        jump_false,
        k,
    };
    vec![
        one(0x20, 0, 0, 0),
        one(0x15, 0, 1, 170),
        one(6, 0, 0, 0x7fc0_0000),
        one(6, 0, 0, 0x7fff_0000),
    ]
}
