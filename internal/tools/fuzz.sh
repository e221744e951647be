#!/usr/bin/env bash
# Runs every fuzz target for a time: fuzz.sh 20s. What makes one fail is kept by
# go under the package's testdata/fuzz: commit it with the mend.
set -euo pipefail
cd "$(dirname "$0")/../.."
time=${1:?the time for each target, such as 20s}

# file:target, sorted by file
targets=$(grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/func //' | sort)
if [[ -z $targets ]]; then
	echo "No fuzz target was found."
	exit 1
fi

failed=()
while IFS=: read -r file target; do
	package=$(dirname "$file")
	echo "== $target in $package"
	if ! go test -run '^$' -fuzz "^${target}\$" -fuzztime "$time" "$package" </dev/null; then
		failed+=("$package $target")
	fi
done <<<"$targets"

if ((${#failed[@]} > 0)); then
	printf 'Failed: %s\n' "${failed[@]}"
	exit 1
fi
