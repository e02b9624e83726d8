import { createHash } from "node:crypto";
import type { Random } from "../base/random.ts";

/**
 * What a WebSocket's handshake needs when one side speaks HTTP/1.1 and the other HTTP/2, where keys and their answers do
 * not exist (RFC 8441 5): whoever translates is a client of its own (RFC 6455 4.1).
 */

/** RFC 6455 1.3. */
const SALT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** 16 bytes by chance. They keep caches honest and no secrets, so any chance will do. */
export function newWebsocketKey(random: Random): string {
  return Buffer.from(Array.from({ length: 16 }, () => Math.floor(random() * 256))).toString("base64");
}

/** The only right `Sec-WebSocket-Accept` for a key. */
export function acceptOf(key: string): string {
  return createHash("sha1")
    .update(key + SALT)
    .digest("base64");
}
