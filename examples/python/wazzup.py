"""What a program needs beside nats-py in order to work with wazzup-relay.

Copy it, and change it to your taste.
"""

import asyncio
import json
import os
import random
import time

import nats
import nats.errors
import nats.js.errors

ACCOUNT = os.environ.get("WAZZUP_ACCOUNT", "main")

# The states in which a command has ended; see docs/events.md.
FINAL = {"sent", "done", "rejected", "invalid", "duplicate", "expired", "cancelled", "dead"}


class NotStored(Exception):
    """A command is surely not stored.

    If temporary, the account's command stream is full: the same command may be
    taken later.
    """

    def __init__(self, message, temporary):
        super().__init__(message)
        self.temporary = temporary


async def connect():
    return await nats.connect(
        os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
        user=os.environ.get("NATS_USER"),
        password=os.environ.get("NATS_PASSWORD"),
        inbox_prefix=os.environ.get("NATS_INBOX_PREFIX", "_INBOX"),  # users may have inboxes of their own
        max_reconnect_attempts=-1,
    )


async def publish(nc, subject, command, reply_to=None, patience=30.0):
    """Return NATS's acknowledgement: from then on the command ends in exactly one final event.

    While the stream is full, or it is not known whether the command was stored,
    it tries again for as long as `patience` (seconds) lasts; in the latter case
    only with an id, under which a repeat does no harm.
    """
    headers = {"Wazzup-Reply-To": reply_to} if reply_to else None
    body = json.dumps(command).encode()
    end = time.monotonic() + patience
    wait = 0.5
    while True:
        after = wait * random.uniform(0.5, 1.5)
        late = time.monotonic() + after > end
        try:
            return await nc.jetstream().publish(f"wazzup.{ACCOUNT}.cmd.{subject}", body, headers=headers)
        except nats.js.errors.NoStreamResponseError as err:
            message = f"there is no {subject} of account {ACCOUNT}, or no worker has ever served it"
            raise NotStored(message, temporary=False) from err
        except nats.js.errors.APIError as err:  # refused, such as "maximum bytes exceeded"
            if late:
                raise NotStored(err.description, temporary=True) from err
        except nats.errors.TimeoutError:
            if late or not (isinstance(command, dict) and command.get("id")):
                raise
        await asyncio.sleep(after)
        wait = min(2 * wait, 30)


async def outcome(nc, subject, command, timeout=60.0, stored=lambda ack: None, **options):
    """Publish a command and return its final event.

    None means that there was none within `timeout` (seconds): then the event will
    come, and a durable consumer of the events gets it.
    """
    inbox = nc.new_inbox()
    replies = await nc.subscribe(inbox)  # before the command is published
    try:
        stored(await publish(nc, subject, command, reply_to=inbox, **options))
        end = time.monotonic() + timeout
        while True:
            try:
                reply = await replies.next_msg(timeout=max(end - time.monotonic(), 0.001))
            except nats.errors.TimeoutError:
                return None
            event = json.loads(reply.data)
            if event["state"] in FINAL:
                return event
    finally:
        await replies.unsubscribe()


async def events(nc, durable, subject):
    """Yield the messages of a durable consumer, which remembers what was acknowledged.

    It goes on from there after any stop, and begins with the oldest event that is
    kept. What was not acknowledged within 30 s comes again, with the same ce-id.
    """
    consumer = await nc.jetstream().pull_subscribe(
        f"wazzup.{ACCOUNT}.evt.{subject}", durable=durable, stream=f"wazzup-{ACCOUNT}-records"
    )
    while True:
        try:
            messages = await consumer.fetch(100, timeout=5)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            yield message


async def ask(nc, name, question=None):
    """Send a request and return its answer.

    While the account changes hands, for a few seconds, nobody answers.
    """
    for left in reversed(range(20)):
        try:
            answer = await nc.request(
                f"wazzup.{ACCOUNT}.api.{name}", json.dumps(question or {}).encode(), timeout=30
            )
        except nats.errors.NoRespondersError:
            if not left:
                raise
            await asyncio.sleep(0.5)
            continue
        body = json.loads(answer.data)
        if "Nats-Service-Error-Code" in (answer.headers or {}):
            raise RuntimeError(f"{name}: {body['error']['code']}: {body['error'].get('description', '')}")
        return body
