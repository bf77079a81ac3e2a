// Parses the AsyncAPI document on standard input; prints what is wrong with it, one line each.

const fs = require("node:fs");
const { Parser } = require("@asyncapi/parser");

async function main() {
  const { document, diagnostics } = await new Parser().parse(fs.readFileSync(0, "utf8"));
  const wrong = diagnostics.filter(({ severity }) => severity <= 1); // 0 is an error, 1 a warning
  for (const { code, message, path } of wrong) console.log(code, path.join("/"), message);
  if (!document) process.exitCode = 1;
}

main();
