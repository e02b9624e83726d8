import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ManualClock } from "../../../base/manual-clock.ts";
import { CertificateFolder } from "../../../proxy/agent/certificate-folder.ts";
import type { CertificatePair } from "../../../proxy/tls/certificate.ts";
import { TlsTerminator } from "../../../proxy/tls/terminator.ts";
import { pair } from "./kit.ts";

const POLL_MS = 10_000;
const DAY_MS = 24 * 3_600_000;
let dir = "";
let logged: string[] = [];
let clock = new ManualClock();
let terminator = new TlsTerminator();
let folder: CertificateFolder | undefined;

beforeEach(() => {
  dir = fs.mkdtempSync(join(tmpdir(), "certs-"));
  logged = [];
  clock = new ManualClock(Date.now());
  terminator = new TlsTerminator();
});
afterEach(() => {
  folder?.[Symbol.dispose]();
  folder = undefined;
  fs.rmSync(dir, { recursive: true, force: true });
});

function open(pollMs = POLL_MS): void {
  const log = pino({ level: "info" }, { write: (line: string) => void logged.push(line) });
  folder = new CertificateFolder({ dir, terminator, clock, log, pollMs, warnMs: 14 * DAY_MS });
}

function put({ name, certificate, key }: CertificatePair, mode = 0o600): void {
  fs.writeFileSync(join(dir, `${name}.crt`), certificate);
  fs.writeFileSync(join(dir, `${name}.key`), key, { mode });
}

const inForce = () => terminator.certificates.map(({ name, hosts }) => `${name}: ${hosts.join(" ")}`);
const told = (text: string) => logged.filter((line) => line.includes(text)).length;

test("pairs are found, changed and taken away with their files", async () => {
  put(await pair("a", ["a.test"]));
  open();
  expect(inForce()).toEqual(["a: a.test"]);
  put(await pair("b", ["b.test"]));
  await clock.advance(POLL_MS);
  expect(inForce()).toEqual(["a: a.test", "b: b.test"]);
  put(await pair("a", ["a2.test"]));
  await clock.advance(POLL_MS);
  expect(inForce()).toEqual(["a: a2.test", "b: b.test"]);
  fs.rmSync(join(dir, "a.crt"));
  fs.rmSync(join(dir, "a.key"));
  await clock.advance(POLL_MS);
  expect(inForce()).toEqual(["b: b.test"]);
});

test("half of a renewal changes nothing and is told of once; the other half puts it in force", async () => {
  put(await pair("a", ["a.test"]));
  open();
  const renewed = await pair("a", ["a.test", "more.test"]);
  fs.writeFileSync(join(dir, "a.crt.tmp"), renewed.certificate);
  fs.renameSync(join(dir, "a.crt.tmp"), join(dir, "a.crt"));
  for (let round = 0; round < 3; round += 1) await clock.advance(POLL_MS);
  expect(inForce()).toEqual(["a: a.test"]);
  expect(told("a.key is not the key of a.crt")).toBe(1);
  expect(folder!.problemCount).toBe(1);
  fs.writeFileSync(join(dir, "a.key"), renewed.key);
  await clock.advance(POLL_MS);
  expect(inForce()).toEqual(["a: a.test more.test"]);
  expect(folder!.problemCount).toBe(0);
});

test("links that come to lead elsewhere are followed, as certbot swaps them", async () => {
  const first = await pair("live", ["one.test"]);
  const second = await pair("live", ["two.test"]);
  const archive = join(dir, "archive");
  fs.mkdirSync(archive);
  for (const [number, made] of [first, second].entries()) {
    fs.writeFileSync(join(archive, `fullchain${number}.pem`), made.certificate);
    fs.writeFileSync(join(archive, `privkey${number}.pem`), made.key, { mode: 0o600 });
  }
  const link = (number: number) => {
    for (const [file, target] of [
      ["live.crt", "fullchain"],
      ["live.key", "privkey"],
    ] as const) {
      fs.symlinkSync(join(archive, `${target}${number}.pem`), join(dir, "next"));
      fs.renameSync(join(dir, "next"), join(dir, file));
    }
  };
  link(0);
  open();
  expect(inForce()).toEqual(["live: one.test"]);
  link(1);
  await clock.advance(POLL_MS);
  expect(inForce()).toEqual(["live: two.test"]);
});

test("a folder that is gone or empty takes nothing away", async () => {
  put(await pair("a", ["a.test"]));
  open();
  fs.renameSync(dir, `${dir}-away`);
  await clock.advance(POLL_MS);
  expect(inForce()).toEqual(["a: a.test"]);
  expect(told("Cannot read the folder")).toBe(1);
  fs.mkdirSync(dir);
  await clock.advance(POLL_MS);
  expect(inForce()).toEqual(["a: a.test"]);
  expect(told("what was in force stays")).toBe(1);
  fs.rmSync(`${dir}-away`, { recursive: true });
});

test.for([
  { what: "a key that everybody may open", mode: 0o604, message: "every user of this machine may open" },
  { what: "a missing key", mode: undefined, message: "a.crt has no a.key beside it" },
])("$what is refused, and other pairs are served", async ({ mode, message }) => {
  const made = await pair("a", ["a.test"]);
  put(made, mode ?? 0o600);
  if (mode === undefined) fs.rmSync(join(dir, "a.key"));
  put(await pair("b", ["b.test"]));
  open();
  expect(inForce()).toEqual(["b: b.test"]);
  expect(told(message)).toBe(1);
});

test("a certificate near its end is warned of once a day, and no key is ever logged", async () => {
  const made = await pair("a", ["a.test"], 15);
  put(made);
  open(DAY_MS);
  expect(told("expires in")).toBe(0);
  await clock.advance(2 * DAY_MS);
  expect(told("expires in")).toBe(2);
  await clock.advance(14 * DAY_MS);
  expect(told("has expired")).toBeGreaterThan(0);
  const secret = made.key.split("\n")[1]!;
  expect(logged.join("")).not.toContain(secret.slice(0, 20));
});
