//! Sockets that move while others are at them.

use crate::{echo, lines, script, users_with_python};

const ALLOW: &str = r#"allow = ["udp 127.0.0.1:PORT"]"#;

#[test]
fn every_thread_that_waits_hears_however_many_sockets_go_outside_and_however_often() {
    for user in users_with_python() {
        let text = r#"
to = ("127.0.0.1", PORT)
def wide(): one = datagram(("0.0.0.0", 0)); one.settimeout(None); return one
def waits(work):
    thread = threading.Thread(target=work); thread.start()
    while open(f"/proc/self/task/{thread.native_id}/syscall").read().split()[0] not in ("7", "45", "219"): time.sleep(0.001)
    return thread
# Two of one poll, which the kernel goes on with under another number after the first.
pair = [wide(), wide()]; heard = []
def both():
    waiting = select.poll(); left = {one.fileno(): one for one in pair}
    for number in left: waiting.register(number, select.POLLIN)
    while left:
        for number, _ in waiting.poll(): waiting.unregister(number); heard.append(left.pop(number).recv(9))
thread = waits(both)
for one in pair: one.sendto(b"a", to); time.sleep(0.05)
thread.join(30); told("both", lambda: heard)
many = [wide() for _ in range(200)]; count = []
threads = [waits(lambda one=one: count.append(one.recv(9))) for one in many]
for one in many: one.sendto(b"b", to)
for thread in threads: thread.join(30)
told("many", lambda: len(count))
os._exit(0)
"#;
        let done = script(user, ALLOW, echo(), text);
        assert_eq!(lines(&done), ["both [b'A', b'A']", "many 200"], "{done}");
    }
}

#[test]
fn a_thread_that_executes_another_program_while_others_wait_at_a_socket_that_moves_is_not_held_up() {
    for user in users_with_python() {
        let text = r#"
def process(delay):
    one = datagram(("0.0.0.0", 0)); one.settimeout(None)
    for _ in range(100): threading.Thread(target=lambda: one.recv(9), daemon=True).start()
    def sends(): one.sendto(b"a", ("127.0.0.1", PORT))
    threading.Thread(target=sends).start()
    time.sleep(delay); os.execv("/bin/true", ["true"])
for delay in range(30):
    pid = os.fork()
    if pid == 0: process(delay * 0.0002)
    # Ends by itself, or is killed below.
    ended = threading.Thread(target=lambda: os.waitpid(pid, 0), daemon=True); ended.start(); ended.join(30)
    if ended.is_alive(): print("held up", delay); os.kill(pid, 9); break
else: print("done")
# Nor is anybody deaf afterwards.
one = datagram(("0.0.0.0", 0)); one.settimeout(None); heard = []
thread = threading.Thread(target=lambda: heard.append(one.recv(9)), daemon=True); thread.start(); time.sleep(0.1)
one.sendto(b"b", ("127.0.0.1", PORT)); thread.join(30); told("heard", lambda: heard)
"#;
        let done = script(user, ALLOW, echo(), text);
        assert_eq!(lines(&done), ["done", "heard [b'B']"], "{done}");
    }
}
