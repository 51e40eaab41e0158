//! Finding and trusting trees, in directories of its own.
#![cfg(test)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use policyd::{Distrust, LoadError, Loaded, Origin, Places, load};
use tempfile::TempDir;

/// A tree with one subject whose `tmp` holds so many MiB.
fn tree(directory: &Path, mib: u32) {
    fs::create_dir_all(directory).unwrap();
    fs::write(
        directory.join("nexus.policy.toml"),
        "version = 1\ninclude = [\"quotas.toml\"]\n[subject.demo]\n",
    )
    .unwrap();
    fs::write(
        directory.join("quotas.toml"),
        format!("[subject.demo]\ntmp = {{ hard = \"{mib}MiB\", inodes = 9 }}\n"),
    )
    .unwrap();
    for file in ["nexus.policy.toml", "quotas.toml"] {
        fs::set_permissions(directory.join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
}

struct Room {
    root: TempDir,
    places: Places,
}

fn room() -> Room {
    let root = tempfile::tempdir().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let places = Places {
        named: None,
        variable: None,
        home: Some(root.path().join("home")),
        system: root.path().join("etc/nexus/policy"),
        caller: uid,
        administrator: uid,
    };
    Room { root, places }
}

fn hard_mib(loaded: &Loaded) -> u64 {
    loaded.policy.subject("demo").unwrap().budgets.tmp.budget.hard_bytes >> 20
}

#[test]
fn the_first_place_that_has_a_tree_counts() {
    let Room { root, mut places } = room();
    assert_eq!(load(&places).unwrap().origin, Origin::Shipped);

    let home = root.path().join("home/.config/nexus/policy");
    tree(&home, 30);
    let loaded = load(&places).unwrap();
    assert_eq!((hard_mib(&loaded), loaded.origin), (30, Origin::Home(home)));

    let variable = root.path().join("variable");
    tree(&variable, 20);
    places.variable = Some(variable.clone().into());
    let loaded = load(&places).unwrap();
    assert_eq!((hard_mib(&loaded), loaded.origin), (20, Origin::Variable(variable)));

    let named = root.path().join("named");
    tree(&named, 10);
    places.named = Some(named.clone());
    let loaded = load(&places).unwrap();
    assert_eq!((hard_mib(&loaded), loaded.origin), (10, Origin::Named(named)));
}

#[test]
fn an_administrators_tree_is_used_alone_and_is_the_ceiling_of_the_others() {
    let Room { root, mut places } = room();
    tree(&places.system, 15);
    let loaded = load(&places).unwrap();
    assert_eq!(loaded.origin, Origin::System(places.system.canonicalize().unwrap()));
    assert_eq!((hard_mib(&loaded), loaded.ceiling), (15, None));

    for (asked, given) in [(10, 10), (20, 15)] {
        let named = root.path().join(format!("named{asked}"));
        tree(&named, asked);
        places.named = Some(named);
        let loaded = load(&places).unwrap();
        assert_eq!(hard_mib(&loaded), given);
        assert_eq!(loaded.ceiling, Some(places.system.canonicalize().unwrap()));
    }

    places.named = Some(places.system.clone());
    assert_eq!(load(&places).unwrap().ceiling, None, "it is no ceiling to itself");
}

#[test]
fn a_broken_ceiling_stops_everything() {
    let Room { root, mut places } = room();
    let named = root.path().join("named");
    tree(&named, 10);
    places.named = Some(named);
    tree(&places.system, 15);
    fs::write(places.system.join("quotas.toml"), "nonsense").unwrap();
    assert!(matches!(
        load(&places),
        Err(LoadError::Invalid {
            origin: Origin::System(_),
            ..
        })
    ));
    fs::remove_dir_all(&places.system).unwrap();
    symlink("/nowhere/at/all", &places.system).unwrap();
    assert!(
        matches!(load(&places), Err(LoadError::Unreadable { .. })),
        "a link that leads nowhere is not skipped"
    );
}

#[test]
fn a_place_that_is_named_must_be_there() {
    let Room { root, mut places } = room();
    places.variable = Some(root.path().join("none").into());
    assert!(matches!(
        load(&places),
        Err(LoadError::Missing { by_variable: true, .. })
    ));
    places.named = Some(root.path().join("none"));
    assert!(matches!(
        load(&places),
        Err(LoadError::Missing { by_variable: false, .. })
    ));
    places.named = None;
    places.variable = Some("".into());
    assert_eq!(
        load(&places).unwrap().origin,
        Origin::Shipped,
        "an empty variable names nothing"
    );
}

#[test]
fn a_directory_without_a_root_file_is_an_error_and_not_skipped() {
    let Room { root, places } = room();
    let home = root.path().join("home/.config/nexus/policy");
    fs::create_dir_all(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(
        load(&places),
        Err(LoadError::Invalid {
            origin: Origin::Home(_),
            ..
        })
    ));
}

#[test]
fn what_others_may_write_is_refused_and_what_they_may_read_is_not() {
    let Room { root, mut places } = room();
    let named = root.path().join("named");
    tree(&named, 10);
    places.named = Some(named.clone());
    assert!(load(&places).is_ok());

    fs::set_permissions(&named, fs::Permissions::from_mode(0o757)).unwrap();
    let error = load(&places).unwrap_err();
    assert!(
        matches!(
            &error,
            LoadError::Distrusted {
                why: Distrust::OthersWrite { mode: 0o757 },
                ..
            }
        ),
        "{error}"
    );
    assert!(error.help().starts_with("`chmod go-w "));
    fs::set_permissions(&named, fs::Permissions::from_mode(0o755)).unwrap();

    fs::set_permissions(named.join("quotas.toml"), fs::Permissions::from_mode(0o646)).unwrap();
    let error = load(&places).unwrap_err().to_string();
    assert!(error.contains("everybody may write it (mode 0646)"), "{error}");
    fs::set_permissions(named.join("quotas.toml"), fs::Permissions::from_mode(0o644)).unwrap();

    let parent = root.path().join("parent");
    tree(&parent.join("named"), 10);
    places.named = Some(parent.join("named"));
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(load(&places), Err(LoadError::Distrusted { .. })));
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(load(&places).is_ok(), "a sticky parent, as /tmp is");
}

#[test]
fn a_strangers_tree_is_refused() {
    let Room { root, mut places } = room();
    let named = root.path().join("named");
    tree(&named, 10);
    places.named = Some(named);
    // Who asks is a stranger to the temporary directory; root's would be everybody's.
    if places.caller != 0 {
        places.caller += 1;
        assert!(matches!(
            load(&places),
            Err(LoadError::Distrusted {
                why: Distrust::Owner { .. },
                ..
            })
        ));
    } else {
        std::os::unix::fs::chown(places.named.as_ref().unwrap(), Some(12_345), None).unwrap();
        assert!(matches!(
            load(&places),
            Err(LoadError::Distrusted {
                why: Distrust::Owner { uid: 12_345, .. },
                ..
            })
        ));
    }
}

#[test]
fn links_inside_a_tree_are_not_followed_and_a_link_to_a_tree_is() {
    let Room { root, mut places } = room();
    let named = root.path().join("named");
    tree(&named, 10);
    let link = root.path().join("link");
    symlink(&named, &link).unwrap();
    places.named = Some(link);
    assert!(load(&places).is_ok());

    let outside = root.path().join("outside");
    tree(&outside, 99);
    fs::remove_file(named.join("quotas.toml")).unwrap();
    symlink(outside.join("quotas.toml"), named.join("quotas.toml")).unwrap();
    let error = load(&places).unwrap_err().to_string();
    assert!(error.contains("policy.include_leaves"), "{error}");

    fs::write(
        named.join("nexus.policy.toml"),
        "version = 1\ninclude = [\"sub/quotas.toml\"]\n[subject.demo]\n",
    )
    .unwrap();
    symlink(&outside, named.join("sub")).unwrap();
    let error = load(&places).unwrap_err().to_string();
    assert!(error.contains("policy.include_leaves"), "{error}");
}

#[test]
fn a_pipe_or_a_directory_in_place_of_a_file_is_refused_without_waiting() {
    let Room { root, mut places } = room();
    let named = root.path().join("named");
    tree(&named, 10);
    places.named = Some(named.clone());
    fs::remove_file(named.join("quotas.toml")).unwrap();
    fs::create_dir(named.join("quotas.toml")).unwrap();
    assert!(
        load(&places)
            .unwrap_err()
            .to_string()
            .contains("it is not a regular file")
    );
    fs::remove_dir(named.join("quotas.toml")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        named.join("quotas.toml"),
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )
    .unwrap();
    assert!(
        load(&places)
            .unwrap_err()
            .to_string()
            .contains("it is not a regular file")
    );
}
