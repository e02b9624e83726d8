import { EdgeMapping, EdgeText } from "./manifest-route.ts";
import { NAME_PATTERN, Port } from "./names.ts";
import { edgeRouteOf } from "./resolve-route.ts";
import type { RouteShape } from "./route.ts";
import type { Path } from "./yaml-text.ts";

/**
 * What the checks across services need, taken from a manifest that may still be wrong in places: so that somebody
 * with five mistakes hears of all five at once. Whatever has the wrong kind is simply absent here.
 */
export interface Outline {
  readonly formation: string | undefined;
  readonly services: readonly ServiceOutline[];
  readonly exports: readonly { readonly name: string; readonly path: Path }[];
}

export interface ServiceOutline {
  readonly name: string;
  readonly kind: "process" | "auxiliary";
  readonly path: Path;
  readonly fields: ReadonlyMap<string, unknown>;
  readonly port: number | undefined;
  readonly protocol: string | undefined;
  readonly dependencies: readonly DependencyOutline[];
  /** Entries that say which requests they are for. */
  readonly edge: readonly { readonly route: RouteShape; readonly path: Path }[];
  readonly variables: readonly string[];
}

export interface DependencyOutline {
  readonly name: string;
  readonly path: Path;
  readonly portPath: Path;
  readonly port: number | undefined;
  readonly protocol: string | undefined;
  readonly optional: boolean;
  readonly external: boolean;
  readonly proxyProtocol: boolean;
}

export function outlineOf(value: unknown): Outline {
  const root = entriesOf(value);
  const formation = root.get("formation");
  const services = (["processes", "auxiliary"] as const).flatMap((group) =>
    [...entriesOf(root.get(group))].map(([name, spec]) => serviceOutline(group, name, spec)),
  );
  const exported = root.get("exports");
  return {
    formation: typeof formation === "string" && NAME_PATTERN.test(formation) ? formation : undefined,
    services,
    exports: textsOf(exported, ["exports"]).map(({ text, path }) => ({ name: text, path })),
  };
}

function serviceOutline(group: "processes" | "auxiliary", name: string, spec: unknown): ServiceOutline {
  const path = [group, name];
  const fields = entriesOf(spec);
  return {
    name,
    kind: group === "processes" ? "process" : "auxiliary",
    path,
    fields,
    port: portOf(fields.get("port")),
    protocol: textOf(fields.get("protocol")),
    dependencies: [...entriesOf(fields.get("dependencies"))].map(([key, dependency]) =>
      dependencyOutline([...path, "dependencies", key], key, dependency),
    ),
    edge: edgeOutline(fields.get("edge"), [...path, "edge"]),
    variables: [...entriesOf(fields.get("environment")).keys()],
  };
}

function dependencyOutline(path: Path, name: string, value: unknown): DependencyOutline {
  const mapping = entriesOf(value);
  const short = typeof value === "number";
  return {
    name,
    path,
    portPath: short ? path : [...path, "port"],
    port: portOf(short ? value : mapping.get("port")),
    protocol: textOf(mapping.get("protocol")),
    optional: mapping.get("optional") === true,
    external: mapping.has("address"),
    proxyProtocol: mapping.has("proxyProtocol"),
  };
}

function entriesOf(value: unknown): Map<string, unknown> {
  const mapping = typeof value === "object" && value !== null && !Array.isArray(value);
  return new Map(mapping ? Object.entries(value) : []);
}

function edgeOutline(value: unknown, path: Path): ServiceOutline["edge"] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((entry: unknown, index) => {
    const parsed = typeof entry === "string" ? EdgeText.safeParse(entry) : EdgeMapping.safeParse(entry);
    return parsed.success ? [{ route: edgeRouteOf(parsed.data), path: [...path, index] }] : [];
  });
}

function textsOf(value: unknown, path: Path): { text: string; path: Path }[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((item: unknown, index) =>
    typeof item === "string" ? [{ text: item, path: [...path, index] }] : [],
  );
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function portOf(value: unknown): number | undefined {
  return Port.safeParse(value).data;
}
