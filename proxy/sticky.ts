import type { Cluster } from "../model/mesh.ts";
import { cookieValue, fieldValue } from "./headers.ts";
import type { RequestHead } from "./http1/request-head.ts";
import { type Share, shareOfKey } from "./split.ts";

/** The release this client was sent to before, or that its header's value belongs to; -1 when it is new. */
export function stickyRelease(
  sticky: Cluster["sticky"],
  shares: readonly Share[],
  request: RequestHead,
): number {
  if (sticky === undefined || shares.length === 0) return -1;
  if (sticky.by === "header") {
    const value = fieldValue(request.fields, sticky.name.toLowerCase());
    return value === undefined ? -1 : (shareOfKey(shares, value)?.release ?? -1);
  }
  const value = cookieValue(request.cookie, sticky.name);
  if (value === undefined || !/^\d{1,9}$/.test(value)) return -1;
  const share = shares.find(({ release }) => release === Number(value));
  return share !== undefined && share.weight > 0 && share.usable ? share.release : -1;
}

/** The line that makes a client stay on `release`; empty where nothing is kept in a cookie. */
export function stickyCookie(sticky: Cluster["sticky"], release: number): string {
  return sticky?.by === "cookie"
    ? `set-cookie: ${sticky.name}=${release}; Path=/; HttpOnly; SameSite=Lax\r\n`
    : "";
}
