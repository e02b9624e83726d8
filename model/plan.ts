import { formatBytes, formatDuration } from "../base/units.ts";
import { callLimitsText } from "./call-limits.ts";
import { canonicalJson } from "./canonical.ts";
import type { FilterUse } from "./filter.ts";
import type { Plan } from "./api.ts";
import type { BalancingChoice, EdgeRoute, Release, ReleaseDependency, ReleaseService } from "./release.ts";
import { actionTexts, matchText, routeId } from "./route.ts";
import { specText, type ReleaseContent } from "./resolve.ts";
import type { HealthCheck, ImageRef, RunSpec } from "./run-spec.ts";

type Change = Plan["changes"][number];

/**
 * The difference a release would make, service by service in the order of their names, in words for people.
 * Values of variables that look secret are never shown. `previous` is the release in force.
 */
export function planRelease(
  previous: Release | undefined,
  next: ReleaseContent,
  warnings: readonly string[] = [],
): Plan {
  const before = previous?.services ?? {};
  const names = [...new Set([...Object.keys(before), ...Object.keys(next.services)])].sort();
  const changes = names.map((name) => changeOf(name, before[name], next.services[name]));
  const exported = listDifferences("exports", previous?.exports ?? [], next.exports);
  const same = previous !== undefined && previous.contentDigest === next.contentDigest;
  return {
    formation: next.formation,
    from: previous?.number ?? 0,
    to: same ? previous.number : next.number,
    changes,
    warnings: [
      ...warnings,
      ...(previous === undefined
        ? []
        : exported.map((line) => `what other formations may call changes: ${line}`)),
      ...names.flatMap((name) => lostVolume(name, before[name], next.services[name])),
    ],
  };
}

function changeOf(
  service: string,
  before: ReleaseService | undefined,
  after: ReleaseService | undefined,
): Change {
  if (after === undefined) return { service, action: "remove", differences: [] };
  if (before === undefined) return { service, action: "create", differences: describe(after) };
  const run = specDifferences(before.spec, after.spec);
  const scale = difference("instances", String(before.instances), String(after.instances));
  const route = [
    ...listDifferences("edge", before.edge.map(edgeText), after.edge.map(edgeText)),
    ...difference("balancing", balancingText(before.balancing), balancingText(after.balancing)),
    ...policyDifferences(before.dependencies, after.dependencies),
    ...filterDifferences(before, after),
  ];
  const differences = [...run, ...scale, ...route];
  if (specText(before.spec) !== specText(after.spec)) return { service, action: "replace", differences };
  if (scale.length > 0) return { service, action: "scale", differences };
  if (route.length > 0) return { service, action: "reroute", differences };
  return { service, action: "keep", differences: [] };
}

/** What a new service will be, a line each for what matters. */
function describe({ kind, spec, instances, edge }: ReleaseService): string[] {
  return [
    kind === "process" ? `image: ${imageText(spec.image)}` : `gear: ${imageText(spec.image)}`,
    ...(spec.command === undefined || kind === "auxiliary" ? [] : [`command: ${spec.command}`]),
    ...(spec.port === undefined ? [] : [`port: ${spec.port} (${spec.protocol})`]),
    `instances: ${instances}`,
    ...(spec.volume === undefined ? [] : [`volume: ${spec.volume}`]),
    ...edge.map((route) => `edge: ${edgeText(route)}`),
    ...spec.dependencies.map(({ name, port }) => `dependencies.${name}: ${port}`),
  ];
}

function specDifferences(before: RunSpec, after: RunSpec): string[] {
  const dependencyText = (dependency: RunSpec["dependencies"][number]) =>
    `${dependency.port} (${dependency.protocol}${dependency.optional ? ", optional" : ""})`;
  const dependencies = (spec: RunSpec) =>
    Object.fromEntries(spec.dependencies.map((dependency) => [dependency.name, dependencyText(dependency)]));
  const urls = (spec: RunSpec) => Object.fromEntries(spec.dependencies.map(({ name, url }) => [name, url]));
  return [
    ...imageDifference(before.image, after.image),
    ...difference("command", before.command, after.command),
    ...difference("port", textOf(before.port), textOf(after.port)),
    ...difference("protocol", before.protocol, after.protocol),
    ...difference("proxyProtocol", before.proxyProtocol, after.proxyProtocol),
    ...difference("health", healthText(before.health), healthText(after.health)),
    ...difference("resources.cpu", textOf(before.resources.cpu), textOf(after.resources.cpu)),
    ...difference(
      "resources.memory",
      sizeText(before.resources.memoryBytes),
      sizeText(after.resources.memoryBytes),
    ),
    ...difference("volume", before.volume, after.volume),
    ...difference("stop", stopText(before.stop), stopText(after.stop)),
    ...recordDifferences("environment", before.environment, after.environment, shownVariable),
    ...recordDifferences("secrets", before.secrets, after.secrets, () => HIDDEN),
    ...recordDifferences("dependencies", dependencies(before), dependencies(after)),
    ...urlDifferences(urls(before), urls(after)),
  ];
}

/** URLs may hold credentials: only that they changed is said, and only where both exist. */
function urlDifferences(before: Record<string, string>, after: Record<string, string>): string[] {
  return Object.keys(after)
    .filter((name) => before[name] !== undefined && before[name] !== after[name])
    .map((name) => `dependencies.${name}: its URL changes`);
}

function policyDifferences(
  before: readonly ReleaseDependency[],
  after: readonly ReleaseDependency[],
): string[] {
  const texts = (
    list: readonly ReleaseDependency[],
    read: (dependency: ReleaseDependency) => string | undefined,
  ) => Object.fromEntries(list.map((dependency) => [dependency.name, read(dependency) ?? "default"]));
  const rows: [string, (dependency: ReleaseDependency) => string | undefined][] = [
    [
      "timeout",
      ({ requestTimeoutMs: ms }) => (ms === undefined ? undefined : ms === 0 ? "none" : formatDuration(ms)),
    ],
    ["retries", ({ retriesMax }) => textOf(retriesMax)],
    ["call", ({ call }) => (call === undefined ? undefined : callLimitsText(call))],
    ["address", ({ address }) => address],
    ["proxyProtocol", ({ proxyProtocol }) => proxyProtocol],
    ["balancing", ({ balancing }) => balancingText(balancing)],
    ["actions", ({ actions }) => (actions === undefined ? undefined : actionTexts(actions).join("; "))],
  ];
  return rows.flatMap(([field, read]) => {
    const [old, current] = [texts(before, read), texts(after, read)];
    return Object.keys(current)
      .filter((name) => old[name] !== undefined)
      .flatMap((name) => difference(`dependencies.${name}.${field}`, old[name], current[name]));
  });
}

/** Filters that stay where they are and are another version, or are told something else. */
function filterDifferences(before: ReleaseService, after: ReleaseService): string[] {
  const old = new Map(filterUses(before));
  const lines = filterUses(after).flatMap(([place, { file, digest, ...told }]) => {
    const was = old.get(place);
    if (was === undefined) return [];
    const { file: _file, digest: oldDigest, ...oldTold } = was;
    return [
      ...(digest === oldDigest ? [] : [`filter ${file}: another version`]),
      ...(canonicalJson(told) === canonicalJson(oldTold) ? [] : [`filter ${file}: other options`]),
    ];
  });
  return [...new Set(lines)];
}

/** By where they are: the route or dependency, and the file. */
function filterUses({ edge, dependencies }: ReleaseService): [string, FilterUse][] {
  const at = (place: string, uses: readonly FilterUse[] = []) =>
    uses.map((use): [string, FilterUse] => [`${place} ${use.file}`, use]);
  return [
    ...edge.flatMap((route) => at(routeId(route), route.actions?.filters)),
    ...dependencies.flatMap(({ name, actions }) => at(name, actions?.filters)),
  ];
}

function imageDifference(before: ImageRef, after: ImageRef): string[] {
  if (before.kind === "source" && after.kind === "source") {
    return [
      ...(before.source === after.source
        ? []
        : [`source: changed (${shortDigest(before.source)} → ${shortDigest(after.source)})`]),
      ...difference("build", before.build, after.build),
    ];
  }
  return difference("image", imageText(before), imageText(after));
}

export function imageText(image: ImageRef): string {
  switch (image.kind) {
    case "source":
      return `source ${shortDigest(image.source)}`;
    case "gear":
      return `${image.gear} ${image.version}`;
    case "platform":
      return "Gilliam's own";
    case "docker":
      return image.reference;
  }
}

/** The first 12 hexadecimal digits. */
export function shortDigest(digest: string): string {
  return digest.replace(/^sha256:/, "").slice(0, 12);
}

function lostVolume(
  name: string,
  before: ReleaseService | undefined,
  after: ReleaseService | undefined,
): string[] {
  const volume = before?.spec.volume;
  if (volume === undefined || after?.spec.volume === volume) return [];
  return [`${name} no longer uses the volume ${volume}; its data stays where it is`];
}

const HIDDEN = "(hidden)";

/** Whether a variable's name or value suggests that it must not be shown. */
export function looksSecret(name: string, value: string): boolean {
  const named =
    /(?:^|_)(?:PASS(?:WORD|WD|PHRASE)?|SECRET|TOKEN|(?:API|PRIVATE|ACCESS|SIGNING|ENCRYPTION|MASTER)?_?KEY|CREDENTIALS?|AUTH|DSN|SALT)(?:_|$|\d)/i;
  return named.test(name) || /^[a-z][a-z0-9+.-]*:\/\/[^/@\s]*:[^/@\s]+@/i.test(value);
}

function shownVariable(name: string, value: string): string {
  if (looksSecret(name, value)) return HIDDEN;
  return value.length > 80 || /[\r\n]/.test(value) ? JSON.stringify(value.slice(0, 80)) : value;
}

function recordDifferences(
  field: string,
  before: Readonly<Record<string, string>>,
  after: Readonly<Record<string, string>>,
  show: (name: string, value: string) => string = (_name, value) => value,
): string[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
  return names.flatMap((name) => {
    const [old, current] = [before[name], after[name]];
    if (old === current) return [];
    const shown = (value: string | undefined) => (value === undefined ? undefined : show(name, value));
    if (old !== undefined && current !== undefined && shown(old) === HIDDEN)
      return [`${field}.${name}: changed ${HIDDEN}`];
    return difference(`${field}.${name}`, shown(old), shown(current));
  });
}

function listDifferences(field: string, before: readonly string[], after: readonly string[]): string[] {
  return [
    ...after.filter((item) => !before.includes(item)).map((item) => `${field}: + ${item}`),
    ...before.filter((item) => !after.includes(item)).map((item) => `${field}: - ${item}`),
  ];
}

function difference(field: string, before: string | undefined, after: string | undefined): string[] {
  if (before === after) return [];
  return [`${field}: ${before ?? "(none)"} → ${after ?? "(none)"}`];
}

function balancingText(choice: BalancingChoice | undefined): string | undefined {
  if (choice === undefined) return undefined;
  const { balancing = "least-request", hash, slowStartMs } = choice;
  const by = hash === undefined ? "" : ` by ${hash.by} ${hash.name}`.trimEnd();
  const slowly = slowStartMs === undefined ? "" : `, slow start ${formatDuration(slowStartMs)}`;
  return `${balancing}${by}${slowly}`;
}

function edgeText({ host, path, match, actions }: EdgeRoute): string {
  const where = path === "/" ? host : `${host}${path}`;
  const more = [matchText(match), ...actionTexts(actions)].filter((text) => text !== "");
  return more.length === 0 ? where : `${where} (${more.join("; ")})`;
}

function healthText(health: HealthCheck): string {
  switch (health.kind) {
    case "http":
      return health.path;
    case "command":
      return health.command;
    case "tcp":
    case "none":
      return health.kind;
  }
}

function stopText({ signal, graceMs }: RunSpec["stop"]): string {
  return `${signal}, ${formatDuration(graceMs)}`;
}

function textOf(value: number | undefined): string | undefined {
  return value === undefined ? undefined : String(value);
}

function sizeText(bytes: number | undefined): string | undefined {
  return bytes === undefined ? undefined : formatBytes(bytes);
}
