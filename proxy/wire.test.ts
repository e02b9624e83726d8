import net from "node:net";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { Wire, type WireUser } from "./wire.ts";

/** Writes down what a wire tells its user, bytes as text. */
class Witness implements WireUser {
  readonly told: string[] = [];
  text = "";
  onBytesFailure: Error | undefined;

  onConnected(): void {
    this.told.push("connected");
  }
  onBytes(bytes: Buffer, size: number): void {
    this.text += bytes.toString("latin1", 0, size);
    if (this.onBytesFailure !== undefined) throw this.onBytesFailure;
  }
  onEnd(): void {
    this.told.push("end");
  }
  onDrain(): void {
    this.told.push("drain");
  }
  onClosed(error: string): void {
    this.told.push(`closed ${error}`.trim());
  }
}

const servers: net.Server[] = [];
const faults: unknown[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
  faults.length = 0;
});

/** A wire to a server whose end is an ordinary socket. */
async function joined(): Promise<{ wire: Wire; witness: Witness; peer: net.Socket }> {
  const server = net.createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
  servers.push(server);
  const accepted = new Promise<net.Socket>((resolve) => server.once("connection", resolve));
  const { port } = await new Promise<AddressInfo>((resolve) =>
    server.once("listening", () => resolve(server.address() as AddressInfo)),
  );
  const witness = new Witness();
  const wire = Wire.dial("127.0.0.1", port, witness, (error) => faults.push(error));
  return { wire, witness, peer: await accepted };
}

const until = (check: () => void) => vi.waitFor(check, { timeout: 5_000, interval: 5 });

test("what is written before it is connected goes out first, and an end asked for then comes last", async () => {
  const { wire, witness, peer } = await joined();
  expect(wire.writeText("early, ")).toBe(false);
  expect(wire.writeWhole(Buffer.from("as well"))).toBe(false);
  wire.end();
  let received = "";
  peer.on("data", (bytes) => (received += bytes.toString()));
  await new Promise((resolve) => peer.once("end", resolve));
  expect(received).toBe("early, as well");
  expect(witness.told).toEqual(["connected", "drain"]);
  peer.end("answer");
  await until(() => expect(witness.told).toEqual(["connected", "drain", "end", "closed"]));
  expect(witness.text).toBe("answer");
});

test("a peer that ends may still be written to; when both have ended the wire is closed", async () => {
  const { wire, witness, peer } = await joined();
  peer.end("all");
  await until(() => expect(witness.told).toContain("end"));
  let received = "";
  peer.on("data", (bytes) => (received += bytes.toString()));
  wire.writeText("still here");
  await until(() => expect(received).toBe("still here"));
  expect(wire.closed).toBe(false);
  wire.end();
  await until(() => expect(witness.told.at(-1)).toBe("closed"));
});

test("a reset reaches the peer as a reset, and is told here as closed", async () => {
  const { wire, witness, peer } = await joined();
  await until(() => expect(witness.told).toEqual(["connected"]));
  const error = new Promise<NodeJS.ErrnoException>((resolve) => peer.once("error", resolve));
  peer.resume();
  wire.reset();
  expect((await error).code).toBe("ECONNRESET");
  await until(() => expect(witness.told.at(-1)).toBe("closed"));
});

test("a reset by the peer is told with its name", async () => {
  const { witness, peer } = await joined();
  await until(() => expect(witness.told).toEqual(["connected"]));
  peer.resetAndDestroy();
  await until(() => expect(witness.told.at(-1)).toBe("closed ECONNRESET"));
});

test("nobody listens: closed with the reason, never connected", async () => {
  const { peer } = await joined();
  const { port } = servers[0]!.address() as AddressInfo;
  peer.destroy();
  await new Promise((resolve) => servers.pop()!.close(resolve));
  const witness = new Witness();
  Wire.dial("127.0.0.1", port, witness, (error) => faults.push(error));
  await until(() => expect(witness.told).toEqual(["closed ECONNREFUSED"]));
});

test("destroyed while it connects: closed, and nothing else", async () => {
  const { wire, witness } = await joined();
  wire.destroy();
  await until(() => expect(witness.told).toEqual(["closed"]));
});

test("while it is paused nothing is read, however long", async () => {
  const { wire, witness, peer } = await joined();
  await until(() => expect(witness.told).toEqual(["connected"]));
  wire.pause();
  const sent = new Promise((resolve) => peer.write("waits", resolve));
  await sent;
  await new Promise((resolve) => setImmediate(resolve));
  expect(witness.text).toBe("");
  wire.resume();
  await until(() => expect(witness.text).toBe("waits"));
});

test("a user that throws loses its connection, and only that", async () => {
  const { witness, peer } = await joined();
  witness.onBytesFailure = new Error("broken user");
  peer.write("anything");
  await until(() => expect(witness.told.at(-1)).toBe("closed"));
  expect(faults).toEqual([witness.onBytesFailure]);
});

test("a write that the kernel cannot take all at once says so, and again when it is out", async () => {
  const { wire, witness, peer } = await joined();
  await until(() => expect(witness.told).toEqual(["connected"]));
  const big = Buffer.alloc(16 * 1024 * 1024, "b");
  expect(wire.writeWhole(big)).toBe(false);
  let received = 0;
  peer.on("data", (bytes) => (received += bytes.length));
  await until(() => expect(received).toBe(big.length));
  await until(() => expect(witness.told).toContain("drain"));
});
