import { hostOf } from "../routing.ts";

/** Sends clients of a listener without TLS to the one with it, where there is a certificate for them. */
export class HttpsRedirect {
  readonly #covers: (host: string) => boolean;
  readonly #port: string;

  /** `covers`: is there a certificate for a host in lower case; `port`: where clients reach the TLS listener. */
  constructor(covers: (host: string) => boolean, port: number) {
    this.#covers = covers;
    this.#port = port === 443 ? "" : `:${port}`;
  }

  /** `location: …CRLF` for a request; undefined: serve it here. Both texts have passed the parser. */
  locationOf(authority: string, target: string): string | undefined {
    const host = hostOf(authority);
    if (!target.startsWith("/") || !this.#covers(host)) return undefined;
    return `location: https://${host}${this.#port}${target}\r\n`;
  }
}
