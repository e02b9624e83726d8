import * as fc from "fast-check";
import { expect, test } from "vitest";
import { parseCgroup } from "./container-cgroup.ts";
import { findMirror, suiteOf } from "./base-image.ts";
import { frameSplitter } from "./engine.ts";
import { sinceOf } from "./log-pump.ts";

function frame(stream: "stdout" | "stderr", bytes: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head[0] = stream === "stderr" ? 2 : 1;
  head.writeUInt32BE(bytes.length, 4);
  return Buffer.concat([head, bytes]);
}

test("frames come out as they went in, wherever the connection cuts them", () => {
  const message = fc.record({
    stream: fc.constantFrom("stdout" as const, "stderr" as const),
    bytes: fc.uint8Array({ maxLength: 40 }),
  });
  fc.assert(
    fc.property(
      fc.array(message),
      fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }),
      (messages, cuts) => {
        const wire = Buffer.concat(messages.map(({ stream, bytes }) => frame(stream, Buffer.from(bytes))));
        const got: unknown[] = [];
        const split = frameSplitter((stream, bytes) => got.push({ stream, bytes: Uint8Array.from(bytes) }));
        for (let at = 0, turn = 0; at < wire.length; turn += 1) {
          const size = cuts[turn % cuts.length] ?? 1;
          split(wire.subarray(at, at + size));
          at += size;
        }
        expect(got).toEqual(messages.map(({ stream, bytes }) => ({ stream, bytes: Uint8Array.from(bytes) })));
      },
    ),
  );
});

test.for([
  { time: "2026-11-22T14:21:39.936126463Z", since: "1795357299.936126463" },
  { time: "2026-11-22T14:21:39.93Z", since: "1795357299.930000000" },
  { time: "2026-11-22T14:21:39Z", since: "1795357299.000000000" },
  { time: "", since: "0" }, // From the beginning.
])("$time is asked for as $since", ({ time, since }) => {
  expect(sinceOf(time)).toBe(since);
});

test("a process's group is found in version 1 and version 2", () => {
  const one = ["12:pids:/gld/abc", "4:cpu,cpuacct:/gld/cpu", "1:name=systemd:/x"];
  expect(parseCgroup(one, "pids")).toBe("/gld/abc");
  expect(parseCgroup(one, "cpuacct")).toBe("/gld/cpu");
  expect(parseCgroup(one, "")).toBeUndefined();
  expect(parseCgroup(["0::/system.slice/docker-abc.scope"], "")).toBe("/system.slice/docker-abc.scope");
});

test.for([
  { sources: "deb http://mirror.test/debian bookworm main", mirror: "http://mirror.test/debian" },
  {
    sources: "Types: deb\nURIs: https://mirror.test/debian/\nSuites: trixie",
    mirror: "https://mirror.test/debian/",
  },
  { sources: "deb [signed-by=/k.gpg] http://a.test/debian bookworm main", mirror: "http://a.test/debian" },
  { sources: "deb http://other.test/apt stable main", mirror: "http://deb.debian.org/debian" },
  {
    sources: "deb http://security.test/debian-security bookworm-security main",
    mirror: "http://deb.debian.org/debian",
  },
])("the mirror of $sources is $mirror", ({ sources, mirror }) => {
  expect(findMirror(sources)).toBe(mirror);
});

test("the base image is of this machine's own release, on Debian", () => {
  expect(suiteOf("ID=debian\nVERSION_CODENAME=trixie\n")).toBe("trixie");
  expect(suiteOf('ID=fedora\nVERSION_CODENAME=""\n')).toBe("bookworm");
});
