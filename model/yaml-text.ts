import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
  type Document,
  type Node,
} from "yaml";

/** Keys and list positions from the root of a file to a value in it. */
export type Path = readonly PropertyKey[];

/** Where each value of a YAML text stands, so that a problem names the line to change. */
export interface Positions {
  readonly file: string;
  /** One line: `gilliam.yaml:12:7 processes.web.port 70000: what`. `target: "key"` points at the key. */
  readonly problem: (
    path: Path,
    what: string,
    options?: { target?: "key" | "value"; show?: boolean },
  ) => string;
  /** False when nothing was written there. */
  has(path: Path): boolean;
  /** The characters of a plain scalar as they were written (`1.10`, not 1.1); undefined for anything else. */
  sourceOf(path: Path): string | undefined;
}

export type YamlText =
  | { readonly ok: true; readonly value: unknown; readonly positions: Positions }
  | { readonly ok: false; readonly problems: string[] };

/** Characters. A manifest of ten thousand services is smaller. */
const TEXT_MAX = 1_000_000;
const ALIASES_MAX = 100;
const DEPTH_MAX = 40;
const SHOWN_MAX = 60;
const PROBLEMS_MAX = 100;

/**
 * Reads one YAML 1.2 document into plain values. Every syntax error, duplicate key, second document, tag, excessive
 * alias and excessive depth is a problem with file, line and column; nothing throws.
 */
export function readYaml(text: string, file: string): YamlText {
  const at = (line: number, column: number, what: string) => `${file}:${line}:${column} ${what}`;
  if (text.length > TEXT_MAX) {
    return {
      ok: false,
      problems: [at(1, 1, `the file has ${text.length} characters; at most ${TEXT_MAX} are allowed`)],
    };
  }
  const deep = nestingLine(text);
  if (deep !== undefined) {
    return {
      ok: false,
      problems: [at(deep, 1, `values are nested too deeply; at most ${DEPTH_MAX} levels are allowed`)],
    };
  }
  const lines = new LineCounter();
  let document: Document.Parsed;
  try {
    document = parseDocument(text, {
      lineCounter: lines,
      prettyErrors: false,
      uniqueKeys: true,
      stringKeys: true,
    });
  } catch (error) {
    return { ok: false, problems: [at(1, 1, `cannot be read as YAML: ${String(error)}`)] };
  }
  const faults = [...document.errors, ...document.warnings];
  if (faults.length > 0) {
    return {
      ok: false,
      problems: faults.slice(0, PROBLEMS_MAX).map(({ code, message, pos }) => {
        const { line, col } = lines.linePos(pos[0]);
        return at(Math.max(1, line), Math.max(1, col), plainYamlMessage(code, message));
      }),
    };
  }
  const strange = strangeNodes(document, lines, at);
  if (strange.length > 0) return { ok: false, problems: strange };
  try {
    const value: unknown = document.toJS({ maxAliasCount: ALIASES_MAX });
    return { ok: true, value, positions: positionsIn(document, file, lines, value) };
  } catch (error) {
    const what = `aliases (\`*name\`) repeat too much; at most ${ALIASES_MAX} are allowed: ${String(error)}`;
    return { ok: false, problems: [at(1, 1, what)] };
  }
}

/** Aliases to nothing, and the one key that JavaScript treats as more than a name. */
function strangeNodes(
  document: Document.Parsed,
  lines: LineCounter,
  at: (line: number, column: number, what: string) => string,
): string[] {
  const problems: string[] = [];
  const report = (node: Node, what: string) => {
    const { line, col } = lines.linePos(node.range?.[0] ?? 0);
    problems.push(at(Math.max(1, line), Math.max(1, col), what));
  };
  visit(document, {
    Alias: (_key, node) => {
      if (node.resolve(document) !== undefined) return;
      report(node, `alias \`*${node.source}\` needs an anchor \`&${node.source}\` before it`);
    },
    Pair: (_key, { key }) => {
      if (isScalar(key) && key.value === "__proto__") report(key, "`__proto__` is no name; choose another");
    },
  });
  return problems.slice(0, PROBLEMS_MAX);
}

function plainYamlMessage(code: string, message: string): string {
  switch (code) {
    case "DUPLICATE_KEY":
      return "this key stands twice in the same mapping; keep one";
    case "TAB_AS_INDENT":
      return "a tab indents this line; YAML allows only spaces";
    case "MULTIPLE_DOCS":
      return "a second document begins here (`---`); one file holds one manifest";
    case "BAD_ALIAS":
      return `${message}; an alias (\`*name\`) needs an anchor (\`&name\`) before it`;
    case "TAG_RESOLVE_FAILED":
      return `${message}; tags (\`!name\`) are not used here, write the plain value`;
    default:
      return `this is not YAML: ${message}`;
  }
}

/** The line where flow brackets nest beyond the limit: the parser recurses on them. Quotes are not understood here, so the limit is generous. */
function nestingLine(text: string): number | undefined {
  let depth = 0;
  let line = 1;
  let lineStart = true;
  let indicators = 0;
  for (const character of text) {
    if (character === "\n") {
      line += 1;
      lineStart = true;
      indicators = 0;
      continue;
    }
    if (character === "[" || character === "{") depth += 1;
    else if (character === "]" || character === "}") depth = Math.max(0, depth - 1);
    // `- - - -` and `? ? ?` nest as well, all on one line.
    if (lineStart && (character === "-" || character === "?" || character === ":")) indicators += 1;
    else if (character !== " ") lineStart = false;
    if (depth > DEPTH_MAX * 5 || indicators > DEPTH_MAX * 5) return line;
  }
  return undefined;
}

function positionsIn(document: Document.Parsed, file: string, lines: LineCounter, root: unknown): Positions {
  const find = (path: Path): { key?: Node; value?: Node } => {
    let node: unknown = document.contents;
    let key: Node | undefined;
    for (const step of path) {
      if (isAlias(node)) node = node.resolve(document);
      if (isMap(node)) {
        const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(step));
        if (pair === undefined) return {};
        key = pair.key as Node;
        node = pair.value;
      } else if (isSeq(node)) {
        node = node.items[Number(step)];
        key = undefined;
      } else return {};
    }
    return { ...(key ? { key } : {}), ...(node ? { value: node as Node } : {}) };
  };
  const positionOf = (path: Path, target: "key" | "value"): string => {
    // What is missing has no place of its own: its nearest parent's does, there the line must be added.
    for (let length = path.length; length >= 0; length -= 1) {
      const { key, value } = find(path.slice(0, length));
      const whole = length === path.length && target === "value";
      const node = whole ? (value?.range ? value : key) : (key ?? value);
      if (node?.range) {
        const { line, col } = lines.linePos(node.range[0]);
        return `${file}:${Math.max(1, line)}:${Math.max(1, col)}`;
      }
    }
    return `${file}:1:1`;
  };
  return {
    file,
    problem: (path, what, { target = "value", show = true } = {}) => {
      const name = path.map(String).join(".");
      const shown = show && target === "value" ? shownValue(valueAt(root, path)) : "";
      return `${positionOf(path, target)} ${name}${shown}${name === "" ? "" : ": "}${what}`;
    },
    has: (path) => path.length === 0 || find(path).value !== undefined,
    sourceOf: (path) => {
      const { value } = find(path);
      const scalar = isAlias(value) ? value.resolve(document) : value;
      return isScalar(scalar) && typeof scalar.source === "string" ? scalar.source : undefined;
    },
  };
}

function valueAt(root: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (value, step) =>
      typeof value === "object" && value !== null && Object.hasOwn(value, step)
        ? (value as Record<PropertyKey, unknown>)[step]
        : undefined,
    root,
  );
}

/** ` 70000`, ` "a text"`, or nothing for what would not fit into a line. */
function shownValue(value: unknown): string {
  if (typeof value === "number" || typeof value === "boolean") return ` ${value}`;
  if (typeof value !== "string") return "";
  return ` ${JSON.stringify(value.length > SHOWN_MAX ? `${value.slice(0, SHOWN_MAX)}…` : value)}`;
}
