#!/bin/bash
# An ordinary program that tries four things. Two lines each: what it does, and what the system answered.
# Run it under the subject `demo`: ./scripts/demo.sh

try() {
    printf '%-46s ' "$1"
    shift
    if answer=$("$@" 2>&1); then
        echo "done"
    else
        echo "refused: ${answer##*: }"
    fi
}
connect() { exec 3<>"/dev/tcp/$1/$2"; }

try "connect to 127.0.0.1:8443, which a rule allows" connect 127.0.0.1 8443
try "connect to 192.0.2.1:443, which none allows" connect 192.0.2.1 443
try "connect to 169.254.169.254:80, the cloud's" connect 169.254.169.254 80
try "write 48 MiB to /tmp, which has 64" dd if=/dev/zero of=/tmp/part-one bs=1M count=48 status=none
try "write another 48 MiB to it" dd if=/dev/zero of=/tmp/part-two bs=1M count=48 status=none
rm -f /tmp/part-one /tmp/part-two
try "make a user namespace" unshare --user true
