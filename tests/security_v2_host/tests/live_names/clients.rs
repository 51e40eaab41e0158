//! Programs that people use over the network, each against the other side of its protocol, by name.

use crate::programs::{each, each_served, has};
use std::path::Path;

/// Served files: a repository `one.git`.
const REPOSITORY: &str = "export HOME=$here GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a; git init -q -b main one; cd one; echo text > file; git add file; git commit -qm one; cd ..; git clone -q --bare one one.git";

/// An ssh server that lets whoever has the key run commands as the user who runs the tests, for whose home it takes a
/// directory of the test's. It ends with its parent.
const SSH_SERVER: &str = r#"
mkdir -p "$here/far/.ssh"; mv "$here/www/one.git" "$here/far"
dropbearkey -t ed25519 -f "$here/host-key" > "$here/host-key.pub" 2> /dev/null
ssh-keygen -q -t ed25519 -N '' -f "$here/key"; cp "$here/key.pub" "$here/far/.ssh/authorized_keys"
printf 'git.example.org %s\n' "$(grep ^ssh-ed25519 "$here/host-key.pub")" > "$here/known"
printf 'root:x:0:0::%s:/bin/sh\n' "$here/far" > "$here/passwd"
chown -R 0:0 "$here/far"; chmod -R go= "$here/far"; chmod go+r "$here/known" "$here/key"
/usr/bin/python3 -c 'import os, subprocess, sys, time
parent = os.getppid(); server = subprocess.Popen(sys.argv[1:])
while os.getppid() == parent: time.sleep(0.02)
server.kill()' unshare -m sh -c 'mount --bind "$1/passwd" /etc/passwd && exec dropbear -F -E -s -r "$1/host-key" -p 22 -P "$1/pid"' sh "$here" > "$here/ssh-log" 2>&1 &
while ! ss -ltn | grep -q ':22 '; do sleep 0.02; done
"#;

#[test]
fn git_clones_and_pushes_over_ssh_by_name_and_reaches_no_other_host() {
    if ![
        "/usr/bin/git",
        "/usr/bin/ssh",
        "/usr/bin/ssh-keygen",
        "/usr/sbin/dropbear",
    ]
    .map(has)
    .iter()
    .all(|has| *has)
    {
        return;
    }
    each_served(
        REPOSITORY,
        SSH_SERVER,
        r#"cd /tmp; umask 077; cat "$OLDPWD/key" > key
export GIT_SSH_COMMAND="ssh -i /tmp/key -o UserKnownHostsFile=$OLDPWD/known -o BatchMode=yes -o IdentitiesOnly=yes"
git clone -q ssh://root@git.example.org/~/one.git; cat one/file; cd one; echo more >> file
git -c user.name=a -c user.email=a commit -qam two; git push -q; git ls-remote origin main | grep -c "$(git rev-parse HEAD)"
git clone -q ssh://root@other.example.org/~/one.git two 2>&1 | grep -o 'Name or service not known'
git clone -q ssh://root@203.0.113.9/~/one.git two 2>&1 | grep -o 'Operation not permitted'"#,
        |_, done| {
            let expected = "text\n1\nName or service not known\nOperation not permitted\n";
            assert_eq!(done.out(), expected, "{done}");
        },
    );
}

#[test]
fn npm_installs_from_a_registry_by_name_and_reaches_no_other() {
    if !has("/usr/bin/npm") {
        return;
    }
    each(
        r#"mkdir -p package; echo 'module.exports = "installed"' > package/index.js
echo '{"name": "own", "version": "1.0.0"}' > package/package.json; tar -czf own-1.0.0.tgz package
cat > own <<END
{"name": "own", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "own", "version": "1.0.0",
 "dist": {"tarball": "http://git.example.org:8000/own-1.0.0.tgz", "shasum": "$(sha1sum own-1.0.0.tgz | cut -d' ' -f1)"}}}}
END
"#,
        r#"mkdir /tmp/it; cd /tmp/it; export npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false
npm install --silent --registry http://git.example.org:8000/ own > /dev/null; node -p 'require("own")'
mkdir /tmp/other; cd /tmp/other
npm install --silent --fetch-retries 0 --registry http://other.example.org:8000/ own > /dev/null || echo refused"#,
        |_, done| assert_eq!(done.out(), "installed\nrefused\n", "{done}"),
    );
}

/// Both resolvers that Go has: its own, and the C library's.
#[test]
fn a_go_program_fetches_by_name_and_is_refused_elsewhere() {
    if !has("/usr/bin/gron") {
        return;
    }
    each(
        r#"echo '{"page": 1}' > doc.json"#,
        r#"for how in go cgo; do export GODEBUG=netdns=$how
gron http://git.example.org:8000/doc.json | tail -n 1
gron http://other.example.org:8000/doc.json 2>&1 | grep -c 'no such host'
gron http://203.0.113.9:8000/doc.json 2>&1 | grep -o 'operation not permitted'; done"#,
        |_, done| {
            let each = "json.page = 1;\n1\noperation not permitted\n";
            assert_eq!(done.out(), [each, each].concat(), "{done}");
        },
    );
}

#[test]
fn dig_is_answered_what_policy_names_and_other_servers_are_out_of_reach() {
    if !has("/usr/bin/dig") {
        return;
    }
    each(
        "",
        r#"ask() { dig +tries=3 +time=5 "$@"; }
ask +short git.example.org; ask +short AAAA git.example.org; ask +short +tcp git.example.org
ask +short alias.example.net; ask other.example.org | grep -o 'status: [A-Z]*'
for kind in MX TXT SRV HTTPS PTR ANY; do ask $kind git.example.org | grep -o 'status: NOERROR\|ANSWER: [0-9]*'; done | sort | uniq -c | tr -s ' '
ask +short -x 203.0.113.7; ask @203.0.113.53 git.example.org > /dev/null 2>&1 || echo refused $?"#,
        |_, done| {
            let expected = "203.0.113.7\n2001:db8::7\n203.0.113.7\none.example.com.\ntwo.example.com.\n203.0.113.8\nstatus: NXDOMAIN\n 6 ANSWER: 0\n 6 status: NOERROR\nrefused 9\n";
            assert_eq!(done.out(), expected, "{done}");
            let elsewhere = done.records_for("egress.no_rule");
            assert!(
                elsewhere.iter().any(|record| &*record.object == "udp 203.0.113.53:53"),
                "{done}"
            );
        },
    );
}

/// Answers every query of a simple session with one row. It ends with its parent.
const DATABASE: &str = r#"
import os, socket, struct, threading, time
parent = os.getppid()
def message(kind, body): return kind + struct.pack(">I", len(body) + 4) + body
def exactly(peer, count):
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        if not part: raise OSError
        data += part
    return data
def session(peer):
    try:
        while True:
            length, code = struct.unpack(">II", exactly(peer, 8)); exactly(peer, length - 8)
            if code != 80877103 and code != 80877104: break
            peer.sendall(b"N") # no TLS, no GSS
        ready = message(b"Z", b"I")
        peer.sendall(message(b"R", struct.pack(">I", 0)) + message(b"S", b"server_version\x0015.0\0") + message(b"S", b"client_encoding\0UTF8\0") + ready)
        while True:
            kind = exactly(peer, 1); query = exactly(peer, struct.unpack(">I", exactly(peer, 4))[0] - 4)
            if kind != b"Q": return
            row = query[:-1].upper()
            column = struct.pack(">H", 1) + b"said\0" + struct.pack(">IHIhiH", 0, 0, 25, -1, -1, 0)
            peer.sendall(message(b"T", column) + message(b"D", struct.pack(">HI", 1, len(row)) + row) + message(b"C", b"SELECT 1\0") + ready)
    except OSError: pass
    finally: peer.close()
def serve(server):
    while True: threading.Thread(target=session, args=[server.accept()[0]], daemon=True).start()
server = socket.create_server(("0.0.0.0", 5432))
threading.Thread(target=serve, args=[server], daemon=True).start()
print("ready", flush=True)
while os.getppid() == parent: time.sleep(0.02)
os._exit(0)
"#;

#[test]
fn psql_asks_a_database_by_name_and_is_refused_elsewhere() {
    // Before the package's wrapper, which looks for clusters.
    let there = (13..20).map(|version| format!("/usr/lib/postgresql/{version}/bin/psql"));
    let Some(psql) = there.into_iter().find(|path| Path::new(path).exists()) else {
        let _ = has("/usr/lib/postgresql/15/bin/psql");
        return;
    };
    each_served(
        "",
        &format!("cat > \"$here/database.py\" <<'END'\n{DATABASE}END\n/usr/bin/python3 \"$here/database.py\" > \"$here/database\" & while ! grep -q ready \"$here/database\" 2> /dev/null; do sleep 0.02; done"),
        &format!("ask() {{ {psql} -XAt -h \"$1\" -U somebody base -c 'select words'; }}
ask git.example.org; ask other.example.org 2>&1 | grep -o 'could not translate host name'; ask 203.0.113.9 2>&1 | grep -o 'Operation not permitted'"),
        |_, done| {
            let expected = "SELECT WORDS\ncould not translate host name\nOperation not permitted\n";
            assert_eq!(done.out(), expected, "{done}");
        },
    );
}

/// What QUIC's libraries do: segmentation by the kernel, congestion marks with each datagram, path MTU, errors from the
/// queue, batches of messages, and a move to another socket in the middle of the conversation.
const QUIC_LIKE: &str = r#"
import ctypes, errno, os, select, socket, struct, sys
port = 4433
address = socket.getaddrinfo("git.example.org", port, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
def fresh(connected):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.setsockopt(0, 10, 3); made.setsockopt(0, 11, 1); made.setsockopt(0, 13, 1) # IP_MTU_DISCOVER probe, IP_RECVERR, IP_RECVTOS
    if connected: made.connect(address)
    return made
def hear(one, count):
    heard = []
    poll = select.epoll(); poll.register(one, select.EPOLLIN | select.EPOLLET)
    while len(heard) < count and poll.poll(5):
        try:
            while True: heard.append(one.recvmsg(2000, 200))
        except BlockingIOError: pass
    return heard
for connected in (False, True):
    one = fresh(connected); to = () if connected else (address,)
    segments = [(17, 103, struct.pack("H", 100)), (0, 1, struct.pack("i", 2))] # UDP_SEGMENT, IP_TOS: ECT(0)
    print(one.sendmsg([b"a" * 950], segments, 0, *to), sorted(len(data) for data, _, _, _ in hear(one, 10)))
    print(one.sendmsg([b"head", b"body"], [], 0, *to), [data for data, _, _, _ in hear(one, 1)])
    print(one.getsockopt(0, 14) > 1200 if connected else "no path yet") # IP_MTU
    # The client moves: another socket, the same peer.
    moved = fresh(connected)
    print(moved.sendmsg([b"moved"], [], 0, *to), [data for data, _, _, _ in hear(moved, 1)], moved.getsockname()[1] != one.getsockname()[1])
    # An address that the peer prefers, and no rule.
    for name, work in (("other port", lambda: one.sendto(b"x", (address[0], port + 1))), ("other host", lambda: one.sendto(b"x", ("203.0.113.9", port))),
            ("turned", lambda: fresh(False).connect(("203.0.113.9", port)))):
        try: print(name, work())
        except OSError as error: print(name, errno.errorcode[error.errno])
"#;

#[test]
fn a_client_like_those_of_quic_talks_to_its_peer_and_to_no_other_address() {
    each(
        "",
        &format!("cat > /tmp/quic.py <<'END'\n{QUIC_LIKE}END\n/usr/bin/python3 -u /tmp/quic.py"),
        |_, done| {
            let of = |mtu: &str| {
                format!(
                    "950 [50, 100, 100, 100, 100, 100, 100, 100, 100, 100]\n8 [b'HEADBODY']\n{mtu}\n5 [b'MOVED'] True\nother port EPERM\nother host EPERM\nturned EPERM\n"
                )
            };
            assert_eq!(done.out(), of("no path yet") + &of("True"), "{done}");
        },
    );
}
