#!/bin/sh
# Sends one message and waits for what becomes of it:
#
#   ./send.sh CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]
#
# Exit codes: 0 sent; 1 it will never be; 75 not stored, or still under way.
set -eu
. "$(dirname "$0")/wazzup.sh"
[ $# -ge 3 ] || { echo "usage: $0 CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]" >&2; exit 2; }

# Take an id of your own, such as order-1042-shipped: a repeat does no harm then.
command=$(jq -nc --arg id "${4:-shell-$(date +%s)-$$}" --arg chatId "$2" --arg text "$3" --arg expireAt "${5:-}" \
  '{$id, chatType: "whatsapp", $chatId, $text} + if $expireAt == "" then {} else {$expireAt} end')
outcome "send.$1" "$command"

[ -n "$event" ] || { echo 'still under way'; exit 75; }
printf '%s' "$event" | jq -r '
  if .state == "sent" then "sent \(.messageId)"
  elif .state == "duplicate" then "duplicate of one that is \(.original.state)"
  elif .state == "invalid" then .error.faults[] | "invalid \(.field): \(.code): \(.description)"
  else [.state, .error.code, .error.description] | map(select(.)) | join(" ")
  end'
printf '%s' "$event" | jq -e '.state == "sent" or .state == "duplicate"' >/dev/null
