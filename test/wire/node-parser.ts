import { createRequire } from "node:module";

/** Node's own HTTP/1.1 parser (llhttp), asked directly and synchronously: a second opinion on what bytes mean. */

export interface ReadMessage {
  readonly method: string;
  readonly target: string;
  readonly status: number;
  /** Names in lower case. */
  readonly fields: readonly (readonly [string, string])[];
  /** Latin-1. */
  readonly body: string;
  readonly complete: boolean;
}

interface NativeParser {
  [callback: number]: (...values: never[]) => unknown;
  initialize(kind: number, owner: object, headBytesMax: number, lenient: number): void;
  execute(bytes: Buffer): number | Error;
  finish(): unknown;
}
interface NativeParserClass {
  new (): NativeParser;
  readonly REQUEST: number;
  readonly RESPONSE: number;
  readonly kOnHeaders: number;
  readonly kOnHeadersComplete: number;
  readonly kOnBody: number;
  readonly kOnMessageComplete: number;
}

const { HTTPParser } = createRequire(import.meta.url)("_http_common") as { HTTPParser: NativeParserClass };

/** Numbers that llhttp gives to methods; those the tests use. */
const METHODS = new Map([
  [0, "DELETE"],
  [1, "GET"],
  [2, "HEAD"],
  [3, "POST"],
  [4, "PUT"],
  [5, "CONNECT"],
  [6, "OPTIONS"],
  [7, "TRACE"],
  [28, "PATCH"],
]);
export const NODE_METHODS: ReadonlySet<string> = new Set(METHODS.values());

/**
 * Every message in `bytes`, or undefined when the parser refuses them. A response is read as the answer to a GET;
 * `bodiless` as one to a HEAD.
 */
export function readWithNode(
  kind: "request" | "response",
  bytes: Buffer,
  bodiless = false,
): ReadMessage[] | undefined {
  const messages: { -readonly [K in keyof ReadMessage]: ReadMessage[K] }[] = [];
  let loose: string[] = [];
  const parser = new HTTPParser();
  parser.initialize(kind === "request" ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {}, 1 << 20, 0);
  parser[HTTPParser.kOnHeaders] = (fields: string[], target: string) => {
    loose.push(...fields);
    looseTarget += target;
  };
  let looseTarget = "";
  parser[HTTPParser.kOnHeadersComplete] = (
    _major: number,
    _minor: number,
    fields: string[] | undefined,
    method: number,
    target: string | undefined,
    status: number,
  ) => {
    const flat = fields ?? loose;
    messages.push({
      method: kind === "request" ? (METHODS.get(method) ?? "?") : "",
      target: target ?? looseTarget,
      status: status ?? 0,
      fields: Array.from({ length: flat.length / 2 }, (_, index) => [
        flat[index * 2]!.toLowerCase(),
        flat[index * 2 + 1]!.replace(/[ \t]+$/, ""),
      ]),
      body: "",
      complete: false,
    });
    loose = [];
    looseTarget = "";
    return bodiless ? 1 : 0;
  };
  parser[HTTPParser.kOnBody] = (piece: Buffer) => {
    messages.at(-1)!.body += piece.toString("latin1");
  };
  parser[HTTPParser.kOnMessageComplete] = () => {
    messages.at(-1)!.complete = true;
    loose = []; // What trailers left.
    looseTarget = "";
  };
  const result = parser.execute(bytes);
  if (kind === "response") parser.finish(); // The connection's end is the end of a body without a length.
  return typeof result === "number" ? messages : undefined;
}
