#!/bin/sh
# Prints what customers write, until Ctrl-C:
#
#   ./inbound.sh [DURABLE]
#
# The durable consumer remembers what was acknowledged, and the tool acknowledges
# a message after it has printed it: so nothing is missed, and what was printed
# just before a crash may be printed again.
set -eu
. "$(dirname "$0")/wazzup.sh"
durable=${1:-shell-inbound}
stream=wazzup-$account-records

nats $inboxes consumer info "$stream" "$durable" >/dev/null 2>&1 ||
  nats $inboxes consumer add "$stream" "$durable" --pull --ack explicit --deliver all --filter "wazzup.$account.evt.message.in.>" --defaults >/dev/null
exec nats $inboxes sub --stream "$stream" --durable "$durable" --raw \
  --translate "jq -rj '[.chatType, .chatId + \":\", .text // .content] | join(\" \")'"
