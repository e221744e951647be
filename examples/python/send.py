"""Sends one message and waits for what becomes of it:

    python3 send.py CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]

Exit codes: 0 sent; 1 it will never be; 75 not stored, or still under way.
"""

import asyncio
import os
import sys
import uuid

from wazzup import NotStored, connect, outcome


async def main(channel, chat, text, id=None, expire_at=None):
    # A program keeps the command, with its id, until it is stored.
    command = {"id": id or str(uuid.uuid4()), "chatType": "whatsapp", "chatId": chat, "text": text}
    if expire_at:
        command["expireAt"] = expire_at
    nc = await connect()
    try:
        event = await outcome(
            nc,
            f"send.{channel}",
            command,
            patience=float(os.environ.get("PATIENCE", 30)),
            stored=lambda ack: print(f"stored as {ack.seq}"),
        )
    except NotStored as err:
        print(f"not stored: {err}", file=sys.stderr)
        return 75 if err.temporary else 1
    finally:
        await nc.drain()
    return tell(event)


def tell(event):
    match event:
        case None:
            print("still under way")
            return 75
        case {"state": "sent", "messageId": message}:
            print(f"sent {message}")
            return 0
        case {"state": "duplicate", "original": original}:  # the id was used before, by a try whose answer was lost
            print(f"duplicate of one that is {original['state']}")
            return 0
        case {"state": "invalid", "error": error}:
            for fault in error["faults"]:
                print(f"invalid {fault['field']}: {fault['code']}: {fault['description']}")
        case {"state": state}:  # rejected, expired, cancelled, dead
            error = event.get("error", {})
            print(*filter(None, [state, error.get("code"), error.get("description")]))
    return 1


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 6:
        print("usage: python3 send.py CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]", file=sys.stderr)
        sys.exit(2)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
