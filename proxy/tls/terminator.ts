import { constants, randomBytes } from "node:crypto";
import tls from "node:tls";
import { UserError, messageOf } from "../../base/errors.ts";
import type { Client } from "../client.ts";
import type { Listener } from "../listener.ts";
import {
  type CertificateFacts,
  type CertificatePair,
  CertificateTable,
  readCertificate,
} from "./certificate.ts";
import { TlsHandshake } from "./handshake.ts";
import { TICKET_KEYS_BYTES } from "./tickets.ts";

export interface TlsOptions {
  /** @default "TLSv1.2" */
  readonly versionMin?: "TLSv1.2" | "TLSv1.3";
  /** What a client gets that asks for a name without a certificate. @default "default" */
  readonly unknownName?: "default" | "refuse";
  /** Name of the pair for clients that ask for none. Without it the first by name is used. @default "default" */
  readonly defaultCertificate?: string;
  /** Value of `strict-transport-security` on every proxied answer; empty: none (RFC 6797). @default "" */
  readonly hsts?: string;
  /** How long a session may be resumed, in milliseconds; 0 switches tickets off. @default 12 hours */
  readonly sessionMs?: number;
}

/** A certificate in use. */
export interface ServedCertificate {
  readonly facts: CertificateFacts;
  readonly pair: CertificatePair;
  readonly context: tls.SecureContext;
}

/** Mozilla's "intermediate" (server side TLS 5.7), without the DHE suites. TLS 1.3 suites first, for OpenSSL's sake. */
const CIPHERS = [
  "TLS_AES_128_GCM_SHA256",
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305",
].join(":");

const GROUPS = "X25519MLKEM768:X25519:P-256:P-384";

/** TLS 1.2 lets a client renegotiate at will otherwise, which costs us and not the client. */
const SECURE_OPTIONS = constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_NO_COMPRESSION;

const SESSION_MS = 12 * 3_600_000;

/**
 * What TLS listeners answer with: certificates, chosen by the name a client asks for, and the keys of session tickets.
 * Both change while connections are served; whoever is connected keeps what it has.
 */
export class TlsTerminator {
  readonly hstsField: string;
  readonly #options: TlsOptions;
  #table = new CertificateTable<ServedCertificate>([]);
  #fallback: ServedCertificate | undefined;
  /** Shared by all contexts, so that a ticket outlives a reload. */
  #ticketKeys: Buffer = randomBytes(TICKET_KEYS_BYTES);

  constructor(options: TlsOptions = {}) {
    this.#options = options;
    const { hsts = "" } = options;
    this.hstsField = hsts === "" ? "" : `strict-transport-security: ${hsts}\r\n`;
  }

  get certificates(): readonly CertificateFacts[] {
    return this.#table.entries.map(({ facts }) => facts);
  }

  /** Must the client's name be known before a certificate is sent? */
  get asksName(): boolean {
    return this.#table.entries.length > 1 || this.#options.unknownName === "refuse";
  }

  /**
   * Replaces all certificates, or none when one of them is bad.
   * @throws UserError `bad_certificate`
   */
  setCertificates(pairs: readonly CertificatePair[]): void {
    const served = pairs.map((pair) => {
      const known = this.#table.entries.find((entry) => samePair(entry.pair, pair));
      return known ?? this.#serve(pair);
    });
    this.#use(served);
  }

  /** From now on tickets are made with `keys`, 48 bytes; older tickets lead to full handshakes. */
  setTicketKeys(keys: Buffer): void {
    this.#ticketKeys = keys;
    this.#use(this.#table.entries.map(({ pair }) => this.#serve(pair)));
  }

  /** For a client that has not said a name yet, or never does. Undefined: there is no certificate at all. */
  get fallback(): ServedCertificate | undefined {
    return this.#fallback;
  }

  /** For a client that asks for `name`, which may be empty. Undefined: refuse it. */
  choose(name: string): ServedCertificate | undefined {
    if (name === "") return this.#fallback;
    return this.#table.find(name) ?? (this.#options.unknownName === "refuse" ? undefined : this.#fallback);
  }

  /** Is there a certificate for `host`, lower case and without port? */
  covers(host: string): boolean {
    return this.#table.find(host) !== undefined;
  }

  /**
   * Serves an accepted handle of `listener` once it is started, with `served` while no name is known.
   * Here, and not in the listener, so that only those load TLS who use it.
   */
  begin(handle: unknown, listener: Listener, served: ServedCertificate, client: Client): TlsHandshake {
    return new TlsHandshake(handle, listener, this, served, client);
  }

  /**
   * Would `setCertificates` take this pair?
   * @throws UserError `bad_certificate`
   */
  check(pair: CertificatePair): void {
    this.#serve(pair);
  }

  #use(served: readonly ServedCertificate[]): void {
    this.#table = new CertificateTable(served);
    this.#fallback = this.#table.byNameOrFirst(this.#options.defaultCertificate ?? "default");
  }

  #serve(pair: CertificatePair): ServedCertificate {
    const facts = readCertificate(pair);
    const { versionMin = "TLSv1.2", sessionMs = SESSION_MS } = this.#options;
    const tickets = sessionMs > 0;
    try {
      const context = tls.createSecureContext({
        cert: pair.certificate,
        key: pair.key,
        minVersion: versionMin,
        ciphers: CIPHERS,
        ecdhCurve: GROUPS,
        secureOptions: SECURE_OPTIONS | (tickets ? 0 : constants.SSL_OP_NO_TICKET),
        // The same for all, so that a session begun with one context is known to the next.
        sessionIdContext: "gilliam",
        sessionTimeout: Math.max(1, Math.floor(sessionMs / 1000)),
        ...(tickets ? { ticketKeys: this.#ticketKeys } : {}),
      });
      return { facts, pair, context };
    } catch (error) {
      throw new UserError(`Cannot use certificate "${pair.name}": OpenSSL refuses it: ${messageOf(error)}`, {
        code: "bad_certificate",
        cause: error,
      });
    }
  }
}

function samePair(a: CertificatePair, b: CertificatePair): boolean {
  return a.name === b.name && a.certificate === b.certificate && a.key === b.key;
}
