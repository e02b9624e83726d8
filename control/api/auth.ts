import { createHash, timingSafeEqual } from "node:crypto";
import { UserError } from "../../base/errors.ts";

/** `open`: anybody who can connect. `host`: executors and proxies, and the admin. `admin`: people. */
export type Access = "open" | "host" | "admin";

export interface Tokens {
  readonly admin: string;
  readonly host: string;
}

/**
 * Decides on an `authorization` header by constant-time comparison of digests, so that neither content nor length of
 * a token shows in the time it takes.
 */
export class Authorizer {
  readonly #admin: Buffer;
  readonly #host: Buffer;

  constructor({ admin, host }: Tokens) {
    this.#admin = digest(admin);
    this.#host = digest(host);
  }

  /** @throws UserError "unauthorized" (401), "forbidden" (403) */
  check(header: string | undefined, access: Access): void {
    if (access === "open") return;
    const token = /^bearer +(?<token>\S+)$/i.exec(header ?? "")?.groups?.["token"];
    if (token === undefined) {
      throw new UserError("This needs a token", {
        code: "unauthorized",
        status: 401,
        next: "Send `authorization: Bearer TOKEN`; the admin's is in the file `token` of the state folder.",
      });
    }
    const given = digest(token);
    const isAdmin = timingSafeEqual(given, this.#admin);
    const isHost = timingSafeEqual(given, this.#host);
    if (isAdmin || (isHost && access === "host")) return;
    throw isHost
      ? new UserError("A host's token may not do this", {
          code: "forbidden",
          status: 403,
          next: "Use the admin token: the file `token` of the state folder.",
        })
      : new UserError("This token is not known", {
          code: "unauthorized",
          status: 401,
          next: "The admin's is in the file `token` of the state folder; it may have changed.",
        });
  }
}

function digest(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
