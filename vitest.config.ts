import { defineConfig } from "vitest/config";

const FOLDERS = "{base,model,proxy,sidecar,control,executor,bootstrap,cli,console,loadtest,test}";

/** Unit tests stand beside the code; the suites that cross folders live in test/. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: [`${FOLDERS}/**/*.test.ts`],
          exclude: ["**/node_modules/**", "test/{contract,sim,wire,e2e}/**"],
          testTimeout: 60_000, // Property tests on a busy machine; a hang is still found.
        },
      },
      { test: { name: "contract", include: ["test/contract/**/*.test.ts"], testTimeout: 30_000 } },
      { test: { name: "sim", include: ["test/sim/**/*.test.ts"], testTimeout: 60_000 } },
      { test: { name: "wire", include: ["test/wire/**/*.test.ts"], testTimeout: 30_000 } },
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
