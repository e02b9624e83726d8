import { z } from "zod";

/** Formation, service and dependency names: a DNS label, so that they work as host names everywhere. */
export const NAME_PATTERN = /^[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?$/;
export const NAME_RULE =
  "lower-case letters, digits and dashes, starting with a letter, at most 40 characters";
export const Name = z.string().regex(NAME_PATTERN, `must be ${NAME_RULE}`);

/** `service.formation`: how a service is addressed from anywhere; also the name of its cluster. */
export type ServiceAddress = `${string}.${string}`;
export function serviceAddress(service: string, formation: string): ServiceAddress {
  return `${service}.${formation}`;
}

/** `api` and `api.shop` as seen from formation `home`. */
export function parseServiceAddress(text: string, home: string): { service: string; formation: string } {
  const dot = text.indexOf(".");
  if (dot < 0) return { service: text, formation: home };
  return { service: text.slice(0, dot), formation: text.slice(dot + 1) };
}

/** The stem of a dependency's variables: `ledger.bank` gives `LEDGER_BANK`, `my-db` gives `MY_DB`. */
export function environmentStem(dependency: string): string {
  return dependency.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_");
}

/** A host's id from the machine's own name: registry keys and metrics labels allow no more than this. */
export function hostIdFrom(machineName: string): string {
  const id = machineName
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]/g, "-")
    .replace(/^[^a-z0-9]+/, "");
  return id.slice(0, 100) || "host";
}

/** A TCP port a process may use; 0 is never valid in a manifest. */
export const Port = z.int().min(1).max(65_535);
/** `sha256:` and 64 hexadecimal digits. */
export const Digest = z.string().regex(/^sha256:[0-9a-f]{64}$/, "must be sha256: and 64 hexadecimal digits");
