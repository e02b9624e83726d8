import { Connection } from "./connection.ts";
import { PREFACE, errorName } from "./constants.ts";
import type { ConnectionOptions } from "./core.ts";
import type { ConnectionEvents } from "./events.ts";
import { HpackEncoder } from "./hpack-encoder.ts";
import { defaultHttp2Limits } from "./limits.ts";
import type { Http2Limits } from "./limits.ts";
import type { Stream } from "./stream.ts";

/** Tools of this folder's tests: frames by hand, and a connection whose events and output are written down. */

/** One frame; the payload may be octets, hexadecimal digits or nothing. */
export function frame(
  type: number,
  flags: number,
  streamId: number,
  payload: Uint8Array | string = "",
): Buffer {
  const content = typeof payload === "string" ? Buffer.from(payload.replaceAll(" ", ""), "hex") : payload;
  const header = Buffer.alloc(9);
  header.writeUIntBE(content.length, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(streamId, 5);
  return Buffer.concat([header, content]);
}

/** A field block that leaves tables alone: every field is a plain literal, whatever it holds. */
export function plainBlock(...fields: string[]): Buffer {
  const pieces: Buffer[] = [];
  for (let at = 0; at < fields.length; at += 2) {
    pieces.push(Buffer.from([0x00]), plainString(fields[at]!), plainString(fields[at + 1]!));
  }
  return Buffer.concat(pieces);
}

function plainString(text: string): Buffer {
  const octets = Buffer.from(text, "latin1");
  const length: number[] = [];
  if (octets.length < 0x7f) length.push(octets.length);
  else {
    length.push(0x7f);
    let rest = octets.length - 0x7f;
    for (; rest >= 0x80; rest >>>= 7) length.push((rest & 0x7f) | 0x80);
    length.push(rest);
  }
  return Buffer.concat([Buffer.from(length), octets]);
}

export const GET: readonly string[] = [
  ":method",
  "GET",
  ":scheme",
  "http",
  ":path",
  "/",
  ":authority",
  "a.test",
];
export const POST: readonly string[] = [
  ":method",
  "POST",
  ":scheme",
  "http",
  ":path",
  "/",
  ":authority",
  "a.test",
];
export const EMPTY_SETTINGS: Buffer = frame(4, 0, 0);
/** What a client says first. */
export const HELLO: Buffer = Buffer.concat([PREFACE, EMPTY_SETTINGS, frame(4, 1, 0)]);

/** HEADERS with all flags for a whole block; with END_STREAM by default. */
export function headers(streamId: number, fields: readonly string[], endStream = true): Buffer {
  return frame(1, endStream ? 5 : 4, streamId, plainBlock(...fields));
}

export function data(streamId: number, content: string, endStream = false): Buffer {
  return frame(0, endStream ? 1 : 0, streamId, Buffer.from(content, "latin1"));
}

export interface SeenFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

/** A connection under test: `log` has its events in words, `frames()` what it sent since it was last asked. */
export class Probe {
  readonly connection: Connection;
  readonly log: string[] = [];
  readonly streams = new Map<number, Stream>();
  nowMs = 0;
  /** How often `write` was called. */
  writes = 0;
  /** What `write` answers. */
  accepts = true;
  /** Whether content is given back at once. */
  consumes = true;
  readonly #written: Buffer[] = [];
  #content = new Map<number, string>();

  constructor(
    role: "server" | "client" = "server",
    options: { limits?: Partial<Http2Limits>; extendedConnect?: boolean } & Partial<ConnectionEvents> = {},
  ) {
    const { limits, extendedConnect, ...events } = options;
    const whole: ConnectionOptions = {
      role,
      limits: { ...defaultHttp2Limits(), ...limits },
      nowMs: () => this.nowMs,
      schedule: () => {},
      write: (bytes) => {
        this.writes += 1;
        this.#written.push(Buffer.from(bytes));
        return this.accepts;
      },
      events: { ...this.#events(), ...events },
      ...(extendedConnect === undefined ? {} : { extendedConnect }),
    };
    this.connection = new Connection(whole);
  }

  /** Feeds octets; returns the probe. */
  feed(...pieces: Uint8Array[]): this {
    this.connection.receive(Buffer.concat(pieces));
    return this;
  }

  /** Octets sent since the last call. */
  raw(): Buffer {
    this.connection.flush();
    return Buffer.concat(this.#written.splice(0));
  }

  /** Frames sent since the last call. */
  frames(): SeenFrame[] {
    let bytes = this.raw();
    if (bytes.subarray(0, 3).equals(PREFACE.subarray(0, 3))) bytes = bytes.subarray(PREFACE.length);
    const seen: SeenFrame[] = [];
    for (let at = 0; at < bytes.length;) {
      const end = at + 9 + bytes.readUIntBE(at, 3);
      const streamId = bytes.readUInt32BE(at + 5);
      seen.push({
        type: bytes[at + 3]!,
        flags: bytes[at + 4]!,
        streamId,
        payload: bytes.subarray(at + 9, end),
      });
      at = end;
    }
    return seen;
  }

  /** The errors sent since the last call: "GOAWAY PROTOCOL_ERROR", "RST_STREAM 1 CANCEL". */
  errors(): string[] {
    return this.frames().flatMap(({ type, streamId, payload }) => {
      if (type === 3) return [`RST_STREAM ${streamId} ${errorName(payload.readUInt32BE(0))}`];
      if (type === 7) return [`GOAWAY ${errorName(payload.readUInt32BE(4))}`];
      return [];
    });
  }

  /** Content received on a stream. */
  content(streamId: number): string {
    return this.#content.get(streamId) ?? "";
  }

  #events(): ConnectionEvents {
    const { log } = this;
    return {
      onHead: (stream, head, end) => {
        this.streams.set(stream.id, stream);
        const what = head.status === 0 ? `${head.method} ${head.path}` : String(head.status);
        log.push(`head ${stream.id} ${what} [${head.fields.join(" ")}]${end ? " end" : ""}`);
      },
      onInterim: (stream, head) => log.push(`interim ${stream.id} ${head.status}`),
      onData: (stream, bytes, start, end, endStream) => {
        this.#content.set(stream.id, this.content(stream.id) + bytes.latin1Slice(start, end));
        if (endStream) log.push(`end ${stream.id}`);
        if (this.consumes) this.connection.consumed(stream, end - start);
      },
      onTrailers: (stream, fields) => log.push(`trailers ${stream.id} [${fields.join(" ")}]`),
      onReset: (stream, code) => log.push(`reset ${stream.id} ${errorName(code)}`),
      onDrain: (stream) => log.push(`drain ${stream.id}`),
      onRefused: (streamId, code) => log.push(`refused ${streamId} ${errorName(code)}`),
      onGoaway: (code) => log.push(`goaway ${errorName(code)}`),
      onClose: (code) => log.push(`close ${errorName(code)}`),
    };
  }
}

/** A block by an encoder of its own, as a peer would send it. */
export function encodedBlock(encoder: HpackEncoder, fields: readonly string[]): Buffer {
  const out = Buffer.alloc(HpackEncoder.bound(fields) + 32);
  return Buffer.from(out.subarray(0, encoder.fields(fields, out, encoder.start(out, 0))));
}
