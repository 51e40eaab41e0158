//! What a session may use, by whatever holds it to that here.

use security_v2_host::{Run, Tree, users};
use serde_json::Value;

const SHIPPED: &str = "limits = { memory = \"2GiB\", processes = 512, open_files = 4096 }";

fn limited() -> Tree {
    let limits = "limits = { memory = \"64MiB\", processes = 24, open_files = 64 }";
    Tree::shipped().edit("sandbox.toml", SHIPPED, limits)
}

#[test]
fn the_plan_says_of_every_limit_what_holds_and_why_no_cgroup_does() {
    for user in users() {
        let run = || Run::new(user).policy(&limited()).option("--print-plan");
        let done = run().option("--json").args(["true"]).run();
        let plan: Value = serde_json::from_str(&done.out()).unwrap();
        let limits = &plan["limits"];
        assert_eq!(
            (&limits["memory"], &limits["processes"], &limits["open_files"]),
            (&Value::from(64 << 20), &Value::from(24), &Value::from(64)),
            "{done}"
        );
        let backend = |name: &str| plan["enforced"][name]["backend"].as_str().unwrap().to_owned();
        let text = run().args(["true"]).run().out();
        if let Some(below) = plan["cgroup"]["below"].as_str() {
            assert_eq!(backend("memory"), format!("cgroup v2 {below}"));
            assert_eq!(backend("processes"), format!("cgroup v2 {below}"));
        } else {
            assert_eq!(backend("memory"), "rlimit (each process)");
            assert_eq!(backend("processes"), "rlimit (session's user namespace)");
            let why = plan["cgroup"]["why_not"].as_str().unwrap();
            assert!(text.contains(&format!("no cgroup of its own: {why}")), "{text}");
        }
        assert_eq!(backend("open_files"), "rlimit (each process)");
        for name in ["memory", "processes", "open_files"] {
            let line = text
                .lines()
                .find(|line| line.trim_start().starts_with(&format!("{name} ")));
            assert!(line.is_some_and(|line| line.ends_with(&backend(name))), "{text}");
        }
    }
}

#[test]
fn the_plan_says_of_every_ipc_limit_what_it_is_who_holds_it_and_where_it_is_given() {
    let tree = Tree::shipped().append(
        "quotas.toml",
        "[subject.demo.ipc]\nshm = \"64KiB\"\nmqueue = \"32KiB\"\nmemfd = \"0B\"\n",
    );
    for user in users() {
        let run = || Run::new(user).policy(&tree).option("--print-plan");
        let done = run().option("--json").args(["true"]).run();
        let plan: Value = serde_json::from_str(&done.out()).unwrap();
        let text = run().args(["true"]).run().out();
        for (name, limit) in [("shm", 64 << 10), ("mqueue", 32 << 10), ("memfd", 0)] {
            let one = &plan["ipc"][name];
            assert_eq!(one["limit"], Value::from(limit), "{done}");
            let how = one["held_by"].as_str().unwrap();
            assert!(how.contains(", quotas.toml:"), "{how}");
            let line = text
                .lines()
                .find(|line| line.trim_start().starts_with(&format!("{name} ")));
            assert!(line.is_some_and(|line| line.ends_with(how)), "{text}");
        }
        // What the domain gives stands at the domain's place.
        assert!(
            plan["ipc"]["queues"]["held_by"]
                .as_str()
                .unwrap()
                .contains(", quotas.toml:"),
            "{done}"
        );
    }
}

#[test]
fn the_program_has_as_many_processes_and_files_as_policy_says_and_no_more() {
    for user in users() {
        let done = Run::new(user)
            .policy(&limited())
            .probe(["processes", ",", "files", "/dev/null", ",", "processes"])
            .run();
        assert_eq!(done.code(), Some(0), "{done}");
        // Init and the program count; and what is open already.
        let processes = "errno 11 after 22";
        assert_eq!(done.probed(), [processes, "errno 24 after 61", processes], "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn memory_below_the_limit_is_given_and_memory_above_it_is_not() {
    for user in users() {
        let run = |mebibytes| Run::new(user).policy(&limited()).probe(["memory", mebibytes]).run();
        let done = run("32");
        assert_eq!(done.probed(), ["32 MiB"], "{done}");
        let done = run("96");
        // A process that asks for too much is told; a session that uses too much is ended.
        assert!(
            done.probed() == ["errno 12"] || done.code() == Some(137) && done.err().contains("bytes of memory"),
            "{done}"
        );
        done.assert_nothing_left();
    }
}

#[test]
fn the_program_is_not_told_where_on_the_host_its_cgroup_is() {
    for user in users() {
        let done = Run::new(user).args(["cat", "/proc/self/cgroup"]).run();
        let own: Vec<String> = done
            .out()
            .lines()
            .map(|line| line.splitn(3, ':').last().unwrap_or_default().to_owned())
            .collect();
        assert!(own.iter().all(|path| path == "/"), "{done}");
    }
}
