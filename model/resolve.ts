import { parseBytes, parseDurationMs } from "../base/units.ts";
import { callLimitsOf } from "./call-limits.ts";
import type { FilterResolution } from "./manifest-filter.ts";
import { canonicalJson, sha256 } from "./canonical.ts";
import { fillTemplate, type Gear } from "./gear.ts";
import { imageDigest } from "./image.ts";
import type { AuxiliarySpec, DependencyMapping, Manifest, ProcessSpec } from "./manifest.ts";
import type { Protocol } from "./mesh.ts";
import { parseServiceAddress, serviceAddress } from "./names.ts";
import { balancingOf, dependencyActionsOf, edgeRouteOf } from "./resolve-route.ts";
import type { Release, ReleaseDependency, ReleaseService } from "./release.ts";
import type { DependencySpec, HealthCheck, ImageRef, RunSpec } from "./run-spec.ts";

/** What a formation offers to others, as much as a dependent must know. */
export interface ExportedService {
  readonly name: string;
  readonly protocol: Protocol;
  /** Template with `{host}`, `{port}` and perhaps `{secret:KEY}`. */
  readonly url: string;
}

export interface ResolveInput {
  /** Parsed with the full context: what it names exists. */
  readonly manifest: Manifest;
  readonly manifestText: string;
  /** Digest of each process's source archive, by service name. */
  readonly sources: Readonly<Record<string, string>>;
  /** Digest of each filter's bundle, by its file as the manifest says it. */
  readonly filters?: Readonly<Record<string, string>>;
  readonly gears: ReadonlyMap<string, Gear>;
  /** The number this release gets. */
  readonly number: number;
  /** Releases of this formation that still exist, in any order; an unchanged service keeps its number from them. */
  readonly earlier: readonly Release[];
  readonly exportsOf: (formation: string) => readonly ExportedService[] | undefined;
}

export type ReleaseContent = Omit<Release, "createdAtMs">;

export type Resolved =
  | {
      readonly ok: true;
      readonly content: ReleaseContent;
      /** Keys of the secrets control must have for each service before it starts: `{ db: ["password"] }`. */
      readonly secrets: Readonly<Record<string, readonly string[]>>;
    }
  | { readonly ok: false; readonly problems: string[] };

const STOP_GRACE_MS = 10_000;

/**
 * Turns a manifest into the content of a release: a RunSpec for every service, with images, addresses and defaults.
 * The same input gives the same `contentDigest`, which covers neither comments nor release numbers.
 */
export function resolveRelease(input: ResolveInput): Resolved {
  const { manifest, gears, number, earlier } = input;
  const problems: string[] = [];
  const secrets: Record<string, readonly string[]> = {};
  const services: ReleaseService[] = [];
  for (const [name, spec] of Object.entries(manifest.processes)) {
    if (spec.source !== undefined && input.sources[name] === undefined) {
      problems.push(`processes.${name}.source ${JSON.stringify(spec.source)}: no archive of it was sent`);
      continue;
    }
    services.push(resolveProcess(name, spec, input, problems));
  }
  for (const [name, spec] of Object.entries(manifest.auxiliary)) {
    const gear = gears.get(spec.gear);
    if (gear === undefined) {
      problems.push(`auxiliary.${name}.gear ${JSON.stringify(spec.gear)}: is not a gear`);
      continue;
    }
    if (gear.secrets.length > 0) secrets[name] = gear.secrets;
    services.push(resolveAuxiliary(name, spec, gear, input));
  }
  if (problems.length > 0) return { ok: false, problems };
  const numbered = services.map((service): [string, ReleaseService] => [
    service.name,
    { ...service, spec: { ...service.spec, release: firstRelease(service, earlier) ?? number } },
  ]);
  const exports = [...manifest.exports].sort();
  return {
    ok: true,
    content: {
      formation: manifest.formation,
      number,
      contentDigest: contentDigest(manifest.formation, services, exports),
      manifest: input.manifestText,
      services: Object.fromEntries(numbered),
      exports,
    },
    secrets,
  };
}

/** What `release` exports, for the `exportsOf` of other formations. */
export function exportedServices(release: Release, gears: ReadonlyMap<string, Gear>): ExportedService[] {
  return release.exports.flatMap((name) => {
    const service = release.services[name];
    if (service === undefined) return [];
    const { image, protocol } = service.spec;
    const gear = image.kind === "gear" ? gears.get(image.gear) : undefined;
    return [{ name, protocol, url: gear ? fillTemplate(gear.url, { name }) : plainUrl(protocol) }];
  });
}

function resolveProcess(
  name: string,
  spec: ProcessSpec,
  input: ResolveInput,
  problems: string[],
): ReleaseService {
  const { manifest } = input;
  const filtersAt = (path: string, clusterOf: (name: string) => string | undefined) => ({
    owner: serviceAddress(name, manifest.formation),
    bundles: input.filters ?? {},
    clusterOf,
    problem: (text: string) => problems.push(`processes.${name}.${path} ${text}`),
  });
  // A public route may lead to every process of its formation, a call only to what its caller declares.
  const ofFormation = (other: string) =>
    manifest.processes[other]?.port === undefined ? undefined : serviceAddress(other, manifest.formation);
  const ofCaller = (other: string) =>
    spec.dependencies?.[other] === undefined ? undefined : ofFormation(other);
  const dependencies = Object.entries(spec.dependencies ?? {}).map(([key, value]) =>
    resolveDependency(
      key,
      typeof value === "number" ? { port: value } : value,
      input,
      filtersAt(`dependencies.${key}`, ofCaller),
    ),
  );
  const balancing = balancingOf(spec);
  return {
    name,
    kind: "process",
    spec: {
      formation: manifest.formation,
      service: name,
      release: input.number,
      image: imageOf(spec, input.sources[name]),
      ...(spec.command === undefined ? {} : { command: spec.command }),
      ...(spec.port === undefined ? {} : { port: spec.port }),
      protocol: protocolOf(name, spec, manifest),
      ...(spec.proxyProtocol === undefined ? {} : { proxyProtocol: spec.proxyProtocol }),
      health: healthOf(spec),
      resources: resourcesOf(spec.resources),
      environment: textsOf(spec.environment),
      secrets: {},
      dependencies: dependencies.map(({ spec }) => spec),
      stop: {
        signal: spec.stop?.signal ?? "SIGTERM",
        graceMs: parseDurationMs(spec.stop?.grace ?? "") ?? STOP_GRACE_MS,
      },
    },
    instances: spec.instances ?? 1,
    edge: (spec.edge ?? []).map((entry, index) =>
      edgeRouteOf(entry, filtersAt(`edge[${index}]`, ofFormation)),
    ),
    ...(balancing === undefined ? {} : { balancing }),
    dependencies: dependencies.map(({ declared }) => declared),
  };
}

function resolveAuxiliary(
  name: string,
  spec: AuxiliarySpec,
  gear: Gear,
  { manifest, number }: ResolveInput,
): ReleaseService {
  const filled = Object.entries(gear.environment).map(([key, value]): [string, string] => [
    key,
    fillTemplate(value, { name, port: String(gear.port) }),
  ]);
  const isSecret = ([, value]: [string, string]) => value.includes("{secret:");
  return {
    name,
    kind: "auxiliary",
    spec: {
      formation: manifest.formation,
      service: name,
      release: number,
      image: { kind: "gear", gear: gear.name, version: gear.version },
      command: gear.command,
      port: gear.port,
      protocol: gear.protocol,
      health: gearHealth(gear),
      resources: resourcesOf(spec.resources),
      environment: {
        ...Object.fromEntries(filled.filter((entry) => !isSecret(entry))),
        ...textsOf(spec.environment),
      },
      secrets: Object.fromEntries(filled.filter(isSecret)),
      dependencies: [],
      ...(spec.volume === undefined ? {} : { volume: spec.volume }),
      stop: { signal: gear.stopSignal, graceMs: parseDurationMs(gear.stopGrace) ?? STOP_GRACE_MS },
    },
    instances: spec.instances ?? 1,
    edge: [],
    dependencies: [],
  };
}

function resolveDependency(
  name: string,
  mapping: DependencyMapping,
  input: ResolveInput,
  filters: FilterResolution,
): { spec: DependencySpec; declared: ReleaseDependency } {
  const { manifest } = input;
  const target = parseServiceAddress(name, manifest.formation);
  const offered =
    mapping.address === undefined ? offerOf(target, input) : { protocol: "tcp" as const, url: undefined };
  const protocol = mapping.protocol ?? offered.protocol;
  const optional = mapping.optional ?? false;
  const call = callLimitsOf(mapping);
  const balancing = balancingOf(mapping);
  const actions = dependencyActionsOf(mapping, filters);
  const declared: ReleaseDependency = {
    name,
    port: mapping.port,
    ...(mapping.address === undefined
      ? { target: serviceAddress(target.service, target.formation) }
      : { address: mapping.address }),
    ...(mapping.proxyProtocol === undefined ? {} : { proxyProtocol: mapping.proxyProtocol }),
    optional,
    ...(mapping.timeout === undefined
      ? {}
      : { requestTimeoutMs: Math.round(parseDurationMs(mapping.timeout) ?? 0) }),
    ...(mapping.retries === undefined ? {} : { retriesMax: mapping.retries }),
    ...(call === undefined ? {} : { call }),
    ...(actions === undefined ? {} : { actions }),
    ...(balancing === undefined ? {} : { balancing }),
  };
  const url = offered.url ?? plainUrl(protocol);
  return { spec: { name, port: mapping.port, protocol, optional, url }, declared };
}

/** How the service at the other end speaks and the URL its gear gives it; http until it is known. */
function offerOf(
  target: { service: string; formation: string },
  { manifest, gears, exportsOf }: ResolveInput,
): { protocol: Protocol; url: string | undefined } {
  if (target.formation !== manifest.formation) {
    const offer = exportsOf(target.formation)?.find(({ name }) => name === target.service);
    // A plain URL follows the protocol the dependency asks for; a gear's is its own.
    const own = offer !== undefined && offer.url !== plainUrl(offer.protocol);
    return { protocol: offer?.protocol ?? "http", url: own ? offer.url : undefined };
  }
  const auxiliary = manifest.auxiliary[target.service];
  const gear = auxiliary && gears.get(auxiliary.gear);
  if (gear) return { protocol: gear.protocol, url: fillTemplate(gear.url, { name: target.service }) };
  const spec = manifest.processes[target.service];
  return { protocol: spec ? protocolOf(target.service, spec, manifest) : "http", url: undefined };
}

/** What the process says, else what its dependents say (they agree, see checkProtocols), else http. */
function protocolOf(name: string, spec: ProcessSpec, { formation, processes }: Manifest): Protocol {
  if (spec.protocol !== undefined) return spec.protocol;
  for (const { dependencies = {} } of Object.values(processes)) {
    for (const [key, value] of Object.entries(dependencies)) {
      if (typeof value === "number" || value.address !== undefined || value.protocol === undefined) continue;
      const target = parseServiceAddress(key, formation);
      const meant = target.formation === formation && target.service === name;
      if (meant && value.protocol !== "tcp") return value.protocol;
    }
  }
  return "http";
}

function plainUrl(protocol: Protocol): string {
  return protocol === "tcp" ? "tcp://{host}:{port}" : "http://{host}:{port}";
}

function imageOf({ source, image, build }: ProcessSpec, digest: string | undefined): ImageRef {
  if (source === undefined || digest === undefined) return { kind: "docker", reference: image ?? "" };
  return {
    kind: "source",
    image: imageDigest({ source: digest, build }),
    source: digest,
    ...(build === undefined ? {} : { build }),
  };
}

function healthOf({ port, health }: ProcessSpec): HealthCheck {
  if (port === undefined) return { kind: "none" };
  return health === undefined || health === "tcp" ? { kind: "tcp" } : { kind: "http", path: health };
}

function gearHealth({ health }: Gear): HealthCheck {
  if (typeof health !== "string") return { kind: "command", command: health.command };
  return health === "tcp" ? { kind: "tcp" } : { kind: "http", path: health };
}

function resourcesOf(resources: ProcessSpec["resources"]): RunSpec["resources"] {
  const memoryBytes = resources?.memory === undefined ? undefined : parseBytes(resources.memory);
  return {
    ...(resources?.cpu === undefined ? {} : { cpu: resources.cpu }),
    ...(memoryBytes === undefined ? {} : { memoryBytes }),
  };
}

function textsOf(environment: ProcessSpec["environment"] = {}): Record<string, string> {
  return Object.fromEntries(Object.entries(environment).map(([key, value]) => [key, String(value)]));
}

/** The release in which the same spec first appeared, if it still exists. */
function firstRelease({ name, spec }: ReleaseService, earlier: readonly Release[]): number | undefined {
  const wanted = specText(spec);
  const numbers = earlier.flatMap(({ services }) => {
    const other = services[name];
    return other !== undefined && specText(other.spec) === wanted ? [other.spec.release] : [];
  });
  return numbers.length === 0 ? undefined : Math.min(...numbers);
}

/** Everything about how a service runs but the number of its release. */
export function specText({ release: _release, ...spec }: RunSpec): string {
  return canonicalJson(spec);
}

function contentDigest(
  formation: string,
  services: readonly ReleaseService[],
  exports: readonly string[],
): string {
  const content = services
    .map(({ spec: { release: _release, ...spec }, ...service }) => ({ ...service, spec }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  return sha256(canonicalJson({ formation, services: content, exports }));
}
