//! `nx sec test deny` of every call: allowed, it ends with 3 and the rule; denied, it is seen denied.

use nx_sec_host::proof::{all, left, left_out, policy, test, unproven};
use nx_sec_host::sec_json;
use security_v2_host::{Tree, as_everybody};
use serde_json::Value;
use std::path::PathBuf;

const DENY: [&str; 4] = ["deny", "--subject", "demo", "--syscall"];

fn denying(calls: &str) -> Tree {
    Tree::shipped().append("abi.toml", &format!("[subject.demo]\ndeny = [{calls}]\n"))
}

/// What was seen of the only finding, by its kinds, and the record.
fn seen(value: &Value) -> (Vec<&str>, &str) {
    let [finding] = all(value)[..] else { panic!("{value}") };
    assert_eq!(finding["status"], "ok", "{value}");
    let seen = finding["seen"].as_array().unwrap();
    let kinds = seen.iter().map(|one| one["what"].as_str().unwrap()).collect();
    let record = seen.iter().find(|one| one["what"] == "record");
    (kinds, record.map_or("", |one| one["text"].as_str().unwrap()))
}

#[test]
fn a_call_that_policy_allows_ends_with_3_and_its_rule_also_where_the_probe_needs_it_itself() {
    as_everybody(|home| {
        for name in ["read", "write", "exit_group", "getpid", "listen", "shmget"] {
            let said = test(home, &[&DENY[..], &[name]].concat());
            assert_eq!(said.code, Some(3), "{name}: {said}");
            let allows = format!("policy allows `{name}` to demo");
            assert!(said.err.contains(&allows) && said.err.contains("abi.toml:"), "{said}");
        }
        for name in ["connect", "bind", "sendmsg"] {
            let call = [&DENY[..], &[name]].concat();
            // Its flags can be denied; without them it is allowed.
            let call = if name == "sendmsg" {
                [&call[..], &["0", "0", "0"]].concat()
            } else {
                call
            };
            let said = test(home, &call);
            assert_eq!(said.code, Some(3), "{name}: {said}");
            assert!(
                said.err.contains(&format!("policy allows `{name}")) && said.err.contains("abi.toml:"),
                "{said}"
            );
            assert!(said.err.contains("nx sec test egress --subject demo --to"), "{said}");
        }
        let (value, said) = sec_json(home, &[&["test"], &DENY[..], &["read"]].concat());
        assert_eq!(
            (said.code, &value["exit"], &value["ok"]),
            (Some(3), &3.into(), &false.into())
        );
    });
}

#[test]
fn a_probe_that_may_not_speak_or_hear_proves_it_by_how_it_ends_and_the_rest_is_said_to_be_unseen() {
    as_everybody(|home| {
        for (name, number) in [("write", "write(0x1, …, 0x400)"), ("read", "read(0x0, …, 0x400)")] {
            let policy = policy(home, &denying(&format!("{name:?}")));
            let of = ["--policy", policy.as_str()];
            let (value, said) = sec_json(home, &[&["test"], &DENY[..], &[name], &of].concat());
            assert_eq!(said.code, Some(0), "{said}");
            let (kinds, record) = seen(&value);
            assert_eq!(kinds, ["errno", "record", "counter"], "{said}");
            assert_eq!(record, format!("syscall {number} abi.deny_rule"), "{said}");
            let said = test(home, &[&DENY[..], &["unshare"], &of].concat());
            assert_eq!(said.code, Some(6), "{said}");
            assert!(
                said.err.contains(&format!("policy denies `{name}` to the probe")),
                "{said}"
            );
            let (value, said) = sec_json(home, &[&["test", "all", "--subject", "demo"], &of[..]].concat());
            assert_eq!(said.code, Some(0), "{said}");
            let skipped = unproven(&value);
            assert!(
                skipped.len() == 7 && skipped.iter().all(|one| one["status"] == "skipped"),
                "{said}"
            );
            assert_eq!(all(&value).len(), 8, "{said}");
        }
        assert_eq!(left(home), Vec::<PathBuf>::new());
    });
}

#[test]
fn a_denied_call_on_a_socket_is_seen_denied_on_one_that_leads_nowhere() {
    as_everybody(|home| {
        for (name, op) in [
            ("connect", "connect"),
            ("bind", "bind"),
            ("sendto", "send"),
            ("sendmsg", "send"),
            ("sendmmsg", "send"),
        ] {
            let policy = policy(home, &denying(&format!("{name:?}")));
            let of = ["--policy", policy.as_str()];
            let (value, said) = sec_json(home, &[&["test"], &DENY[..], &[name], &of].concat());
            assert_eq!(said.code, Some(0), "{said}");
            let (kinds, record) = seen(&value);
            assert_eq!(kinds, ["errno", "record", "counter"], "{said}");
            assert_eq!(record, format!("{op} unix abi.deny_rule"), "{said}");
        }
        // A flag that a rule speaks of, where the call itself is allowed.
        for name in ["sendto", "sendmsg", "sendmmsg"] {
            let (value, said) = sec_json(home, &[&["test"], &DENY[..], &[name]].concat());
            assert_eq!(said.code, Some(0), "{said}");
            assert_eq!(seen(&value).1, "send unix abi.deny_rule", "{said}");
        }
    });
}

#[test]
fn every_call_of_the_table_is_proven_or_named_under_policies_that_deny_what_proofs_use() {
    as_everybody(|home| {
        let denied = "\"connect\", \"sendmsg\", \"close\", \"openat\", \"memfd_create\", \"shmget\"";
        let policy = policy(home, &denying(denied));
        let words = ["test", "all", "--subject", "demo", "--policy", policy.as_str()];
        let (value, said) = sec_json(home, &[&words[..], &["--part", "syscall"]].concat());
        assert!(
            unproven(&value).is_empty() && said.code == Some(0),
            "{:#?}",
            unproven(&value)
        );
        for name in ["connect on a Unix socket", "sendmsg on a Unix socket, every flag"] {
            assert!(all(&value).iter().any(|one| one["name"] == name), "{name}");
        }
        // Where no socket can be made, what is judged on one is named.
        let policy = self::policy(home, &denying("\"socket\""));
        let words = ["test", "all", "--subject", "demo", "--policy", policy.as_str()];
        let (value, said) = sec_json(home, &[&words[..], &["--part", "syscall"]].concat());
        assert_eq!(said.code, Some(0), "{:#?}", unproven(&value));
        for name in ["bind", "connect", "sendmmsg", "sendmsg", "sendto"] {
            let named = left_out(&value).iter().any(|one| one.contains(&format!("`{name}`")));
            assert!(named, "{name}: {:?}", left_out(&value));
        }
        let said = test(home, &[&DENY[..], &["connect", "--policy", &policy]].concat());
        assert_eq!(said.code, Some(3), "allowed, for whoever has a socket: {said}");
    });
}

#[test]
fn a_rule_that_asks_for_a_budget_is_judged_as_it_is_in_force() {
    as_everybody(|home| {
        let rule = "[[subject.demo.rule]]\nsyscall = \"splice\"\neffect = \"allow\"\nwhen = [{ budget = \"tmp\" }]\n";
        let tree = Tree::shipped()
            .edit("abi.toml", "\"sendfile\", \"splice\", \"tee\"", "\"sendfile\", \"tee\"")
            .append("abi.toml", rule);
        let policy = policy(home, &tree);
        let of = ["--policy", policy.as_str()];
        let said = test(home, &[&DENY[..], &["splice"], &of].concat());
        assert_eq!(said.code, Some(3), "{said}");
        let allows = "policy allows `splice` to demo, whatever its arguments: rule abi:";
        assert!(said.err.contains(allows), "{said}");
        // It is shown as what it is: let through, and found by who knows what is left.
        let (value, said) = sec_json(
            home,
            &[&["syscalls", "--subject", "demo", "--policy"], &[policy.as_str()][..]].concat(),
        );
        let answer = &value["views"][0]["answer"];
        assert!(
            answer["allowed"].as_array().unwrap().contains(&"splice".into()),
            "{said}"
        );
        let asks = answer["rules"].as_array().unwrap().iter().any(|rule| {
            rule["calls"] == serde_json::json!(["splice"])
                && rule["when"]
                    .as_str()
                    .unwrap()
                    .contains("left of tmp, as the file server finds")
        });
        assert!(asks, "{said}");
        let words = ["test", "all", "--subject", "demo", "--part", "syscall,quota"];
        let (value, said) = sec_json(home, &[&words[..], &of].concat());
        assert!(
            unproven(&value).is_empty() && said.code == Some(0),
            "{:#?}",
            unproven(&value)
        );
    });
}
