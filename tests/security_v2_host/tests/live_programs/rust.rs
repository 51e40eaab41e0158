//! A Rust build, with the toolchain where rustup puts it: in the home of whoever develops.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::need::{denied, has, in_room, lacking, place, room, succeeds};
use security_v2_host::{Home, Town, elsewhere, users};

/// The toolchain that runs this test.
fn sysroot() -> Option<PathBuf> {
    let output = security_v2_host::output(Command::new("rustc").args(["--print", "sysroot"])).ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim())).filter(|path| path.join("bin/cargo").exists())
}

/// Puts the toolchain into the home of the test's user, who may not be able to read the one that runs the test: linked
/// file by file where both are on one file system.
fn install(home: &Home, own: &Path, from: &Path) {
    let toolchain = own.join(".rustup/toolchains/own");
    std::fs::create_dir_all(toolchain.join("lib/rustlib")).expect("directories of the test's own");
    let copy = |from: PathBuf, to: &Path| {
        let copied = |how: &str| {
            security_v2_host::output(Command::new("cp").arg(how).arg(&from).arg(to))
                .is_ok_and(|done| done.status.success())
        };
        assert!(copied("-al") || copied("-a"), "`{}` can be copied", from.display());
    };
    copy(from.join("bin"), &toolchain);
    for entry in std::fs::read_dir(from.join("lib"))
        .expect("a toolchain has libraries")
        .flatten()
    {
        if entry.file_name() != "rustlib" {
            copy(entry.path(), &toolchain.join("lib"));
        }
    }
    copy(
        from.join("lib/rustlib/x86_64-unknown-linux-gnu"),
        &toolchain.join("lib/rustlib"),
    );
    let bin = own.join(".cargo/bin");
    std::fs::create_dir_all(&bin).expect("directories of the test's own");
    for name in ["cargo", "rustc", "rustdoc"] {
        symlink(toolchain.join("bin").join(name), bin.join(name)).expect("a link of the test's own");
    }
    std::fs::write(own.join(".cargo/credentials.toml"), "[registry]\ntoken = \"secret\"\n")
        .expect("a file of the test's own");
    for path in [".cargo", ".rustup"] {
        home.give(&own.join(path));
    }
}

fn build(home: &Arc<Home>, own: &Path, at: &str) {
    let path = format!("{}/.cargo/bin:/usr/local/bin:/usr/bin:/bin", own.display());
    let script = format!(
        "set -euo pipefail; cd {at}; cargo new --quiet --vcs none --lib part; cargo new --quiet --vcs none whole; cd whole
         echo 'part = {{ path = \"../part\" }}' >> Cargo.toml
         cat > src/main.rs <<'END'
fn main() {{
    let threads: Vec<_> = (1..=4).map(|n| std::thread::spawn(move || part::add(n, n))).collect();
    println!(\"{{}}\", threads.into_iter().map(|one| one.join().unwrap()).sum::<u64>());
}}
END
         echo 'fn main() {{ println!(\"cargo::rustc-env=BUILT=1\") }}' > build.rs
         cargo build --offline --quiet; ./target/debug/whole; touch src/main.rs; cargo run --offline --release --quiet
         cargo test --offline --quiet 2>&1 | grep -c 'test result: ok'
         cd ../part; cargo test --offline --quiet > /dev/null 2>&1; cd ..; rm -r part whole"
    );
    let done = succeeds(in_room(home).env("HOME", own).env("PATH", path).bash(&script));
    assert_eq!(done.out(), "20\n20\n1\n", "{done}");
    assert_eq!(denied(&done), Vec::<String>::new(), "{done}");
}

#[test]
fn cargo_builds_tests_and_runs_on_tmp_and_state_and_work() {
    let Some(from) = sysroot() else {
        return lacking("no rustc that tells where its toolchain is");
    };
    for user in users() {
        let home = place(user);
        let own = elsewhere(env!("CARGO_TARGET_TMPDIR"));
        install(&home, own.path(), &from);
        for at in ["/tmp", "/state", "."] {
            build(&home, own.path(), at);
        }
        let token = own.path().join(".cargo/credentials.toml");
        let done = in_room(&home)
            .env("HOME", own.path())
            .bash(&format!("cat {}", token.display()))
            .run();
        assert!(done.code() == Some(1) && done.err().contains("No such file"), "{done}");
        home.assert_nothing_left();
    }
}

/// A registry of one crate, and a repository of another, on port 8000 of every address.
const REGISTRY: &str = r#"
mkdir -p "$here/www/index/ow/n-" "$here/www/dl" "$here/own-one-1.0.0/src"; cd "$here"
printf '[package]\nname = "own-one"\nversion = "1.0.0"\nedition = "2021"\n' > own-one-1.0.0/Cargo.toml
echo 'pub fn said() -> &'"'"'static str { "from a registry" }' > own-one-1.0.0/src/lib.rs
tar -czf www/dl/own-one-1.0.0.crate own-one-1.0.0
printf '{"name":"own-one","vers":"1.0.0","deps":[],"cksum":"%s","features":{},"yanked":false}\n' "$(sha256sum www/dl/own-one-1.0.0.crate | cut -d' ' -f1)" > www/index/ow/n-/own-one
echo '{"dl": "http://git.example.org:8000/dl/{crate}-{version}.crate"}' > www/index/config.json
( mkdir -p two/src; cd two; printf '[package]\nname = "own-two"\nversion = "2.0.0"\nedition = "2021"\n' > Cargo.toml
echo 'pub fn said() -> &'"'"'static str { "from a repository" }' > src/lib.rs
export HOME=$here GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a
git init -q -b main; git add .; git commit -qm one; git clone -q --bare . "$here/www/two.git"; git -C "$here/www/two.git" update-server-info ); chmod -R a+rX www
/usr/bin/python3 -c 'import functools, http.server, os, sys, threading, time
parent = os.getppid()
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
threading.Thread(target=http.server.ThreadingHTTPServer(("0.0.0.0", 8000), handler).serve_forever, daemon=True).start()
while os.getppid() == parent: time.sleep(0.02)
os._exit(0)' "$here/www" > "$here/served" 2>&1 &
while ! ss -ltn | grep -q ':8000 '; do sleep 0.02; done
"#;

#[test]
fn cargo_fetches_from_a_registry_and_a_repository_by_name_and_is_refused_elsewhere() {
    let Some(from) = sysroot() else {
        return lacking("no rustc that tells where its toolchain is");
    };
    if !has(&["git", "python3", "ss"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        let Some(town) = Town::new(&home) else { return };
        let own = elsewhere(env!("CARGO_TARGET_TMPDIR"));
        install(&home, own.path(), &from);
        let tree = room().append("egress.toml", "[subject.room]\nallow = [\"git.example.org:8000\"]\n");
        let path = format!(
            "{}/.cargo/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            own.path().display()
        );
        let script = r#"set -euo pipefail; cd /tmp; export CARGO_NET_GIT_FETCH_WITH_CLI=true CARGO_HTTP_TIMEOUT=250
cargo new --quiet --vcs none whole; cd whole; mkdir .cargo
printf '[source.crates-io]\nreplace-with = "near"\n[source.near]\nregistry = "sparse+http://git.example.org:8000/index/"\n' > .cargo/config.toml
printf 'own-one = "1"\nown-two = { git = "http://git.example.org:8000/two.git" }\n' >> Cargo.toml
echo 'fn main() { println!("{} {}", own_one::said(), own_two::said()) }' > src/main.rs
cargo run --quiet; sed -i s/git.example.org/other.example.org/ .cargo/config.toml Cargo.toml; rm Cargo.lock
CARGO_NET_RETRY=0 cargo fetch > /tmp/said 2>&1 || grep -o -m 1 "Could not resolve host" /tmp/said"#;
        let run = town
            .run()
            .policy(&tree)
            .subject("room")
            .deadline(std::time::Duration::from_secs(300));
        let done = succeeds(
            run.env("HOME", own.path())
                .env("PATH", path)
                .env("TOWN_MORE", REGISTRY)
                .bash(script),
        );
        assert_eq!(
            done.out(),
            "from a registry from a repository\nCould not resolve host\n",
            "{done}"
        );
        home.assert_nothing_left();
    }
}
