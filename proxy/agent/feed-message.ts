import { z } from "zod";
import type { Steps } from "../../base/slices.ts";
import { Cluster, Edge, FeedMessage, type MeshConfig, PublicRoute } from "../../model/mesh.ts";

/**
 * A line of the feed in steps: a mesh of thousands of endpoints is half a megabyte, and to parse and check that at once
 * would hold up every request for 20 ms. Its items are cut out of the text and read one by one.
 */

/** Shorter lines are read in one step. */
const WHOLE_CHARS_MAX = 16_384;
/** Characters between two steps. */
const STEP_CHARS = 16_384;
const [QUOTE, COMMA, OPEN_LIST, BACKSLASH, CLOSE_LIST, OPEN, CLOSE] = [34, 44, 91, 92, 93, 123, 125];

type Lists = Pick<MeshConfig, "clusters" | "edges" | "routes">;

/** @throws Error in words for the log when it is not JSON, or not a message of the feed. */
export function* feedMessageSteps(line: string): Steps<FeedMessage> {
  if (line.length <= WHOLE_CHARS_MAX) return wholeMessage(line);
  const cut = yield* cutItems(line);
  const message = FeedMessage.safeParse(cut === undefined ? undefined : jsonOf(cut.skeleton));
  const lists = message.success ? listsOf(message.data) : undefined;
  // Whatever is unusual is left to the slow way, which also knows what to say about it.
  if (cut === undefined || !message.success || lists === undefined) return wholeMessage(line);
  for (const [name, texts] of cut.items) {
    const filled = isListName(name) && (yield* fill(lists[name], SCHEMAS[name], texts));
    if (!filled) return wholeMessage(line);
  }
  return message.data;
}

const SCHEMAS = { clusters: Cluster, edges: Edge, routes: PublicRoute };

function isListName(name: string): name is keyof Lists {
  return Object.hasOwn(SCHEMAS, name);
}

function listsOf(message: FeedMessage): Lists | undefined {
  if (message.kind === "config") return message.config;
  return message.kind === "delta" ? message.delta.set : undefined;
}

/** False when one of `texts` is not what `schema` wants. */
function* fill(list: unknown[], schema: z.ZodType, texts: readonly string[]): Steps<boolean> {
  if (list.length > 0) return false;
  for (const text of texts) {
    const item = schema.safeParse(jsonOf(text));
    if (!item.success) return false;
    list.push(item.data);
    yield;
  }
  return true;
}

interface Cut {
  /** The line with these lists empty. */
  readonly skeleton: string;
  /** The objects that were in each, as text, by the key in front of the list. */
  readonly items: ReadonlyMap<string, readonly string[]>;
}

/**
 * Cuts every object that is directly in a list out of the text; the lists of a message that hold objects have
 * different keys. Only counts brackets outside of strings: whether it is JSON is for JSON.parse to say, of each part.
 * Undefined for what no message of the feed looks like.
 */
function* cutItems(line: string): Steps<Cut | undefined> {
  const items = new Map<string, string[]>();
  let skeleton = "";
  let depth = 0;
  let copied = 0;
  let list: string[] | undefined;
  let listDepth = 0;
  let itemFrom = 0;
  let stepAt = STEP_CHARS;
  for (let at = 0; at < line.length; at += 1) {
    const code = line.charCodeAt(at);
    if (code === QUOTE) {
      at = endOfString(line, at);
      if (at < 0) return undefined;
    } else if (code === OPEN) {
      depth += 1;
      if (list !== undefined && depth === listDepth + 1) itemFrom = at;
    } else if (code === OPEN_LIST) {
      depth += 1;
      if (list === undefined && line.charCodeAt(at + 1) === OPEN) {
        const key = /"([a-z]+)":$/.exec(line.slice(Math.max(0, at - 32), at))?.[1];
        if (key === undefined || items.has(key)) return undefined;
        list = [];
        items.set(key, list);
        listDepth = depth;
        skeleton += line.slice(copied, at + 1);
      }
    } else if (code === CLOSE) {
      if (list !== undefined && depth === listDepth + 1) {
        list.push(line.slice(itemFrom, at + 1));
        // Between two items there is one comma, and nothing else.
        const next = line.charCodeAt(at + 1);
        const another = next === COMMA && line.charCodeAt(at + 2) === OPEN;
        if (!another && next !== CLOSE_LIST) return undefined;
      }
      depth -= 1;
    } else if (code === CLOSE_LIST) {
      if (list !== undefined && depth === listDepth) {
        list = undefined;
        copied = at;
      }
      depth -= 1;
    }
    if (at >= stepAt) {
      stepAt = at + STEP_CHARS;
      yield;
    }
  }
  if (depth !== 0 || list !== undefined) return undefined;
  return { skeleton: skeleton + line.slice(copied), items };
}

/** Where the string that begins at `from` has its closing quote; below zero: nowhere. */
function endOfString(line: string, from: number): number {
  let end = line.indexOf('"', from + 1);
  while (end >= 0) {
    let slashes = 0;
    while (line.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes += 1;
    if (slashes % 2 === 0) return end;
    end = line.indexOf('"', end + 1);
  }
  return -1;
}

/** Undefined for what is not JSON: no schema takes that. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function wholeMessage(line: string): FeedMessage {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (error) {
    throw new Error("control sent a line that is not JSON", { cause: error });
  }
  const parsed = FeedMessage.safeParse(json);
  if (!parsed.success) {
    throw new Error(
      `control sent a message this proxy does not understand: ${z.prettifyError(parsed.error)}`,
    );
  }
  return parsed.data;
}
