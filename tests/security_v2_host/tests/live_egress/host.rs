//! The host's own addresses, which change.

use std::os::unix::fs::PermissionsExt;

use security_v2_host::{Home, Town, users};

use crate::{KIT, lines, tree};

/// Waits for a word from inside, then gives the host one more address, for a while and for good.
const MORE: &str = r#"
( for turn in $(seq 3000); do [ -e "$here/take" ] && break; sleep 0.02; done
  ip address add 203.0.113.55/32 dev lo; touch "$here/taken"
  for turn in $(seq 3000); do [ -e "$here/leave" ] && break; sleep 0.02; done
  ip address del 203.0.113.55/32 dev lo; ip route replace local 203.0.113.0/24 dev lo; touch "$here/left" ) > /dev/null 2>&1 &
"#;

const SCRIPT: &str = r#"
def asks(word, answer):
    open(word, "w").close()
    while not os.path.exists(answer): time.sleep(0.01)
def get(where):
    with socket.create_connection((where, 80), 10) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n"); return bool(peer.recv(1))
def both(when):
    told(when, lambda: get("203.0.113.55")); told(when + " beside", lambda: get("203.0.113.56"))
both("before")
asks("take", "taken")
both("taken")
asks("leave", "left")
both("left")
"#;

#[test]
fn an_address_is_the_hosts_own_as_long_as_the_host_has_it() {
    for user in users() {
        let home = Home::new(user);
        let Some(town) = Town::new(&home) else { return };
        std::fs::set_permissions(home.work(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let script = home.write_work("script.py", &format!("{KIT}\n{SCRIPT}"));
        let run = town.run().env("TOWN_MORE", MORE);
        let run = run.policy(&tree("allow = [\"0.0.0.0/0:80\"]")).subject("net");
        let done = run
            .args(["/usr/bin/python3".into(), "-u".into(), script.into_os_string()])
            .run();
        let expected = [
            "before True",
            "before beside True",
            "taken EPERM",
            "taken beside True",
            "left True",
            "left beside True",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        assert_eq!(done.records_for("egress.special_address").len(), 1, "{done}");
    }
}
