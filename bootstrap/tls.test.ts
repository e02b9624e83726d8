import { X509Certificate } from "node:crypto";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { keepDevCertificate } from "./own-certificate.ts";
import { checkCertificates, tlsDifference } from "./tls.ts";

const NOW_MS = Date.UTC(2026, 10, 22);
const DAY_MS = 24 * 3_600_000;
const uid = process.getuid!();
let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "own-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

test("a certificate for localhost is made once, and anew before it ends", async () => {
  const own = join(dir, "tls");
  expect(await keepDevCertificate(own, uid, NOW_MS, ["shop.localhost"])).toBe(true);
  const first = readFileSync(join(own, "default.crt"), "utf8");
  const read = new X509Certificate(first);
  expect(read.checkHost("shop.localhost")).toBeDefined();
  expect(read.checkIP("127.0.0.1")).toBeDefined();
  expect(statSync(join(own, "default.key")).mode & 0o777).toBe(0o600);
  expect(await keepDevCertificate(own, uid, NOW_MS + 300 * DAY_MS, ["shop.localhost"])).toBe(false);
  expect(await keepDevCertificate(own, uid, NOW_MS + 380 * DAY_MS, [])).toBe(true);
  expect(readFileSync(join(own, "default.crt"), "utf8")).not.toBe(first);
  expect(await keepDevCertificate(own, uid, NOW_MS + 380 * DAY_MS, ["new.localhost"])).toBe(true);
});

test("certificates that the edge's user cannot read are named", () => {
  expect(() => checkCertificates(dir, uid)).toThrow("There is no NAME.key in");
  const key = join(dir, "shop.key");
  writeFileSync(key, "");
  checkCertificates(dir, uid);
  chmodSync(dir, 0o755);
  chmodSync(key, 0o600);
  expect(() => checkCertificates(dir, uid + 1)).toThrow(
    expect.objectContaining({ problems: [`${key} is not readable by user ${uid + 1}`] }),
  );
  expect(() => checkCertificates(join(dir, "away"), uid)).toThrow("Cannot read the folder of certificates");
});

const RUNNING = { port: 8443, dir: "/c", isSelfSigned: false };
test.for([
  { wish: undefined, running: RUNNING, difference: undefined },
  { wish: { port: 8443, dir: "/c" }, running: RUNNING, difference: undefined },
  { wish: { port: 0, dir: "/c" }, running: RUNNING, difference: undefined },
  { wish: { port: 443, dir: "/c" }, running: RUNNING, difference: "TLS is on port 8443" },
  { wish: { port: 8443, dir: undefined }, running: RUNNING, difference: "TLS is on port 8443" },
  { wish: { port: 0, dir: undefined }, running: undefined, difference: "the edge runs without TLS" },
])("asked for $wish where $running runs: $difference", ({ wish, running, difference }) => {
  const found = tlsDifference(wish, running);
  if (difference === undefined) expect(found).toBeUndefined();
  else expect(found).toContain(difference);
});
