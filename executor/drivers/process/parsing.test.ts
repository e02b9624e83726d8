import * as fc from "fast-check";
import { expect, test } from "vitest";
import { decodeExit, dropPrivileges } from "./launch.ts";
import { parseListening } from "./listeners.ts";
import { parseStat } from "./proc.ts";
import {
  bridgeAddress,
  chooseSubnet,
  findRanges,
  formatAddress,
  slotAddress,
  slotHardwareAddress,
} from "./subnet.ts";

test("a process may be called anything", () => {
  const line = "42 (a) b (c) S 1 40 41 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 10 20\n";
  expect(parseStat(line)).toEqual({ pid: 42, state: "S", parent: 1, session: 41, startTicks: "987654" });
  expect(parseStat("")).toBeUndefined();
  expect(parseStat("42 (half")).toBeUndefined();
});

test("listening sockets are read from /proc/net/tcp and tcp6", () => {
  const table = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 111 1",
    "   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 222 1",
    "   2: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000 0 333 1",
    "   3: 00000000000000000000000000000000:1F91 0:0 0A 0:0 0:0 0 0 0 444 1",
    "   4: 00000000000000000000000001000000:1F92 0:0 0A 0:0 0:0 0 0 0 555 1",
    "   5: 0000000000000000FFFF00000100007F:1F93 0:0 0A 0:0 0:0 0 0 0 666 1",
  ].join("\n");
  expect(parseListening(table)).toEqual([
    { host: "127.0.0.1", port: 8080, inode: "111" },
    { host: "0.0.0.0", port: 80, inode: "222" },
    { host: "::", port: 8081, inode: "444" },
    { host: "::1", port: 8082, inode: "555" },
    { host: "127.0.0.1", port: 8083, inode: "666" },
  ]);
});

test("a shell's exit code above 128 is a signal, when there is one", () => {
  expect(decodeExit(143)).toEqual({ code: null, signal: "SIGTERM" });
  expect(decodeExit(128 + 100)).toEqual({ code: 228, signal: null });
  expect(decodeExit(3)).toEqual({ code: 3, signal: null });
});

test("nobody keeps a capability but the sidecar, which keeps one", () => {
  const privileges = (kind: "none" | "platform" | "sidecar") =>
    dropPrivileges({ uid: 200_001, privileges: kind, setpriv: true }).filter((word) => word.includes("caps"));
  expect(privileges("none")).toEqual(["--inh-caps=-all", "--ambient-caps=-all"]);
  expect(privileges("platform")).toEqual(["--inh-caps=-all", "--ambient-caps=-all"]);
  expect(privileges("sidecar")).toEqual(["--inh-caps=-all,+sys_admin", "--ambient-caps=-all,+sys_admin"]);
});

test("the preferred network is taken unless somebody has a part of it", () => {
  const preferred = chooseSubnet(1, []) ?? 0;
  expect(formatAddress(preferred)).toBe("10.64.4.0");
  expect(bridgeAddress(preferred)).toBe("10.64.4.1");
  expect(slotAddress(preferred, 255)).toBe("10.64.5.0");
  expect(slotHardwareAddress(preferred, 1)).toBe("02:67:0a:40:04:02");
  for (const [taken, next] of [
    ["10.64.7.255", "10.64.8.0"],
    ["10.64.4.0/24", "10.64.8.0"],
    ["10.64.0.0/16", "10.65.0.0"],
    ["10.0.0.0/8", undefined],
    ["10.64.8.0/22", "10.64.4.0"],
    ["999.1.1.1/8", "10.64.4.0"],
  ] as const) {
    const chosen = chooseSubnet(1, [taken]);
    expect(chosen === undefined ? undefined : formatAddress(chosen), taken).toBe(next);
  }
});

test("a chosen network never overlaps what is taken", () => {
  const range = fc.tuple(fc.integer({ min: 60, max: 130 }), fc.nat(255), fc.integer({ min: 10, max: 32 }));
  fc.assert(
    fc.property(fc.nat(4095), fc.array(range, { maxLength: 40 }), (preferred, ranges) => {
      const taken = ranges.map(([second, third, bits]) => `10.${second}.${third}.0/${bits}`);
      const chosen = chooseSubnet(preferred, taken);
      fc.pre(chosen !== undefined);
      for (const [second, third, bits] of ranges) {
        const size = 2 ** (32 - bits);
        const start = Math.floor((10 * 2 ** 24 + second * 2 ** 16 + third * 256) / size) * size;
        expect(start + size <= (chosen ?? 0) || start >= (chosen ?? 0) + 1024).toBe(true);
      }
    }),
  );
});

test("addresses are found in what ip prints", () => {
  expect(findRanges("2: eth0    inet 192.0.2.2/24 brd 192.0.2.255 scope global eth0")).toEqual([
    "192.0.2.2/24",
    "192.0.2.255",
  ]);
});
