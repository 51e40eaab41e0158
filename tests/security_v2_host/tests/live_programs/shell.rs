//! The shell and its tools.

use crate::need::{has, last, place, works, works_unhindered};
use security_v2_host::users;

#[test]
fn sh_and_coreutils_work() {
    for user in users() {
        let home = place(user);
        let done = works_unhindered(
            &home,
            r#"
            cd "$TMPDIR"
            printf '%s\n' b c a | sort > sorted; [ "$(tr -d '\n' < sorted)" = abc ]
            seq 100000 | sha256sum | cut -c1-8; seq 1000 | shuf | sort -n | head -n 1 | grep -qx 1
            cp -a sorted copy; cmp sorted copy; mv copy moved; ln moved hard; ln -s moved soft
            [ "$(stat -c %h moved)" = 2 ]; [ "$(readlink soft)" = moved ]; [ "$(cat soft)" = "$(cat hard)" ]
            chmod 600 moved; [ "$(stat -c %a moved)" = 600 ]; touch -d 2001-02-03 moved; [ "$(date -r moved +%Y)" = 2001 ]
            mkfifo pipe; echo through > pipe & read line < pipe; [ "$line" = through ]; wait
            truncate -s 1M big; dd if=/dev/urandom of=big bs=64K count=16 conv=notrunc status=none; split -b 300K big part.
            cat part.* | cmp - big; install -D -m 755 /bin/true deep/er/true; deep/er/true
            find . -name 'part.*' | xargs rm; df . > /dev/null; du -s . > /dev/null; sync .; timeout 5 sleep 0.01
            mktemp -d > /dev/null; id -un; nice -n 5 true; env -i /usr/bin/env | wc -l; tac sorted | tee out > /dev/null
            awk 'BEGIN { print 6 * 7 }' | grep -qx 42; sed -i s/a/x/ sorted; grep -q x sorted; diff sorted out || [ $? = 1 ]
            (exit 3) || [ $? = 3 ]; trap 'echo caught' TERM; kill -TERM $$; echo end
            "#,
        );
        assert_eq!(last(&done), "end", "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn a_thousand_processes_one_after_another_work() {
    for user in users() {
        let done = works_unhindered(
            &place(user),
            "i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i+1)); done; echo $i",
        );
        assert_eq!(last(&done), "1000", "{done}");
    }
}

#[test]
fn large_output_arrives_whole_through_pipes() {
    for user in users() {
        let home = place(user);
        let done = works_unhindered(
            &home,
            "head -c 300000000 /dev/zero | cat | wc -c; seq 1 2000000 | tail -n 1",
        );
        assert_eq!(done.out(), "300000000\n2000000\n", "{done}");
        // Eight megabytes to the caller itself.
        let done = works_unhindered(&home, "seq 1 1000000");
        assert_eq!((done.stdout.len(), last(&done).as_str()), (6_888_896, "1000000"));
    }
}

/// More than one answer of the file server holds. A million are `trees` of the file server's own tests.
#[test]
fn five_thousand_files_in_a_directory_are_all_there() {
    for user in users() {
        let home = place(user);
        for place in ["/tmp", "/state"] {
            let done = works_unhindered(
                &home,
                &format!(
                    "mkdir {place}/many; cd {place}/many; seq 5000 | xargs -n 1000 touch; ls | wc -l; ls -f | sort -u | wc -l
                     find . -name '*7' -delete; ls | wc -l; cd ..; rm -r many; ls -A | grep -c many || true"
                ),
            );
            assert_eq!(done.out(), "5000\n5002\n4500\n0\n", "{done}");
        }
    }
}

#[test]
fn deep_directories_and_long_names_work_and_longer_ones_do_not() {
    for user in users() {
        let home = place(user);
        for place in ["/tmp", "/state"] {
            let done = works_unhindered(
                &home,
                &format!(
                    "cd {place}; perl -e 'for (1 .. 500) {{ mkdir \"d\" x 20 or die $!; chdir \"d\" x 20 or die $! }}
                     open F, \">f\"; print F \"deep\"; close F; open F, \"f\"; print <F>, \"\\n\"'
                     rm -r dddddddddddddddddddd
                     name=$(printf 'n%.0s' $(seq 255)); echo long > $name; cat nnnnn*; rm $name
                     touch ${{name}}n 2>&1 | grep -o 'File name too long' || true
                     echo odd > $'a\\nb\\xff'; cat a*; rm a*"
                ),
            );
            assert_eq!(done.out(), "deep\nlong\nFile name too long\nodd\n", "{done}");
        }
    }
}

#[test]
fn a_static_binary_runs() {
    if !has(&["busybox"]) {
        return;
    }
    for user in users() {
        let done = works_unhindered(
            &place(user),
            "! ldd $(command -v busybox) > /dev/null 2>&1
             cp $(command -v busybox) /tmp/busybox; /tmp/busybox sh -c 'echo of its own | /tmp/busybox tr a-z A-Z'; busybox ls / > /dev/null",
        );
        assert_eq!(last(&done), "OF ITS OWN", "{done}");
    }
}

#[test]
fn processes_are_seen_and_signalled_within_the_session_only() {
    if !has(&["ps"]) {
        return;
    }
    for user in users() {
        let done = works(
            &place(user),
            "sleep 100 & until grep -qx sleep /proc/$!/comm; do :; done; ps -eo comm= | sort | tr '\\n' ' '; echo; kill %1; wait %1 || echo $?; ls -d /proc/[0-9]* | wc -l",
        );
        let out = done.out();
        let lines: Vec<&str> = out.lines().collect();
        // Init, the shell, and what it started.
        assert!(
            lines[0].contains("sleep") && lines[0].split(' ').filter(|name| !name.is_empty()).count() <= 6,
            "{done}"
        );
        assert_eq!(lines[1], "143", "{done}");
        assert!(lines[2].parse::<u32>().is_ok_and(|count| count <= 4), "{done}");
    }
}
