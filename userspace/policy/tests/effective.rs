//! What a subject may do: inheritance, overrides, versions that never change by accident.
#![cfg(test)]

use nexus_abi::Effect;
use nexus_policy::{EnvDecision, MemoryTree, NoSubject, OnJournalFailure, Policy, WorkMode};

fn load(files: &[(&str, &str)]) -> Policy {
    let root = "version = 1\ninclude = [\"quotas.toml\", \"egress.toml\", \"abi.toml\", \"sandbox.toml\"]\n\
                [domain.tools]\n[subject.demo]\ndomain = \"tools\"\n[subject.alone]\n";
    let given = |name: &str| {
        files
            .iter()
            .find(|(path, _)| *path == name)
            .map_or("", |(_, text)| *text)
    };
    let all = ["quotas.toml", "egress.toml", "abi.toml", "sandbox.toml"].map(|name| (name, given(name)));
    let root = if given("nexus.policy.toml").is_empty() {
        root
    } else {
        given("nexus.policy.toml")
    };
    match Policy::load(&MemoryTree::new(all.into_iter().chain([("nexus.policy.toml", root)]))) {
        Ok(policy) => policy,
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn canonical_form_and_version_are_these_bytes_on_every_machine() {
    let policy = load(&[
        ("quotas.toml", "[domain.tools.tmp]\nhard = \"8KiB\"\ninodes = 0x10\n"),
        (
            "egress.toml",
            "[subject.demo]\nallow = [\"udp [2001:DB8::]/32:53,1-2\", \"*.Example.net:443\"]\n",
        ),
        (
            "abi.toml",
            "[subject.demo]\nallow = [\"@basic-io\"]\n[[subject.demo.rule]]\nsyscall = \"ioctl\"\neffect = \"deny\"\n\
             when = [{ arg = 1, width = 32, in = [\"TIOCSTI\"] }]\n",
        ),
        ("sandbox.toml", "[domain.tools]\nread = [\"/usr\"]\nenv = []\n"),
    ]);
    assert_eq!(
        policy.canonical_json(),
        concat!(
            r#"{"domains":{"tools":{"quotas":{"tmp":{"hard":8192,"inodes":16}},"sandbox":{"env":[],"read":["/usr"]}}},"#,
            r#""format":1,"subjects":{"alone":{},"demo":{"abi":{"rules":[{"calls":["@basic-io"],"effect":"allow"},"#,
            r#"{"calls":["ioctl"],"effect":"deny","errno":1,"when":[{"arg":1,"equal":"0x5412"}]}]},"domain":"tools","#,
            r#""egress":[{"effect":"allow","ports":["1-2","53"],"protocol":"udp","to":"[2001:db8::]/32"},"#,
            r#"{"effect":"allow","ports":["443"],"protocol":"tcp","to":"*.example.net"}]}}}"#,
        )
    );
    assert_eq!(
        policy.version().to_string(),
        "829f9ba7953bff069b63036588f2fcce3b0c3548625428fa6ba73619ea16f15f"
    );
    let demo = policy.subject("demo").unwrap();
    let rule = policy.rule(demo.egress.iter().next().unwrap().rules[0].rule).unwrap();
    assert_eq!(rule.id.to_string(), "egress:abe5daced0546b55");
    assert_eq!(
        (rule.at.as_str(), rule.text.as_str()),
        ("egress.toml:2", "\"udp [2001:DB8::]/32:53,1-2\"")
    );
}

#[test]
fn a_key_of_the_subject_replaces_its_domains_and_the_others_stay() {
    let policy = load(&[
        (
            "quotas.toml",
            "[domain.tools.tmp]\nsoft = \"4KiB\"\nhard = \"8KiB\"\ninodes = 1\n[subject.demo.tmp]\nhard = \"16KiB\"\n",
        ),
        (
            "sandbox.toml",
            "[domain.tools]\nread = [\"/usr\", \"/opt\"]\nread_optional = [\"/lib\"]\nwork = \"ro\"\n\
             env_set = { A = \"1\", B = \"2\" }\nfds = { allow_sockets = true, allow_devices = true }\n\
             [subject.demo]\nread = [\"/bin\"]\nenv_set = { B = \"3\" }\nfds = { allow_devices = false }\n",
        ),
    ]);
    let demo = policy.subject("demo").unwrap();
    let tmp = demo.budgets.tmp.budget;
    assert_eq!(
        (tmp.soft_bytes, tmp.hard_bytes, tmp.hard_inodes),
        (Some(4096), 16384, 1)
    );
    let at = |rule| policy.rule(rule).unwrap().at;
    assert_eq!(at(demo.budgets.tmp.hard_rule.unwrap()), "quotas.toml:6");
    assert_eq!(at(demo.budgets.tmp.soft_rule.unwrap()), "quotas.toml:2");
    let view: Vec<_> = demo
        .view(None)
        .into_iter()
        .map(|path| (path.path, path.optional))
        .collect();
    assert_eq!(view, [("/bin".to_owned(), false), ("/lib".to_owned(), true)]);
    assert_eq!(demo.env_decision("A"), EnvDecision::Set("1".into()));
    assert_eq!(demo.env_decision("B"), EnvDecision::Set("3".into()));
    assert!(demo.fds.allow_sockets && !demo.fds.allow_devices);
    assert_eq!(demo.work, WorkMode::ReadOnly);
}

#[test]
fn a_subject_of_whom_nothing_is_said_may_do_nothing() {
    let policy = load(&[]);
    let alone = policy.subject("alone").unwrap();
    assert_eq!(alone.domain, None);
    assert_eq!(alone.budgets.tmp.budget.hard_bytes, 0);
    assert_eq!(alone.budgets.tmp.hard_rule, None);
    assert!(alone.view(Some("/home/u")).is_empty());
    assert!(alone.environment([("LANG".to_owned(), "C".to_owned())]).is_empty());
    assert_eq!(alone.work, WorkMode::None);
    assert!(alone.dev.is_empty());
    assert_eq!(alone.audit.on_journal_failure, OnJournalFailure::Stop);
    assert!(alone.syscalls.iter().all(|layer| layer.profile.rules.is_empty()));
    let rule = policy.rule(alone.syscalls.iter().next().unwrap().no_rule).unwrap();
    assert_eq!(
        rule.at, "nexus.policy.toml:6",
        "where it is declared, as nothing speaks of it"
    );
}

#[test]
fn names_that_are_not_there_are_told_from_names_that_the_ceiling_lacks() {
    let user = load(&[]);
    assert_eq!(
        user.subject("dem"),
        Err(NoSubject::Undeclared {
            name: "dem".into(),
            nearest: Some("demo".into())
        })
    );
    assert!(matches!(user.subject("*"), Err(NoSubject::Undeclared { .. })));
    let admin = load(&[("nexus.policy.toml", "version = 1\n[domain.tools]\n[subject.demo]\n")]);
    let both = user.under_ceiling(&admin);
    assert_eq!(both.subjects().collect::<Vec<_>>(), ["demo"]);
    assert_eq!(
        both.subject("alone"),
        Err(NoSubject::NotUnderCeiling { name: "alone".into() })
    );
    let anybody = load(&[("nexus.policy.toml", "version = 1\n[domain.tools]\n[subject.\"*\"]\n")]);
    assert_eq!(anybody.subjects().count(), 0, "`*` is nobody itself");
    assert_eq!(
        user.under_ceiling(&anybody).subjects().collect::<Vec<_>>(),
        ["alone", "demo"]
    );
}

#[test]
fn a_profile_id_is_of_the_calls_and_not_of_how_they_are_written() {
    let id = |abi: &str| load(&[("abi.toml", abi)]).subject("demo").unwrap().profile_id();
    let members: Vec<String> = nexus_abi::syscall::group("@sync")
        .unwrap()
        .iter()
        .map(|number| format!("\"{}\"", nexus_abi::syscall::name(*number).unwrap()))
        .collect();
    let by_name = format!("[domain.tools]\nallow = [{}]\n", members.join(","));
    assert_eq!(id("[subject.demo]\nallow = [\"@sync\"]\n"), id(&by_name));
    assert_ne!(
        id("[subject.demo]\nallow = [\"@sync\"]\n"),
        id("[subject.demo]\nallow = [\"@sync\", \"read\"]\n")
    );
    assert_ne!(
        id("[subject.demo]\nallow = [\"read\"]\n"),
        id("[subject.demo]\ndeny = [\"read\"]\n")
    );
    assert_ne!(
        id("[subject.demo]\nprobe = [\"read\"]\n"),
        id("[subject.demo]\ndeny = [\"read\"]\n")
    );
}

#[test]
fn rules_by_name_that_would_have_to_be_enforced_are_found() {
    let addresses = load(&[("egress.toml", "[domain.tools]\nallow = [\"203.0.113.7:443\"]\n")]);
    let allows = load(&[("egress.toml", "[domain.tools]\nallow = [\"git.example.org:443\"]\n")]);
    let denies = load(&[("egress.toml", "[domain.tools]\ndeny = [\"git.example.org:443\"]\n")]);
    let needs = |policy: &Policy| policy.subject("demo").unwrap().needs_names().map(|rule| rule.effect);
    assert_eq!(needs(&addresses), None);
    assert_eq!(needs(&allows), Some(Effect::Allow));
    assert_eq!(needs(&denies), Some(Effect::Deny));
    assert_eq!(needs(&addresses.under_ceiling(&denies)), Some(Effect::Deny));
    assert_eq!(
        needs(&addresses.under_ceiling(&allows)),
        None,
        "what the ceiling opens, nobody asked for"
    );
}
