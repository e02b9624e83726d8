import type { HeaderEdits } from "../../model/route.ts";
import { ResponseHead } from "../http1/response-head.ts";

export interface CompiledEdits {
  /** Lower case: lines of these names go. */
  readonly drop: ReadonlySet<string>;
  /** What comes behind the rest, lines ending in CR LF. */
  readonly lines: string;
}

/** Names and values were checked where they were written (manifest-route.ts); here a line break would still be one. */
export function compileEdits({ set = {}, add = {}, remove = [] }: HeaderEdits): CompiledEdits {
  const lines = [...Object.entries(set), ...Object.entries(add)].map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  return { drop: new Set([...remove, ...Object.keys(set)]), lines: lines.join("") };
}

/** Why edits cannot be put in force: whatever would end a line, or break the framing. */
export function problemOfEdits({ set = {}, add = {}, remove = [] }: HeaderEdits): string | undefined {
  for (const name of [...Object.keys(set), ...Object.keys(add), ...remove]) {
    if (!/^[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(name)) return `"${name}" is no field name in lower case`;
    if (OF_THE_PROXY.test(name.replaceAll("_", "-"))) return `"${name}" belongs to the proxy`;
  }
  const value = [...Object.values(set), ...Object.values(add)].find((text) => !/^[\x20-\x7e\t]*$/.test(text));
  return value === undefined ? undefined : `${JSON.stringify(value)} is no field value`;
}

const OF_THE_PROXY =
  /^(?:host|connection|transfer-encoding|content-length|upgrade|te|trailer|keep-alive|x-gilliam-.*)$/;

/** `fields` are lines ending in CR LF. */
export function editFields(fields: string, { drop, lines }: CompiledEdits): string {
  if (drop.size === 0) return fields + lines;
  let kept = "";
  for (let at = 0; at < fields.length;) {
    const end = fields.indexOf("\r\n", at) + 2;
    const next = end < 2 ? fields.length : end;
    const colon = fields.indexOf(":", at);
    if (!drop.has(fields.slice(at, colon).toLowerCase())) kept += fields.slice(at, next);
    at = next;
  }
  return kept + lines;
}

/** Parsing and handing on are synchronous: one head does for all responses. */
const edited = new ResponseHead();

/** The head with its fields changed; valid until the next one is made. The original may be shared, so it is not touched. */
export function editResponse(head: ResponseHead, edits: CompiledEdits): ResponseHead {
  return withFields(head, editFields(head.fields, edits));
}

export function withFields(head: ResponseHead, fields: string): ResponseHead {
  edited.status = head.status;
  edited.reason = head.reason;
  edited.minor = head.minor;
  edited.body = head.body;
  edited.contentLength = head.contentLength;
  edited.keepAlive = head.keepAlive;
  edited.upgrade = head.upgrade;
  edited.hasDate = head.hasDate;
  edited.fields = fields;
  edited.remembered = undefined;
  return edited;
}
