//! Programs with a set-id bit run without it.

use std::os::unix::fs::{PermissionsExt, chown};

use crate::need::{has, lacking, place, works};
use security_v2_host::{copy_program, output, users};

#[test]
fn a_set_user_id_copy_of_id_prints_the_callers_id() {
    if !rustix::process::geteuid().is_root() {
        return lacking("only root can make a set-user-id program of root's");
    }
    for user in users() {
        let home = place(user);
        let copy = home.work().join("id");
        copy_program(std::path::Path::new("/usr/bin/id"), &copy).expect("a copy");
        chown(&copy, Some(0), Some(0)).expect("root owns");
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o6755)).expect("root sets modes");
        // Outside, the bit works for an ordinary user: what is tried here is not nothing.
        let mut outside = std::process::Command::new("setpriv");
        outside
            .args(["--reuid=64210", "--regid=64210", "--clear-groups"])
            .arg(&copy)
            .arg("-u");
        let outside = output(&mut outside).expect("setpriv is everywhere");
        assert_eq!(
            String::from_utf8_lossy(&outside.stdout),
            "0\n",
            "the directory of the test is mounted nosuid"
        );
        let done = works(&home, "[ -u id ]; /usr/bin/id -u; ./id -u; ./id -g; ./id -ru");
        let out = done.out();
        let ids: Vec<&str> = out.lines().collect();
        assert!(
            ids.len() == 4 && ids[0] != "0" && ids.iter().all(|id| *id == ids[0]),
            "{done}"
        );
    }
}

#[test]
fn programs_that_need_their_set_id_bit_fail_and_their_harmless_part_works() {
    if !has(&["su", "mount", "passwd"]) {
        return;
    }
    for user in users() {
        let done = works(
            &place(user),
            "mount --version > /dev/null; ! mount -t tmpfs none /tmp 2>/dev/null; ! su -c true < /dev/null 2> /dev/null; ! umount /tmp 2> /dev/null
             ! passwd -d root 2> /dev/null; ! unshare --user true 2> /dev/null; ! /usr/sbin/chroot / true 2> /dev/null; echo end",
        );
        assert_eq!(done.out(), "end\n", "{done}");
        // Each try is on the record.
        for call in ["mount", "unshare", "chroot"] {
            assert!(
                done.records.iter().any(|record| record.object.starts_with(call)),
                "no {call}: {done}"
            );
        }
    }
}

#[test]
fn nothing_gets_a_set_id_bit_and_other_modes_work() {
    for user in users() {
        let done = works(
            &place(user),
            "cp /usr/bin/id /tmp/id; ! chmod u+s /tmp/id 2> /dev/null; ! chmod 2755 /tmp/id 2> /dev/null; chmod 751 /tmp/id; stat -c %a /tmp/id
             ! install -m 4755 /usr/bin/id /tmp/other 2> /dev/null; chmod 1777 /tmp/id; stat -c %a /tmp/id",
        );
        assert_eq!(done.out(), "751\n1777\n", "{done}");
        assert!(done.records_for("abi.deny_rule").len() == 3, "{done}");
    }
}
