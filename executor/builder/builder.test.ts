import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import tar from "tar-fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { seededRandom } from "../../base/random.ts";
import { imageDigest } from "../../model/image.ts";
import type { BuildOrder, BuildStatus } from "../../model/host.ts";
import { BUILD_UID } from "../drivers/process/records.ts";
import { Builder, type BuilderOptions } from "./builder.ts";
import { removeTree } from "../../base/remove-tree.ts";
import { buildEnvironment } from "../../base/build-environment.ts";

const root = process.getuid?.() === 0;
let folder = "";
let blobs: Map<string, Buffer>;
let fetched: string[];
const builders: Builder[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "builder-"));
  chmodSync(folder, 0o711);
  mkdirSync(join(folder, "executor"), { mode: 0o711 });
  blobs = new Map();
  fetched = [];
});
afterEach(() => {
  for (const builder of builders.splice(0)) builder.close();
  removeTree(folder);
});

function openBuilder(limits: Partial<BuilderOptions["limits"]> = {}): Builder {
  const builder = new Builder({
    executorFolder: join(folder, "executor"),
    platformFolder: folder,
    nodeFolder: dirname(process.execPath),
    hostId: "host-1",
    uid: root ? BUILD_UID : undefined,
    setpriv: true,
    environment: { FROM_OUTSIDE: "yes" },
    limits: { bytesMax: 1_000_000, filesMax: 100, timeoutMs: 10_000, outputBytesMax: 10_000, ...limits },
    fetchBlob: (digest) => {
      fetched.push(digest);
      const bytes = blobs.get(digest);
      if (bytes === undefined) return Promise.reject(new Error("control answered 404"));
      return Promise.resolve(new Blob([new Uint8Array(bytes)]).stream());
    },
    clock: systemClock,
    random: seededRandom(1),
    log: silentLog,
  });
  builders.push(builder);
  return builder;
}

/** Packs files, and whatever `change` makes of each entry, into an archive that can be fetched. */
async function addSource(
  files: Record<string, string | Buffer>,
  change: (header: tar.Headers) => tar.Headers = (header) => header,
): Promise<string> {
  const source = mkdtempSync(join(tmpdir(), "source-"));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(source, name)), { recursive: true });
    writeFileSync(join(source, name), text, { mode: name.endsWith(".sh") ? 0o755 : 0o644 });
  }
  const chunks: Buffer[] = [];
  for await (const chunk of tar.pack(source, { map: change })) chunks.push(chunk as Buffer);
  removeTree(source);
  const bytes = Buffer.concat(chunks);
  const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
  blobs.set(digest, bytes);
  return digest;
}

const orderOf = (source: string, build?: string): BuildOrder => ({
  image: imageDigest({ source, build }),
  source,
  ...(build === undefined ? {} : { build }),
});

async function finish(builder: Builder, { image }: BuildOrder): Promise<BuildStatus> {
  const find = () => builder.statuses().find((status) => status.image === image);
  await expect.poll(() => find()?.state, { timeout: 15_000 }).toMatch(/ready|failed/);
  return find() as BuildStatus;
}

const none = () => new Set<string>();

test(
  "source becomes a read-only image, built once, found again by the next executor",
  { timeout: 30_000 },
  async () => {
    const order = orderOf(await addSource({ "server.py": "print(1)", "sub/run.sh": "#!/bin/sh" }));
    const builder = openBuilder();
    builder.order([order], [order.image], none);
    expect(await finish(builder, order)).toMatchObject({
      state: "ready",
      defaultCommand: "python3 server.py",
    });
    builder.order([order], [order.image], none);
    const image = builder.resolve({ kind: "source", ...order });
    expect(image).toMatchObject({ kind: "ready", defaultCommand: "python3 server.py" });
    const where = image.kind === "ready" ? image.folder : "";
    expect(statSync(where).mode & 0o777).toBe(0o555);
    expect(statSync(join(where, "server.py")).mode & 0o777).toBe(0o444);
    expect(statSync(join(where, "sub/run.sh")).mode & 0o777).toBe(0o555);
    const next = openBuilder();
    expect(next.resolve({ kind: "source", ...order })).toEqual(image);
    expect(fetched.length).toBe(1);
  },
);

test(
  "a build command runs without rights, with the environment of builds only",
  { timeout: 30_000 },
  async () => {
    const order = orderOf(await addSource({ "a.txt": "a" }), "id -u > uid; env > environment; sleep 300 & :");
    const builder = openBuilder();
    builder.order([order], [], none);
    expect(await finish(builder, order)).toMatchObject({ state: "ready" });
    const image = builder.resolve({ kind: "source", ...order });
    const read = (name: string) =>
      readFileSync(join(image.kind === "ready" ? image.folder : "", name), "utf8");
    if (root) expect(read("uid").trim()).toBe(String(BUILD_UID));
    expect(read("environment")).toContain("FROM_OUTSIDE=yes");
    expect(read("environment")).not.toContain("VITEST");
  },
);

test("a failed build says which step, and its last words", { timeout: 30_000 }, async () => {
  const order = orderOf(await addSource({ "a.txt": "a" }), "seq 1 30; no-such-tool");
  const builder = openBuilder();
  builder.order([order], [], none);
  const status = await finish(builder, order);
  expect(status.state).toBe("failed");
  expect(status.reason).toContain('step "build" no-such-tool is not installed on host host-1');
  expect(status.lastLines.length).toBe(20);
  expect(status.lastLines.at(-1)).toContain("no-such-tool: not found");
  expect(builder.buildLog(order.image)).toMatch(/^\$ seq 1 30; no-such-tool\n1\n2\n/);
  expect(builder.resolve({ kind: "source", ...order })).toMatchObject({ kind: "failed" });
  builder.order([order], [], none);
  expect((await finish(builder, order)).state).toBe("failed"); // The order stands: not tried again and again.
  expect(fetched.length).toBe(1);
});

test("a build that hangs is ended at the limit, with all it started", { timeout: 30_000 }, async () => {
  const order = orderOf(await addSource({ "a.txt": "a" }), "setsid sleep 301 & sleep 302");
  const builder = openBuilder({ timeoutMs: 300 });
  builder.order([order], [], none);
  expect((await finish(builder, order)).reason).toContain("took longer than 300ms and was ended");
});

/** A wheel with one module, made as PEP 427 says, so that pip has something to install without an index. */
function tinyWheel(): Buffer {
  const script = `
import io, sys, zipfile
files = {"tiny.py": "WORD = 'installed'",
  "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n",
  "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
files["tiny-1.0.dist-info/RECORD"] = "".join(f"{name},,\\n" for name in [*files, "tiny-1.0.dist-info/RECORD"])
out = io.BytesIO()
with zipfile.ZipFile(out, "w") as wheel:
  for name, text in files.items(): wheel.writestr(name, text)
sys.stdout.buffer.write(out.getvalue())`;
  return execFileSync("python3", ["-c", script]);
}

test("pip installs into a virtual environment that the image keeps", { timeout: 60_000 }, async () => {
  const wheel = "tiny-1.0-py3-none-any.whl";
  const order = orderOf(
    await addSource({
      "server.py": "import tiny; print(tiny.WORD)",
      "requirements.txt": `./${wheel}\n`,
      [wheel]: tinyWheel(),
    }),
  );
  const builder = openBuilder({ bytesMax: 100_000_000, filesMax: 10_000, timeoutMs: 50_000 });
  builder.order([order], [order.image], none);
  await expect.poll(() => builder.statuses()[0]?.state, { timeout: 50_000 }).toMatch(/ready|failed/);
  expect(builder.statuses()[0]).toMatchObject({ state: "ready", defaultCommand: "python3 server.py" });
  const image = join(folder, "executor/images", order.image.replace("sha256:", ""));
  const python = join(image, ".venv/bin/python3");
  expect(execFileSync(python, [join(image, "server.py")], { encoding: "utf8" })).toBe("installed\n");
});

test("output is bounded", { timeout: 30_000 }, async () => {
  const order = orderOf(await addSource({ "a.txt": "a" }), "yes | head -c 1000000");
  const builder = openBuilder();
  builder.order([order], [], none);
  await finish(builder, order);
  expect(builder.buildLog(order.image)?.length).toBeLessThan(11_000);
});

test.for([
  {
    name: "leads out",
    change: (header: tar.Headers) => ({
      ...header,
      name: header.name === "a.txt" ? "../../evil" : header.name,
    }),
    says: "leads out of it",
  },
  {
    name: "is a device",
    change: (header: tar.Headers): tar.Headers =>
      header.name === "a.txt"
        ? ({ ...header, type: "character-device", size: 0 } as object as tar.Headers)
        : header,
    says: "only files and folders are allowed",
  },
  {
    name: "points out",
    change: (header: tar.Headers): tar.Headers =>
      header.name === "a.txt"
        ? ({ ...header, type: "symlink", linkname: "/etc/passwd", size: 0 } as tar.Headers)
        : header,
    says: "cannot be unpacked",
  },
])("an archive with an entry that $name is refused", { timeout: 30_000 }, async ({ change, says }) => {
  const order = orderOf(await addSource({ "a.txt": "" }, change));
  const builder = openBuilder();
  builder.order([order], [], none);
  const status = await finish(builder, order);
  expect([status.state, status.reason]).toEqual(["failed", expect.stringContaining(says)]);
  expect(existsSync(join(folder, "evil"))).toBe(false);
});

test.for([
  { limits: { filesMax: 2 }, says: "more than 2 files" },
  { limits: { bytesMax: 3_000 }, says: "larger than 2.9 KiB" },
])("too much source: $says", { timeout: 30_000 }, async ({ limits, says }) => {
  const order = orderOf(await addSource({ "a.txt": "a".repeat(2_000), "b.txt": "b".repeat(2_000) }));
  const builder = openBuilder(limits);
  builder.order([order], [], none);
  expect((await finish(builder, order)).reason).toContain(says);
});

test(
  "a source that cannot be fetched, or is damaged, is tried again until it can",
  { timeout: 30_000 },
  async () => {
    const source = await addSource({ "server.py": "" });
    const whole = blobs.get(source) as Buffer;
    blobs.set(source, Buffer.concat([whole, Buffer.from("x")]));
    const order = orderOf(source);
    const builder = openBuilder();
    builder.order([order], [], none);
    await expect.poll(() => builder.statuses()[0]?.reason).toContain("the archive is damaged");
    blobs.set(source, whole);
    expect(await finish(builder, order)).toMatchObject({ state: "ready", reason: "" });
  },
);

test(
  "what a crash left half is deleted; images nobody needs are collected",
  { timeout: 30_000 },
  async () => {
    const half = join(folder, "executor", "images", "a".repeat(64));
    mkdirSync(half, { recursive: true });
    writeFileSync(join(half, "file"), "half");
    const builder = openBuilder();
    expect(existsSync(half)).toBe(false);
    const orders = [
      orderOf(await addSource({ "server.py": "1" })),
      orderOf(await addSource({ "server.py": "2" })),
      orderOf(await addSource({ "server.py": "3" })),
    ] as const;
    builder.order(orders, [], none);
    for (const order of orders) await finish(builder, order);
    builder.order([], [], none);
    expect(builder.statuses().length).toBe(3); // Nothing to keep at all: more likely a mistake than a wish.
    builder.order([], [orders[0].image], () => new Set([orders[1].image]));
    expect(builder.statuses().map(({ image }) => image)).toEqual([orders[0].image, orders[1].image]);
  },
);

test("of our environment a build gets what reaches registries, nothing else", () => {
  const passed = buildEnvironment({
    HTTPS_PROXY: "http://proxy",
    NODE_EXTRA_CA_CERTS: "/ca.pem",
    npm_config_registry: "http://registry",
    npm_config_cache: "/root/.npm",
    PIP_INDEX_URL: "http://index",
    GILLIAM_TOKEN: "secret",
    HOME: "/root",
    PATH: "/bin",
  });
  expect(Object.keys(passed)).toEqual([
    "HTTPS_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_registry",
    "PIP_INDEX_URL",
  ]);
});
