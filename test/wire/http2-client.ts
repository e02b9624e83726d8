import { once } from "node:events";
import http2 from "node:http2";
import { buffer } from "node:stream/consumers";

export interface Http2Answer {
  readonly head: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader;
  readonly body: string;
  readonly bytes: Buffer;
}

/** One request to `shop.test` on a connection of its own, with prior knowledge. */
export async function askHttp2(
  port: number,
  fields: http2.OutgoingHttpHeaders,
  body?: string | Buffer,
): Promise<Http2Answer> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  try {
    session.on("error", () => undefined);
    const request = session.request(
      { ":authority": "shop.test", ...fields },
      { endStream: body === undefined },
    );
    if (body !== undefined) request.end(body);
    const [head] = (await once(request, "response")) as [Http2Answer["head"]];
    const bytes = await buffer(request);
    return { head, body: bytes.toString(), bytes };
  } finally {
    session.destroy();
  }
}
