//! What a subject may do: inheritance, overrides, versions that never change by accident.
#![cfg(test)]

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
fn a_name_is_resolved_only_where_the_own_tree_names_it_and_no_ceiling_closes_it() {
    let tree = |rules: &str| load(&[("egress.toml", &format!("[domain.tools]\n{rules}\n"))]);
    let verdict = |policy: &Policy, name: &str| {
        let gate = policy.subject("demo").unwrap().egress_gate().unwrap();
        gate.judge_name(name).err().and_then(|verdict| match verdict {
            nexus_abi::Verdict::Deny { reason, .. } => Some(reason.as_str()),
            nexus_abi::Verdict::Allow { .. } => None,
        })
    };
    let own =
        tree("allow = [\"*.example.org:22,443\"]\ndeny = [\"bad.example.org:1-65535\", \"half.example.org:443\"]");
    assert_eq!(verdict(&own, "git.Example.org."), None);
    assert_eq!(verdict(&own, "half.example.org"), None);
    assert_eq!(verdict(&own, "example.org"), Some("egress.name_no_rule"));
    assert_eq!(verdict(&own, "bad.example.org"), Some("egress.deny_rule"));
    let closed = tree("deny = [\"git.example.org:22-443\"]\nallow = [\"0.0.0.0/0:443\"]");
    assert_eq!(
        verdict(&own.under_ceiling(&closed), "git.example.org"),
        Some("egress.deny_rule")
    );
    let by_address = tree("allow = [\"0.0.0.0/0:443\"]");
    assert_eq!(verdict(&own.under_ceiling(&by_address), "git.example.org"), None);
    assert_eq!(
        verdict(&by_address.under_ceiling(&own), "git.example.org"),
        Some("egress.name_no_rule")
    );
    let silent = tree("allow = []");
    assert_eq!(
        verdict(&own.under_ceiling(&silent), "git.example.org"),
        Some("egress.name_no_rule")
    );
}

#[test]
fn a_name_opens_its_ports_at_its_addresses_and_never_a_denied_or_special_one() {
    let policy = load(&[(
        "egress.toml",
        "[domain.tools]\nallow = [\"*.example.org:22,443\"]\ndeny = [\"half.example.org:443\", \"203.0.113.9:443\"]\n",
    )]);
    let gate = policy.subject("demo").unwrap().egress_gate().unwrap();
    let host = nexus_net_egress::HostAddresses::none();
    let open = |name: &str, to: &str, protocol| {
        let to: std::net::SocketAddr = to.parse().unwrap();
        let grants = gate.judge_name(name).unwrap();
        gate.judge_named(protocol, to.ip(), to.port(), &host, &[&grants])
            .verdict
            .is_allow()
    };
    let tcp = nexus_abi::Protocol::Tcp;
    assert!(open("git.example.org", "203.0.113.7:443", tcp));
    assert!(!open("git.example.org", "203.0.113.7:444", tcp));
    assert!(!open("git.example.org", "203.0.113.7:443", nexus_abi::Protocol::Udp));
    assert!(!open("git.example.org", "203.0.113.9:443", tcp));
    assert!(!open("git.example.org", "169.254.169.254:443", tcp));
    assert!(open("half.example.org", "203.0.113.7:22", tcp));
    assert!(!open("half.example.org", "203.0.113.7:443", tcp));
    let mut grants = gate.judge_name("git.example.org").unwrap();
    grants.close(&gate.alias("half.example.org"));
    let alias = |port| {
        gate.judge_named(tcp, [203, 0, 113, 7].into(), port, &host, &[&grants])
            .verdict
            .is_allow()
    };
    assert!(alias(22) && !alias(443));
}

#[test]
fn a_port_is_bound_by_rule_and_under_a_ceiling_by_both() {
    let tree = |bind: &str| load(&[("egress.toml", &format!("[domain.tools]\nbind = [{bind}]\n"))]);
    let allows = |policy: &Policy, protocol, port| {
        policy
            .subject("demo")
            .unwrap()
            .egress_gate()
            .unwrap()
            .allows_bind(protocol, port)
    };
    let (tcp, udp) = (nexus_abi::Protocol::Tcp, nexus_abi::Protocol::Udp);
    let own = tree("\"udp 5353\", \"20000-20010\"");
    assert!(allows(&own, udp, 5353) && !allows(&own, udp, 5354) && !allows(&own, tcp, 5353));
    assert!(allows(&own, tcp, 20010) && !allows(&own, tcp, 20011));
    let narrower = own.under_ceiling(&tree("\"udp 5000-6000\""));
    assert!(allows(&narrower, udp, 5353) && !allows(&narrower, tcp, 20000));
    assert!(!allows(&tree(""), udp, 5353));
    assert_ne!(own.version(), tree("\"udp 5353\"").version());
}
