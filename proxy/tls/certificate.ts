import { X509Certificate, createPrivateKey } from "node:crypto";
import { UserError } from "../../base/errors.ts";

/** A certificate chain and its key, as PEM texts. */
export interface CertificatePair {
  /** For people, metrics and the choice of a default: the files' name without its ending. */
  readonly name: string;
  /** The leaf first, then what leads to a root. */
  readonly certificate: string;
  readonly key: string;
}

/** What a pair is good for; nothing of the key. */
export interface CertificateFacts {
  readonly name: string;
  /** Lower case, as in subjectAltName: `shop.example`, `*.shop.example`, addresses as they are written. */
  readonly hosts: readonly string[];
  /** Milliseconds since 1970. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

const HOST = /^(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/;

/**
 * Reads and checks a pair: both parse, the key belongs to the certificate, and there is a name it is good for.
 * @throws UserError `bad_certificate` that names the part and what is wrong, never the key's content.
 */
export function readCertificate(pair: CertificatePair): CertificateFacts {
  const { name } = pair;
  let leaf: X509Certificate;
  try {
    leaf = new X509Certificate(pair.certificate);
  } catch {
    throw bad(name, `${name}.crt holds no certificate in PEM form`);
  }
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type:.*ENCRYPTED/m.test(pair.key)) {
    throw bad(name, `${name}.key is encrypted`, "Store it without a passphrase, readable by its owner only.");
  }
  let matches: boolean;
  try {
    matches = leaf.checkPrivateKey(createPrivateKey(pair.key));
  } catch {
    throw bad(name, `${name}.key holds no private key in PEM form`);
  }
  if (!matches) {
    throw bad(
      name,
      `${name}.key is not the key of ${name}.crt`,
      "The certificate itself must be the first in its file.",
    );
  }
  const hosts = hostsOf(leaf.subjectAltName ?? "");
  if (hosts.length === 0) {
    throw bad(
      name,
      `${name}.crt names no host`,
      "Clients look at subjectAltName only: have it issued with one.",
    );
  }
  return {
    name,
    hosts,
    notBeforeMs: leaf.validFromDate.getTime(),
    notAfterMs: leaf.validToDate.getTime(),
  };
}

function bad(name: string, what: string, next?: string): UserError {
  return new UserError(`Cannot use certificate "${name}": ${what}`, {
    code: "bad_certificate",
    ...(next === undefined ? {} : { next }),
  });
}

/** DNS names and addresses of Node's text for subjectAltName. What is quoted there is no host name. */
function hostsOf(subjectAltName: string): string[] {
  const hosts: string[] = [];
  for (const entry of subjectAltName.split(", ")) {
    const [, kind, value] = /^(DNS|IP Address):(.*)$/.exec(entry) ?? [];
    if (kind === undefined || value === undefined) continue;
    const host = value.toLowerCase();
    // Node writes every group of an IPv6 address; clients write it short, as URL does.
    if (kind === "IP Address") hosts.push(URL.parse(`http://[${host}]`)?.hostname.slice(1, -1) ?? host);
    else if (HOST.test(host)) hosts.push(host);
  }
  return hosts;
}

/** Which of several answers for a name: exact names first, then wildcards; of two for one name the later to expire. */
export class CertificateTable<T extends { readonly facts: CertificateFacts }> {
  readonly entries: readonly T[];
  readonly #byHost = new Map<string, T>();

  constructor(entries: readonly T[]) {
    this.entries = entries;
    for (const entry of entries) {
      for (const host of entry.facts.hosts) {
        const known = this.#byHost.get(host);
        if (known === undefined || known.facts.notAfterMs < entry.facts.notAfterMs)
          this.#byHost.set(host, entry);
      }
    }
  }

  /** Undefined when none covers `host` (any case, without port). */
  find(host: string): T | undefined {
    const lower = host.toLowerCase();
    const bare = lower.endsWith(".") ? lower.slice(0, -1) : lower;
    const dot = bare.indexOf(".");
    return this.#byHost.get(bare) ?? (dot > 0 ? this.#byHost.get(`*${bare.slice(dot)}`) : undefined);
  }

  /** For clients that name nobody: the one called `name`, else the one that comes first by name. */
  byNameOrFirst(name: string): T | undefined {
    const sorted = this.entries.toSorted((a, b) => (a.facts.name < b.facts.name ? -1 : 1));
    return sorted.find(({ facts }) => facts.name === name) ?? sorted[0];
  }
}
