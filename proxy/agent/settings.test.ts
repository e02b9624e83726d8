import { expect, test } from "vitest";
import { formatAddress, parseAddress } from "./settings.ts";

test.for([
  { text: "127.0.0.1:8080", address: { host: "127.0.0.1", port: 8080 } },
  { text: "0.0.0.0:0", address: { host: "0.0.0.0", port: 0 } },
  { text: "[::1]:443", address: { host: "::1", port: 443 } },
])("$text is an address and is written the same", ({ text, address }) => {
  expect(parseAddress(text)).toEqual(address);
  expect(formatAddress(address)).toBe(text);
});

test.for([
  "",
  "8080",
  ":8080",
  "localhost:8080",
  "127.0.0.1",
  "127.0.0.1:65536",
  "127.0.0.1: 80",
  "::1:80",
  "1.2.3:80",
  "127.0.0.1:8080x",
])('"%s" is not an address', (text) => {
  expect(parseAddress(text)).toBeUndefined();
});
