#!/usr/bin/env bash
# Fails if `make generate` changes any file: what is generated then does not
# match its source. It compares contents and not commits, so it works with
# changes that are not committed yet; the new files are left in place.
set -euo pipefail
cd "$(dirname "$0")/../.."

sums=$(mktemp -d)
trap 'rm -rf "$sums"' EXIT

# One line a file; a file that git knows and that is deleted here has none.
contents() {
	git ls-files -z --cached --others --exclude-standard | sort -zu |
		while IFS= read -r -d '' file; do
			if [[ -f $file ]]; then sha256sum -- "$file"; fi
		done
}

contents >"$sums/before"
make --no-print-directory generate
contents >"$sums/after"
if ! changed=$(diff "$sums/before" "$sums/after"); then
	echo "These generated files did not match their sources (< before, > after); they are right now, commit them:"
	echo "$changed"
	exit 1
fi
