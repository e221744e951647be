#!/usr/bin/env bash
# Sees to it that the languages of the examples are here, which make test-clients
# runs: from Debian's packages where it may install them. Node.js with npm, Python
# and jq are needed; without PHP or Java their examples are not looked at, which
# the tests say.
set -euo pipefail

declare -A packages=([node]=nodejs [npm]=npm [python3]=python3-minimal [jq]=jq [php]=php-cli [javac]=default-jdk-headless)
missing=()
for program in "${!packages[@]}"; do
	command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done

if ((${#missing[@]} > 0)) && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
	echo "installing: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	# One after the other: what cannot be had must not keep the others away.
	apt-get -qq update || true
	for package in "${missing[@]}"; do
		apt-get -qq install -y --no-install-recommends "$package" >/dev/null || echo "$package could not be installed"
	done
fi

status=0
for program in node npm python3 jq php javac; do
	if command -v "$program" >/dev/null; then
		continue
	fi
	case $program in
	php | javac) echo "no $program: its examples are not looked at" ;;
	*)
		echo "no $program: install Debian's package ${packages[$program]}, or its like"
		status=1
		;;
	esac
done
exit "$status"
