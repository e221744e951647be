#!/usr/bin/env bash
# Has the official AsyncAPI parser read the document, as it is in the repository,
# with references to the JSON Schemas, and as contract.get answers it. The parser is
# installed into this folder (npm ci), by package-lock.json.
#
# Without Node.js 18 or newer and npm the check says so and is skipped: it exits with
# SKIPPED_EXIT (0), so that a caller can tell it from one that found nothing.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v npm >/dev/null || ! node -e 'process.exit(process.versions.node.split(".")[0] >= 18 ? 0 : 1)'; then
	echo 'SKIPPED: Node.js 18 or newer with npm is missing. The AsyncAPI parser has not read the document.'
	exit "${SKIPPED_EXIT:-0}"
fi

# What is installed is that of the lock file, unless the lock file is newer.
if [[ ! node_modules/.package-lock.json -nt package-lock.json ]]; then
	npm ci --no-progress
fi

bundle=$(mktemp -d)
trap 'rm -rf "$bundle"' EXIT
(cd ../../.. && go run ./cmd/wazzupctl contract --built-in) >"$bundle/contract.json"
node check.mjs ../../../schema/asyncapi.json "$bundle/contract.json"
