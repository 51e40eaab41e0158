//! What leaves the machine: every packet, as somebody hears it who listens on the wire.

use std::collections::BTreeSet;

use security_v2_host::{Home, Town, Tree, eventually, users};

/// Two wires of the test's own, the second for packets with a mark; whoever listens hears both and the loopback.
const WIRES: &str = r#"
for wire in wire other; do ip link add $wire type veth peer name $wire-end; ip link set $wire up; ip link set $wire-end up; done
ip address add 192.0.2.1/24 dev wire; ip -6 address add fd00:1::1/64 dev wire nodad
ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev wire; ip -6 neighbour add fd00:1::2 lladdr 02:00:00:00:00:02 dev wire
ip neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev wire
ip route add default dev wire; ip -6 route add default dev wire; ip route add default dev other table 77; ip rule add fwmark 7 table 77
for wire in wire other; do ip link set $wire arp off; done
listen() { mkfifo "$here/$1-ready"; /usr/bin/python3 "$here/wire.py" > "$here/$1" 2> "$here/$1-ready" & read word < "$here/$1-ready"; }
"#;

/// The ways without a session, in a network of their own: what the kernel still sends for who is gone is not to be heard later.
const BARE: &str = "listen bare; /usr/bin/python3 \"$here/attack.py\" > \"$here/bare-said\" 2>&1";

/// Says of each outgoing packet where, what, from whom, to whom, with which options, and its data. Ends once its parent has and
/// nothing more comes, and says so.
const HEARER: &str = r#"
import os, select, socket, struct, sys
parent = os.getppid()
hearer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sys.stderr.write("ready\n"); sys.stderr.close()
while True:
    over = os.getppid() != parent
    if not select.select([hearer], [], [], 0.02)[0]:
        if over: break
        continue
    frame, (wire, _, direction, _, _) = hearer.recvfrom(65536)
    if direction != 4: continue
    packet, kind = frame[14:], struct.unpack(">H", frame[12:14])[0]
    if kind == 0x0800:
        length = (packet[0] & 15) * 4
        source, target, options, proto, rest = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20]), length - 20, packet[9], packet[length:]
    elif kind == 0x86dd:
        source, target, options, proto, rest = socket.inet_ntop(10, packet[8:24]), socket.inet_ntop(10, packet[24:40]), 0, packet[6], packet[40:]
        while proto in (0, 43, 60): proto, options, rest = rest[0], options + 8 * rest[1] + 8, rest[8 * rest[1] + 8:]
    else:
        print(wire, "frame", hex(kind), flush=True); continue
    if proto == 17: what, data = "udp", rest[8:]
    elif proto == 6:
        at = (rest[12] >> 4) * 4; what, data = "tcp" + ("-mptcp" if b"\x1e" in (bytes([rest[20]]),) or rest[20:at].find(b"\x1e\x04\x01") >= 0 else ""), rest[at:]
    else: what, data = f"proto-{proto}", b"group" if b"\xff\x05" + bytes(13) + b"\x99" in rest else b""
    print(wire, what, source, target, options, data.decode("latin-1").strip() or "-", flush=True)
print("end", flush=True)
"#;

/// Each way once; the data names it.
const ATTACK: &str = r#"
import errno, fcntl, os, socket, struct
near, near6 = ("192.0.2.2", 4433), ("fd00:1::2", 4433)
def told(name, work):
    try: print(name, work())
    except OSError as error: print(name, errno.errorcode.get(error.errno, error))
def udp(six=False): return socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
def with_option(name, level, option, value, to=near, six=False, bind=None):
    def work():
        one = udp(six); one.setsockopt(level, option, value)
        if bind: one.bind(bind)
        return one.sendto(name.encode(), to)
    told(name, work)
route = bytes([131, 7, 4]) + socket.inet_aton("198.18.0.9") + b"\0"
route6 = bytes([0, 2, 2, 1, 0, 0, 0, 0]) + socket.inet_pton(10, "fd00:9::9")
told("allowed", lambda: udp().sendto(b"allowed", near)); told("allowed6", lambda: udp(True).sendto(b"allowed6", near6))
with_option("option-route", 0, 4, route); with_option("option-route6", 41, 57, route6, near6, True)
told("control-route", lambda: udp().sendmsg([b"control-route"], [(0, 7, route)], 0, near))
told("control-route6", lambda: udp(True).sendmsg([b"control-route6"], [(41, 57, route6)], 0, near6))
told("control-hop6", lambda: udp(True).sendmsg([b"control-hop6"], [(41, 54, bytes([0, 0, 1, 4, 0, 0, 0, 0]))], 0, near6))
told("control-source", lambda: udp().sendmsg([b"control-source"], [(0, 8, struct.pack("=i4s4s", 0, socket.inet_aton("198.51.100.1"), bytes(4)))], 0, near))
told("control-mark", lambda: udp().sendmsg([b"control-mark"], [(1, 36, struct.pack("=I", 7))], 0, near))
with_option("transparent", 0, 19, 1, bind=("198.18.0.5", 0)); with_option("freebind", 0, 15, 1, bind=("198.18.0.5", 0))
with_option("device", 1, 25, b"other\0"); with_option("mark", 1, 36, 7)
with_option("broadcast", 1, 6, 1, ("192.0.2.255", 4433)); with_option("multicast", 0, 33, 1, ("239.1.1.1", 4433))
with_option("interface", 0, 50, socket.htonl(1))
held = [udp(), udp(True)]
told("join", lambda: held[0].setsockopt(0, 35, socket.inet_aton("239.1.1.2") + socket.inet_aton("192.0.2.1")))
try: index = socket.if_nametoindex("wire")
except OSError: index = 0
told("join6", lambda: held[1].setsockopt(41, 20, socket.inet_pton(10, "ff05::99") + struct.pack("=I", index)))
def opened(name, family, kind, proto, data, to): told(name, lambda: socket.socket(family, kind, proto).sendto(data, to))
opened("raw", 2, 3, 253, b"raw", ("192.0.2.2", 0)); opened("ping", 2, 2, 1, b"\x08\0\0\0\0\0\0\0ping", ("192.0.2.2", 0))
opened("packet", 17, 3, 0x8888, bytes(12) + b"\x88\x88" + bytes(46), ("wire", 0x8888)); opened("udplite", 2, 2, 136, b"udplite", near)
def stream(proto=0):
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, proto); one.setblocking(False); held.append(one); return one
told("tcp", lambda: stream().connect_ex(near)); told("mptcp", lambda: stream(262).connect_ex(near))
told("fast", lambda: stream().sendto(b"fast-open", 0x20000000, ("192.0.2.9", 4433)))
def tun():
    fd = os.open("/dev/net/tun", os.O_RDWR); return fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", b"own", 1)) != b""
told("tun", tun)
def turned():
    one = udp(); one.connect(near); one.send(b"turned-first"); one.connect(("192.0.2.9", 4433)); return one.send(b"turned")
told("turned", turned)
"#;

#[test]
fn nothing_leaves_the_machine_but_plain_packets_to_the_open_address() {
    for user in users() {
        let home = Home::new(user);
        let Some(town) = Town::new(&home) else { return };
        home.write_work("wire.py", HEARER);
        let attack = home.write_work("attack.py", ATTACK);
        let rules = "allow = [\"udp 192.0.2.2:4433\", \"192.0.2.2:4433\", \"udp [fd00:1::2]:4433\"]\n";
        let tree = Tree::shipped()
            .append("nexus.policy.toml", "[subject.attack]\ndomain = \"tools\"\n")
            .append("egress.toml", &format!("[subject.attack]\n{rules}"));
        let run = |more: &str| {
            let run = town.run().policy(&tree).subject("attack");
            run.env("TOWN_MORE", format!("{WIRES}\n{more}"))
        };
        assert_eq!(run(BARE).args(["true"]).run().code(), Some(0));
        let words = ["/usr/bin/python3".into(), attack.into_os_string()];
        let done = run("listen inside").args(words).run();
        assert_eq!(done.code(), Some(0), "{done}");
        let heard = |who: &str| -> BTreeSet<String> {
            let mut text = String::new();
            eventually("all is heard", || {
                text = std::fs::read_to_string(home.work().join(who)).unwrap();
                text.ends_with("end\n")
            });
            // The kernel's own talk about its neighbours, and the loopback's, on which the session has nothing.
            let talk = |line: &&str| line.contains(" proto-58 ") && !line.ends_with(" group");
            let lines = text.lines().filter(|line| *line != "end" && !talk(line));
            lines.map(str::to_owned).collect()
        };
        let inside = heard("inside");
        let expected = [
            "wire tcp 192.0.2.1 192.0.2.2 0 -",
            "wire udp 192.0.2.1 192.0.2.2 0 allowed",
            "wire udp 192.0.2.1 192.0.2.2 0 turned-first",
            "wire udp fd00:1::1 fd00:1::2 0 allowed6",
        ];
        assert_eq!(
            inside.iter().map(String::as_str).collect::<Vec<_>>(),
            expected,
            "{done}"
        );
        let said = done.out();
        for name in [
            "option-route",
            "control-route",
            "control-route6",
            "control-source",
            "control-mark",
            "mark",
            "device",
            "join",
            "join6",
        ] {
            assert!(
                said.lines().any(|line| line == format!("{name} EPERM")),
                "{name}: {done}"
            );
        }
        let bare = heard("bare");
        for way in [
            "wire udp 192.0.2.1 198.18.0.9 8 option-route",
            "wire udp 192.0.2.1 198.18.0.9 8 control-route",
            "wire udp 198.51.100.1 192.0.2.2 0 control-source",
            "wire udp 198.18.0.5 192.0.2.2 0 transparent",
            "other udp 198.51.100.1 192.0.2.2 0 control-mark",
            "other udp 198.51.100.1 192.0.2.2 0 device",
            "other udp 198.51.100.1 192.0.2.2 0 mark",
            "wire udp fd00:1::1 fd00:1::2 8 control-hop6",
            "wire proto-2 192.0.2.1 224.0.0.22 4 -",
            "wire proto-136 192.0.2.1 192.0.2.2 0 -",
            "wire tcp 192.0.2.1 192.0.2.9 0 -",
            "wire udp 192.0.2.1 192.0.2.255 0 broadcast",
            "wire udp 192.0.2.1 239.1.1.1 0 multicast",
            "wire proto-253 192.0.2.1 192.0.2.2 0 -",
            "wire udp 192.0.2.1 192.0.2.9 0 turned",
            "wire frame 0x8888",
        ] {
            assert!(bare.contains(way), "{way}: {bare:#?}");
        }
        // From an address of the wire's own, or from none as long as that is not yet known to be nobody else's.
        let joins = |line: &String| line.starts_with("wire proto-58 ") && line.ends_with(" ff02::16 8 group");
        assert!(bare.iter().any(joins), "{bare:#?}");
        done.assert_nothing_left();
    }
}
