//! What stands below the options of each command of `nx sec`: examples, and with what it ends. Manual pages have it too.

pub(crate) const SEC: &str = "\
Where to begin:
  nx sec ps                            who runs, as which subject
  nx sec policy show --subject NAME    what policy gives it, by which line
  nx sec syscalls --subject NAME       which calls it may make
  nx sec sandbox --subject NAME        paths, sockets, and what is not held
  nx sec quotas --subject NAME         what it may write, and has written
  nx sec egress --subject NAME         where it may connect
  nx sec test all --subject NAME       see that all of it holds
  nx sec audit --subject NAME          what it was denied

A subject is the name after `nx run`. Only `test` and `doctor` start anything:
sandboxes of their own, with an internet that leads nowhere. The others open no
internet socket and wait for nobody longer than two seconds. Every command takes
`--json`, or a format of its own, for programs.

Exit codes:
  0  said, or proven
  2  the words are off
  3  policy says no, or a proof failed
  4  something is missing, or does not answer
  6  unsupported here, and why
  7  a fault of nx's own";

pub(in crate::sec) const PS: &str = "\
Whose: the sessions of the user who asks, in that user's state directory
($XDG_STATE_HOME, or ~/.local/state). Root sees root's own and nobody else's:
another user's directory is that user's alone, and what root finds there may be
made to deceive it. Ask as that user: `sudo -u USER -i nx sec ps`.

Examples:
  nx sec ps
  nx sec ps --json

Exit codes:
  0  said, also where nobody runs
  4  nothing certain can be said of an entry, or sessions cannot be seen; what is known is said";

pub(in crate::sec) const AUDIT: &str = "\
Examples:
  nx sec audit --subject demo --since 1h
  nx sec audit --reason egress --json
  nx sec audit --follow
  nx sec audit --verify

Exit codes:
  0  said, also where no record matches
  2  the words are off
  3  some lines are no records, some are missing, the chain does not hold, or
     nobody knows the subject
  4  there is no journal to follow or to verify, or it was removed or cannot be
     read";

pub(in crate::sec) const COUNTERS: &str = "\
Examples:
  nx sec counters
  nx sec counters --subject demo --json
  nx sec counters --prometheus

Exit codes:
  0  said
  2  the words are off
  3  nobody knows the subject
  4  the counters cannot be read, or say less than the journal: what was counted is lost, and that is said";

pub(in crate::sec) const EXPORT: &str = "\
Examples:
  nx sec export --output triage.json
  nx sec export --output triage.json --json

Exit codes:
  0  written
  2  the file is there already, or the words are off
  4  it cannot be written there";

pub(in crate::sec) const TOP: &str = "\
Examples:
  nx sec top
  nx sec top --json

Exit codes:
  0  ended by its user, or said
  2  this is no terminal
  4  the terminal cannot be used; with `--json`: something is not known, and what is known is said
  128+n  ended by the signal n";

pub(in crate::sec) const DOCTOR: &str = "\
Examples:
  nx sec doctor
  nx sec doctor --json

Exit codes:
  0  `nx run` works here
  4  something that it needs is missing; the way to mend it is said";

pub(in crate::sec) const POLICY: &str = "\
Examples:
  nx sec policy show --subject demo

Exit codes:
  as those of `nx sec policy show`";

pub(in crate::sec) const POLICY_SHOW: &str = "\
Examples:
  nx sec policy show
  nx sec policy show --subject demo --json
  nx sec policy show --subject demo --policy ./policy

Exit codes:
  0  said; the first line says of which session, tree or snapshot
  2  the words are off
  3  policy is invalid or has no such subject, or the snapshot is stale
  4  there is no policy, a session does not answer, or there are more subjects than are shown at once";

pub(in crate::sec) const SYSCALLS: &str = "\
Examples:
  nx sec syscalls --subject demo
  nx sec syscalls --subject demo --all
  nx sec syscalls --subject demo --read-back

Exit codes:
  0  said, of what is in force
  2  the words are off
  3  policy has no such subject, or the kernel's filter is another than the one that was loaded
  4  a session has ended or does not answer, or does not stop to have its filter read back; or of an entry nothing certain can be said
  6  no session of the subject runs, so no filter is loaded; what policy says is said. Or `--read-back` without the right to";

pub(in crate::sec) const SANDBOX: &str = "\
Examples:
  nx sec sandbox --subject demo
  nx sec sandbox --subject demo --json

Exit codes:
  0  said, of what is in force
  2  the words are off
  3  policy has no such subject
  4  a session has ended or does not answer, or of an entry nothing certain can be said
  6  no session of the subject runs, so no view stands; what policy would show is said";

pub(in crate::sec) const QUOTAS: &str = "\
Examples:
  nx sec quotas --subject demo
  nx sec quotas --subject demo --json

Exit codes:
  0  said; what nobody counts is named `unsupported`, with why
  2  the words are off
  3  policy has no such subject
  4  a session has ended or does not answer, or the subject's file server does not; what is known is said";

pub(in crate::sec) const EGRESS: &str = "\
Examples:
  nx sec egress --subject demo
  nx sec egress --subject demo --json

Exit codes:
  0  said
  2  the words are off
  3  policy has no such subject
  4  a session has ended or does not answer";

pub(in crate::sec) const TEST: &str = "\
Examples:
  nx sec test all --subject demo
  nx sec test deny --subject demo --syscall mount
  nx sec test egress --subject demo --to 192.0.2.1:443 --expect deny
  nx sec test quota --subject demo --area tmp

Exit codes:
  0  proven
  2  the words are off
  3  not proven; or policy allows what was to be seen denied, and the rule is named
  4  something is missing: no policy, no place for a proof
  6  nothing of it can be looked at here, and why
  7  a fault of nx's own";

pub(in crate::sec) const TEST_DENY: &str = "\
Without arguments the call is made with some that policy denies and that do no harm if nobody refuses it. A call that is judged by
its destination is made on a Unix socket that leads nowhere; for destinations there is `nx sec test egress`.

Examples:
  nx sec test deny --subject demo --syscall mount
  nx sec test deny --subject demo --syscall socket AF_PACKET 3 0

Exit codes:
  0  seen denied: errno, record and counter
  2  the words are off, or this machine has no such call
  3  it was not denied; or policy allows it, and the rule is named
  4  something is missing: no policy, no place for a proof
  6  it cannot be looked at here, and why";

pub(in crate::sec) const TEST_EGRESS: &str = "\
Examples:
  nx sec test egress --subject demo --to 192.0.2.1:443
  nx sec test egress --subject demo --to [2001:db8::1]:53 --udp --expect deny

Exit codes:
  0  seen refused, where policy denies it; or seen to arrive at the proof's own listener, where policy allows it
  2  the words are off
  3  it was otherwise; or policy says otherwise than `--expect`, and the rule is named
  4  something is missing: no policy, no place for a proof
  6  it cannot be looked at here, and why";

pub(in crate::sec) const TEST_QUOTA: &str = "\
Examples:
  nx sec test quota --subject demo --area tmp

Exit codes:
  0  the area stops at its last byte and its last inode
  2  the words are off
  3  it does not
  4  something is missing: no policy, no place for a proof
  6  it cannot be looked at here, and why";

pub(in crate::sec) const TEST_ALL: &str = "\
What is not looked at is said: lines that begin with `left out`, and so in each other format.

Examples:
  nx sec test all --subject demo
  nx sec test all --subject demo --part egress,view
  nx sec test all --format junit

Exit codes:
  0  all that could be looked at is proven
  2  the words are off
  3  something is not
  4  something is missing: no policy, no place for a proof
  6  nothing could be looked at here, and why";
