//! Names that change under the file server.

use std::time::Duration;

use security_v2_host::users;

use crate::kit::Attack;

#[test]
fn links_that_change_places_lead_the_file_server_nowhere() {
    for user in users() {
        let attack = Attack::new(user);
        // Where the file server, which is the user, can read and the program cannot.
        let secret = attack.home.home().join("secret");
        std::fs::create_dir(&secret).unwrap();
        for name in ["file", "secret-name"] {
            std::fs::write(secret.join(name), "the secret\n").unwrap();
            attack.home.give(&secret.join(name));
        }
        attack.home.give(&secret);
        let path = secret.to_string_lossy();
        for area in ["/tmp", "/state", "/dev/shm"] {
            let run = attack
                .prepare(&["storm", area, &path, "1500"])
                .deadline(Duration::from_secs(120));
            let done = run.run();
            let answers = crate::kit::Answers::of(&done.out());
            assert_eq!((answers.get("escaped"), answers.value("escaped")), ("ok", 0), "{done}");
        }
        let mut names: Vec<_> = std::fs::read_dir(&secret)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["file", "secret-name"]);
        assert_eq!(
            std::fs::read_to_string(secret.join("secret-name")).unwrap(),
            "the secret\n"
        );
        attack.home.assert_nothing_left();
    }
}

#[test]
fn without_a_session_the_storm_finds_the_secret() {
    for user in users().into_iter().rev().take(1) {
        let attack = Attack::new(user);
        let secret = attack.home.home().join("secret");
        let place = attack.home.work().join("place");
        for directory in [&secret, &place] {
            std::fs::create_dir(directory).unwrap();
            attack.home.give(directory);
        }
        std::fs::write(secret.join("file"), "the secret\n").unwrap();
        attack.home.give(&secret.join("file"));
        // A race without a guard is won sooner or later, and no machine says how soon.
        const TRIES: usize = 40;
        let storm = ["storm", &place.to_string_lossy(), &secret.to_string_lossy(), "1500"];
        assert!(
            (0..TRIES).any(|_| attack.bare(&storm).value("escaped") > 0),
            "nothing escapes without a guard either"
        );
    }
}
