//! A hostile program. Each subcommand tries one kind of thing and says what the kernel answered, one line a try:
//! `NAME ok VALUE` or `NAME ERRNO`. Judging that is the tests' work; the same lines from a run without the sandbox show
//! that an attack works where its guard is missing.

use std::path::Path;

mod areas;
mod around;
mod calls;
mod crowd;
mod files;
mod flight;
mod linger;
mod lying_kernel;
mod memory;
mod paths;
mod processes;
mod race;
mod raw;
mod sockets;
mod storm;
mod terminal;
mod ticking;
mod turn;
mod udp;
mod unix;
mod without_internet;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some((name, rest)) = words.split_first() else {
        eprintln!("attacker: name an attack");
        return ExitCode::from(2);
    };
    // What reaches beyond this program's own processes where nothing is around it.
    if matches!((*name, rest), ("init" | "eat" | "proc", _) | ("group", ["confined"])) {
        raw::only_confined();
    }
    match (*name, rest) {
        ("calls", []) => calls::run(),
        ("flood", [count]) => calls::flood(number(count)),
        ("families", []) => sockets::families(),
        ("options", []) => sockets::options(),
        ("forms", [port]) => sockets::forms(number(port), false),
        ("forms", [port, "near"]) => sockets::forms(number(port), true),
        ("connect", addresses) => sockets::connect(addresses),
        ("fast-open", [port]) => sockets::fast_open(number(port)),
        ("lengths", [port]) => sockets::lengths(number(port)),
        ("bind-taken", [port]) => sockets::bind_taken(number(port)),
        ("listen-connected", [open]) => sockets::listen_connected(number(open)),
        ("listen", [closed]) => sockets::listen(number(closed)),
        ("reconnect", [open, forbidden]) => sockets::reconnect(number(open), number(forbidden)),
        ("udp", [port]) => sockets::udp(number(port)),
        ("udp-open", [open, forbidden]) => udp::run(number(open), number(forbidden)),
        ("udp-race", [open, forbidden, rounds]) => udp::race(number(open), number(forbidden), number(rounds)),
        ("parallel", [port, count]) => sockets::parallel(number(port), number(count)),
        ("int80", [port]) => around::int80(number(port)),
        ("ring", [port]) => around::ring(number(port)),
        ("flock", [port, count]) => crowd::flock(number(port), number(count)),
        ("crowd", [full, open, count, waiting]) => {
            crowd::crowd(number(full), number(open), number(count), number(waiting))
        }
        ("pass", [closed, forbidden]) => unix::pass(number(closed), number(forbidden)),
        ("unix", paths) => unix::reach(paths),
        ("abstract-stdin", [name]) => unix::reach_from_stdin(name),
        ("abstract", [name]) => unix::reach_abstract(name),
        ("race-address", [open, forbidden, rounds]) => {
            race::address(number(open), number(forbidden), number(rounds));
        }
        ("race-descriptor", [open, forbidden, path, rounds]) => {
            race::descriptor(number(open), number(forbidden), path, number(rounds));
        }
        ("turn-flags", [full, open, rounds]) => turn::flags(number(full), number(open), number(rounds)),
        ("turn-held", [host, open, path, rounds]) => turn::held(number(host), number(open), path, number(rounds)),
        ("flight", [open, most]) => flight::run(number(open), number(most), None),
        ("flight", [open, most, place]) => flight::run(number(open), number(most), Some(Path::new(place))),
        ("turn-linger", [stuck, open, forbidden, rounds]) => {
            linger::run(number(stuck), number(open), number(forbidden), number(rounds));
        }
        ("turn-killed", [full, forbidden]) => turn::killed(number(full), number(forbidden)),
        ("turn-swap", [full, open, forbidden, path, rounds]) => {
            turn::swap(number(full), number(open), number(forbidden), path, number(rounds));
        }
        ("pointers", [port, directory]) => memory::pointers(number(port), directory),
        ("reopen", []) => files::reopen(),
        ("append", []) => files::append(),
        ("descriptors", []) => files::descriptors(),
        ("set-id", directories) => files::set_id(directories),
        ("change", paths) => files::change(paths),
        ("read", paths) => paths::read(paths),
        ("escape", [secret]) => paths::escape(secret),
        ("proc", []) => paths::proc_files(),
        ("init", []) => processes::init(),
        ("group", []) => processes::group(false),
        ("group", ["confined"]) => processes::group(true),
        ("group-signals", []) => processes::group_signals(),
        ("with-key", [name, program @ ..]) => processes::with_key(name, program),
        ("own", []) => processes::own(),
        ("limits", []) => processes::limits(),
        ("dump", []) => processes::dump(),
        ("ipc", [shared, queue]) => processes::ipc(number(shared), number(queue)),
        ("status", []) => processes::status(),
        ("without-internet", command) => without_internet::run(command),
        ("lying-kernel", [lie, command @ ..]) => lying_kernel::run(lie, command),
        ("environment", []) => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
        }
        ("storm", [directory, secret, rounds]) => storm::run(directory, secret, number(rounds)),
        ("areas-around", [directory]) => areas::around(directory),
        ("areas-attributes", [directory]) => areas::attributes(directory),
        ("areas-deep", [directory, depth]) => areas::deep(directory, number(depth)),
        ("areas-killed", [directory, rounds]) => areas::killed_writers(directory, number(rounds)),
        ("areas-unlinked", [directory, each]) => areas::unlinked(directory, number(each)),
        ("terminal", []) => terminal::run(),
        ("ticking-denied", [how]) => ticking::denied(how),
        ("ticking-sockets", [how]) => ticking::sockets(how),
        ("ticking-connect", [how, address, timer]) => ticking::connect(how, address, timer),
        ("ticking-unix", [how]) => ticking::unix(how),
        ("eat", [what]) => memory::eat(what),
        ("execute-inherited", []) => {
            let empty = std::ffi::CString::default();
            let argv = [empty.as_ptr(), std::ptr::null()];
            // SAFETY: empty path, an argument list that ends in NULL; returns only on failure.
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    0,
                    empty.as_ptr(),
                    argv.as_ptr(),
                    argv[1..].as_ptr(),
                    libc::AT_EMPTY_PATH,
                )
            };
            raw::say("execveat-stdin", -1);
        }
        _ => {
            eprintln!("attacker: no attack of these words: {words:?}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| {
        eprintln!("attacker: `{text}` is no number that fits");
        std::process::exit(2)
    })
}
