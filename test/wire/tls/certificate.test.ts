import { expect, test } from "vitest";
import { makeDevCertificate } from "../../../bootstrap/dev-certificate.ts";
import { CertificateTable, readCertificate } from "../../../proxy/tls/certificate.ts";
import { coversHost } from "../../../proxy/tls/secured.ts";

const NOW_MS = Date.UTC(2026, 10, 22);

test("a pair's facts are read from its certificate", async () => {
  const made = await makeDevCertificate({
    hosts: ["Shop.test", "*.shop.test", "127.0.0.1", "::1"],
    nowMs: NOW_MS,
    days: 30,
  });
  expect(readCertificate({ name: "shop", ...made })).toEqual({
    name: "shop",
    hosts: ["shop.test", "*.shop.test", "127.0.0.1", "::1"],
    notBeforeMs: NOW_MS - 24 * 3_600_000,
    notAfterMs: NOW_MS + 30 * 24 * 3_600_000,
  });
});

test("a bad pair is refused with what is wrong, and never with the key", async () => {
  const one = await makeDevCertificate({ hosts: ["a.test"], nowMs: NOW_MS });
  const two = await makeDevCertificate({ hosts: ["b.test"], nowMs: NOW_MS });
  const nameless = await makeDevCertificate({ hosts: [], nowMs: NOW_MS });
  const read = (certificate: string, key: string) => () => readCertificate({ name: "x", certificate, key });
  expect(read("nonsense", one.key)).toThrow("x.crt holds no certificate in PEM form");
  expect(read(one.certificate, "nonsense")).toThrow("x.key holds no private key in PEM form");
  expect(read(one.certificate, two.key)).toThrow("x.key is not the key of x.crt");
  expect(read(nameless.certificate, nameless.key)).toThrow("x.crt names no host");
  const encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
  expect(read(one.certificate, encrypted)).toThrow("x.key is encrypted");
});

test.for([
  { host: "shop.test", covered: true },
  { host: "a.shop.test", covered: true },
  { host: "a.b.shop.test", covered: false },
  { host: "shop.test.evil", covered: false },
  { host: "test", covered: false },
  { host: "", covered: false },
  { host: "[::1]", covered: true },
  { host: "10.0.0.1", covered: true },
  { host: "10.0.0.2", covered: false },
])("a certificate covers '$host': $covered", ({ host, covered }) => {
  expect(coversHost(["shop.test", "*.shop.test", "::1", "10.0.0.1"], host)).toBe(covered);
});

test("of two certificates for one name the one that lasts longer is used", () => {
  const facts = (name: string, hosts: string[], notAfterMs: number) => ({
    facts: { name, hosts, notBeforeMs: 0, notAfterMs },
  });
  const table = new CertificateTable([
    facts("old", ["a.test", "*.test"], 1),
    facts("new", ["a.test"], 2),
    facts("wild", ["*.test"], 3),
  ]);
  expect(table.find("A.test.")?.facts.name).toBe("new");
  expect(table.find("b.test")?.facts.name).toBe("wild");
  expect(table.find("test")).toBeUndefined();
  expect(table.byNameOrFirst("wild")?.facts.name).toBe("wild");
  expect(table.byNameOrFirst("gone")?.facts.name).toBe("new");
});
