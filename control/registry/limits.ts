import { UserError } from "../../base/errors.ts";
import type { Registration, Write } from "./registry.ts";

/** The bounds of the port, checked alike by every adapter before anything is asked of a store. */
export const KEY_LENGTH_MAX = 250;
export const VALUE_BYTES_MAX = 512_000;
/** A Consul transaction holds 64 operations, and one of them is the fence. */
export const WRITES_MAX = 63;
export const REGISTRATION_BYTES_MAX = 64_000;

const KEY = /^[a-z0-9._-]+(?:\/[a-z0-9._-]+)*$/;
const PREFIX = /^(?:[a-z0-9._-]+\/)*[a-z0-9._-]*$/;

/** @throws UserError "bad_key" */
export function checkKey(key: string): void {
  if (key.length <= KEY_LENGTH_MAX && KEY.test(key)) return;
  throw badKey(`The registry key ${JSON.stringify(key.slice(0, KEY_LENGTH_MAX))} is not allowed`);
}

/** Checks what `list` and `watch` take: "" for everything, or the beginning of a key. */
export function checkPrefix(prefix: string): void {
  if (prefix.length <= KEY_LENGTH_MAX && PREFIX.test(prefix)) return;
  throw badKey(`The registry prefix ${JSON.stringify(prefix.slice(0, KEY_LENGTH_MAX))} is not allowed`);
}

/**
 * Returns the JSON text of every `set`, in order; `undefined` where a write deletes.
 * @throws UserError "bad_key", "value_too_large", "too_many_writes"
 */
export function checkWrites(writes: readonly Write[]): (string | undefined)[] {
  if (writes.length > WRITES_MAX) {
    throw new UserError(
      `A registry write holds ${writes.length} changes; at most ${WRITES_MAX} are allowed`,
      {
        code: "too_many_writes",
        status: 413,
        next: "Change fewer things in one request.",
      },
    );
  }
  const seen = new Set<string>();
  return writes.map((write) => {
    checkKey(write.key);
    if (seen.has(write.key))
      throw badKey(`The registry key "${write.key}" is written twice in one transaction`);
    seen.add(write.key);
    return write.kind === "set" ? jsonOf(write.value, write.key, VALUE_BYTES_MAX) : undefined;
  });
}

/** @throws UserError "bad_key", "value_too_large" */
export function checkRegistration({ kind, id, value }: Registration): string {
  if (id.includes("/")) throw badKey(`The registration id ${JSON.stringify(id)} must not contain a slash`);
  checkKey(id);
  return jsonOf(value, `${kind} ${id}`, REGISTRATION_BYTES_MAX);
}

function jsonOf(value: unknown, what: string, bytesMax: number): string {
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw badKey(`The value of "${what}" is not JSON`);
  const bytes = Buffer.byteLength(text);
  if (bytes <= bytesMax) return text;
  throw new UserError(`The value of "${what}" takes ${bytes} bytes; the registry holds at most ${bytesMax}`, {
    code: "value_too_large",
    status: 413,
    next: "Make it smaller: shorter environment values, fewer services in one formation.",
  });
}

/** A write whose leadership is over. */
export function fenced(lock: string): UserError {
  return new UserError(`This control no longer leads: the lock "${lock}" is not its own any more`, {
    code: "fenced",
    status: 409,
    next: "Nothing was written. Ask again: another control leads now.",
  });
}

function badKey(message: string): UserError {
  return new UserError(message, {
    code: "bad_key",
    next: `Keys are paths of a-z, 0-9, dot, dash and underscore, at most ${KEY_LENGTH_MAX} characters.`,
  });
}
