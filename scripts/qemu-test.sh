#!/bin/bash
# The live tests on kernels that this machine does not run: boots Debian's own in QEMU, without KVM and without a network.
#
#   scripts/qemu-test.sh [6.1] [6.12]          default: both
#
#   QEMU_SUITES="live live_exit"   which test binaries run there (default: below)
#   QEMU_ARGUMENTS="demo::"        what they are told: which of their tests run
#   RUN_TIMEOUT=900                seconds for one kernel; a suffix as timeout(1) takes it may follow
#   RUN_UNTIL_MARKER=1             only selftest-client, which says a marker after it saw a thing in force, on 6.12 by default:
#                                  ends well with the last of $MARKERS, each of which must have been said
#
# Needs the packages `qemu-system-x86 cpio busybox-static` and a way to download Debian's kernels; nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

KERNELS=("$@")
RUN_UNTIL_MARKER=${RUN_UNTIL_MARKER:-}
if [ "$RUN_UNTIL_MARKER" = 1 ]; then
    [ ${#KERNELS[@]} -gt 0 ] || KERNELS=(6.12)
    QEMU_SUITES=selftest-client
fi
[ ${#KERNELS[@]} -gt 0 ] || KERNELS=(6.1 6.12)
# What the services and the selftest say on the serial line: extended regular expressions, in the order of the documents.
MARKERS=(
    'vfsd: quota set \(subject=[^ )]+ tmp=[^ )]+ state=[^ )]+.*\)'
    'vfsd: quota deny \(subject=[^ )]+.*\)'
    'net-egress: enforced'
    'SELFTEST: quota deny ok'
    'SELFTEST: egress deny ok'
    'SELFTEST: egress allow ok'
    'SELFTEST: sec syscall deny ok'
    'SELFTEST: sec profile windowd ok'
    'SELFTEST: sec quota ipc ok'
)
# Only if real: Linux bounds an IPC namespace's System V objects for its owner from 6.9 on.
UNSUPPORTED_BEFORE_6_9='SELFTEST: sec quota ipc'
# What needs no program besides those copied below.
read -ra SUITES <<<"${QEMU_SUITES:-live live_attacks live_exit live_signals}"
RUN_TIMEOUT=${RUN_TIMEOUT:-900}
# The tests' memory, the file system that they live on, and the file server's caches.
MEMORY=2048
# Whose programs the tests find there.
PACKAGES=(bash bsdutils coreutils dash findutils grep mount perl-base procps sed tar util-linux)
target=${CARGO_TARGET_DIR:-target}
place=$target/qemu

package() {
    case $1 in
        6.1) echo linux-image-cloud-amd64 ;;
        6.12) echo linux-image-6.12-cloud-amd64 ;;
        *) echo "\`$1\` is not a kernel that this script knows: 6.1 or 6.12" >&2; return 2 ;;
    esac
}

# Kernel and modules, unpacked, without installing them.
fetch() {
    local version=$1 meta image
    if compgen -G "$place/$version/boot/vmlinuz-*" >/dev/null; then return; fi
    meta=$(package "$version")
    image=$(apt-cache depends "$meta" | awk '/Depends:/{print $2; exit}')
    [ -n "$image" ] || { echo "apt knows no package \`$meta\`: run \`apt-get update\`, or enable backports" >&2; return 1; }
    rm -rf "$place/$version"
    mkdir -p "$place/$version"
    (cd "$place/$version" && apt-get download -q "$image")
    dpkg-deb --fsys-tarfile "$place/$version"/*.deb | tar -x -C "$place/$version" ./boot ./lib/modules
    rm "$place/$version"/*.deb
}

# A file and the libraries that it loads, at the same places below $root.
put() {
    local file
    for file in "$1" $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
        [ -e "$root$file" ] || install -D "$(readlink -f "$file")" "$root$file"
    done
}

build_root() {
    local program suite binary
    root=$place/root
    rm -rf "$root"
    mkdir -p "$root"/{dev,proc,sys,tmp,root,etc,var/tmp,var/lib,usr/bin,usr/sbin,usr/lib,usr/lib64,tests}
    ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root/"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    for program in $(dpkg -L "${PACKAGES[@]}" | grep -E '/s?bin/[^/]+$'); do
        # Some packages still say /bin for what lies in /usr/bin.
        program=/usr${program#/usr}
        if [ -f "$program" ]; then put "$program"; fi
    done
    put /usr/bin/busybox
    # perl-base, which POSIX.pm and the like come with.
    cp -a --parents /usr/lib/x86_64-linux-gnu/perl-base "$root/"
    cp /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.cache "$root/etc/"
    mkdir -p "$root/etc/alternatives"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"

    if [ "$RUN_UNTIL_MARKER" = 1 ]; then
        # Seconds of work: a release build would take longer than what it saves.
        cargo build --quiet --locked -p nx -p selftest-client
        for binary in debug/nx debug/selftest-client; do
            install -D "$target/$binary" "$root/tests/$(basename "$binary")"
            put "$target/$binary"
        done
        strip "$root"/tests/*
        rm -rf "$root${PWD:?}/target"
        return
    fi
    # A release build: everything is ten times slower there.
    cargo build --quiet --locked --release -p nx
    cargo build --quiet --locked -p attacker
    cargo build --quiet --locked -p security_v2_host --bin probe
    for binary in release/nx debug/attacker debug/probe; do
        install -D "$target/$binary" "$root/tests/$(basename "$binary")"
        put "$target/$binary"
    done
    for suite in "${SUITES[@]}"; do
        binary=$(cargo test --locked --no-run --message-format=json -p security_v2_host -p nx_sec_host --test "$suite" 2>/dev/null |
            grep -o '"executable":"[^"]*'"$suite"'-[^"]*"' | cut -d'"' -f4)
        install -D "$binary" "$root/tests/$suite"
        put "$binary"
    done
    strip "$root"/tests/*
    # What `put` copied under the build's own path is there under /tests.
    rm -rf "$root${PWD:?}/target"
    # Tests write the shipped tree into homes of their own; they find it where it was at build time.
    mkdir -p "$root$PWD"
    cp -a --parents recipes demo "$root$PWD/"
}

# Runs as pid 1. Each line that the other side looks for comes after what it says was seen.
write_init() {
    cat >"$root/init" <<'INIT'
#!/usr/bin/busybox sh
export PATH=/usr/bin:/usr/sbin HOME=/root
b=/usr/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
$b mkdir -p /dev/pts /dev/shm
$b mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
$b mount -t tmpfs -o mode=1777 shm /dev/shm
$b mount -t cgroup2 cgroup /sys/fs/cgroup
exec </dev/null >/dev/ttyS0 2>&1
# The first root cannot be pivoted away from; the same files mounted over it can.
if [ "$1" != second ]; then
    for module in $($b cat /modules/order 2>/dev/null); do $b insmod "/modules/$module" || echo "module $module: not loaded"; done
    $b mount --rbind / /mnt
    cd /mnt
    $b mount --move . /
    exec $b chroot . /init second
fi
$b chmod 666 /dev/fuse
$b ifconfig lo up
echo "kernel $($b uname -r)"
failed=
export NEXUS_NX=/tests/nx NEXUS_PROBE=/tests/probe NEXUS_ATTACKER=/tests/attacker NEXUS_REQUIRE_LIVE=1 RUST_TEST_THREADS=2
export NEXUS_TEST_PATIENCE=10
if [ "@SUITES@" = selftest-client ]; then
    NEXUS_MARKERS=/dev/ttyS0 /tests/selftest-client || echo "selftest-client ended with $?"
    $b sync
    $b poweroff -f
fi
cd @TREE@/tests/security_v2_host
for suite in @SUITES@; do
    if "/tests/$suite" @ARGUMENTS@; then echo "SUITE $suite ok"; else failed="$failed $suite"; echo "SUITE $suite FAILED"; fi
done
if [ -z "$failed" ]; then echo "QEMU-TEST: ok"; else echo "QEMU-TEST: failed:$failed"; fi
$b sync
$b poweroff -f
INIT
    sed -i "s|@SUITES@|${SUITES[*]}|; s|@TREE@|$PWD|; s|@ARGUMENTS@|${QEMU_ARGUMENTS:-}|" "$root/init"
    chmod 755 "$root/init" "$root"
    mkdir -p "$root/mnt" "$root$PWD/tests/security_v2_host"
}

# The modules that Debian does not build in, in the order in which they need each other.
write_modules() {
    local version=$1 module file
    rm -rf "$root/modules"
    mkdir -p "$root/modules"
    for module in fuse overlay; do
        file=$(find "$place/$version/lib/modules" -name "$module.ko*" | head -n 1)
        [ -n "$file" ] || continue
        case $file in
            *.xz) xz -dc "$file" >"$root/modules/$module.ko" ;;
            *) cp "$file" "$root/modules/$module.ko" ;;
        esac
        echo "$module.ko" >>"$root/modules/order"
    done
}

boot() {
    local version=$1 log=$place/$1.log code=0
    write_modules "$version"
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$place/$version.cpio.gz"
    # TCG: what offers /dev/kvm inside a virtual machine does not always mean it. A panic and a power-off look the same
    # from here, so only the last line counts.
    timeout "$RUN_TIMEOUT" qemu-system-x86_64 -accel tcg,thread=multi -M q35 -cpu max -smp 2 -m "$MEMORY" -nographic -no-reboot \
        -nic none -kernel "$place/$version"/boot/vmlinuz-* -initrd "$place/$version.cpio.gz" \
        -append 'console=ttyS0 quiet panic=-1 rdinit=/init' </dev/null >"$log" 2>&1 || code=$?
    tr -d '\r' <"$log" | grep -E '^(kernel|SUITE|QEMU-TEST|test result)|FAILED|panicked|module' || true
    # A name that was changed would run nothing, and well.
    if tr -d '\r' <"$log" | grep -q '^test result: ok\. 0 passed'; then
        echo "Linux $version: FAILED (a suite ran none of its tests); all that it said is in $log" >&2
        return 1
    fi
    if ! tr -d '\r' <"$log" | grep -q '^QEMU-TEST: ok$'; then
        echo "Linux $version: FAILED (QEMU ended with $code); all that it said is in $log" >&2
        return 1
    fi
    echo "Linux $version: ok"
}

# Boots until the selftest has said its last word, then ends that machine: every marker must have been said.
boot_until_marker() {
    local version=$1 log=$place/$1.log missing=0 marker line
    write_modules "$version"
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$place/$version.cpio.gz"
    : >"$log"
    timeout "$RUN_TIMEOUT" qemu-system-x86_64 -accel tcg,thread=multi -M q35 -cpu max -smp 2 -m "$MEMORY" -nographic -no-reboot \
        -nic none -kernel "$place/$version"/boot/vmlinuz-* -initrd "$place/$version.cpio.gz" \
        -append 'console=ttyS0 quiet panic=-1 rdinit=/init' </dev/null >"$log" 2>&1 &
    local machine=$!
    until tr -d '\r' <"$log" | grep -q '^SELFTEST: end$' || ! kill -0 "$machine" 2>/dev/null; do sleep 0.5; done
    kill "$machine" 2>/dev/null || true
    wait "$machine" 2>/dev/null || true
    tr -d '\r' <"$log" | grep -aE '^(kernel|SELFTEST|vfsd:|net-egress:|selftest-client|nx:)' || true
    for marker in "${MARKERS[@]}"; do
        if tr -d '\r' <"$log" | grep -aqE "^$marker\$"; then continue; fi
        line=${marker% ok}
        if [ "$version" = 6.1 ] && [ "$line" = "$UNSUPPORTED_BEFORE_6_9" ] &&
            tr -d '\r' <"$log" | grep -aq "^$line unsupported: "; then continue; fi
        echo "Linux $version: the marker \`$marker\` was not said" >&2
        missing=1
    done
    if [ "$missing" = 1 ]; then echo "Linux $version: FAILED; all that it said is in $log" >&2; return 1; fi
    echo "Linux $version: every marker was said"
}

mkdir -p "$place"
for version in "${KERNELS[@]}"; do fetch "$version"; done
build_root
write_init
failed=0
for version in "${KERNELS[@]}"; do
    if [ "$RUN_UNTIL_MARKER" = 1 ]; then boot_until_marker "$version" || failed=1; else boot "$version" || failed=1; fi
done
exit "$failed"
