use execd::*;
use nexus_sys::seccomp::{Instruction, Listener};
use nexus_wire::{control::Event, packet::PacketSocket};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::path::PathBuf;
fn main() {
    let i = |code, jump_true, jump_false, k| Instruction {
        code,
        jump_true,
        jump_false,
        k,
    };
    // getppid -> notify
    let filter = vec![
        i(0x20, 0, 0, 0),
        i(0x15, 0, 1, 110),
        i(6, 0, 0, 0x7fc0_0000),
        i(6, 0, 0, 0x7fff_0000),
    ];
    let bind = |p: &str| Entry::Bind {
        source: p.into(),
        at: p.into(),
        access: Access::ReadOnly,
    };
    let mut view = vec![Entry::Directory { at: "/dev".into() }, bind("/usr")];
    for l in ["bin", "sbin", "lib", "lib64"] {
        view.push(Entry::Link {
            at: format!("/{l}").into(),
            to: format!("usr/{l}").into(),
        });
    }
    for d in ["null", "zero", "full", "random", "urandom", "tty"] {
        view.push(Entry::Device { name: d });
    }
    view.push(Entry::Terminals);
    view.push(Entry::Processes);
    view.push(Entry::Area {
        area: AreaMount::Tmp,
        at: "/tmp".into(),
    });
    view.push(Entry::Area {
        area: AreaMount::State,
        at: "/state".into(),
    });
    view.push(Entry::Area {
        area: AreaMount::Shm,
        at: "/dev/shm".into(),
    });
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let root = rustix::process::geteuid().is_root();
    let plan = Plan {
        identity: Identity {
            uid: if root {
                64123
            } else {
                rustix::process::geteuid().as_raw()
            },
            gid: if root {
                64123
            } else {
                rustix::process::getegid().as_raw()
            },
            assumed: root,
        },
        view,
        directory: PathBuf::from("/tmp"),
        program: Program {
            name: args[0].clone(),
            arguments: args,
        },
        environment: [("PATH", "/usr/bin:/bin"), ("TERM", "xterm")]
            .into_iter()
            .map(|(a, b)| (a.into(), b.into()))
            .collect(),
        umask: 0o22,
        limits: Limits::default(),
        filter,
        fence: Fence::Everything,
    };
    let t = || {
        open_tree(
            rustix::fs::CWD,
            "/tmp/slice-area",
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )
        .unwrap()
    };
    let (a, b) = PacketSocket::pair().unwrap();
    let (c, d) = PacketSocket::pair().unwrap();
    let start = std::time::Instant::now();
    let mask = nexus_sys::signal::set_mask(&nexus_sys::signal::SignalSet::empty()).unwrap();
    let spawned = spawn(
        &plan,
        Links {
            control: a,
            broker: c,
            areas: [t(), t(), t()],
            mask,
        },
    )
    .unwrap();
    spawned.go(&b).unwrap();
    let p = d.receive().unwrap();
    if let Some(fd) = p.descriptors.into_iter().next() {
        let l = Listener::from(fd);
        println!("sync {} start {:?}", l.set_sync_wake_up(), start.elapsed());
        std::thread::spawn(move || {
            loop {
                match l.receive() {
                    Ok(n) => {
                        println!("{n:?}");
                        l.fail(n.id, 1).ok();
                    }
                    Err(e) => {
                        println!("{e}");
                        break;
                    }
                }
            }
        });
    }
    loop {
        let p = b.receive().unwrap();
        if p.bytes().is_empty() {
            break;
        }
        let e = Event::decode(p.bytes()).unwrap();
        println!(
            "{e:?} {:?}",
            if let Event::SetupFailed { step, .. } = e {
                Step::from_number(step)
            } else {
                None
            }
        );
        if matches!(e, Event::Exited(_) | Event::Signaled(_)) {
            break;
        }
    }
    println!("total {:?}", start.elapsed());
}
