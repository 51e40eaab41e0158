//! The directory that the run names or stands in.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::need::{in_room, lacking, place, succeeds, works_unhindered};
use security_v2_host::{Home, Output, Run, User, users};

#[test]
fn the_shipped_policy_shows_it_read_only() {
    for user in users() {
        let home = place(user);
        let file = home.write_work("file", "seen\n");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .expect("a mode of one's own file");
        let script = "cat file; for try in 'echo x > file' 'echo x > new' 'rm file' 'mkdir d' 'chmod 777 file' 'mv file other' 'touch file'; do
            (eval \"$try\") 2>&1 | grep -o 'Read-only file system'; done | uniq -c | tr -s ' '";
        let done = Run::at(&home).bash(script).run();
        assert_eq!(done.out(), "seen\n 7 Read-only file system\n", "{done}");
        assert_eq!(
            std::fs::read_to_string(home.work().join("file")).expect("it is still there"),
            "seen\n"
        );
    }
}

#[test]
fn unmetered_it_is_written_and_the_budget_of_tmp_is_not() {
    for user in users() {
        let done = works_unhindered(
            &place(user),
            "head -c 5M /dev/zero > big; df -B1 --output=used /tmp | tail -n 1 | tr -d ' '; mkdir -p a/b; mv a c; ln big c/hard; rm -r c",
        );
        assert_eq!(done.out(), "0\n", "{done}");
        assert_eq!(
            std::fs::metadata(done.home.work().join("big"))
                .expect("it was written")
                .len(),
            5 << 20
        );
    }
}

/// Runs in another current directory.
fn standing_in(home: &Arc<Home>, directory: &Path, script: &str) -> (String, String) {
    let run = in_room(home).bash(script);
    let mut command = run.command();
    let output = security_v2_host::output(command.current_dir(directory)).expect("nx starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    assert!(output.status.success(), "{output:?}");
    (text(output.stdout), text(output.stderr))
}

fn made(home: &Home, path: &Path) -> PathBuf {
    std::fs::create_dir_all(path).expect("a directory");
    home.give(path);
    if home.user() == User::Root {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("a mode");
    }
    path.to_owned()
}

#[test]
fn names_with_spaces_newlines_and_any_bytes_are_shown_as_they_are() {
    for user in users() {
        let home = place(user);
        let names: [&[u8]; 5] = [
            b"a b  c",
            b"line\nbreak",
            "\u{fc}ml\u{e4}ut \u{2603}".as_bytes(),
            b"bad\xff\xfe",
            b"quo'te\"$(id)\\",
        ];
        for name in names {
            let directory = made(&home, &home.work().join(std::ffi::OsString::from_vec(name.to_vec())));
            let script = "pwd -P | cmp - <(printf '%s\\n' \"$PWD\") && echo inside > written && ls && readlink /proc/self/cwd | wc -c";
            let (out, _) = standing_in(&home, &directory, script);
            // readlink escapes nothing, and ends the line.
            let length = std::os::unix::ffi::OsStrExt::as_bytes(directory.as_os_str()).len() + 1;
            assert_eq!(out, format!("written\n{length}\n"), "{}", directory.display());
            assert_eq!(
                std::fs::read_to_string(directory.join("written")).expect("written outside too"),
                "inside\n"
            );
        }
    }
}

#[test]
fn a_current_directory_that_was_reached_through_a_link_is_the_one_it_leads_to() {
    for user in users() {
        let home = place(user);
        let real = made(&home, &home.work().join("real"));
        let link = home.work().join("link");
        symlink(&real, &link).expect("a link");
        let (out, _) = standing_in(&home, &link, "pwd; echo > here");
        assert_eq!(out, format!("{}\n", real.display()));
        assert!(real.join("here").exists());
    }
}

#[test]
fn below_tmp_it_is_shown_and_its_neighbours_on_the_host_are_not() {
    for user in users() {
        let home = place(user);
        if !home.work().starts_with("/tmp") {
            return lacking("the tests' temporary directory is not below /tmp");
        }
        let done = works_unhindered(
            &home,
            "echo x > below; ls -A /tmp | wc -l; ls -A .. | tr '\\n' ' '; touch /tmp/beside; rm /tmp/beside",
        );
        // In its own /tmp stands nothing but the way to the work directory.
        assert_eq!(done.out(), "1\nwork ", "{done}");
        assert!(home.work().join("below").exists() && !Path::new("/tmp/beside").exists());
        home.assert_nothing_left();
    }
}

/// A tmpfs of root's, gone with the test.
struct Memory(PathBuf);

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn on_a_tmpfs_it_works() {
    if !rustix::process::geteuid().is_root() {
        return lacking("only root can mount a tmpfs to work on");
    }
    for user in users() {
        let home = place(user);
        let directory = made(&home, &home.work().join("memory"));
        rustix::mount::mount(
            "none",
            &directory,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            c"mode=777",
        )
        .expect("root mounts");
        let memory = Memory(directory.clone());
        let (out, _) = standing_in(
            &home,
            &directory,
            "echo x > f; mkdir d; mv f d; cat d/f; stat -f -c %T .; ln -s f l; rm -r d l; ls -A",
        );
        assert_eq!(out, "x\ntmpfs\n");
        drop(memory);
    }
}

#[test]
fn the_home_is_not_shown_only_because_one_stands_in_it_and_that_is_said() {
    for user in users() {
        let home = place(user);
        std::fs::write(home.home().join("secret"), "secret").expect("a file");
        home.give(&home.home().join("secret"));
        let (out, err) = standing_in(&home, &home.home(), "pwd; ls -A | grep -c secret || true");
        assert_eq!(out, "/state/home\n0\n");
        assert!(
            err.contains(
                "holds your home directory and is not shown to the program; name a directory with `--work DIR`"
            ),
            "{err}"
        );
        // A directory in it is.
        let project = made(&home, &home.home().join("project"));
        let (out, err) = standing_in(&home, &project, "pwd; ls -A ..");
        assert_eq!(out, format!("{}\nproject\n", project.display()));
        assert!(!err.contains("not shown"), "{err}");
    }
}

#[test]
fn more_than_policy_gives_is_refused_and_less_is_given() {
    for user in users() {
        let home = place(user);
        let ask = |run: Run, mode: &str| -> Output {
            run.work(format!("{}{mode}", home.work().display()))
                .bash("echo x > f && rm f")
                .run()
        };
        let refused = ask(Run::at(&home), ":unmetered");
        assert!(
            refused.code() == Some(3) && refused.err().contains("less than"),
            "{refused}"
        );
        let narrowed = ask(in_room(&home), ":ro");
        assert!(
            narrowed.code() == Some(1) && narrowed.err().contains("Read-only file system"),
            "{narrowed}"
        );
        let _ = succeeds(
            in_room(&home)
                .work(format!("{}:unmetered", home.work().display()))
                .bash("echo x > f && rm f"),
        );
    }
}
