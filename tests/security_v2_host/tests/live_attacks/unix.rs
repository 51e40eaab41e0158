//! Unix sockets of the host's.

use std::path::Path;

use security_v2_host::users;

use crate::kit::{Attack, Catcher, open_to_all};

fn attack_paths(attack: &Attack, place: &Path, names: &[&str], caught: &[&Catcher]) {
    let mut words = vec!["unix"];
    words.extend(names);
    let (answers, done) = attack.run(&words);
    assert_eq!(done.code(), Some(0), "{done}");
    let ok: Vec<&String> = answers
        .said
        .iter()
        .filter(|(_, said)| *said == "ok")
        .map(|(name, _)| name)
        .filter(|name| !name.ends_with("-socket"))
        .collect();
    assert_eq!(ok, Vec::<&String>::new(), "{done}");
    assert!(!done.records_for("ipc.no_rule").is_empty(), "{done}");
    for catcher in caught {
        catcher.assert_nothing();
    }
    attack.bare(&[
        "unix",
        &place.join("stream").to_string_lossy(),
        &place.join("datagram").to_string_lossy(),
    ]);
    for catcher in caught {
        catcher.assert_something();
    }
}

#[test]
fn a_path_in_a_work_directory_that_is_a_socket_of_the_hosts_is_out_of_reach() {
    for user in users() {
        for suffix in ["", ":ro"] {
            let attack = Attack::new(user);
            let work = attack.home.work();
            let attack = attack.work(format!("{}{suffix}", work.display()));
            let stream = Catcher::unix(&work.join("stream"));
            let datagram = Catcher::unix_datagram(&work.join("datagram"));
            std::os::unix::fs::symlink("stream", work.join("link")).unwrap();
            std::fs::create_dir(work.join("below")).unwrap();
            std::os::unix::fs::symlink("../datagram", work.join("below/link")).unwrap();
            let whole = work.join("stream").to_string_lossy().into_owned();
            let names = [
                "stream",
                "datagram",
                "./stream",
                "link",
                "below/link",
                "/proc/self/cwd/stream",
                "below/../datagram",
                &whole,
            ];
            attack_paths(&attack, &work, &names, &[&stream, &datagram]);
        }
    }
}

#[test]
fn a_path_that_policy_shows_is_out_of_reach_if_it_is_a_socket() {
    for user in users() {
        let mut attack = Attack::new(user);
        // Not in the home of the test, which is in `/tmp`: that is the session's own.
        let base = if rustix::process::geteuid().is_root() {
            "/var/lib".into()
        } else {
            std::env::var("HOME").unwrap()
        };
        let holder = tempfile::Builder::new().prefix("nexus-test-").tempdir_in(base).unwrap();
        let place = std::fs::canonicalize(holder.path()).unwrap();
        attack.home.give(&place);
        open_to_all(&place);
        let stream = Catcher::unix(&place.join("stream"));
        let datagram = Catcher::unix_datagram(&place.join("datagram"));
        let shown = format!(
            "[subject.attack]\nread = [\"/usr\", \"{}\"]\nwork = \"unmetered\"\n",
            place.display()
        );
        attack.tree = attack
            .tree
            .edit("sandbox.toml", "[subject.attack]\nwork = \"unmetered\"\n", &shown);
        let names = [place.join("stream"), place.join("datagram")].map(|path| path.to_string_lossy().into_owned());
        attack_paths(&attack, &place, &[&names[0], &names[1]], &[&stream, &datagram]);
    }
}

#[test]
fn an_abstract_name_of_the_hosts_is_nobody_inside() {
    use std::os::linux::net::SocketAddrExt;
    for user in users() {
        let name = format!("nexus-test-{}-{}", std::process::id(), user.id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        let attack = Attack::new(user);
        let (answers, _) = attack.run(&["abstract", &name]);
        assert_eq!(answers.get("abstract stream-connect"), "ECONNREFUSED", "{answers}");
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err());
        attack
            .bare(&["abstract", &name])
            .assert_ok(&["abstract stream-connect"]);
        assert!(listener.accept().is_ok());
    }
}
