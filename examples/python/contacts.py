"""Makes contacts known to Wazzup, and lists all that it knows:

    python3 contacts.py [FILE]
"""

import asyncio
import json
import pathlib
import sys

from wazzup import ask, connect, outcome


async def main(file=pathlib.Path(__file__).parent.parent / "contacts.json"):
    contacts = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    nc = await connect()
    try:
        # No id: an id such as contact-17 would make every later update a duplicate.
        event = await outcome(nc, "sync.contacts.upsert", contacts, stored=lambda ack: print(f"stored as {ack.seq}"))
        event = event or {"state": "still under way"}
        print(f"{len(contacts)} contacts: {event['state']}")
        for item in event.get("items", []):
            print(f"  {item['id']}: {item['error']['code']}")
        for fault in event.get("error", {}).get("faults", []):
            print(f"  {fault['field']}: {fault['code']}")

        known, offset = 0, 0
        while offset is not None:
            page = await ask(nc, "contacts.list", {"offset": offset})
            known += len(page["items"])
            offset = page.get("next")
        print(f"Wazzup knows {known}")
    finally:
        await nc.drain()
    return 0 if event["state"] == "done" else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:2])))
