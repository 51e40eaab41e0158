//! What policy bounds for each process bites, and what stays below it works.

use crate::need::{has, place, room};
use security_v2_host::{Output, Run, User, users};

fn limited(user: User, script: &str) -> Output {
    let tree = room().edit(
        "sandbox.toml",
        "limits = { processes = 4096, open_files = 65536 }",
        "limits = { memory = \"512MiB\", processes = 60, open_files = 100 }",
    );
    let done = Run::at(&place(user))
        .policy(&tree)
        .subject("room")
        .args(["/usr/bin/python3", "-c", script])
        .run();
    assert_eq!(done.code(), Some(0), "{done}");
    done
}

#[test]
fn open_files_end_with_emfile() {
    if !has(&["python3"]) {
        return;
    }
    for user in users() {
        let script = "import os, errno, resource\nfds = []\ntry:\n  while True: fds.append(os.open('/dev/null', 0))\nexcept OSError as e: print(errno.errorcode[e.errno], len(fds) > 90, len(fds) < 100)
try: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\nexcept Exception as e: print('not raised')";
        let done = limited(user, script);
        assert_eq!(done.out(), "EMFILE True True\nnot raised\n", "{done}");
    }
}

#[test]
fn memory_ends_with_enomem() {
    if !has(&["python3"]) {
        return;
    }
    for user in users() {
        let script = "x = bytearray(300 << 20); print(len(x) >> 20)\ntry: y = bytearray(300 << 20); print('more')\nexcept MemoryError: print('no memory')\ndel x; y = bytearray(300 << 20); print('again')";
        let done = limited(user, script);
        assert_eq!(done.out(), "300\nno memory\nagain\n", "{done}");
    }
}

#[test]
fn a_loop_of_forks_ends_with_eagain_and_the_next_session_is_not_short_of_processes() {
    if !has(&["python3"]) {
        return;
    }
    for user in users() {
        let script = "import os, errno, signal, time\nchildren = []\ntry:\n  while len(children) < 1000:\n    pid = os.fork()\n    if pid == 0: time.sleep(60); os._exit(0)
    children.append(pid)\nexcept OSError as e: print(errno.errorcode[e.errno], 40 < len(children) <= 60)";
        let done = limited(user, script);
        assert_eq!(done.out(), "EAGAIN True\n", "{done}");
        done.home.assert_nothing_left();
        let again = Run::at(&done.home)
            .policy(&room())
            .subject("room")
            .bash("for i in 1 2 3; do sleep 0.01 & done; wait; echo well")
            .run();
        assert_eq!(again.out(), "well\n", "{again}");
    }
}
