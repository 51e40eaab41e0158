//! What is used in a delegated cgroup, by the kernel's own counters; and a proof of the limits that it holds.

use nx_sec_host::proof::{all, unproven};
use nx_sec_host::sec_json;
use rustix::process::{Pid, Signal, kill_process};
use security_v2_host::{Home, ORDINARY_ID, User, eventually, say_skipped, spawn};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A cgroup that root gave to the ordinary user, as `Delegate=yes` does; gone at its end.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Result<Self, String> {
        let tree = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(Path::new)
            .into_iter()
            .find(|tree| tree.join("cgroup.controllers").exists())
            .ok_or("no cgroup of version 2 is mounted")?;
        let read = |name: &str| std::fs::read_to_string(tree.join(name)).unwrap_or_default();
        for wanted in ["memory", "pids"] {
            if !read("cgroup.controllers").split_whitespace().any(|one| one == wanted) {
                return Err(format!(
                    "version 2 of cgroups does not have the controller `{wanted}` here"
                ));
            }
        }
        std::fs::write(tree.join("cgroup.subtree_control"), "+memory +pids").map_err(|error| error.to_string())?;
        let path = tree.join(format!("nx-sec-test-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| error.to_string())?;
        let delegated = Self(path);
        for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            let file = delegated.0.join(name);
            chown(&file, Some(ORDINARY_ID), Some(ORDINARY_ID)).map_err(|error| error.to_string())?;
        }
        Ok(delegated)
    }

    /// A command of the home's user, born in the cgroup.
    fn command(&self, home: &Home, words: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let enter = format!(
            "echo $$ > {}/cgroup.procs && exec setpriv --reuid {ORDINARY_ID} --regid {ORDINARY_ID} --clear-groups {words}",
            self.0.display()
        );
        let own = home.command("true");
        command.args(["-c", &enter]).env_clear().current_dir(home.work());
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command
    }

    fn below(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for path in self.below() {
            let _ = std::fs::remove_dir(path);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn in_a_delegated_cgroup_what_is_used_is_the_kernels_word_and_a_proof_sees_the_limits_there() {
    if !rustix::process::geteuid().is_root() {
        return say_skipped("only root can delegate a cgroup");
    }
    let delegated = match Delegated::new() {
        Ok(delegated) => delegated,
        Err(why) => return say_skipped(&format!("nothing is seen of a delegated cgroup: {why}")),
    };
    let home = Home::new(User::Ordinary(ORDINARY_ID));
    let mut child =
        spawn(&mut delegated.command(&home, "nx run --quiet demo -- sh -c 'echo begun; exec sleep 1000'")).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    let (value, said) = sec_json(&home, &["quotas", "--subject", "demo"]);
    assert_eq!(said.code, Some(0), "{said}");
    let view = &value["views"][0];
    let session = &view["source"]["sessions"][0];
    assert_eq!(session["source"], "cgroup", "{said}");
    let cgroup = PathBuf::from(session["cgroup"].as_str().unwrap());
    assert!(cgroup.starts_with(&delegated.0), "{said}");
    assert_eq!(
        cgroup.file_name().unwrap().to_str(),
        Some(&*format!("nx-{}", session["session"].as_str().unwrap()))
    );
    // Init and the program: nobody comes or goes.
    let counter = |name: &str| {
        std::fs::read_to_string(cgroup.join(name))
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(session["processes"], counter("pids.current"), "{said}");
    assert_eq!(session["processes"], 2, "{said}");
    assert!(session["memory_bytes"].as_u64().unwrap() > 0, "{said}");
    let limits = view["answer"]["limits"].as_array().unwrap();
    for (what, file) in [("memory", "memory.max"), ("processes", "pids.max")] {
        let one = limits.iter().find(|one| one["what"] == what).unwrap();
        assert_eq!(one["limit"], counter(file), "{said}");
        assert!(one["held"]["by"].as_str().unwrap().starts_with("cgroup v2 "), "{said}");
    }
    let text = nx_sec_host::sec(&home, &["quotas", "--subject", "demo"]);
    for line in ["2 processes and threads\n", "by the kernel's counters of its cgroup "] {
        assert!(text.out.contains(line), "{text}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    child.wait().unwrap();
    eventually("the session's cgroup is gone", || !cgroup.exists());

    let proof = "nx sec test all --subject demo --part limits,fences --json";
    let done = spawn(&mut delegated.command(&home, proof))
        .unwrap()
        .wait_with_output()
        .unwrap();
    let value: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(
        unproven(&value).is_empty() && done.status.success(),
        "{:#?}",
        unproven(&value)
    );
    let seen = |name: &str| {
        let one = all(&value)
            .into_iter()
            .find(|one| one["name"].as_str().unwrap().starts_with(name));
        one.unwrap_or_else(|| panic!("{name}: {value}"))["seen"].to_string()
    };
    assert!(
        seen("memory ").contains("the kernel says memory.max 2147483648"),
        "{value}"
    );
    assert!(
        seen("processes 512 is set").contains("the kernel says pids.max 512"),
        "{value}"
    );
    home.assert_nothing_left();
    eventually("no session's cgroup is left", || {
        delegated
            .below()
            .iter()
            .all(|path| !path.to_string_lossy().contains("/nx-") || path.to_string_lossy().contains("nx-front-"))
    });
}
