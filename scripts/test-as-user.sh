#!/bin/bash
# Runs the tests that meet the kernel as a user who is not root, from a checkout that root built: for `.ci/run`, and for
# whoever works as root.
#
# As root the live tests start their sessions as an ordinary user too, but the tests themselves stay root's: they read what
# only root may read, and write where only root may write, without anybody noticing. So the built programs are run once
# more, not built anew: the user gets a view of this machine in which the checkout and the toolchain can be reached, wherever
# they are. Left out is what does not depend on who runs it: the pure crates, the documentation's examples, the soaks. What
# needs root (networks of a test's own) says so and is skipped, so NEXUS_REQUIRE_LIVE is not set.
set -euo pipefail
cd "$(dirname "$0")/.."

# Nobody is, and no distribution assigns it; not the number that tests of root's start sessions as.
ID=64322
PACKAGES=(nexus-sys nexus-wire policyd logd vfsd netd execd nx nx_sec_host security_v2_host)

if [ "${1-}" != --inside ]; then
    [ "$(id -u)" = 0 ] || { echo "this is for root: others have \`cargo test --workspace\`" >&2; exit 2; }
    # Not below a directory that every session has its own of.
    place=$(mktemp -d /var/lib/nexus-user.XXXXXX)
    # All mounts go with the namespace they were made in.
    trap 'rm -rf --one-file-system "$place"; find /tmp /var/tmp -maxdepth 1 -user $ID -exec rm -rf --one-file-system {} +' EXIT
    packages=()
    for package in "${PACKAGES[@]}"; do
        if cargo metadata --locked --offline --no-deps --format-version 1 | grep -q "\"name\":\"$package\",\"version\""; then
            packages+=(-p "$package")
        fi
    done
    cargo build --locked -q --bins -p nx -p security_v2_host -p attacker -p selftest-client
    cargo test --locked -q --no-run --message-format json "${packages[@]}" | python3 -c '
import json, os, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("executable") and built["profile"]["test"]:
        print(os.path.dirname(built["manifest_path"]), built["executable"])
' | sort -u >"$place/tests"
    [ -s "$place/tests" ]
    unshare -m "$0" --inside "$place" "$(rustc --print sysroot)"
    exit
fi

place=$2
sysroot=$3
checkout=$PWD
mkdir "$place/home" "$place/checkout" "$place/sysroot"
chmod 755 "$place"
chown "$ID:$ID" "$place/home"
mount --bind "$checkout" "$place/checkout"
mount --bind "$sysroot" "$place/sysroot"
# A directory on the way that is closed to others is replaced by one that has nothing but the way.
for wanted in "$checkout" "$sysroot"; do
    way=
    IFS=/ read -ra parts <<<"${wanted#/}"
    for part in "${parts[@]}"; do
        way=$way/$part
        if ((!(8#$(stat -c %a "$way") & 1))); then
            mount -t tmpfs -o mode=755 none "$way"
            for path in checkout sysroot; do
                if [[ ${!path}/ == "$way"/* ]]; then
                    mkdir -p "${!path}"
                    mount --bind "$place/$path" "${!path}"
                fi
            done
        fi
    done
done

target=$checkout/target/debug
failed=()
while read -r package test; do
    printf -- '-- %s\n' "${test##*/}"
    (
        cd "$package"
        exec setpriv --reuid "$ID" --regid "$ID" --clear-groups --inh-caps=-all \
            env -i HOME="$place/home" PATH="$sysroot/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" \
            CARGO_NET_OFFLINE=true NEXUS_NX="$target/nx" NEXUS_PROBE="$target/probe" NEXUS_ATTACKER="$target/attacker" NEXUS_SELFTEST="$target/selftest-client" \
            "$test" --quiet
    ) </dev/null || failed+=("${test##*/}")
done <"$place/tests"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed as an ordinary user: ${failed[*]}" >&2
    exit 1
fi
