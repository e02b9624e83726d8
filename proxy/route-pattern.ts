/**
 * Paths with names in them, `/users/:id/*rest`, as a tree by segment: finding one costs what the path is long, however
 * many there are.
 */
export interface PatternNode<Item> {
  readonly texts: Map<string, PatternNode<Item>>;
  name: PatternNode<Item> | undefined;
  /** Patterns that end here. */
  readonly ends: Item[];
  /** Patterns that take whatever is left. */
  readonly rests: Item[];
}

export function newPatternNode<Item>(): PatternNode<Item> {
  return { texts: new Map(), name: undefined, ends: [], rests: [] };
}

export function addPattern<Item>(root: PatternNode<Item>, pattern: string, item: Item): void {
  let node = root;
  for (const segment of pattern.slice(1).split("/")) {
    if (segment.startsWith("*")) {
      node.rests.push(item);
      return;
    }
    let next = segment.startsWith(":") ? node.name : node.texts.get(segment);
    if (next === undefined) {
      next = newPatternNode();
      if (segment.startsWith(":")) node.name = next;
      else node.texts.set(segment, next);
    }
    node = next;
  }
  node.ends.push(item);
}

/**
 * What `fits` finds among the items of the most special pattern, then of the next one: from the left, text before a
 * name before the rest. A name stands for one segment that is not empty, a rest for anything behind its `/`.
 */
export function findPattern<Item>(
  root: PatternNode<Item>,
  path: string,
  fits: (items: readonly Item[]) => Item | undefined,
): Item | undefined {
  return find(root, path, 1, fits);
}

/** Every node is entered once at most: the path to it says which segments led there. */
function find<Item>(
  node: PatternNode<Item>,
  path: string,
  at: number,
  fits: (items: readonly Item[]) => Item | undefined,
): Item | undefined {
  if (at > path.length) return node.ends.length === 0 ? undefined : fits(node.ends);
  const slash = path.indexOf("/", at);
  const end = slash < 0 ? path.length : slash;
  const segment = path.slice(at, end);
  const text = node.texts.get(segment);
  const found =
    (text && find(text, path, end + 1, fits)) ??
    (node.name !== undefined && segment !== "" ? find(node.name, path, end + 1, fits) : undefined);
  if (found !== undefined || node.rests.length === 0) return found;
  return fits(node.rests);
}

/** What the names of `pattern` stand for in a path that it matches. */
export function captures(pattern: string, path: string): Record<string, string> {
  const values: Record<string, string> = {};
  const segments = path.slice(1).split("/");
  for (const [index, part] of pattern.slice(1).split("/").entries()) {
    if (part.startsWith(":")) values[part.slice(1)] = segments[index] ?? "";
    else if (part.startsWith("*")) values[part.slice(1)] = segments.slice(index).join("/");
  }
  return values;
}
