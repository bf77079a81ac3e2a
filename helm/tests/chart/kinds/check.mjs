// Reads rendered custom resources as a JSON array, prints what is wrong with them as a JSON array of strings.
//
// Twice, because neither way sees everything: the schema knows required fields, types and enums, the compiler knows
// which keys exist.
import { readFileSync, writeFileSync } from "node:fs";
import ts from "typescript";

const PACKAGES = {
  "keda.sh/v1alpha1": "@kubernetes-models/keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
};

const problems = [];
const source = [];
for (const [index, document] of JSON.parse(readFileSync(0, "utf8")).entries()) {
  const module = `${PACKAGES[document.apiVersion]}/${document.kind}`;
  try {
    new (await import(module))[document.kind](document).validate();
  } catch (error) {
    problems.push(`${document.kind} ${document.metadata.name}: ${error.message}`);
  }
  source.push(
    `import type { I${document.kind} as T${index} } from "${module}";`,
    `export const o${index}: T${index} = ${JSON.stringify(document)};`,
  );
}

const file = new URL("rendered.mts", import.meta.url).pathname;
writeFileSync(file, source.join("\n"));
const program = ts.createProgram([file], {
  strict: true, noEmit: true, skipLibCheck: true,
  module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
});
for (const found of ts.getPreEmitDiagnostics(program)) {
  problems.push(ts.flattenDiagnosticMessageText(found.messageText, " "));
}
console.log(JSON.stringify(problems));
