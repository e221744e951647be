#!/usr/bin/env bash
# Looks for known vulnerabilities in what this module ships and tests with; the
# tools' own modules ship nothing. It needs the Go vulnerability database over the
# network, or a copy of it (GOVULNDB=file:///…). Where neither can be reached the
# check says so and is skipped, unless VULN_REQUIRED=1; what it finds always fails.
# A skipped check exits with SKIPPED_EXIT (0), so that a caller can tell it from one
# that found nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
database=${GOVULNDB:-https://vuln.go.dev}

reachable() {
	case $database in
	file://*) [[ -d ${database#file://} ]] ;;
	*) curl --silent --fail --output /dev/null --connect-timeout 5 --max-time 20 "$database/index/db.json" ;;
	esac
}

if ! reachable; then
	echo "SKIPPED: the vulnerability database at $database could not be reached. Nothing was checked for known vulnerabilities."
	if [[ ${VULN_REQUIRED:-} == 1 ]]; then
		echo "VULN_REQUIRED=1: that is a failure."
		exit 1
	fi
	exit "${SKIPPED_EXIT:-0}"
fi

go tool -modfile=internal/tools/go.mod govulncheck -db "$database" -test ./...
