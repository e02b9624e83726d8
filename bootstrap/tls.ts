import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf, UserError } from "../base/errors.ts";
import type { TlsWish, UpOptions } from "./options.ts";
import { chooseTlsPort, type Ports } from "./ports.ts";
import { PLATFORM_UID, type PlatformFile } from "./state-folder.ts";

/** TLS at the edge, as `up` sets it up. */
export type PlatformTls = NonNullable<PlatformFile["tls"]>;

/**
 * Port and folder of the edge's TLS: what is asked for, else what this state folder had; undefined: no TLS. Makes a
 * certificate that vouches for itself where no folder is named. `adopted`: the edge runs and has its port.
 * @throws UserError "port_taken" or "tls_dir"
 */
export async function prepareTls(
  { state, tls: wish, isPublic, formation }: UpOptions,
  known: PlatformFile | undefined,
  ports: Ports,
  adopted: boolean,
  nowMs: number,
): Promise<PlatformTls | undefined> {
  const wanted = wish?.port ?? known?.tls?.port;
  if (wanted === undefined) return undefined;
  const host = isPublic || known?.isPublic === true ? "0.0.0.0" : "127.0.0.1";
  const keepsPort = adopted && wanted === known?.tls?.port;
  const port = keepsPort ? wanted : await chooseTlsPort(wanted, host, new Set(Object.values(ports)));
  const ownUid = process.getuid?.() ?? 0;
  const uid = ownUid === 0 ? PLATFORM_UID : ownUid;
  const dir = wish === undefined && known?.tls?.isSelfSigned === false ? known.tls.dir : wish?.dir;
  if (dir !== undefined) {
    checkCertificates(dir, uid);
    return { port, dir, isSelfSigned: false };
  }
  const own = join(state, "edge", "tls");
  // Loaded only where it is wanted: it knows a lot about certificates.
  const { keepDevCertificate } = await import("./own-certificate.ts");
  await keepDevCertificate(own, uid, nowMs, localNames(formation));
  return { port, dir: own, isSelfSigned: true };
}

/** Names below `localhost` that a formation's manifest speaks of. */
function localNames(folder: string | undefined): string[] {
  const path = folder === undefined ? "" : join(folder, "gilliam.yaml");
  const text = path !== "" && existsSync(path) ? readFileSync(path, "utf8") : "";
  return [...new Set(text.match(/\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.localhost\b/g))];
}

/** In what the TLS that runs differs from what is asked for; undefined when it does not. */
export function tlsDifference(
  wish: TlsWish | undefined,
  running: PlatformTls | undefined,
): string | undefined {
  if (wish === undefined) return undefined;
  if (running === undefined) return "the edge runs without TLS";
  const samePort = wish.port === 0 || wish.port === running.port;
  const sameDir = wish.dir === undefined ? running.isSelfSigned : wish.dir === running.dir;
  return samePort && sameDir
    ? undefined
    : `TLS is on port ${running.port}, with the certificates in ${running.dir}`;
}

/** The formation's addresses over TLS, and what browsers will think of them. */
export function tlsAddresses(
  { tls }: PlatformFile,
  urls: readonly string[],
): (readonly [label: string, url: string])[] {
  if (tls === undefined) return [];
  const port = tls.port === 443 ? "" : `:${tls.port}`;
  const secure = urls.map((text) => {
    const { hostname, pathname } = new URL(text);
    return `https://${hostname}${port}${pathname}`;
  });
  const note = tls.isSelfSigned ? "  (self-signed: browsers warn)" : "";
  return (secure.length > 0 ? secure : [`https://localhost${port}`]).map((url) => ["tls", url + note]);
}

/**
 * Certificates that the edge's user could not read would be told of in its log only.
 * @throws UserError "tls_dir" that names each file and what to do.
 */
export function checkCertificates(dir: string, uid: number): void {
  let names: string[];
  try {
    names = readdirSync(dir).filter((name) => name.endsWith(".key"));
  } catch (error) {
    throw new UserError(`Cannot read the folder of certificates ${dir}: ${messageOf(error)}`, {
      code: "tls_dir",
      next: "Name a folder with NAME.crt and NAME.key, or leave --tls-dir out for a self-signed certificate",
    });
  }
  if (names.length === 0) {
    throw new UserError(`There is no NAME.key in the folder of certificates ${dir}`, {
      code: "tls_dir",
      next: "Put NAME.crt (the certificate, then its chain) and NAME.key there",
    });
  }
  const shut = [dir, ...names.map((name) => join(dir, name))].filter((path) => !mayRead(path, uid));
  if (shut.length === 0) return;
  throw new UserError("The edge could not read its certificates", {
    code: "tls_dir",
    problems: shut.map((path) => `${path} is not readable by user ${uid}`),
    next: `Give them to the edge's user: chown ${uid} FILE`,
  });
}

/** By owner and by everybody; groups are not looked at, since the edge is in none. */
function mayRead(path: string, uid: number): boolean {
  const { mode, uid: owner } = statSync(path);
  return (mode & (owner === uid ? 0o400 : 0o004)) !== 0;
}
