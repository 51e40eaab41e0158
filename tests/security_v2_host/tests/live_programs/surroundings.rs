//! What a program finds around itself: environment, names, devices, processes, places.

use crate::need::{denied, has, in_room, place, room, succeeds, works, works_unhindered};
use security_v2_host::{Run, users};

#[test]
fn only_the_allowed_environment_arrives() {
    for user in users() {
        let run = Run::new(user)
            .bash("env -0 | sort -z | cut -z -d= -f1 | tr '\\0' ' '; echo; echo \"$HOME $TMPDIR $LANG $PWD\"");
        let work = run.home().work();
        let secrets = [
            "SECRET_TOKEN",
            "SSH_AUTH_SOCK",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "BASH_ENV",
            "AWS_SECRET_ACCESS_KEY",
            "DISPLAY",
            "XDG_RUNTIME_DIR",
        ];
        let run = secrets.iter().fold(run, |run, name| run.env(name, "/nowhere"));
        let done = succeeds(run.env("LANG", "C.UTF-8").env("TZ", "UTC"));
        let out = done.out();
        let (names, values) = out.split_once('\n').expect("two lines");
        // The last two are bash's own.
        assert_eq!(
            names.trim(),
            "HOME LANG LC_ALL LOGNAME PATH PWD SHLVL TMPDIR TZ USER _",
            "{done}"
        );
        assert_eq!(
            values.trim(),
            format!("/state/home /tmp C.UTF-8 {}", work.display()),
            "{done}"
        );
    }
}

#[test]
fn the_user_has_a_name_a_home_and_no_power() {
    for user in users() {
        let done = works_unhindered(
            &place(user),
            r#"
            [ "$(id -un)" = "$USER" ]; [ "$(whoami)" = "$LOGNAME" ]; [ "$(id -u)" != 0 ]; [ "$(id -g)" != 0 ]
            getent passwd "$USER" | cut -d: -f3,6; id -u; getent group "$(id -g)" > /dev/null; getent passwd 0 | cut -d: -f1
            [ "$(cd ~ && pwd)" = "$HOME" ]; [ -w ~ ]; [ -O /tmp ]; [ -k /tmp ]; [ -w /dev/shm ]; ls -ld ~ | cut -d' ' -f3
            hostname; hostname -f; uname -n; grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d ' \t' | sort -u | tr '\n' ' '
            "#,
        );
        let out = done.out();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], format!("{}:/state/home", lines[1]), "{done}");
        assert_eq!(lines[2], "root", "{done}");
        assert_eq!(lines[4..7], ["nexus"; 3], "{done}");
        let none = "0000000000000000";
        assert_eq!(
            lines[7].trim(),
            format!("CapAmb:{none} CapBnd:{none} CapEff:{none} CapInh:{none} CapPrm:{none} NoNewPrivs:1"),
            "{done}"
        );
    }
}

#[test]
fn locale_and_timezone_work() {
    for user in users() {
        let script = r#"date -d @0 +%H:%M%z; printf 'ä\n' | wc -m; TZ=America/New_York date -d @0 +%H; locale charmap; printf 'é' | sed 's/./x/g'; ls -l /etc/localtime > /dev/null"#;
        let done = succeeds(
            in_room(&place(user))
                .env("LC_ALL", "C.UTF-8")
                .env("TZ", "Asia/Tokyo")
                .bash(script),
        );
        assert_eq!(done.out(), "09:00+0900\n2\n19\nUTF-8\nx", "{done}");
        assert_eq!(denied(&done), Vec::<String>::new(), "{done}");
    }
}

#[test]
fn the_umask_is_the_callers() {
    for user in users() {
        for (mask, file, directory) in [("0077", "600", "700"), ("0022", "644", "755"), ("0000", "666", "777")] {
            let home = place(user);
            let command = in_room(&home)
                .option("--quiet")
                .bash("umask; touch f; mkdir d; cd /tmp; touch f; mkdir d; stat -c %a f d; stat -c %a \"$OLDPWD\"/[fd]")
                .command();
            // Set in a shell of the caller's that then becomes `nx`.
            let nx = command.get_program().to_owned();
            let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            let mut shell = std::process::Command::new("sh");
            shell
                .args(["-c", &format!("umask {mask}; exec \"$0\" \"$@\"")])
                .arg(nx)
                .args(arguments)
                .env_clear();
            shell.envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))),
            );
            shell.current_dir(home.work());
            home.run_as_user(&mut shell);
            let output = security_v2_host::output(&mut shell).expect("sh is everywhere");
            let out = String::from_utf8_lossy(&output.stdout);
            assert_eq!(
                out,
                format!("{mask}\n{file}\n{directory}\n{directory}\n{file}\n"),
                "{output:?}"
            );
        }
    }
}

#[test]
fn devices_are_few_and_work() {
    for user in users() {
        let done = works_unhindered(
            &place(user),
            r#"
            ls /dev | tr '\n' ' '; echo; ls -l /dev | grep -c ^b || true
            [ "$(head -c 4 /dev/zero | od -An -tx4 | tr -d ' ')" = 00000000 ]; head -c 100000 /dev/urandom | wc -c; head -c 8 /dev/random | wc -c
            echo gone > /dev/null; ! echo full > /dev/full 2> /dev/null; (echo err > /dev/stderr) 2>&1 | cat; echo in | cat /dev/stdin; (echo out > /dev/stdout) | cat; cat <(echo fd)
            ! touch /dev/new 2> /dev/null; ! rm /dev/null 2> /dev/null; ! cat /dev/mem /dev/kmsg /dev/sda /dev/fuse /dev/kvm 2> /dev/null; echo end
            "#,
        );
        let expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero \n0\n100000\n8\nerr\nin\nout\nfd\nend\n";
        assert_eq!(done.out(), expected, "{done}");
    }
}

#[test]
fn pipes_that_root_hands_over_can_be_opened_again_by_their_names() {
    // An ordinary user's pipes are its own; those of this test are whoever's runs it.
    for user in users()
        .into_iter()
        .filter(|user| user.id() == rustix::process::geteuid().as_raw())
    {
        let done = works_unhindered(
            &place(user),
            "echo err > /dev/stderr; echo out > /dev/stdout; cat /dev/stdin; echo 2 > /proc/self/fd/2",
        );
        assert!(done.out() == "out\n" && done.err().starts_with("err\n2\n"), "{done}");
    }
}

#[test]
fn the_system_is_read_only_and_what_is_not_the_programs_is_not_there() {
    for user in users() {
        let done = works(
            &place(user),
            r#"
            for place in / /usr /usr/bin /usr/share /etc /etc/ssl/certs /dev /proc /sys /var /sys/devices/system/cpu; do
                ! touch $place/new 2> /tmp/why; grep -oE 'Read-only file system|No such file or directory|Permission denied|not permitted' /tmp/why | sort -u
            done | sort | uniq -c | sort -n | tail -n 1 | tr -s ' '
            ! echo x 2> /dev/null > /usr/bin/true; ! rm -f /etc/passwd 2> /dev/null; ! mv /usr/bin/id /tmp 2> /dev/null
            for secret in /root /home /etc/shadow /etc/ssh /etc/nexus /boot /run/user /var/lib /var/log /mnt /srv /opt /proc/1/root/etc/shadow /proc/1/environ /sys/kernel /proc/1/cwd/x; do
                ! cat $secret/* > /dev/null 2>&1; ! ls $secret/ > /dev/null 2>&1 || echo "shows $secret"
            done
            cut -d' ' -f2 /proc/self/mounts | grep -c '/wor[k]/' || true; echo end
            "#,
        );
        let out = done.out();
        assert!(
            out.contains("Read-only file system") && out.ends_with("end\n") && !out.contains("shows"),
            "{done}"
        );
    }
}

#[test]
fn processes_of_others_and_of_nexus_are_not_seen() {
    for user in users() {
        let done = works(
            &place(user),
            r#"cd /proc; for p in [0-9]*; do printf '%s ' "$(cat $p/comm)"; done; echo; ls -d [0-9]* | wc -l
            ! cat 1/environ 2> /dev/null | grep -q .; ! ls -l 1/fd 2> /dev/null | grep -q .; ! readlink 1/exe; ! head -c 1 1/mem 2> /dev/null | grep -q .
            ! kill -9 1 2> /dev/null || sleep 0.1; echo alive; ! echo 3 2> /dev/null > /proc/sys/vm/drop_caches; ! echo b 2> /dev/null > /proc/sysrq-trigger; echo end"#,
        );
        let out = done.out();
        assert!(out.ends_with("alive\nend\n"), "{done}");
        let count: u32 = out.lines().nth(1).and_then(|line| line.parse().ok()).expect("a number");
        assert!(count <= 4, "{done}");
    }
}

#[test]
fn df_tells_the_budget_and_var_tmp_and_shm_are_of_tmp() {
    for user in users() {
        let done = works_unhindered(
            &place(user),
            r#"
            for place in /tmp /var/tmp /dev/shm /state; do df -B1 --output=size,used $place | tail -n 1 | tr -s ' ' | sed 's/^ //'; done
            df --output=itotal /tmp | tail -n 1 | tr -d ' '
            head -c 8388608 /dev/zero > /dev/shm/memory; df -B1 --output=used /tmp | tail -n 1 | tr -d ' '; ls /tmp | grep -c memory || true
            echo same > /tmp/file; cat /var/tmp/file; rm /var/tmp/file; ls /tmp | grep -c file || true; rm /dev/shm/memory; df -B1 --output=used /dev/shm | tail -n 1 | tr -d ' '
            "#,
        );
        let out = done.out();
        let lines: Vec<&str> = out.lines().collect();
        let tmp_bytes: u64 = 4 << 30;
        for line in &lines[..4] {
            assert!(line.starts_with(&format!("{tmp_bytes} ")), "{done}");
        }
        assert_eq!(lines[4], "262144", "{done}");
        let at_most: u64 = lines[5].parse().expect("a number");
        assert!((8 << 20..9 << 20).contains(&at_most), "{done}");
        assert_eq!(lines[6..], ["0", "same", "0", "0"], "{done}");
    }
}

#[test]
fn shared_memory_past_the_budget_of_tmp_is_denied() {
    for user in users() {
        let done = Run::new(user).bash("head -c 60M /dev/zero > /dev/shm/a && head -c 10M /dev/zero > /dev/shm/b; rm /dev/shm/*; echo \"gone on\"").run();
        assert!(
            done.err().contains("Disk quota exceeded") && done.out() == "gone on\n",
            "{done}"
        );
        assert!(!done.records_for("quota.hard_bytes").is_empty(), "{done}");
    }
}

#[test]
fn names_are_resolved_as_far_as_files_go() {
    if !has(&["getent", "/etc/services", "/etc/protocols"]) {
        return;
    }
    for user in users() {
        let done = works(
            &place(user),
            "getent hosts localhost > /dev/null; getent ahosts nexus | sed -n 1p | cut -d' ' -f1; getent services https | tr -s ' '; getent protocols tcp > /dev/null",
        );
        assert_eq!(done.out(), "127.0.0.1\nhttps 443/tcp\n", "{done}");
        // The C library asks for interfaces before it sorts addresses, and does without.
        assert!(
            denied(&done).iter().all(|deny| deny.starts_with("socket(0x10, ")),
            "{done}"
        );
    }
}

#[test]
fn a_program_that_is_not_there_and_one_that_cannot_be_executed_are_told_apart() {
    for user in users() {
        let home = place(user);
        home.write_work("plain", "no program\n");
        for (program, code) in [
            ("no-such-program", 127),
            ("./missing", 127),
            ("./plain", 126),
            ("/tmp", 126),
        ] {
            let done = Run::at(&home).policy(&room()).subject("room").args([program]).run();
            assert_eq!(done.code(), Some(code), "{program}: {done}");
        }
    }
}
