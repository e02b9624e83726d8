import fs from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type HandlePipe, awaitPipe, connectPipe } from "./handle-pipe.ts";
import { type RawHandle, bindTcp } from "./handles.ts";

let folder = "";
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), "pipe-"));
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

async function pair(): Promise<{ server: HandlePipe; client: HandlePipe }> {
  const path = join(folder, "one.sock");
  const accepted = Promise.withResolvers<HandlePipe>();
  awaitPipe(path, accepted.resolve);
  expect(fs.statSync(path).mode & 0o777).toBe(0o600);
  const client = await connectPipe(path);
  expect(client).toBeDefined();
  return { server: await accepted.promise, client: client! };
}

test("messages and sockets arrive in order, each socket with its message", async () => {
  const { server, client } = await pair();
  const bound = [1, 2, 3].map(() => bindTcp({ host: "127.0.0.1", port: 0 }));
  const got: { message: unknown; handle: RawHandle | undefined }[] = [];
  const all = Promise.withResolvers<void>();
  client.onMessage = (message, handle) => {
    got.push({ message, handle });
    if (got.length === 7) all.resolve();
  };
  client.start();
  server.send({ text: "before" });
  for (const { handle, address } of bound) {
    server.send({ port: address.port }, handle);
    server.send({ text: "x".repeat(100_000) });
  }
  await all.promise;
  const ports = got.flatMap(({ message, handle }) => {
    const out: { port?: number } = {};
    handle?.getsockname?.(out);
    expect((message as { port?: number }).port).toBe(out.port);
    return out.port ?? [];
  });
  expect(ports).toEqual(bound.map(({ address }) => address.port));
  // A socket that came along listens here like any other.
  const listening = net.createServer((socket) => socket.end("here"));
  await new Promise<void>((resolve) => void listening.listen(got[1]!.handle, resolve));
  const text = await new Promise((resolve) => {
    net.connect(ports[0]!, "127.0.0.1").on("data", (bytes: Buffer) => resolve(String(bytes)));
  });
  expect(text).toBe("here");
  listening.close();
  for (const { handle } of bound) handle.close();
  for (const { handle } of got.slice(2)) handle?.close();
  const closed = new Promise<void>((resolve) => {
    client.onClose = resolve;
  });
  server.close();
  await closed;
  expect(client.open).toBe(false);
});

test("where nobody waits there is no pipe", async () => {
  expect(await connectPipe(join(folder, "nobody.sock"))).toBeUndefined();
});
