#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Lays out the C sources by .clang-format; --check only reports (exit status 1 on a difference).
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
--check) mode="--dry-run -Werror" ;;
"") mode=-i ;;
*)
    echo "usage: format.sh [--check]" >&2
    exit 2
    ;;
esac
# shellcheck disable=SC2086
git ls-files -z -- '*.c' '*.h' | xargs -0 -r sh -c '
    mode=$1
    shift
    for f; do [ ! -e "$f" ] || set -- "$@" "$f"; shift; done
    exec clang-format $mode "$@"' sh "$mode"
