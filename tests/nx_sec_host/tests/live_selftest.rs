//! `selftest-client` says a marker after it saw the thing, and never without.

use security_v2_host::{Home, as_everybody, copy_program, selftest_client, spawn};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

/// Its markers, on a sink of the test's, and how it ended.
fn run(home: &Home, nx: &Path) -> (Vec<String>, Option<i32>) {
    let (program, sink) = (home.work().join("selftest-client"), home.work().join("markers"));
    if !program.exists() {
        copy_program(selftest_client(), &program).unwrap();
    }
    let mut command = home.command(program);
    command
        .env("NEXUS_MARKERS", &sink)
        .env("NEXUS_NX", nx)
        .env("TMPDIR", home.home())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = spawn(&mut command).unwrap().wait().unwrap();
    let text = std::fs::read_to_string(&sink).unwrap();
    std::fs::remove_file(&sink).unwrap();
    (text.lines().map(str::to_owned).collect(), status.code())
}

#[test]
fn every_marker_is_said_of_a_sandbox_that_holds_and_after_what_the_services_say() {
    as_everybody(|home| {
        let (lines, code) = run(home, &home.nx());
        let said: Vec<_> = lines.iter().filter(|line| line.starts_with("SELFTEST: ")).collect();
        let expected = [
            "SELFTEST: sec syscall deny ok",
            "SELFTEST: sec profile windowd ok",
            "SELFTEST: sec quota ipc ok",
            "SELFTEST: quota deny ok",
            "SELFTEST: egress deny ok",
            "SELFTEST: egress allow ok",
            "SELFTEST: end",
        ];
        let real = |index: usize| index != 2 || code != Some(6);
        for (index, (said, expected)) in said.iter().zip(expected).enumerate() {
            assert!(*said == expected || !real(index), "{lines:#?}");
        }
        assert_eq!(said.len(), expected.len(), "{lines:#?}");
        assert!(
            code == Some(0) || lines.iter().any(|line| line.contains("unsupported: ")),
            "{lines:#?}"
        );
        let place = |begins: &str| lines.iter().position(|line| line.starts_with(begins)).unwrap();
        assert!(place("vfsd: quota set (subject=selftest") < place("SELFTEST: sec syscall deny ok"));
        assert!(place("vfsd: quota deny (subject=selftest") < place("SELFTEST: quota deny ok"));
        assert!(place("net-egress: enforced") < place("SELFTEST: egress deny ok"));
        assert!(
            std::fs::read_dir(home.home())
                .unwrap()
                .flatten()
                .all(|entry| { !entry.file_name().to_string_lossy().starts_with("nx-selftest-") })
        );
    });
}

#[test]
fn no_marker_is_said_of_a_filter_that_is_not_there_or_of_no_nx_at_all() {
    as_everybody(|home| {
        copy_program(Path::new(env!("CARGO_BIN_EXE_broken")), &home.work().join("broken")).unwrap();
        let wrapper = home.write_work("nx-without-filter", "#!/bin/sh\nexec ./broken filter \"$@\"\n");
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (lines, code) = run(home, &wrapper);
        assert_eq!(code, Some(3), "{lines:#?}");
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("SELFTEST: sec syscall deny FAILED: ")),
            "{lines:#?}"
        );
        for never in ["sec syscall deny ok", "sec profile windowd ok", "egress deny ok"] {
            assert!(!lines.contains(&format!("SELFTEST: {never}")), "{lines:#?}");
        }
        let (lines, code) = run(home, Path::new("/nonexistent/nx"));
        assert!(
            code == Some(3) && !lines.iter().any(|line| line.ends_with(" ok")),
            "{lines:#?}"
        );
    });
}
