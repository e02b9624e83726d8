import fs from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { UserError, messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import { formatDuration } from "../../base/units.ts";
import type { CertificatePair } from "../tls/certificate.ts";
import type { TlsTerminator } from "../tls/terminator.ts";

export interface CertificateFolderOptions {
  readonly dir: string;
  readonly terminator: TlsTerminator;
  readonly clock: Clock;
  readonly log: Log;
  readonly pollMs: number;
  /** How long before its end a certificate is warned of. */
  readonly warnMs: number;
}

/** Larger files are not what they are taken for. */
const FILE_BYTES_MAX = 1024 * 1024;
/** Files of a renewal arrive one after the other. */
const SETTLE_MS = 100;
const DAY_MS = 24 * 3_600_000;

/**
 * Keeps a terminator at what a folder holds: `NAME.crt` (the leaf, then its chain) with `NAME.key`, or links to them.
 * Looks when the system tells of a change, and every now and then, since links may lead elsewhere. A pair that cannot
 * be used is told of once, and what was in force under its name stays; so does everything when the folder is gone or empty.
 */
export class CertificateFolder implements Disposable {
  readonly #options: CertificateFolderOptions;
  readonly #inForce = new Map<string, CertificatePair>();
  /** What was told of already. */
  #problems = new Set<string>();
  #seen = "";
  #watcher: fs.FSWatcher | undefined;
  #soon: Disposable | undefined;
  readonly #polling: Disposable;
  readonly #warning: Disposable;

  /** Loads what there is before it returns. Never throws: without a certificate handshakes fail, and are counted. */
  constructor(options: CertificateFolderOptions) {
    this.#options = options;
    this.#watch();
    this.#look();
    this.#polling = options.clock.every(options.pollMs, () => {
      this.#watch();
      this.#look();
    });
    this.#warning = options.clock.every(DAY_MS, () => this.#warn());
  }

  /** Pairs, or files without their other half, that cannot be used now. */
  get problemCount(): number {
    return this.#problems.size;
  }

  [Symbol.dispose](): void {
    this.#watcher?.close();
    this.#soon?.[Symbol.dispose]();
    this.#polling[Symbol.dispose]();
    this.#warning[Symbol.dispose]();
  }

  #watch(): void {
    if (this.#watcher !== undefined) return;
    try {
      this.#watcher = fs.watch(this.#options.dir, () => {
        this.#soon?.[Symbol.dispose]();
        this.#soon = this.#options.clock.after(SETTLE_MS, () => this.#look());
      });
      this.#watcher.on("error", () => this.#unwatch());
    } catch {
      // Not there, or the system cannot watch: looking now and then does.
    }
  }

  #unwatch(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  #look(): void {
    const { dir } = this.#options;
    let names: string[];
    try {
      names = fs.readdirSync(dir);
    } catch (error) {
      this.#unwatch();
      return this.#tell([`Cannot read the folder of certificates ${dir}: ${messageOf(error)}`]);
    }
    const files = names.filter((name) => /\.(?:crt|key)$/.test(name) && !name.startsWith(".")).toSorted();
    const seen = files.map((name) => fingerprint(join(dir, name))).join("\n");
    if (seen === this.#seen && this.#problems.size === 0) return;
    this.#load(files);
    this.#seen = seen;
  }

  #load(files: readonly string[]): void {
    const { dir, terminator, log } = this.#options;
    const stems = new Set(files.map((file) => file.slice(0, -4)));
    const problems: string[] = [];
    const next: CertificatePair[] = [];
    for (const name of stems) {
      const before = this.#inForce.get(name);
      try {
        const pair = readPair(dir, name);
        if (before === undefined || !isSame(before, pair)) terminator.check(pair);
        next.push(pair);
      } catch (error) {
        problems.push(error instanceof UserError ? sentence(error) : messageOf(error));
        if (before !== undefined) next.push(before);
      }
    }
    if (next.length === 0) {
      const kept = this.#inForce.size > 0 ? "; what was in force stays" : "";
      problems.push(`There is no certificate in ${dir} that can be used${kept}`);
    } else {
      const changed =
        next.length !== this.#inForce.size ||
        next.some((pair) => {
          const before = this.#inForce.get(pair.name);
          return before === undefined || !isSame(before, pair);
        });
      if (changed) {
        terminator.setCertificates(next);
        this.#inForce.clear();
        for (const pair of next) this.#inForce.set(pair.name, pair);
        const loaded = terminator.certificates.map(({ name, hosts, notAfterMs }) => {
          return { name, hosts, expires: new Date(notAfterMs).toISOString() };
        });
        log.info({ certificates: loaded }, "certificates in force");
        this.#warn();
      }
    }
    this.#tell(problems);
  }

  /** Each problem once, until it is another one. */
  #tell(problems: readonly string[]): void {
    for (const problem of problems) {
      if (!this.#problems.has(problem)) this.#options.log.error({ code: "bad_certificate" }, problem);
    }
    this.#problems = new Set(problems);
  }

  #warn(): void {
    const { clock, log, terminator, warnMs } = this.#options;
    for (const { name, notAfterMs } of terminator.certificates) {
      const leftMs = notAfterMs - clock.wallMs();
      if (leftMs <= 0) log.error({ certificate: name }, `certificate "${name}" has expired`);
      else if (leftMs <= warnMs) {
        log.warn({ certificate: name }, `certificate "${name}" expires in ${formatDuration(leftMs)}`);
      }
    }
  }
}

/** Changes with the file, and with what a link leads to. */
function fingerprint(path: string): string {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  return `${path} ${stat === undefined ? "gone" : `${stat.ino} ${stat.size} ${stat.mtimeMs} ${stat.mode}`}`;
}

function readPair(dir: string, name: string): CertificatePair {
  const certificate = readText(join(dir, `${name}.crt`), `${name}.key has no ${name}.crt beside it`);
  const keyPath = join(dir, `${name}.key`);
  const key = readText(keyPath, `${name}.crt has no ${name}.key beside it`);
  if ((fs.statSync(keyPath).mode & 0o007) !== 0) {
    throw new UserError(`Cannot use certificate "${name}": every user of this machine may open ${keyPath}`, {
      code: "bad_certificate",
      next: `chmod 600 ${keyPath}, and make it belong to the user of the edge.`,
    });
  }
  return { name, certificate, key };
}

function readText(path: string, missing: string): string {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw new UserError(missing, { code: "bad_certificate" });
  if (!stat.isFile() || stat.size > FILE_BYTES_MAX) {
    throw new UserError(`${path} is no file of at most ${FILE_BYTES_MAX} bytes`, { code: "bad_certificate" });
  }
  try {
    return fs.readFileSync(path, "utf8");
  } catch (error) {
    throw new UserError(`Cannot read ${path}: ${messageOf(error)}`, {
      code: "bad_certificate",
      next: "Make it readable by the user of the edge.",
    });
  }
}

function isSame(a: CertificatePair, b: CertificatePair): boolean {
  return a.certificate === b.certificate && a.key === b.key;
}

function sentence({ message, next }: UserError): string {
  return next === undefined ? message : `${message}. ${next}`;
}
