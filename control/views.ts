import type {
  BuildView,
  EnvironmentView,
  InstanceView,
  MetricsTargets,
  PlatformView,
  ReleaseView,
} from "../model/api.ts";
import { fillSecrets } from "../model/gear.ts";
import type { HostView } from "../model/host.ts";
import { environmentStem } from "../model/names.ts";
import { planRelease } from "../model/plan.ts";
import type { FormationRecord, Release, ReleaseService } from "../model/release.ts";
import type { RunSpec } from "../model/run-spec.ts";
import { UserError } from "../base/errors.ts";
import { formatDuration } from "../base/units.ts";
import type { ApiParts } from "./api/parts.ts";
import { secretsOf } from "./assignments.ts";
import { explainInstance } from "./explain.ts";
import type { HostRecord, Store } from "./store.ts";
import type { ProxyState, World } from "./world.ts";

/** What people see, made from what is known. Nothing here decides anything. */

export function instanceViews(world: World, formation: string): InstanceView[] {
  return world.instances
    .filter((record) => record.formation === formation)
    .sort((a, b) => compare(`${a.service} ${a.createdAtMs}`, `${b.service} ${b.createdAtMs}`))
    .map((record) => explainInstance(world, record));
}

/** Newest first, each with what it changed against the one before. */
export function releaseViews(record: FormationRecord, releases: readonly Release[]): ReleaseView[] {
  return releases
    .map((release, at) => ({
      number: release.number,
      createdAtMs: release.createdAtMs,
      current: release.number === record.current,
      services: Object.keys(release.services).sort(),
      summary: summaryOf(releases[at - 1], release),
    }))
    .toReversed();
}

function summaryOf(before: Release | undefined, release: Release): string {
  if (before === undefined) return release.number === 1 ? "the first" : "the oldest that is kept";
  const changes = planRelease(before, release).changes.filter(({ action }) => action !== "keep");
  if (changes.length === 0) return `as release ${before.number}`;
  return changes
    .map(({ service, action, differences }) =>
      differences.length === 0 || action === "create"
        ? `${action} ${service}`
        : `${service}: ${differences.join(", ")}`,
    )
    .join("; ")
    .slice(0, 300);
}

/** The service as the formation's record points to it. @throws UserError "no_such_service" */
export function serviceInForce(store: Store, record: FormationRecord, service: string): ReleaseService {
  const desire = record.services[service];
  const found = desire && store.releases.get(`${record.name}/${desire.release}`)?.services[service];
  if (found !== undefined) return found;
  throw new UserError(`Formation "${record.name}" has no service "${service}"`, {
    code: "no_such_service",
    status: 404,
    next: `It has: ${Object.keys(record.services).sort().join(", ")}.`,
  });
}

const HIDDEN = "(hidden)";
const AT_START = "(chosen when it starts)";

type Variable = EnvironmentView["variables"][number];

/** What an instance of the service gets to see, and where each variable comes from. */
export function environmentView(
  store: Store,
  record: FormationRecord,
  service: string,
  reveal: boolean,
): EnvironmentView {
  const { spec } = serviceInForce(store, record, service);
  const shared = store.hosts.values.some(({ network }) => network === "shared");
  const filled = reveal
    ? fillSecrets(spec, (address) => secretsOf(store, address)).spec
    : fillSecrets(spec, () => HIDES_ALL).spec;
  const plain = (name: string, value: string, from: string): Variable => ({
    name,
    value,
    secret: false,
    from,
  });
  const variables: Variable[] = [
    ...Object.entries(spec.environment).map(([name, value]) =>
      plain(name, value, record.boot ? "boot manifest" : "manifest"),
    ),
    ...Object.entries(filled.secrets).map(([name, value]) => ({
      name,
      value: reveal ? value : HIDDEN,
      secret: true,
      from: "made by control",
    })),
    ...filled.dependencies.flatMap((dependency, at) => {
      const secret = spec.dependencies[at]?.url.includes("{secret:") === true;
      return dependencyVariables(dependency, secret, shared);
    }),
    plain("GILLIAM_FORMATION", spec.formation, "platform"),
    plain("GILLIAM_SERVICE", spec.service, "platform"),
    plain("GILLIAM_RELEASE", String(spec.release), "platform"),
    plain("GILLIAM_INSTANCE", AT_START, "platform"),
    plain("HOST", shared ? "127.0.0.1" : "0.0.0.0", "platform"),
    ...(spec.port === undefined ? [] : [plain("PORT", shared ? AT_START : String(spec.port), "platform")]),
    ...(spec.volume === undefined ? [] : [plain("VOLUME", AT_START, `volume ${spec.volume}`)]),
  ];
  return { service, release: spec.release, variables: variables.sort((a, b) => compare(a.name, b.name)) };
}

/** Every key has the same value, the word that says so. */
const HIDES_ALL = new Proxy<Record<string, string>>({}, { get: () => HIDDEN });

function dependencyVariables(
  { name, port, url }: RunSpec["dependencies"][number],
  secret: boolean,
  shared: boolean,
): Variable[] {
  const stem = environmentStem(name);
  const host = shared ? "127.0.0.1" : "localhost";
  const at = shared ? AT_START : String(port);
  const whole = url.replaceAll("{host}", host).replaceAll("{port}", at);
  const from = `dependency ${name}`;
  return [
    { name: `${stem}_URL`, value: whole.replace(encodeURIComponent(HIDDEN), HIDDEN), secret, from },
    { name: `${stem}_HOST`, value: host, secret: false, from },
    { name: `${stem}_PORT`, value: at, secret: false, from },
  ];
}

/** Every image the formation points to, on every host that has spoken of it. */
export function buildViews(world: World, record: FormationRecord): BuildView[] {
  const views: BuildView[] = [];
  for (const [service, { release, canary }] of Object.entries(record.services)) {
    for (const number of new Set([release, canary?.release ?? release])) {
      const spec = world.releases.get(`${record.name}/${number}`)?.services[service]?.spec;
      if (spec?.image.kind !== "source") continue;
      const { image } = spec.image;
      const common = { service, release: spec.release, image };
      const builds = [...(world.builds.get(image) ?? [])];
      if (builds.length === 0) {
        views.push({
          ...common,
          hostId: "",
          state: "unordered",
          explanation: "",
          reason: "no host has spoken of it yet",
          lastLines: [],
        });
      }
      for (const [hostId, { state, explanation, reason, lastLines }] of builds) {
        views.push({ ...common, hostId, state, explanation, reason, lastLines });
      }
    }
  }
  return views;
}

export function hostView(world: World, host: HostRecord): HostView {
  const lastSeenMs = world.hosts.find(({ id }) => id === host.id)?.lastSeenMs ?? 0;
  const silent = world.nowMs - lastSeenMs > world.settings.silentMs;
  return {
    hostId: host.id,
    state: silent ? "silent" : host.draining ? "draining" : "up",
    driver: host.driver,
    network: host.network,
    capacity: host.capacity,
    labels: host.labels,
    instances: world.instances.filter(({ hostId }) => hostId === host.id).length,
    lastSeenMs,
  };
}

export function platformView({ store, controller, hub, version, catalogTrouble }: ApiParts): PlatformView {
  const world = controller.world();
  return {
    version,
    registry: store.registry.description,
    startedAtMs: controller.startedAtMs,
    hosts: world.hosts.length,
    formations: world.formations.map(({ name }) => name).sort(),
    epoch: hub.epoch,
    proxies: world.proxies.map((proxy) => ({
      id: proxy.id,
      kind: proxy.kind,
      hostId: proxy.hostId,
      epoch: proxy.epoch,
      behind: proxy.epoch < proxy.wantedEpoch,
      refused: proxy.refused?.reason ?? null,
      lastSeenMs: proxy.lastSeenMs,
      metricsUrl: proxy.metricsUrl,
    })),
    alarms: [
      ...registryAlarms(store, catalogTrouble()),
      ...controller.alarms(),
      ...hostAlarms(world),
      ...hub.alarms(),
    ],
  };
}

/** A catalog that cannot be written is no news while the registry cannot be reached either. */
function registryAlarms({ registry }: Store, catalogTrouble: string | undefined): string[] {
  const trouble = registry.trouble ?? catalogTrouble;
  return trouble === undefined ? [] : [trouble];
}

function hostAlarms(world: World): string[] {
  if (world.hosts.length === 0) return ["No executor has reported yet: nothing can be run."];
  return world.hosts
    .filter(({ lastSeenMs }) => world.nowMs - lastSeenMs > world.settings.silentMs)
    .map(({ id, lastSeenMs }) => {
      const silentFor = formatDuration(world.nowMs - lastSeenMs);
      return `Host ${id} has been silent for ${silentFor}: what runs there goes on, nothing new can be told to it.`;
    });
}

/** Every part that measures something: control, executors, proxies. */
export function metricsTargets(store: Store, proxies: readonly ProxyState[], ownUrl: string): MetricsTargets {
  const target = (url: string, labels: Record<string, string>): MetricsTargets => {
    const parsed = URL.parse(url);
    if (parsed === null) return [];
    const path = parsed.pathname === "/" ? "/metrics" : parsed.pathname;
    return [{ targets: [parsed.host], labels: { ...labels, __metrics_path__: path } }];
  };
  return [
    ...target(`${ownUrl}/metrics`, { part: "control" }),
    ...store.hosts.values.flatMap(({ id, metricsUrl }) => target(metricsUrl, { part: "executor", host: id })),
    ...proxies.flatMap(({ id, kind, hostId, metricsUrl }) =>
      target(metricsUrl, { part: kind, host: hostId, proxy: id }),
    ),
  ];
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
