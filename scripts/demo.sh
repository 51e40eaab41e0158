#!/bin/bash
# README's first command: builds nx and runs an ordinary program under the shipped policy's subject `demo`.
# Nothing leaves the machine: the one allowed destination is a listener that this script starts on 127.0.0.1:8443.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --quiet --locked -p nx --bin nx --example listen
target=${CARGO_TARGET_DIR:-target}/release

coproc LISTENER { exec "$target/examples/listen" 8443; }
read -r -u "${LISTENER[0]}" said || { echo "port 8443 is taken: end what listens there, and try again" >&2; exit 1; }
[ "$said" = listening ]

"$target/nx" run --work .:ro demo -- bash demo/program.sh
