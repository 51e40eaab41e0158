//! The policy tree.

use nexus_abi_policy::{CompileError, Guard, compile};
use nexus_policy::{MemoryTree, Policy};

/// The files of a tree in an input, with a NUL between them.
const FILES: [&str; 5] = [
    "nexus.policy.toml",
    "quotas.toml",
    "egress.toml",
    "abi.toml",
    "sandbox.toml",
];

/// A tree: it is refused with something to say, or everything that follows from it can be had, twice the same.
pub fn policy_tree(data: &[u8]) -> bool {
    let tree = MemoryTree::new(
        FILES
            .iter()
            .zip(data.split(|byte| *byte == 0))
            .map(|(file, text)| (*file, text)),
    );
    let policy = match Policy::load(&tree) {
        Ok(policy) => policy,
        Err(diagnostics) => {
            assert!(!diagnostics.to_string().is_empty());
            return false;
        }
    };
    let again = Policy::load(&tree).expect("the same tree loads again");
    assert_eq!(policy.canonical_json(), again.canonical_json());
    assert_eq!(policy.version(), again.version());
    for name in policy.subjects() {
        let subject = policy.subject(name).expect("a subject that is listed is there");
        subject
            .egress_gate()
            .expect("what the tree's bounds let through, the matcher holds");
        Guard::new(&subject.profiles()).expect("what the tree's bounds let through, the guard takes");
        match compile(&subject.profiles(), &[]) {
            Ok(_) | Err(CompileError::TooLong) => {}
            Err(error) => panic!("{name}: {error}"),
        }
        assert_eq!(again.subject(name).as_ref(), Ok(&subject));
        let narrowed = policy.under_ceiling(&policy);
        let under_itself = narrowed.subject(name).expect("a tree is no ceiling against itself");
        assert_eq!(under_itself.budgets.tmp.budget, subject.budgets.tmp.budget);
        let _ = (
            subject.view(Some("/home/u")),
            subject.environment([("LANG".to_owned(), "C".to_owned())]),
        );
    }
    true
}

/// Bytes of a snapshot before its checksum, which is made for them: what somebody forges who knows the format. They are
/// refused, or everything that follows from them can be had; without the checksum nothing passes.
pub fn policy_snapshot(data: &[u8]) -> bool {
    let mut bytes = data.to_vec();
    if let Some(field) = bytes.get_mut(16..24) {
        let length = data.len() as u64 + 32;
        field.copy_from_slice(&length.to_le_bytes());
    }
    assert!(Policy::from_snapshot(&bytes).is_err(), "nothing covers its last bytes");
    let checksum = nexus_snapshot::file_hash(&bytes);
    bytes.extend_from_slice(&checksum);
    let Ok(policy) = Policy::from_snapshot(&bytes) else {
        return false;
    };
    for name in policy.subjects() {
        let subject = policy.subject(name).expect("a subject that is listed is there");
        // A tree's reader bounds what these take; forged bytes may go past it, and are then refused here.
        let _ = (
            subject.egress_gate(),
            Guard::new(&subject.profiles()),
            subject.view(Some("/home/u")),
        );
    }
    let again = policy
        .snapshot()
        .expect("what was short enough to read is short enough to write");
    let read = Policy::from_snapshot(&again).expect("what was written is read");
    assert_eq!(read.canonical_json(), policy.canonical_json());
    true
}

/// The shipped tree's snapshot without its checksum.
#[must_use]
pub fn snapshot_seed() -> Vec<u8> {
    let policy = Policy::load(&MemoryTree::shipped()).expect("the shipped tree is one");
    let mut bytes = policy.snapshot().expect("the shipped tree is small");
    bytes.truncate(bytes.len() - 32);
    bytes
}

/// The shipped tree, and small ones that say one thing each.
#[must_use]
pub fn policy_seeds() -> Vec<Vec<u8>> {
    let shipped = MemoryTree::shipped();
    let whole: Vec<&[u8]> = FILES
        .iter()
        .filter_map(|file| shipped.files().find(|(path, _)| path == file))
        .map(|(_, text)| text)
        .collect();
    let root = "version = 1\ninclude = [\"quotas.toml\", \"egress.toml\", \"abi.toml\", \"sandbox.toml\"]\n[domain.d]\n[subject.s]\ndomain = \"d\"\n";
    let small = [
        "version = 1\n[subject.s]\n".to_owned(),
        format!("{root}\0[subject.s.tmp]\nsoft = \"8KiB\"\nhard = \"1MiB\"\ninodes = 7\n\0\0\0"),
        format!(
            "{root}\0\0[subject.s]\nallow = [\"203.0.113.0/24:443,8000-8100\", \"udp [2001:db8::]/32:53\", \"*.example.net:443\"]\ndeny = [\"203.0.113.9:443\"]\n\0\0"
        ),
        format!(
            "{root}\0\0[subject.s]\nallow = [{{ to = \"203.0.113.7\", protocol = \"udp\", ports = [443, \"8000-8100\"] }}]\n\0\0"
        ),
        format!(
            "{root}\0\0\0[domain.d]\nallow = [\"@basic-io\"]\ndeny = [\"ptrace\"]\nprobe = [\"clone3\"]\n[[subject.s.rule]]\nsyscall = \"ioctl\"\neffect = \"deny\"\nerrno = \"EACCES\"\nwhen = [{{ arg = 1, width = 32, in = [\"TIOCSTI\", 0x541c] }}, {{ budget = \"tmp\" }}]\n\0"
        ),
        format!(
            "{root}\0\0\0\0[subject.s]\nread = [\"/usr\", \"~/x\"]\nenv = [\"LC_*\"]\nenv_set = {{ A = \"b\" }}\ndev = [\"null\"]\nwork = \"ro\"\nlimits = {{ memory = \"1GiB\", processes = 3 }}\n"
        ),
    ];
    let mut seeds: Vec<Vec<u8>> = small.into_iter().map(String::into_bytes).collect();
    seeds.push(whole.join(&0));
    seeds
}
