#!/bin/sh
# Opens the chat window of one customer for one of your users:
#
#   ./window.sh USER_ID USER_NAME CHAT_ID
set -eu
. "$(dirname "$0")/wazzup.sh"
[ $# -eq 3 ] || { echo "usage: $0 USER_ID USER_NAME CHAT_ID" >&2; exit 2; }

question=$(jq -nc --arg id "$1" --arg name "$2" --arg chatId "$3" \
  '{chatType: "whatsapp", $chatId} as $chat | {user: {$id, $name}, scope: "card", filter: [$chat], activeChat: $chat}')
answer=$(ask iframe.open "$question")
printf '%s' "$answer" | jq -r .url # whoever has it can use the window: keep it out of logs
