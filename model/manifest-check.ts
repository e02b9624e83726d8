import { checkCycles, checkProtocols } from "./manifest-graph-check.ts";
import type { DependencyOutline, Outline, ServiceOutline } from "./manifest-outline.ts";
import { environmentStem, NAME_PATTERN, parseServiceAddress } from "./names.ts";
import { type RouteShape, routeKey, sameRequests } from "./route.ts";
import { didYouMean } from "./suggest.ts";
import type { Positions } from "./yaml-text.ts";

/** What is known outside the manifest. Each part is optional: what is not given is not checked. */
export interface ManifestContext {
  /** Gears that exist, by name. */
  readonly gears?: ReadonlyMap<string, GearFacts>;
  /** Exported services of every other formation, by its name. */
  readonly exportsOf?: ReadonlyMap<string, readonly string[]>;
  /** Which other formation serves the same public requests already. */
  readonly routeOwner?: (route: RouteShape) => string | undefined;
  /** Which other formation's service uses a volume already, as `service.formation`. */
  readonly volumeOwner?: (volume: string) => string | undefined;
}

export interface GearFacts {
  readonly version: string;
  readonly volume: "required" | "optional" | "none";
}

type Report = Positions["problem"];

/** Everything that concerns more than one value: one line a problem, in the order of the file's services. */
export function checkManifest(outline: Outline, context: ManifestContext, { problem }: Positions): string[] {
  return [
    ...checkNames(outline, problem),
    ...outline.services.flatMap((service) => [
      ...checkShape(service, problem),
      ...checkPorts(service, problem),
      ...checkVariables(service, problem),
      ...checkGear(service, context, problem),
      ...service.dependencies.flatMap((dependency) =>
        checkDependency(service, dependency, outline, context, problem),
      ),
    ]),
    ...checkEdges(outline, context, problem),
    ...checkVolumes(outline, context, problem),
    ...checkProtocols(outline, problem),
    ...checkCycles(outline, problem),
    ...checkExports(outline, problem),
  ];
}

function checkNames({ services }: Outline, problem: Report): string[] {
  if (services.length === 0)
    return [problem([], "has no services; add one under `processes`", { show: false })];
  const processNames = new Set(services.filter(({ kind }) => kind === "process").map(({ name }) => name));
  return services
    .filter(({ kind, name }) => kind === "auxiliary" && processNames.has(name))
    .map(({ path, name }) =>
      problem(path, `there is a process \`${name}\` too; a name belongs to one service`, { target: "key" }),
    );
}

function checkShape({ kind, path, fields, port, edge, protocol }: ServiceOutline, problem: Report): string[] {
  if (kind === "auxiliary") return [];
  const problems: string[] = [];
  const has = (key: string) => fields.has(key);
  if (has("source") && has("image")) {
    problems.push(
      problem([...path, "image"], "`source` is given too; keep one of the two", { target: "key" }),
    );
  } else if (!has("source") && !has("image") && fields.size > 0) {
    problems.push(problem(path, "needs `source`, a folder to build, or `image`", { target: "key" }));
  }
  if (has("build") && has("image")) {
    problems.push(
      problem([...path, "build"], "an image is built already; `build` goes with `source`", { target: "key" }),
    );
  }
  const source = fields.get("source");
  if (typeof source === "string" && /^(?:[/~\\]|[A-Za-z]:)/.test(source)) {
    problems.push(problem([...path, "source"], "must be a folder relative to this file, like ./web"));
  }
  if (!has("port")) {
    if (has("health")) {
      problems.push(problem([...path, "health"], "a health check needs `port`", { target: "key" }));
    }
    const first = edge[0];
    if (first)
      problems.push(problem(first.path, "a public host name needs `port`: where the process listens"));
  }
  const health = fields.get("health");
  if (typeof health === "string" && health.startsWith("/") && port !== undefined && protocol === "tcp") {
    problems.push(problem([...path, "health"], "the process speaks tcp; use `health: tcp`"));
  }
  const first = edge[0];
  if (protocol === "tcp" && first) {
    problems.push(
      problem(first.path, "the process speaks tcp, and a public host name needs http, http2 or grpc"),
    );
  }
  return problems;
}

function checkPorts({ port, dependencies }: ServiceOutline, problem: Report): string[] {
  const taken = new Map<number, string>();
  if (port !== undefined) taken.set(port, "the process listens there itself (`port`)");
  return dependencies.flatMap((dependency) => {
    if (dependency.port === undefined) return [];
    const owner = taken.get(dependency.port);
    if (owner !== undefined) {
      return [problem(dependency.portPath, `${owner}; choose another local port`)];
    }
    taken.set(dependency.port, `\`${dependency.name}\` has this local port already`);
    return [];
  });
}

const RESERVED = new Set(["PORT", "HOST", "VOLUME"]);

function checkVariables({ path, dependencies, variables }: ServiceOutline, problem: Report): string[] {
  const problems: string[] = [];
  const byVariable = new Map<string, string>();
  for (const { name, path: at } of dependencies) {
    const stem = environmentStem(name);
    const other = byVariable.get(`${stem}_URL`);
    if (other !== undefined) {
      problems.push(
        problem(
          at,
          `\`${other}\` gives the same variables (${stem}_URL); only one of the two can be declared`,
          {
            target: "key",
          },
        ),
      );
    }
    for (const end of ["URL", "HOST", "PORT"]) byVariable.set(`${stem}_${end}`, name);
  }
  for (const variable of variables) {
    const dependency = byVariable.get(variable);
    const at = [...path, "environment", variable];
    if (RESERVED.has(variable) || variable.startsWith("GILLIAM_")) {
      problems.push(problem(at, "is set by Gilliam; choose another name", { target: "key" }));
    } else if (dependency !== undefined) {
      const what = `is set by the dependency \`${dependency}\`; remove this line`;
      problems.push(problem(at, what, { target: "key" }));
    }
  }
  return problems;
}

function checkGear(
  { kind, path, fields }: ServiceOutline,
  { gears }: ManifestContext,
  problem: Report,
): string[] {
  const name = fields.get("gear");
  if (kind === "process" || gears === undefined || typeof name !== "string") return [];
  const gear = gears.get(name);
  if (gear === undefined) {
    const known = [...gears.keys()].sort();
    return [
      problem([...path, "gear"], `is not a gear${didYouMean(name, known)}; known are ${known.join(", ")}`),
    ];
  }
  const problems: string[] = [];
  const version = fields.get("version");
  const written = typeof version === "number" ? String(version) : version;
  if (typeof written === "string" && !versionMatches(written, gear.version)) {
    problems.push(problem([...path, "version"], `gear ${name} has version ${gear.version} only`));
  }
  const volume = fields.get("volume");
  if (gear.volume === "required" && volume === undefined) {
    problems.push(
      problem(path, `gear ${name} keeps its data in a volume; add \`volume:\` and a name for it`, {
        target: "key",
      }),
    );
  }
  if (gear.volume === "none" && volume !== undefined) {
    problems.push(
      problem([...path, "volume"], `gear ${name} keeps no data; remove \`volume\``, { target: "key" }),
    );
  }
  return problems;
}

/** `18` and `18.3` both mean a gear of version `18.3`. */
function versionMatches(asked: string, version: string): boolean {
  return version === asked || version.startsWith(`${asked}.`);
}

function checkDependency(
  service: ServiceOutline,
  dependency: DependencyOutline,
  outline: Outline,
  context: ManifestContext,
  problem: Report,
): string[] {
  const { name, path, external, optional } = dependency;
  if (external) {
    const own = outline.services.some((other) => other.name === name);
    if (own)
      return [
        problem(path, `\`${name}\` is a service of this formation and needs no \`address\``, {
          target: "key",
        }),
      ];
    return [];
  }
  const home = outline.formation ?? "";
  const target = parseServiceAddress(name, home);
  if (target.formation === home) {
    if (target.service === service.name) {
      return [problem(path, "a service cannot depend on itself", { target: "key" })];
    }
    const found = outline.services.find((other) => other.name === target.service);
    if (found === undefined) return [unknownDependency(dependency, outline, context, problem)];
    if (found.kind === "process" && found.fields.size > 0 && !found.fields.has("port")) {
      const what = `\`${target.service}\` listens nowhere; give it a \`port\``;
      return [problem(path, what, { target: "key" })];
    }
    return [];
  }
  const exported = context.exportsOf?.get(target.formation);
  if (context.exportsOf === undefined || !NAME_PATTERN.test(target.formation)) return [];
  if (exported === undefined) {
    if (optional) return [];
    const known = [...context.exportsOf.keys()].sort();
    const list = known.length === 0 ? "there is no other" : `known are ${known.join(", ")}`;
    const what = `there is no formation \`${target.formation}\`${didYouMean(target.formation, known)}; ${list}; deploy it first, or say \`optional: true\``;
    return [problem(path, what, { target: "key" })];
  }
  if (exported.includes(target.service)) return [];
  const list = exported.length === 0 ? "it exports nothing" : `it exports ${exported.join(", ")}`;
  const what = `formation \`${target.formation}\` does not export \`${target.service}\`${didYouMean(target.service, exported)}; ${list}; add it to \`exports:\` there`;
  return [problem(path, what, { target: "key" })];
}

function unknownDependency(
  { name, path }: DependencyOutline,
  outline: Outline,
  context: ManifestContext,
  problem: Report,
): string {
  const known = outline.services.map((service) => service.name).sort();
  const foreign = [...(context.exportsOf ?? [])].flatMap(([formation, services]) =>
    services.map((service) => `${service}.${formation}`),
  );
  const what = `there is no service \`${name}\`${didYouMean(name, [...known, ...foreign])}; known are ${[...known, ...foreign].join(", ")}; an external host needs \`address\``;
  return problem(path, what, { target: "key" });
}

/** Two routes that some request fits equally: which of them had it would be left to chance. */
function checkEdges({ services }: Outline, { routeOwner }: ManifestContext, problem: Report): string[] {
  const taken = new Map<string, { readonly owner: string; readonly route: RouteShape }[]>();
  return services.flatMap(({ name, edge }) =>
    edge.flatMap(({ route, path: at }) => {
      const key = routeKey(route);
      const rivals = taken.get(key) ?? [];
      taken.set(key, [...rivals, { owner: name, route }]);
      const rival = rivals.find((other) => sameRequests(other.route, route));
      if (rival?.owner === name) return [problem(at, "stands twice here; keep one")];
      if (rival !== undefined) {
        const what = `\`${rival.owner}\` has this host and path already; add a path or a condition to one of them`;
        return [problem(at, what)];
      }
      const foreign = routeOwner?.(route);
      return foreign === undefined
        ? []
        : [problem(at, `formation \`${foreign}\` serves this host and path already`)];
    }),
  );
}

function checkVolumes({ services }: Outline, { volumeOwner }: ManifestContext, problem: Report): string[] {
  const taken = new Map<string, string>();
  return services.flatMap(({ name, path, fields }) => {
    const volume = fields.get("volume");
    if (typeof volume !== "string") return [];
    const owner = taken.get(volume) ?? volumeOwner?.(volume);
    taken.set(volume, owner ?? name);
    if (owner === undefined) return [];
    return [problem([...path, "volume"], `\`${owner}\` uses this volume; two services cannot share one`)];
  });
}

function checkExports({ services, exports }: Outline, problem: Report): string[] {
  const seen = new Set<string>();
  return exports.flatMap(({ name, path }) => {
    if (seen.has(name)) return [problem(path, "is exported twice; keep one")];
    seen.add(name);
    const service = services.find((other) => other.name === name);
    if (service === undefined) {
      const known = services.map((other) => other.name);
      return [
        problem(
          path,
          `there is no service \`${name}\`${didYouMean(name, known)}; known are ${known.join(", ")}`,
        ),
      ];
    }
    if (service.kind === "process" && service.fields.size > 0 && !service.fields.has("port")) {
      return [problem(path, `\`${name}\` listens nowhere; give it a \`port\``)];
    }
    return [];
  });
}
