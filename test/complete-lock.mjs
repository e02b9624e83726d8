// node test/complete-lock.mjs: adds to package-lock.json the optional packages of other platforms that a partial
// mirror did not serve. Without them `npm ci` refuses the whole file; with them it skips what does not fit the
// machine. Run it through `npm run lock` after changing dependencies.
import { readFileSync, writeFileSync } from "node:fs";

const path = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(path, "utf8"));
const CPUS = ["arm64", "x64", "arm", "ppc64", "riscv64", "s390x", "ia32", "loong64", "wasm32", "mips64el"];
const SYSTEMS = [
  "android",
  "darwin",
  "freebsd",
  "linux",
  "openharmony",
  "win32",
  "netbsd",
  "openbsd",
  "sunos",
  "aix",
];

let added = 0;
for (const entry of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`;
    if (lock.packages[key] !== undefined || !/^\d/.test(version)) continue;
    const words = name.split(/[/-]/);
    lock.packages[key] = {
      version,
      cpu: CPUS.filter((cpu) => words.includes(cpu)).slice(0, 1),
      ...(entry.dev ? { dev: true } : {}),
      optional: true,
      os: SYSTEMS.filter((system) => words.includes(system)),
    };
    added += 1;
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`package-lock.json: ${added} optional packages of other platforms added`);
