//! tar and compressors.

use crate::need::{has, last, place, works_unhindered};
use security_v2_host::users;

#[test]
fn tar_keeps_links_modes_times_and_holes() {
    if !has(&["tar", "gzip", "xz"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        for place in ["/tmp", "/state", "$PWD"] {
            let done = works_unhindered(
                &home,
                &format!(
                    r#"
                    mkdir "{place}/t"; cd "{place}/t"; mkdir from to
                    cd from; echo one > one; ln one hard; ln -s one soft; ln -s /nowhere broken; mkfifo pipe; mkdir -m 711 sub
                    echo two > sub/two; chmod 640 one; chmod 444 sub/two; touch -d 2001-02-03T04:05:06.789 one
                    truncate -s 8M hole; printf x | dd of=hole bs=1 seek=5000000 conv=notrunc status=none
                    touch "$(printf 'odd \n name')"; cd ..
                    tar -cSf a.tar from; tar -czf a.tgz from; tar -cJf a.txz from; tar -tf a.txz | wc -l | grep -qx 10
                    [ $(stat -c %s a.tar) -lt 100000 ]
                    tar -xpf a.tar -C to; cd to/from
                    [ "$(stat -c '%h %a' one)" = "2 640" ]; [ "$(stat -c %i one)" = "$(stat -c %i hard)" ]
                    [ "$(stat -c %a sub)" = 711 ]; [ "$(stat -c %a sub/two)" = 444 ]; [ "$(readlink broken)" = /nowhere ]; [ -p pipe ]
                    [ "$(date -r one +%Y-%m-%dT%H:%M:%S)" = 2001-02-03T04:05:06 ]
                    cmp hole ../../from/hole; cd ../..; rm to/from/pipe from/pipe; diff -r --no-dereference from to/from
                    rm -r to/from; tar -xzf a.tgz -C to; rm to/from/pipe; diff -r --no-dereference from to/from
                    cd ..; rm -rf t; echo end
                    "#
                ),
            );
            assert_eq!(last(&done), "end", "{done}");
        }
    }
}
