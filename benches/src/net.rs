//! What egress costs, each promise as a ratio of two things measured in turn in this very run.
//!
//! `cargo build --release -p nx -p benches && target/release/bench-net`; with `--check` it ends with 1 if a promise is broken,
//! with words only the promises are measured in whose name one of them is.
//! Resolving is measured where this is root, which a name server of its own in a network of its own takes.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How often each pair is measured; the median of the ratios counts.
const ROUNDS: usize = 9;

/// A measurement is cut into so many parts, of which the median counts: what else ran meanwhile then spoils a few.
const PARTS: u32 = 25;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["probe", what, port, count] => {
            println!("{:.1}", probe(what, port.parse()?, count.parse()?)?);
            Ok(())
        }
        // Under a filter of one instruction, which lets everything through: what any filter costs at least.
        ["filtered", what, port, count] => {
            const RETURN: u16 = 0x06;
            const ALLOW: u32 = 0x7fff_0000;
            let all = [nexus_sys::seccomp::Instruction {
                code: RETURN,
                jump_true: 0,
                jump_false: 0,
                k: ALLOW,
            }];
            rustix::thread::set_no_new_privs(true)?;
            nexus_sys::seccomp::install_with_listener(&all)?;
            println!("{:.1}", probe(what, port.parse()?, count.parse()?)?);
            Ok(())
        }
        ["names", here] => names(Path::new(here)),
        _ => {
            let only: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with("--")).collect();
            promises(words.contains(&"--check"), &only)
        }
    }
}

/// Nanoseconds a call.
fn each(count: u32, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let part = (count / PARTS).max(1);
    let mut parts = Vec::new();
    for _ in 0..PARTS {
        let start = Instant::now();
        for _ in 0..part {
            call()?;
        }
        parts.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(part));
    }
    Ok(median(parts))
}

fn probe(what: &str, port: u16, count: u32) -> Result<f64> {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let datagrams = || UdpSocket::bind("0.0.0.0:0");
    match what {
        "udp-reconnect" => {
            let socket = datagrams()?;
            each(count, || Ok(socket.connect(to)?))
        }
        "udp-sendto" => {
            let socket = datagrams()?;
            each(count, || Ok(socket.send_to(b"x", to).map(drop)?))
        }
        "udp-send" => {
            let socket = datagrams()?;
            socket.connect(to)?;
            each(count, || Ok(socket.send(b"x").map(drop)?))
        }
        "tcp" => each(count, || {
            drop(TcpStream::connect(to)?);
            Ok(())
        }),
        "tcp-data" => {
            let mut peer = TcpStream::connect(to)?;
            peer.set_nodelay(true)?;
            let mut byte = [0; 16384];
            each(count, || {
                peer.write_all(&byte)?;
                Ok(peer.read_exact(&mut byte)?)
            })
        }
        "sendmsg" => {
            let (mut here, there) = std::os::unix::net::UnixStream::pair()?;
            let data = [0; 64];
            let mut read = [0; 64];
            each(count, || {
                let flags = rustix::net::SendFlags::empty();
                rustix::net::sendmsg(
                    &there,
                    &[std::io::IoSlice::new(&data)],
                    &mut rustix::net::SendAncillaryBuffer::default(),
                    flags,
                )?;
                Ok(here.read_exact(&mut read)?)
            })
        }
        "resolve" => {
            let socket = datagrams()?;
            socket.connect(("127.0.0.1", 53))?;
            let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03git\x07example\x03org\0\0\x01\0\x01";
            let mut answer = [0; 512];
            each(count, || {
                socket.send(query)?;
                match socket.recv(&mut answer)? {
                    45.. => Ok(()),
                    short => Err(format!("an answer of {short} bytes").into()),
                }
            })
        }
        other => Err(format!("`{other}` is no probe").into()),
    }
}

struct Bench {
    bin: PathBuf,
    scratch: tempfile::TempDir,
}

fn promises(check: bool, only: &[&str]) -> Result<()> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| name.contains(word));
    let bench = Bench {
        bin: std::env::current_exe()?.parent().ok_or("no directory")?.to_owned(),
        scratch: tempfile::tempdir()?,
    };
    let sink = UdpSocket::bind("127.0.0.1:0")?;
    let datagrams = sink.local_addr()?.port();
    // Not read: what does not fit is dropped, and costs the sender the same on both sides.
    let echo = TcpListener::bind("127.0.0.1:0")?;
    let streams = echo.local_addr()?.port();
    std::thread::spawn(move || {
        for peer in echo.incoming().flatten() {
            std::thread::spawn(move || echo_back(peer));
        }
    });
    // Takes each and lets it go, at no more cost than that: what the server does would hide what the session costs.
    let taker = TcpListener::bind("127.0.0.1:0")?;
    let taken = taker.local_addr()?.port();
    std::thread::spawn(move || taker.incoming().for_each(drop));
    bench.write_policy(&[
        (
            "both",
            &format!("\"udp 127.0.0.1:{datagrams}\", \"127.0.0.1:{streams}\", \"127.0.0.1:{taken}\""),
        ),
        ("streams", &format!("\"127.0.0.1:{streams}\"")),
        ("names", "\"git.example.org:80\""),
    ])?;
    let sync = cfg!(target_os = "linux") && kernel_is_at_least(6, 6);
    let mut broken = 0;
    for (name, subject, what, port, count, most) in [
        (
            "UDP reconnect",
            "both",
            "udp-reconnect",
            datagrams,
            20_000,
            if sync { 14.0 } else { 40.0 },
        ),
        ("addressed sendto", "both", "udp-sendto", datagrams, 20_000, 8.0),
        ("TCP socket, connect, close", "both", "tcp", taken, 5_000, 3.0),
        (
            "send on a connected UDP socket",
            "both",
            "udp-send",
            datagrams,
            100_000,
            1.0 / 0.98,
        ),
        (
            "16 KiB there and back over TCP",
            "both",
            "tcp-data",
            streams,
            10_000,
            1.0 / 0.98,
        ),
        (
            "sendmsg without an outside UDP rule",
            "streams",
            "sendmsg",
            streams,
            100_000,
            1.0 / 0.98,
        ),
    ] {
        if !wanted(name) {
            continue;
        }
        let bare = || bench.probe(Command::new(bench.bin.join("bench-net")), what, port, count);
        let inside = || bench.probe(bench.inside(subject), what, port, count);
        if most >= 2.0 {
            let (ratio, bare, inside) = pairs(bare, inside)?;
            let detail = format!("{:.2} µs bare, {:.2} µs inside", bare / 1e3, inside / 1e3);
            broken += usize::from(!told(name, ratio, most, &detail));
            continue;
        }
        // Beside both, in turn with them: what of it the kernel takes for having a filter at all. That is no promise.
        let filtered = || bench.filtered(what, port, count);
        let [bare, filtered, inside] = in_turn([&mut { bare }, &mut { filtered }, &mut { inside }])?;
        let detail = format!(
            "{:.2} µs bare, {:.2} µs inside",
            middle(&bare) / 1e3,
            middle(&inside) / 1e3
        );
        broken += usize::from(!told(name, ratio(&bare, &inside), most, &detail));
        println!(
            "{:<44} {:>7.2}",
            "  a filter of one instruction",
            ratio(&bare, &filtered)
        );
        println!(
            "{:<44} {:>7.2}",
            "  inside, of a filter of one instruction",
            ratio(&filtered, &inside)
        );
    }
    if !wanted("resolving a name") {
    } else if rustix::process::geteuid().is_root() {
        let out = bench.in_own_network()?;
        print!("{out}");
        broken += usize::from(out.contains("BROKEN"));
    } else {
        println!("resolving: not measured, a name server on port 53 takes root");
    }
    if check && broken > 0 {
        return Err(format!("{broken} promises broken").into());
    }
    Ok(())
}

fn told(name: &str, ratio: f64, most: f64, detail: &str) -> bool {
    let kept = ratio <= most;
    println!(
        "{name:<44} {ratio:>7.2} (at most {most:.2}) {}  {detail}",
        if kept { "kept  " } else { "BROKEN" }
    );
    kept
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

fn echo_back(mut peer: TcpStream) {
    let _ = peer.set_nodelay(true);
    let mut bytes = [0; 16384];
    while let Ok(count @ 1..) = peer.read(&mut bytes) {
        if peer.write_all(bytes.get(..count).unwrap_or_default()).is_err() {
            return;
        }
    }
}

impl Bench {
    fn write_policy(&self, subjects: &[(&str, &str)]) -> Result<()> {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/security");
        let policy = self.scratch.path().join("policy");
        std::fs::create_dir(&policy)?;
        for entry in std::fs::read_dir(shipped)? {
            let entry = entry?;
            std::fs::copy(entry.path(), policy.join(entry.file_name()))?;
        }
        for (subject, allow) in subjects {
            for (file, text) in [
                (
                    "nexus.policy.toml",
                    format!("\n[subject.{subject}]\ndomain = \"tools\"\n"),
                ),
                ("egress.toml", format!("\n[subject.{subject}]\nallow = [{allow}]\n")),
            ] {
                let path = policy.join(file);
                let old = std::fs::read_to_string(&path)?;
                std::fs::write(path, old + &text)?;
            }
        }
        Ok(())
    }

    fn inside(&self, subject: &str) -> Command {
        let mut command = Command::new(self.bin.join("nx"));
        command
            .env("XDG_STATE_HOME", self.scratch.path().join("state"))
            .args(["run", "-q", "--policy"])
            .arg(self.scratch.path().join("policy"))
            .arg("--work")
            .arg(&self.bin)
            .args([subject, "--"])
            .arg(self.bin.join("bench-net"));
        command
    }

    fn filtered(&self, what: &str, port: u16, count: u32) -> Result<f64> {
        Self::ask(Command::new(self.bin.join("bench-net")), "filtered", what, port, count)
    }

    fn probe(&self, command: Command, what: &str, port: u16, count: u32) -> Result<f64> {
        Self::ask(command, "probe", what, port, count)
    }

    fn ask(mut command: Command, how: &str, what: &str, port: u16, count: u32) -> Result<f64> {
        let out = command
            .args([how, what, &port.to_string(), &count.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        if !out.status.success() {
            return Err(format!("the probe `{what}` ended with {}", out.status).into());
        }
        Ok(String::from_utf8(out.stdout)?.trim().parse()?)
    }

    /// Measures resolving in a network that has nothing but a name server.
    fn in_own_network(&self) -> Result<String> {
        let here = self.scratch.path();
        std::fs::write(here.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        let script =
            "ip link set lo up && mount --bind \"$1/resolv.conf\" /etc/resolv.conf && exec \"$2\" names \"$1\"";
        let out = Command::new("unshare")
            .args(["-n", "-m", "sh", "-c", script, "sh"])
            .arg(here)
            .arg(self.bin.join("bench-net"))
            .stderr(Stdio::inherit())
            .output()?;
        if !out.status.success() {
            return Err("resolving could not be measured".into());
        }
        Ok(String::from_utf8(out.stdout)?)
    }
}

fn names(here: &Path) -> Result<()> {
    const ADDED_MAX_US: f64 = 300.0;
    let server = UdpSocket::bind("127.0.0.1:53")?;
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((count, from)) = server.recv_from(&mut bytes) {
            // The question with an answer behind it, and without what EDNS added.
            let end = (12..count)
                .find(|at| bytes.get(*at) == Some(&0))
                .unwrap_or(12)
                .saturating_add(5);
            let mut answer = bytes.get(..end).unwrap_or_default().to_vec();
            for (at, byte) in [(2, 0x81), (3, 0x80), (7, 1), (11, 0)] {
                if let Some(place) = answer.get_mut(at) {
                    *place = byte;
                }
            }
            answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xcb\0\x71\x07");
            let _ = server.send_to(&answer, from);
        }
    });
    let bench = Bench {
        bin: std::env::current_exe()?.parent().ok_or("no directory")?.to_owned(),
        scratch: tempfile::tempdir()?,
    };
    bench.write_policy(&[("names", "\"git.example.org:80\"")])?;
    let _ = here;
    let (_, bare, inside) = pairs(
        || bench.probe(Command::new(bench.bin.join("bench-net")), "resolve", 53, 2_000),
        || bench.probe(bench.inside("names"), "resolve", 53, 2_000),
    )?;
    let added = (inside - bare) / 1e3;
    let kept = if added <= ADDED_MAX_US { "kept  " } else { "BROKEN" };
    println!(
        "{:<44} {added:>7.0} (at most {ADDED_MAX_US:.0}) {kept}  µs more: {:.0} µs bare, {:.0} µs inside",
        "resolving a name",
        bare / 1e3,
        inside / 1e3
    );
    Ok(())
}

/// Measures in turn, A B A B, and gives the median ratio B/A with the medians of both.
fn pairs(mut a: impl FnMut() -> Result<f64>, mut b: impl FnMut() -> Result<f64>) -> Result<(f64, f64, f64)> {
    let [first, second] = in_turn([&mut a, &mut b])?;
    Ok((ratio(&first, &second), middle(&first), middle(&second)))
}

/// Measures each in turn, A B C A B C, after one turn that does not count.
fn in_turn<const N: usize>(mut measured: [&mut dyn FnMut() -> Result<f64>; N]) -> Result<[Vec<f64>; N]> {
    let mut all = [const { Vec::new() }; N];
    for round in 0..=ROUNDS {
        for (measure, values) in measured.iter_mut().zip(&mut all) {
            let value = measure()?;
            if round > 0 {
                values.push(value);
            }
        }
    }
    Ok(all)
}

/// The median of how many times as much each took as what was measured right before it.
fn ratio(of: &[f64], these: &[f64]) -> f64 {
    median(of.iter().zip(these).map(|(of, these)| these / of).collect())
}

fn middle(values: &[f64]) -> f64 {
    median(values.to_vec())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
