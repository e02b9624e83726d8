import { createHash } from "node:crypto";
import type { Fence, Write } from "./registry.ts";

/**
 * How the registry's records look in Consul's KV, and its writes as Consul transactions. Pure.
 *
 * `<prefix>/<key>` is the record's JSON. What begins with `~` below the prefix is not a record: `~registry` says whose
 * this is, `~parts/…` holds long values, `~registrations/…` and `~locks/…` belong to sessions.
 */

export interface KvItem {
  readonly Key: string;
  /** Base64; null for an empty value. */
  readonly Value: string | null;
  readonly Flags: number;
  readonly ModifyIndex: number;
  readonly LockIndex: number;
  readonly Session?: string;
}

export type Operation = { readonly KV: Readonly<Record<string, string | number>> };
export interface TransactionAnswer {
  readonly Results: readonly { readonly KV: KvItem }[] | null;
  readonly Errors: readonly { readonly OpIndex: number; readonly What: string }[] | null;
}

/** Consul's limit of a transaction's body is 524,288 bytes, base64 and JSON included. */
const BODY_BYTES_MAX = 480_000;
const OPERATION_BYTES = 500;
/** Consul's limit of one value is 524,288 bytes. */
const PART_BYTES_MAX = 384_000;

/** A value too long for its transaction: what stands in its place. `Flags` is odd then. */
interface PartsPointer {
  readonly parts: { readonly id: string; readonly count: number; readonly sha256: string };
}

export interface Part {
  /** Below the prefix. */
  readonly key: string;
  readonly bytes: Buffer;
}

export interface PlannedWrite {
  readonly operations: readonly Operation[];
  /** To be written before the transaction; nobody reads them until it is through. */
  readonly parts: readonly Part[];
}

export const partsFolder = (key: string) => `~parts/${key}/`;
export const lockKey = (name: string) => `~locks/${name}`;
export const registrationKey = (kind: string, id = "") => `~registrations/${kind}/${id}`;
export const IDENTITY_KEY = "~registry";

/**
 * The transaction for `writes`; `texts` are their JSON, undefined where one deletes. Long values are taken out, the
 * longest first, until the rest fits. `id` names this write, `indexOf` gives Consul's index of a revision.
 */
export function planWrite(
  prefix: string,
  writes: readonly Write[],
  texts: readonly (string | undefined)[],
  { id, nonce, fence }: { id: string; nonce: number; fence: Fence | undefined },
): PlannedWrite {
  const values = texts.map((text) => (text === undefined ? undefined : Buffer.from(text)));
  const apart = takenOut(values);
  const parts: Part[] = [];
  const operations = writes.map(({ kind, key, ifRevision }, at): Operation => {
    const value = values[at];
    const Key = `${prefix}/${key}`;
    if (kind === "delete" || value === undefined) return deletion(Key, ifRevision);
    const isApart = apart.has(at);
    if (isApart) parts.push(...partsOf(key, id, value));
    const text = isApart ? Buffer.from(JSON.stringify(pointerTo(id, value))) : value;
    // Consul does not count writing the same value again as a write; with other flags it does.
    const Flags = nonce * 2 + (isApart ? 1 : 0);
    const common = { Key, Flags, Value: text.toString("base64") };
    return ifRevision === undefined
      ? { KV: { Verb: "set", ...common } }
      : { KV: { Verb: "cas", ...common, Index: ifRevision } };
  });
  if (fence === undefined) return { operations, parts };
  const check = {
    KV: { Verb: "check-session", Key: `${prefix}/${lockKey(fence.lock)}`, Session: fence.session },
  };
  return { operations: [check, ...operations], parts };
}

function deletion(Key: string, ifRevision: number | undefined): Operation {
  if (ifRevision === undefined) return { KV: { Verb: "delete", Key } };
  if (ifRevision === 0) return { KV: { Verb: "check-not-exists", Key } };
  return { KV: { Verb: "delete-cas", Key, Index: ifRevision } };
}

/** Positions of the values that do not fit into one transaction with the others. */
function takenOut(values: readonly (Buffer | undefined)[]): ReadonlySet<number> {
  const sizeOf = (value: Buffer) => Math.ceil(value.length / 3) * 4;
  let total = values.reduce((sum, value) => sum + OPERATION_BYTES + (value ? sizeOf(value) : 0), 0);
  const apart = new Set<number>();
  const longest = values
    .flatMap((value, at) => (value === undefined ? [] : [{ at, size: sizeOf(value) }]))
    .sort((a, b) => b.size - a.size);
  for (const { at, size } of longest) {
    if (total <= BODY_BYTES_MAX) break;
    apart.add(at);
    total -= size;
  }
  return apart;
}

function partsOf(key: string, id: string, value: Buffer): Part[] {
  return Array.from({ length: Math.ceil(value.length / PART_BYTES_MAX) }, (_, at) => ({
    key: `${partsFolder(key)}${id}/${at}`,
    bytes: value.subarray(at * PART_BYTES_MAX, (at + 1) * PART_BYTES_MAX),
  }));
}

function pointerTo(id: string, value: Buffer): PartsPointer {
  return { parts: { id, count: Math.ceil(value.length / PART_BYTES_MAX), sha256: sha256(value) } };
}

/** The pointer when the value lies apart, else undefined. */
export function pointerIn({ Flags, Value }: KvItem): PartsPointer["parts"] | undefined {
  return Flags % 2 === 1 ? (JSON.parse(textOf(Value)) as PartsPointer).parts : undefined;
}

/** The value put together; undefined when a part is missing or not the right one. */
export function joinParts(
  { count, sha256: wanted }: PartsPointer["parts"],
  items: readonly KvItem[],
): unknown {
  const byNumber = new Map(items.map((item) => [Number(item.Key.split("/").at(-1)), item.Value ?? ""]));
  const bytes = Buffer.concat(
    Array.from({ length: count }, (_, at) => Buffer.from(byNumber.get(at) ?? "", "base64")),
  );
  return sha256(bytes) === wanted ? JSON.parse(bytes.toString("utf8")) : undefined;
}

/** @throws SyntaxError when somebody else has written there. */
export function valueOf({ Value }: KvItem): unknown {
  return JSON.parse(textOf(Value));
}

export function textOf(value: string | null): string {
  return value === null ? "" : Buffer.from(value, "base64").toString("utf8");
}

function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** What a refused transaction means: which operation stood in the way, or that the token may not. */
export function refusalOf({
  Errors,
}: TransactionAnswer):
  | { readonly kind: "denied"; readonly what: string }
  | { readonly kind: "mismatch"; readonly at: number }
  | { readonly kind: "other"; readonly what: string } {
  const first = (Errors ?? []).toSorted((a, b) => a.OpIndex - b.OpIndex)[0];
  if (first === undefined) return { kind: "other", what: "no reason was given" };
  if (/permission denied|acl not found/i.test(first.What)) return { kind: "denied", what: first.What };
  if (MISMATCH.test(first.What)) return { kind: "mismatch", at: first.OpIndex };
  return { kind: "other", what: first.What };
}

const MISMATCH =
  /index is stale|doesn't exist|does not exist|exists|failed to check|failed to lock|lock isn't held|lock is|current modify index|session/i;
