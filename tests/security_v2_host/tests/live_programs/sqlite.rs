//! SQLite on kept space: both journals, many writers, and a crash in the middle.

use crate::need::{has, last, place, works_unhindered};
use security_v2_host::users;

#[test]
fn both_journals_of_sqlite_keep_what_was_committed() {
    if !has(&["sqlite3"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        for journal in ["wal", "delete", "truncate", "persist"] {
            let _ = works_unhindered(
                &home,
                &format!(
                    "cd /state; sqlite3 {journal}.db 'pragma journal_mode={journal}; create table t(x integer primary key, y text);
                     with recursive n(i) as (select 1 union all select i+1 from n where i < 20000) insert into t select i, hex(randomblob(40)) from n;
                     delete from t where x % 3 = 0; vacuum; create index i on t(y);'"
                ),
            );
            let done = works_unhindered(
                &home,
                &format!("sqlite3 /state/{journal}.db 'select count(*) from t; pragma integrity_check'"),
            );
            assert_eq!(done.out(), "13334\nok\n", "{journal}: {done}");
        }
    }
}

#[test]
fn four_writers_at_once_lose_nothing() {
    if !has(&["sqlite3"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        for journal in ["wal", "delete"] {
            let done = works_unhindered(
                &home,
                &format!(
                    "cd /state; sqlite3 w-{journal}.db 'pragma journal_mode={journal}; create table t(x)' > /dev/null
                     for w in 1 2 3 4; do (for i in $(seq 25); do sqlite3 -cmd '.timeout 60000' w-{journal}.db \"insert into t values($i)\"; done) & done
                     wait; sqlite3 w-{journal}.db 'select count(*), sum(x) from t; pragma integrity_check'"
                ),
            );
            assert_eq!(done.out(), "100|1300\nok\n", "{journal}: {done}");
        }
    }
}

#[test]
fn a_crash_in_the_middle_of_a_transaction_leaves_the_last_commit() {
    if !has(&["python3"]) {
        return;
    }
    const WRITER: &str = r#"
import os, signal, sqlite3, sys
db = sqlite3.connect(f"/state/{sys.argv[1]}.db", isolation_level=None)
db.execute(f"pragma journal_mode={sys.argv[1]}"); db.execute("pragma cache_size=10")
db.execute("create table t(x, y)")
db.execute("begin"); db.executemany("insert into t values(?, ?)", [(i, "a" * 500) for i in range(2000)]); db.execute("commit")
db.execute("begin"); db.executemany("update t set y = ? where x = ?", [("b" * 500, i) for i in range(2000)])
print(os.path.getsize(f"/state/{sys.argv[1]}.db") > 0, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"#;
    for user in users() {
        let home = place(user);
        home.write_work("writer.py", WRITER);
        for journal in ["wal", "delete"] {
            let done = works_unhindered(
                &home,
                &format!("python3 writer.py {journal} || echo killed $?; ls /state | grep -c '{journal}.db-'"),
            );
            let out = done.out();
            assert!(out.contains("killed 137"), "{done}");
            // The crashed transaction is there to be rolled back, in the next session.
            assert_ne!(last(&done), "0", "{done}");
            let done = works_unhindered(
                &home,
                &format!(
                    "python3 -c \"import sqlite3; d = sqlite3.connect('/state/{journal}.db')
print(d.execute('select count(*), min(y) = max(y), substr(max(y), 1, 1) from t').fetchone(), d.execute('pragma integrity_check').fetchone())\""
                ),
            );
            assert_eq!(done.out(), "(2000, 1, 'a') ('ok',)\n", "{journal}: {done}");
        }
    }
}
