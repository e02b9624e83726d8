import { X509Certificate } from "node:crypto";
import { chownSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { makeDevCertificate } from "./dev-certificate.ts";
import { writeWhole } from "./state-folder.ts";

const DAY_MS = 24 * 3_600_000;
/** Many clients take no wildcard right below a top-level name, so the names that are known are there one by one. */
const HOSTS = ["localhost", "*.localhost", "127.0.0.1", "::1"];

/**
 * Makes a self-signed certificate in `dir` for `uid`, for localhost and `names`, if there is none for them that lasts
 * another month. True: it was made.
 */
export async function keepDevCertificate(
  dir: string,
  uid: number,
  nowMs: number,
  names: readonly string[],
): Promise<boolean> {
  const crt = join(dir, "default.crt");
  const key = join(dir, "default.key");
  if (existsSync(crt) && existsSync(key) && suffices(crt, nowMs, names)) return false;
  const made = await makeDevCertificate({ hosts: [...HOSTS, ...names], nowMs });
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  writeWhole(key, made.key, 0o600);
  writeWhole(crt, made.certificate, 0o644);
  if (process.getuid?.() === 0) for (const path of [dir, key, crt]) chownSync(path, uid, uid);
  return true;
}

function suffices(path: string, nowMs: number, names: readonly string[]): boolean {
  try {
    const { subjectAltName = "", validToDate } = new X509Certificate(readFileSync(path));
    const hosts = subjectAltName.split(", ");
    return (
      validToDate.getTime() > nowMs + 30 * DAY_MS && names.every((name) => hosts.includes(`DNS:${name}`))
    );
  } catch {
    return false;
  }
}
