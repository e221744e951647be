# What the scripts share; it needs `nats` and `jq`. The server and the login are
# the tool's own settings: NATS_URL, NATS_USER, NATS_PASSWORD, or its contexts.
account=${WAZZUP_ACCOUNT:-main}
# Where users have inboxes of their own, such as _INBOX.main-producer.
inboxes=${NATS_INBOX_PREFIX:+--inbox-prefix=$NATS_INBOX_PREFIX}
patience=${PATIENCE:-30} # seconds

# The states in which a command has ended; see docs/events.md.
final='.state | IN("sent", "done", "rejected", "invalid", "duplicate", "expired", "cancelled", "dead")'

# publish SUBJECT BODY [REPLY_TO] stores a command and prints its number. It tries
# again while the stream is full or no answer comes: for that, and whatever else
# happens, the body needs an id. (Sync commands do without: to repeat them is
# harmless.) It uses `nats req` since that prints the acknowledgement itself.
publish() {
  end=$(($(date +%s) + patience))
  wait=1
  while :; do
    if ack=$(nats $inboxes req --raw --no-templates ${3:+-H "Wazzup-Reply-To:$3"} "wazzup.$account.cmd.$1" "$2" 2>/dev/null); then
      if [ -z "$ack" ]; then
        echo "not stored: there is no $1 of account $account, or no worker has ever served it" >&2
        return 1
      fi
      if seq=$(printf '%s' "$ack" | jq -e 'select(.error | not).seq'); then
        echo "stored as $seq"
        return
      fi
      why=$(printf '%s' "$ack" | jq -r .error.description)
    else
      why='no answer: it may be stored all the same'
    fi
    if [ "$(date +%s)" -ge "$end" ]; then
      echo "not stored: $why" >&2
      return 75
    fi
    sleep "$wait"
    wait=$((wait < 30 ? wait * 2 : 30))
  done
}

# outcome SUBJECT BODY publishes a command and waits for its final event, which is
# then in $event; empty if there is none in time.
outcome() {
  inbox=${NATS_INBOX_PREFIX:-wazzup.$account.reply}.shell-$$-$(date +%s)
  heard=$(mktemp)
  nats sub --raw "$inbox" >"$heard" 2>/dev/null &
  listener=$!
  trap 'kill "$listener" 2>/dev/null; rm -f "$heard"' EXIT
  # It listens once it has heard this; who may not publish there waits some seconds.
  tries=0
  until [ -s "$heard" ] || [ "$tries" -ge 20 ]; do
    kill -0 "$listener" || return
    nats pub --quiet "$inbox" '{}' 2>/dev/null || :
    sleep 0.1
    tries=$((tries + 1))
  done
  publish "$1" "$2" "$inbox" || return
  end=$(($(date +%s) + 60))
  while event=$(jq -c "select($final)" "$heard" 2>/dev/null | head -n 1) && [ -z "$event" ] && [ "$(date +%s)" -lt "$end" ]; do
    sleep 0.1
  done
}

# ask NAME QUESTION prints the answer to a request. While the account changes
# hands, for a few seconds, nobody answers.
ask() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    answer=$(nats $inboxes req --raw --no-templates --timeout 30s "wazzup.$account.api.$1" "$2" 2>/dev/null) || answer=
    case $answer in
      '') sleep 1 ;;
      '{"error":'*)
        printf '%s' "$answer" | jq -r '"\(.error.code): \(.error.description)"' >&2
        return 1
        ;;
      *)
        printf '%s\n' "$answer"
        return
        ;;
    esac
  done
  echo "$1: nobody answers" >&2
  return 1
}
