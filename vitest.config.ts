import { join } from "node:path";
import { defineConfig } from "vitest/config";
import manifest from "./package.json" with { type: "json" };

const { exports } = manifest;
const ROOT = import.meta.dirname;

const FOLDERS = "{base,model,proxy,sidecar,control,executor,bootstrap,cli,console,loadtest,test}";

/** Real keepers and workers, killed and hung: they promise times, so nothing else runs beside them. */
const PROCESSES = ["test/wire/agent/**/*.test.ts", "proxy/agent/keeper.test.ts"];

/** Unit tests stand beside the code; the suites that cross folders live in test/. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          // The examples are packages of their own, and have no installed copy of this one.
          alias: Object.entries(exports).map(([name, file]) => ({
            find: new RegExp(`^gilliam${name.slice(1)}$`),
            replacement: join(ROOT, file),
          })),
          include: [`${FOLDERS}/**/*.test.ts`, "examples/filters/**/*.test.ts"],
          exclude: ["**/node_modules/**", "test/{contract,sim,wire,e2e}/**", ...PROCESSES],
          testTimeout: 60_000, // Property tests on a busy machine; a hang is still found.
        },
      },
      { test: { name: "contract", include: ["test/contract/**/*.test.ts"], testTimeout: 30_000 } },
      { test: { name: "sim", include: ["test/sim/**/*.test.ts"], testTimeout: 60_000 } },
      {
        test: {
          name: "wire",
          include: ["test/wire/**/*.test.ts"],
          exclude: PROCESSES,
          testTimeout: 30_000,
        },
      },
      { test: { name: "processes", include: PROCESSES, testTimeout: 90_000, fileParallelism: false } },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          testTimeout: 180_000,
          hookTimeout: 240_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
