"""Opens the chat window of one customer for one of your users:

    python3 window.py USER_ID USER_NAME CHAT_ID
"""

import asyncio
import sys

from wazzup import ask, connect


async def main(user, name, chat_id):
    nc = await connect()
    try:
        chat = {"chatType": "whatsapp", "chatId": chat_id}
        question = {"user": {"id": user, "name": name}, "scope": "card", "filter": [chat], "activeChat": chat}
        answer = await ask(nc, "iframe.open", question)
        print(answer["url"])  # whoever has it can use the window: keep it out of logs
    finally:
        await nc.drain()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print("usage: python3 window.py USER_ID USER_NAME CHAT_ID", file=sys.stderr)
        sys.exit(2)
    asyncio.run(main(*sys.argv[1:]))
