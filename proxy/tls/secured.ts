import { hostOf } from "../routing.ts";
import { coversHost } from "./certificate.ts";

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
