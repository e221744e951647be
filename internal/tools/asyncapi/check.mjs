// Reads AsyncAPI documents with the official parser, and fails if it has a word
// against one of them: an error, or a warning. Usage: node check.mjs FILE…
//
// A parser that is content with everything shows nothing, so each document is also
// read with one reference led astray, which the parser must refuse.
import { readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Parser, fromFile } from "@asyncapi/parser";

const levels = ["error", "warning", "info", "hint"];
const WARNING = 1;
// A newer minor version of AsyncAPI is out: no word against this one.
const silent = new Set(["asyncapi-latest-version"]);

let failed = false;
const fail = (text) => {
  failed = true;
  console.error(text);
};

for (const file of process.argv.slice(2)) {
  const parser = new Parser();
  const { document, diagnostics } = await fromFile(parser, file).parse();
  for (const d of diagnostics) {
    const text = `${file}: ${levels[d.severity]} ${d.code} at ${d.path.join("/")}: ${d.message}`;
    if (d.severity <= WARNING) fail(text);
    else if (!silent.has(d.code)) console.log(text);
  }
  if (!document) {
    fail(`${file}: it was not accepted`);
    continue;
  }

  const text = await readFile(file, "utf8");
  const source = JSON.parse(text);
  const counts = {
    channels: [Object.keys(source.channels).length, document.allChannels().all().length],
    operations: [Object.keys(source.operations).length, document.allOperations().all().length],
    schemas: [Object.keys(source.components.schemas).length, Object.keys(document.components().json().schemas).length],
  };
  for (const [what, [written, read]] of Object.entries(counts)) {
    if (written !== read) fail(`${file}: ${written} ${what} are written, ${read} were read`);
  }

  const astray = text.replace('"#/components/messages/', '"#/components/messages/no-such-');
  const refused = await parser.parse(astray, { source: join(dirname(resolve(file)), "astray.json") });
  if (astray === text || refused.document) fail(`${file}: a reference that leads nowhere was accepted`);

  if (!failed) console.log(`${file}: accepted, ${Object.entries(counts).map(([what, [n]]) => `${n} ${what}`).join(", ")}`);
}
process.exitCode = failed || process.argv.length < 3 ? 1 : 0;
