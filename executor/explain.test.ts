import { expect, test } from "vitest";
import { explainExit, explainRefused } from "./explain.ts";

const facts = {
  exit: { code: 1, signal: null, atMs: 0, outOfMemory: false },
  command: "python3 server.py",
  lastLines: [],
  ranMs: 1_500,
  hostId: "host-1",
  memoryBytes: undefined,
} as const;

test.for([
  { name: "code", change: {}, says: "exited with code 1 after 1s" },
  {
    name: "success",
    change: { exit: { ...facts.exit, code: 0 } },
    says: "ended by itself with exit code 0 after 1s; a service must keep running",
  },
  {
    name: "signal",
    change: { exit: { ...facts.exit, code: null, signal: "SIGSEGV" } },
    says: "was ended by SIGSEGV after 1s",
  },
  { name: "unseen", change: { exit: { ...facts.exit, code: null } }, says: "ended after 1s; nobody saw how" },
  {
    name: "memory",
    change: { exit: { ...facts.exit, outOfMemory: true }, memoryBytes: 32 * 1024 * 1024 },
    says: "ran out of memory after 1s: it needed more than its limit of 32 MiB; raise resources.memory",
  },
  {
    name: "missing python",
    change: { exit: { ...facts.exit, code: 127 }, lastLines: ["/bin/sh: 1: python3: not found"] },
    says: 'python3 is not installed on host host-1 (exit code 127 of "python3 server.py"); apt-get install python3',
  },
  {
    name: "missing, in a longer command", // The shell's own words beat the first word.
    change: {
      exit: { ...facts.exit, code: 127 },
      command: "cd app && ./serve",
      lastLines: ["listening", "sh: 1: ./serve: not found"],
    },
    says: './serve is not installed on host host-1 (exit code 127 of "cd app && ./serve"); install it, or correct the command',
  },
  {
    name: "not executable",
    change: { exit: { ...facts.exit, code: 126 }, command: "PORT=1 exec ./start" },
    says: '"./start" is there but cannot be executed (exit code 126): chmod +x, and check its first line',
  },
])("an exit is told in one sentence: $name", ({ change, says }) => {
  expect(explainExit({ ...facts, ...change })).toBe(says);
});

const address = { host: "10.64.0.2", port: 8080 };

test.for([
  { listeners: [], says: "it does not listen on any port yet; port 8080 is expected ($PORT)" },
  {
    listeners: [{ host: "127.0.0.1", port: 8080 }],
    says: "it listens on 127.0.0.1:8080 only; it must listen on 0.0.0.0 ($HOST), or nobody can reach it",
  },
  {
    listeners: [{ host: "::1", port: 8080 }],
    says: "it listens on ::1:8080 only; it must listen on 0.0.0.0 ($HOST), or nobody can reach it",
  },
  {
    listeners: [{ host: "0.0.0.0", port: 3000 }],
    says: "it listens on 0.0.0.0:3000, not on port 8080 ($PORT)",
  },
  {
    listeners: [{ host: "0.0.0.0", port: 8080 }],
    says: "it listens on port 8080 but does not accept connections",
  },
])("nobody answers: $says", ({ listeners, says }) => {
  expect(explainRefused(address, "0.0.0.0", listeners)).toBe(says);
});
