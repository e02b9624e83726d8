import {
  AuxiliarySpec,
  BalancingMapping,
  DependencyMapping,
  Manifest,
  ProcessSpec,
  ResourcesSpec,
  StopSpec,
  LIMITS,
} from "./manifest.ts";
import { routeKeysAt } from "./manifest-route.ts";
import { checkManifest, type ManifestContext } from "./manifest-check.ts";
import { outlineOf } from "./manifest-outline.ts";
import { schemaProblems } from "./schema-problems.ts";
import { readYaml, type Path, type Positions } from "./yaml-text.ts";

export type ParsedManifest =
  | {
      readonly ok: true;
      readonly manifest: Manifest;
      readonly positions: Positions;
      /** What is allowed but perhaps not meant; one line each, like a problem. */
      readonly warnings: string[];
    }
  | { readonly ok: false; readonly problems: string[] };

/**
 * Reads the text of a gilliam.yaml. All problems come at once, sorted by line, each like
 * `gilliam.yaml:12:7 processes.web.port 70000: what is wrong; what is allowed`. Never throws.
 * Without `context`, gears and other formations are taken on trust: the CLI's first look; control always gives it.
 */
export function parseManifest(text: string, file: string, context: ManifestContext = {}): ParsedManifest {
  const yaml = readYaml(text, file);
  if (!yaml.ok) return yaml;
  const { positions } = yaml;
  const value = withoutEmpty(yaml.value);
  const parsed = Manifest.safeParse(value);
  const outline = outlineOf(value);
  const problems = [
    ...(parsed.success ? [] : schemaProblems(parsed.error.issues, positions, keysAt, isVariable)),
    ...(isMapping(value) ? checkManifest(outline, context, positions) : []),
    ...(outline.services.length > LIMITS.services
      ? [
          positions.problem(
            [],
            `has ${outline.services.length} services; at most ${LIMITS.services} are allowed`,
          ),
        ]
      : []),
  ];
  if (problems.length > 0 || !parsed.success) return { ok: false, problems: inOrder(problems) };
  const manifest = withWrittenVariables(parsed.data, positions);
  return { ok: true, manifest, positions, warnings: warningsOf(manifest, positions) };
}

const KEYS = {
  root: Object.keys(Manifest.shape),
  process: Object.keys(ProcessSpec.shape),
  auxiliary: Object.keys(AuxiliarySpec.shape),
  resources: Object.keys(ResourcesSpec.shape),
  stop: Object.keys(StopSpec.shape),
  dependency: Object.keys(DependencyMapping.shape),
  balancing: Object.keys(BalancingMapping.shape),
  hash: ["header", "cookie", "query"],
};

function keysAt(path: Path): readonly string[] {
  if (path.length === 0) return KEYS.root;
  if (path.length === 2) return path[0] === "auxiliary" ? KEYS.auxiliary : KEYS.process;
  if (path[2] === "resources") return KEYS.resources;
  if (path[2] === "stop") return KEYS.stop;
  if (path.includes("balancing")) return path.at(-1) === "hash" ? KEYS.hash : KEYS.balancing;
  if (path[2] === "edge") return routeKeysAt(path[4]);
  return path.length > 4 ? routeKeysAt(path[4]) : KEYS.dependency;
}

function isVariable(path: Path): boolean {
  return path[2] === "environment";
}

/** A key with nothing after it (`auxiliary:` and every line below commented out) is as good as absent. */
const MAY_BE_EMPTY = new Set([
  "processes",
  "auxiliary",
  "exports",
  "environment",
  "dependencies",
  "edge",
  "resources",
  "stop",
]);

function withoutEmpty(value: unknown, depth = 0): unknown {
  if (!isMapping(value) || depth > 2) return value;
  const entries = Object.entries(value)
    .filter(([key, inner]) => !(inner === null && depth !== 1 && MAY_BE_EMPTY.has(key)))
    .map(([key, inner]): [string, unknown] => [key, withoutEmpty(inner, depth + 1)]);
  return Object.fromEntries(entries);
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `VERSION: 1.10` is the text "1.10", not the number 1.1: variables are what was written. */
function withWrittenVariables(manifest: Manifest, positions: Positions): Manifest {
  const written = <S extends ProcessSpec | AuxiliarySpec>(group: string, services: Record<string, S>) =>
    Object.fromEntries(
      Object.entries(services).map(([name, spec]): [string, S] => {
        if (spec.environment === undefined) return [name, spec];
        const environment = Object.fromEntries(
          Object.entries(spec.environment).map(([key, value]) => [
            key,
            typeof value === "string"
              ? value
              : (positions.sourceOf([group, name, "environment", key]) ?? String(value)),
          ]),
        );
        return [name, { ...spec, environment }];
      }),
    );
  return {
    ...manifest,
    processes: written("processes", manifest.processes),
    auxiliary: written("auxiliary", manifest.auxiliary),
  };
}

function warningsOf(manifest: Manifest, positions: Positions): string[] {
  return (["processes", "auxiliary"] as const).flatMap((group) =>
    Object.entries(manifest[group]).flatMap(([name, { environment = {} }]) =>
      Object.entries(environment)
        .filter(([, value]) => /\$\{[A-Za-z_]/.test(String(value)))
        .map(([key]) =>
          positions.problem(
            [group, name, "environment", key],
            "holds `${…}`, which is passed on as it is: nothing is filled in here",
            { show: false },
          ),
        ),
    ),
  );
}

/** By line, then column; the same problem once. */
function inOrder(problems: readonly string[]): string[] {
  const place = (problem: string): [number, number] => {
    const match = /:(\d+):(\d+) /.exec(problem);
    return [Number(match?.[1] ?? 0), Number(match?.[2] ?? 0)];
  };
  return [...new Set(problems)].sort((a, b) => {
    const [lineA, columnA] = place(a);
    const [lineB, columnB] = place(b);
    return lineA - lineB || columnA - columnB;
  });
}
