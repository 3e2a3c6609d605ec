// Prints the Khronos glTF validator's report of each GLB as one JSON array.
// NEO3DF_NODE_MODULES=folder node gltf_validate.mjs FILE.glb ...
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const validator = createRequire(import.meta.url)(join(process.env.NEO3DF_NODE_MODULES, 'gltf-validator'));
const reports = [];
for (const path of process.argv.slice(2)) {
  reports.push(await validator.validateBytes(new Uint8Array(readFileSync(path)), { maxIssues: 100 }));
}
console.log(JSON.stringify(reports));
