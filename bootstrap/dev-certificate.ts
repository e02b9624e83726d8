import "reflect-metadata";
import { webcrypto } from "node:crypto";
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";

const DAY_MS = 24 * 3_600_000;

export interface DevCertificateOptions {
  /** Names and addresses: `shop.localhost`, `*.localhost`, `127.0.0.1`. */
  readonly hosts: readonly string[];
  /** Milliseconds since 1970. */
  readonly nowMs: number;
  /** From now on. Clients distrust certificates that are good for longer than 398 days. @default 397 */
  readonly days?: number;
}

/** A certificate for ECDSA P-256 that vouches for itself, and its key, both in PEM form. */
export async function makeDevCertificate({
  hosts,
  nowMs,
  days = 397,
}: DevCertificateOptions): Promise<{ certificate: string; key: string }> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const isAddress = (host: string) => host.includes(":") || /^[\d.]+$/.test(host);
  const certificate = await X509CertificateGenerator.createSelfSigned(
    {
      name: "CN=Gilliam development",
      notBefore: new Date(nowMs - DAY_MS),
      notAfter: new Date(nowMs + days * DAY_MS),
      keys,
      signingAlgorithm: algorithm,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
        new SubjectAlternativeNameExtension(
          hosts.map((value) => ({ type: isAddress(value) ? ("ip" as const) : ("dns" as const), value })),
        ),
      ],
    },
    webcrypto,
  );
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey));
  const lines = pkcs8.toString("base64").match(/.{1,64}/g)!;
  return {
    certificate: `${certificate.toString("pem").trim()}\n`,
    key: `-----BEGIN PRIVATE KEY-----\n${lines.join("\n")}\n-----END PRIVATE KEY-----\n`,
  };
}
