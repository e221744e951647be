import hashlib
import re


def key(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        return text
    return "~" + hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
