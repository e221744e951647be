import { createHash } from "node:crypto";

export function key(text) {
  if (/^[A-Za-z0-9_-]{1,64}$/.test(text)) return text;
  return "~" + createHash("sha256").update(text, "utf8").digest("hex").slice(0, 32);
}
