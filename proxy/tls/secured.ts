import { hostOf } from "../routing.ts";

/** What a request must know of the TLS connection it came on. */
export class SecuredConnection {
  /** `strict-transport-security: …CRLF`, or empty. */
  readonly hstsField: string;
  readonly #hosts: readonly string[];
  #asked = "";
  #covered = false;

  constructor(hosts: readonly string[], hstsField: string) {
    this.#hosts = hosts;
    this.hstsField = hstsField;
  }

  /** May a request for `authority` be answered here (RFC 9110 7.4)? A connection asks nearly always for the same one. */
  covers(authority: string): boolean {
    if (authority === this.#asked) return this.#covered;
    this.#asked = authority;
    this.#covered = coversHost(this.#hosts, hostOf(authority));
    return this.#covered;
  }
}

/**
 * True when a certificate for `hosts` may answer for `host` (lower case, without port; RFC 9525 6.3): by its name, or
 * by a wildcard that stands for exactly one label.
 */
export function coversHost(hosts: readonly string[], host: string): boolean {
  const bare = host.startsWith("[") ? host.slice(1, -1) : host;
  if (hosts.includes(bare)) return true;
  const dot = bare.indexOf(".");
  return dot > 0 && hosts.includes(`*${bare.slice(dot)}`);
}
