#!/bin/sh
# Makes contacts known to Wazzup, and lists all that it knows:
#
#   ./contacts.sh [FILE]
set -eu
. "$(dirname "$0")/wazzup.sh"
contacts=$(jq -c . "${1:-$(dirname "$0")/../contacts.json}")

# No id: an id such as contact-17 would make every later update a duplicate.
outcome sync.contacts.upsert "$contacts"
state=$(printf '%s' "${event:-{\}}" | jq -r '.state // "still under way"')
echo "$(printf '%s' "$contacts" | jq length) contacts: $state"
printf '%s' "$event" | jq -r '(.items[]? | "  \(.id): \(.error.code)"), (.error.faults[]? | "  \(.field): \(.code)")'

known=0
offset=0
while [ -n "$offset" ]; do
  page=$(ask contacts.list "{\"offset\":$offset}")
  known=$((known + $(printf '%s' "$page" | jq '.items | length')))
  offset=$(printf '%s' "$page" | jq -r '.next // ""')
done
echo "Wazzup knows $known"
[ "$state" = done ]
