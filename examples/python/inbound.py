"""Prints what customers write, until Ctrl-C:

    python3 inbound.py [DURABLE]
"""

import asyncio
import contextlib
import json
import sys

from wazzup import connect, events


async def main(durable="python-inbound"):
    nc = await connect()
    async for message in events(nc, durable, "message.in.>"):
        body = json.loads(message.data)
        print(f"{body['chatType']} {body['chatId']}: {body.get('text') or body.get('content')}", flush=True)
        await message.ack()  # after the work: what was not acknowledged comes again


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:2]))
