//! The published JSON Schemas know exactly the keys and words that the reader knows.
#![cfg(test)]

use std::collections::BTreeSet;
use std::path::Path;

use nexus_policy::{MemoryTree, Policy};
use serde_json::Value;

fn schema(matter: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/schema/{matter}.schema.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What the reader says of a tree with this text in a file of this matter.
fn said(matter: &str, text: &str) -> String {
    let root = "version = 1\ninclude = [\"FILE\"]\n[domain.d]\n[subject.s]\n";
    let file = format!("x.{matter}.toml");
    let tree = MemoryTree::new([
        ("nexus.policy.toml".to_owned(), root.replace("FILE", &file)),
        (file, text.to_owned()),
    ]);
    match Policy::load(&tree) {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    }
}

/// A key that is like no other: the reader then lists those that it knows.
const STRANGE: &str = "qqqqqqqqqqqqqqqqqqqq";

/// What stands after these words in what is said.
fn after<'s>(said: &'s str, words: &str) -> &'s str {
    let at = said.find(words).unwrap_or_else(|| panic!("no `{words}` in {said}"));
    said[at + words.len()..].lines().next().unwrap_or_default()
}

fn known(matter: &str, text: &str) -> BTreeSet<String> {
    let said = said(matter, &text.replace("KEY", STRANGE));
    after(&said, "known here: ").split(", ").map(str::to_owned).collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    assert_eq!(value["additionalProperties"], Value::Bool(false), "{value}");
    value["properties"].as_object().unwrap().keys().cloned().collect()
}

/// What a schema says of a subject.
fn of_subject(schema: &Value) -> &Value {
    let patterns = schema["properties"]["subject"]["patternProperties"]
        .as_object()
        .unwrap();
    patterns.values().next().unwrap()
}

#[test]
fn each_table_has_the_keys_of_its_schema() {
    let (policy, quotas, egress, abi, sandbox) = (
        schema("policy"),
        schema("quotas"),
        schema("egress"),
        schema("abi"),
        schema("sandbox"),
    );
    let check =
        |matter: &str, text: &str, schema: &Value| assert_eq!(known(matter, text), keys(schema), "{matter}: {text}");
    for (matter, schema) in [
        ("quotas", &quotas),
        ("egress", &egress),
        ("abi", &abi),
        ("sandbox", &sandbox),
    ] {
        check(matter, "KEY = 1", schema);
        check(matter, "[subject.s]\nKEY = 1", of_subject(schema));
        let domain = schema["properties"]["domain"]["patternProperties"].as_object().unwrap();
        assert_eq!(
            domain.values().next().unwrap(),
            of_subject(schema),
            "{matter}: a domain says what a subject says"
        );
    }
    check("quotas", "[subject.s.tmp]\nKEY = 1", &quotas["definitions"]["area"]);
    check("quotas", "[subject.s.ipc]\nKEY = 1", &quotas["definitions"]["ipc"]);
    check(
        "egress",
        "[subject.s]\nallow = [{ KEY = 1 }]",
        &egress["definitions"]["rule"]["anyOf"][1],
    );
    check("abi", "[[subject.s.rule]]\nKEY = 1", &abi["definitions"]["rule"]);
    check(
        "sandbox",
        "[subject.s.fds]\nKEY = 1",
        &of_subject(&sandbox)["properties"]["fds"],
    );
    check(
        "sandbox",
        "[subject.s.limits]\nKEY = 1",
        &of_subject(&sandbox)["properties"]["limits"],
    );
    check(
        "sandbox",
        "[subject.s.audit]\nKEY = 1",
        &of_subject(&sandbox)["properties"]["audit"],
    );
    // A condition speaks of one of three things, and each knows its own keys.
    let rule = |when: &str| {
        format!("[[subject.s.rule]]\nsyscall = \"sendto\"\neffect = \"deny\"\nwhen = [{{ {when}, KEY = 1 }}]")
    };
    let mut of_conditions = known("abi", &rule("arg = 0, equal = 1"));
    of_conditions.extend(known("abi", &rule("egress = true")));
    of_conditions.extend(known("abi", &rule("budget = \"tmp\"").replace("sendto", "write")));
    assert_eq!(of_conditions, keys(&abi["definitions"]["condition"]));
    // The root file.
    let root = MemoryTree::new([(
        "nexus.policy.toml",
        format!("version = 1\n{STRANGE} = 1\n[subject.s]\n"),
    )]);
    let errors = Policy::load(&root).unwrap_err().to_string();
    let of_root: BTreeSet<String> = after(&errors, "known here: ").split(", ").map(str::to_owned).collect();
    assert_eq!(of_root, keys(&policy));
    check("policy", "[subject.t]\nKEY = 1", of_subject(&policy));
}

#[test]
fn each_word_of_a_schema_is_known_and_no_other_is() {
    let sandbox = schema("sandbox");
    let words = |value: &Value| -> BTreeSet<String> {
        value["enum"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    let listed = |matter: &str, text: &str, before: &str| -> BTreeSet<String> {
        let said = said(matter, &text.replace("WORD", STRANGE));
        after(&said, before)
            .split(", ")
            .map(|word| word.trim_matches('"').to_owned())
            .collect()
    };
    let of = &of_subject(&sandbox)["properties"];
    for key in ["work", "on_journal_failure"] {
        assert_eq!(
            listed("sandbox", &format!("[subject.s]\n{key} = \"WORD\""), "write one of "),
            words(&of[key]),
            "{key}"
        );
    }
    assert_eq!(
        listed("sandbox", "[subject.s]\ndev = [\"WORD\"]", "known devices: "),
        words(&of["dev"]["items"])
    );
    let egress = schema("egress");
    let protocol = &egress["definitions"]["rule"]["anyOf"][1]["properties"]["protocol"];
    let text = "[subject.s]\nallow = [{ to = \"203.0.113.7\", ports = 1, protocol = \"WORD\" }]";
    assert_eq!(listed("egress", text, "write one of "), words(protocol));
    let abi = schema("abi");
    let of = &abi["definitions"];
    let text = "[[subject.s.rule]]\nsyscall = \"write\"\neffect = \"WORD\"";
    assert_eq!(
        listed("abi", text, "write one of "),
        words(&of["rule"]["properties"]["effect"])
    );
    let text = "[[subject.s.rule]]\nsyscall = \"write\"\neffect = \"deny\"\nwhen = [{ budget = \"WORD\" }]";
    assert_eq!(
        listed("abi", text, "write one of "),
        words(&of["condition"]["properties"]["budget"])
    );
}

#[test]
fn bounds_of_a_schema_are_the_readers() {
    let sandbox = schema("sandbox");
    let of = &of_subject(&sandbox)["properties"];
    let bounds = [
        ("limits", "processes", &of["limits"]["properties"]["processes"]),
        ("limits", "open_files", &of["limits"]["properties"]["open_files"]),
        ("audit", "rate", &of["audit"]["properties"]["rate"]),
        ("audit", "burst", &of["audit"]["properties"]["burst"]),
    ];
    for (table, key, schema) in bounds {
        let (least, most) = (schema["minimum"].as_u64().unwrap(), schema["maximum"].as_u64().unwrap());
        for (value, fits) in [
            (least, true),
            (most, true),
            (least.wrapping_sub(1), false),
            (most + 1, false),
        ] {
            let said = said("sandbox", &format!("[subject.s.{table}]\n{key} = {value}"));
            assert_eq!(said.is_empty(), fits, "{key} = {value}: {said}");
        }
    }
    let quotas = schema("quotas");
    let most = quotas["definitions"]["area"]["properties"]["inodes"]["maximum"]
        .as_u64()
        .unwrap();
    for (value, fits) in [(most, true), (most + 1, false)] {
        let said = said("quotas", &format!("[subject.s.tmp]\nhard = \"4KiB\"\ninodes = {value}"));
        assert_eq!(said.is_empty(), fits, "{value}: {said}");
    }
}
