//! Python: threads, processes, loops, sockets of its own, environments.

use crate::need::{has, place, succeeds, works_unhindered};
use security_v2_host::users;

const BUSY: &str = r#"
import asyncio, concurrent.futures, getpass, multiprocessing, os, platform, select, shutil, signal, socket, subprocess, sys, tempfile, threading, time
from multiprocessing import shared_memory

def square(x): return x * x

async def loop():
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    out, _ = await child.communicate(b"x" * 300000)
    async def serve(reader, writer):
        writer.write(await reader.readline()); await writer.drain(); writer.close()
    server = await asyncio.start_server(serve, "localhost", 0)
    reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
    writer.write(b"over loopback\n")
    line = await reader.readline(); writer.close(); server.close()
    unix = await asyncio.start_unix_server(serve, tempfile.mktemp())
    unix.close()
    return len(out), line

def main():
    seen = []
    threads = [threading.Thread(target=seen.append, args=(i,)) for i in range(100)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert len(seen) == 100
    assert subprocess.run(["sh", "-c", "cat; exit 3"], input=b"y" * 100000, capture_output=True).returncode == 3
    assert subprocess.check_output("echo $0 | tr a-z A-Z", shell=True) == b"/BIN/SH\n"
    assert asyncio.run(loop()) == (300000, b"over loopback\n")
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(4) as pool:
            assert sum(pool.map(square, range(100))) == 328350
    with concurrent.futures.ProcessPoolExecutor(3) as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]
    queue = multiprocessing.Queue(); queue.put("q"); assert queue.get() == "q"
    memory = shared_memory.SharedMemory(create=True, size=1 << 20); memory.buf[:4] = b"abcd"
    other = shared_memory.SharedMemory(memory.name); assert bytes(other.buf[:4]) == b"abcd"
    other.close(); memory.close(); memory.unlink()
    with multiprocessing.Manager() as manager:
        shared = manager.dict(); shared[1] = 2; assert dict(shared) == {1: 2}
    signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm")); signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.1)
    assert seen[-1] == "alarm"
    udp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    udp[0].bind(("127.0.0.1", 0)); udp[1].sendto(b"datagram", udp[0].getsockname()); assert udp[0].recv(100) == b"datagram"
    six = socket.socket(socket.AF_INET6); six.bind(("::1", 0)); six.listen(); socket.create_connection(six.getsockname()[:2]).close()
    pair = socket.socketpair(); pair[0].send(b"s"); assert pair[1].recv(1) == b"s"
    assert socket.getaddrinfo("localhost", 80) and socket.gethostbyname(socket.gethostname()) == "127.0.0.1"
    poll = select.epoll(); poll.register(pair[0]); poll.poll(0.01)
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree("/usr/lib/python3/dist-packages" if False else "/etc/ssl", scratch + "/copy", symlinks=True)
    with tempfile.TemporaryFile() as file: file.write(b"z" * 100000); file.flush(); os.fsync(file.fileno())
    assert os.cpu_count() >= 1 and len(os.sched_getaffinity(0)) >= 1 and platform.platform() and getpass.getuser()
    assert os.path.expanduser("~") == os.environ["HOME"] == "/state/home"
    print("end")

if __name__ == "__main__":
    main()
"#;

#[test]
fn python_with_threads_processes_loops_and_sockets_works() {
    if !has(&["python3"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        home.write_work("busy.py", BUSY);
        let done = works_unhindered(&home, "/usr/bin/python3 -X dev busy.py");
        assert_eq!(done.out(), "end\n", "{done}");
        home.assert_nothing_left();
    }
}

#[test]
fn a_virtual_environment_of_python_is_made_and_has_its_own_pip() {
    if !has(&["python3"]) {
        return;
    }
    // Copying two thousand files takes its time; that each area takes them is seen by smaller programs.
    for (user, place) in users().into_iter().zip(["/tmp", "/state"]) {
        let done = works_unhindered(
            &self::place(user),
            &format!(
                "cd {place}; /usr/bin/python3 -m venv v; . v/bin/activate; python -c 'import sys; print(sys.prefix != sys.base_prefix)'
                 mkdir p; printf '[project]\\nname = \"own\"\\nversion = \"1\"\\n' > p/pyproject.toml
                 pip --version | grep -c v/lib; deactivate; rm -r v p"
            ),
        );
        assert_eq!(done.out(), "True\n1\n", "{done}");
    }
}

#[test]
fn sqlite_of_python_works_from_threads() {
    if !has(&["python3"]) {
        return;
    }
    for user in users() {
        let done = works_unhindered(
            &place(user),
            r#"/usr/bin/python3 - <<'END'
import sqlite3, threading
def put(n):
    db = sqlite3.connect("/state/threads.db", timeout=60)
    for i in range(20):
        with db: db.execute("insert into t values(?)", (n * 100 + i,))
sqlite3.connect("/state/threads.db").execute("create table t(x)")
threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sqlite3.connect("/state/threads.db").execute("select count(*) from t").fetchone()[0])
END"#,
        );
        assert_eq!(done.out(), "80\n", "{done}");
    }
}

#[test]
fn a_socket_that_moves_inside_keeps_its_blocking_and_whether_it_is_closed_on_exec() {
    if !has(&["python3"]) {
        return;
    }
    // The shipped subject may connect somewhere, so its sockets begin on the host's side; bind moves one inside.
    let script = "import os, socket
for inherit in (False, True):
    for blocking in (False, True):
        s = socket.socket()
        os.set_inheritable(s.fileno(), inherit)
        s.setblocking(blocking)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        s.bind(('127.0.0.1', 0))
        print(os.get_inheritable(s.fileno()) == inherit, os.get_blocking(s.fileno()) == blocking,
              s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))";
    for user in users() {
        let done = succeeds(security_v2_host::Run::new(user).args(["python3", "-c", script]));
        assert_eq!(done.out(), "True True 1\n".repeat(4), "{done}");
    }
}
