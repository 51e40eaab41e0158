//! A crate uses only crates above it; services never use one another.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lints know only functions that are tests themselves"
)]

use tidy::{Crate, Dependency, crates, root};

/// From those that know nobody to the one that knows all: ARCHITECTURE.md's code map.
const ORDER: [&str; 17] = [
    "nexus-abi",
    "nexus-quota",
    "nexus-net-egress",
    "nexus-abi-policy",
    "nexus-audit",
    "nexus-snapshot",
    "nexus-policy",
    "nexus-net",
    "nexus-sys",
    "nexus-wire",
    "policyd",
    "logd",
    "vfsd",
    "netd",
    "execd",
    "nx",
    "selftest-client",
];

const SERVICES: [&str; 5] = ["policyd", "logd", "vfsd", "netd", "execd"];

fn level(name: &str) -> Option<usize> {
    ORDER.iter().position(|known| *known == name)
}

/// What breaks the rule, in words.
fn broken(crates: &[Crate]) -> Vec<String> {
    let mut broken = Vec::new();
    for member in crates.iter().filter(|member| !member.is_outside()) {
        let Some(own) = level(&member.name) else {
            broken.push(format!("`{}` has no place in the order", member.name));
            continue;
        };
        for used in member.dependencies.iter().filter(|used| used.member) {
            match level(&used.name) {
                None => broken.push(format!(
                    "`{}` uses `{}`, which nothing that is shipped may use",
                    member.name, used.name
                )),
                Some(level) if level >= own => {
                    broken.push(format!("`{}` uses `{}`, which is not above it", member.name, used.name));
                }
                Some(_) if SERVICES.contains(&&*member.name) && SERVICES.contains(&&*used.name) => {
                    broken.push(format!(
                        "the service `{}` uses the service `{}`",
                        member.name, used.name
                    ));
                }
                Some(_) => {}
            }
        }
    }
    broken
}

#[test]
fn every_crate_uses_only_crates_above_it_and_no_service_uses_another() {
    let crates = crates().unwrap();
    assert!(crates.len() >= ORDER.len());
    assert_eq!(broken(&crates), Vec::<String>::new());
}

fn made_up(name: &str, uses: &[&str]) -> Crate {
    Crate {
        name: name.into(),
        manifest: root().canonicalize().unwrap().join("source/Cargo.toml"),
        examples_are_tests: false,
        roots: vec![],
        dependencies: uses
            .iter()
            .map(|name| Dependency {
                name: (*name).into(),
                member: true,
                in_tests: false,
            })
            .collect(),
    }
}

#[test]
fn an_arrow_upwards_is_allowed_and_its_nearest_neighbours_are_found() {
    let check = |name: &str, uses: &str, expect: usize| {
        assert_eq!(broken(&[made_up(name, &[uses])]).len(), expect, "{name} -> {uses}");
    };
    check("netd", "nexus-wire", 0);
    check("netd", "vfsd", 1);
    check("vfsd", "netd", 1);
    check("nexus-wire", "policyd", 1);
    check("netd", "netd", 1);
    check("nx", "netd", 0);
    check("nx", "tidy", 1);
    check("unknown", "nexus-abi", 1);
}

#[test]
fn the_code_map_has_the_same_order() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, map) = text.split_once("## Code map").unwrap();
    let (map, _) = map.split_once("\n## ").unwrap_or((map, ""));
    let crates = crates().unwrap();
    let root = root().canonicalize().unwrap();
    let mapped: Vec<_> = map
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter_map(|path| {
            let manifest = root.join(path.trim_end_matches('/')).join("Cargo.toml");
            crates.iter().find(|member| member.manifest == manifest)
        })
        .filter(|member| !member.is_outside())
        .map(|member| member.name.as_str())
        .collect();
    assert_eq!(mapped, ORDER);
}
