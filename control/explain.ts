import { formatDuration } from "../base/units.ts";
import type { FormationView, InstanceView, ServiceView } from "../model/api.ts";
import type { FormationRecord, ReleaseService, ServicePause } from "../model/release.ts";
import { pauseNow } from "./clusters.ts";
import { explainTrouble } from "./explain-instance.ts";
import { groupBy, healthOf, hostVoice, wantedOf, type WantedRelease } from "./facts.ts";
import { liveProxies, names, Proxies, proxiesWithout } from "./letting-go.ts";
import { placementTrouble } from "./reconcile.ts";
import type { InstanceRecord, World } from "./world.ts";

/** What a formation is doing, in plain words: one state and at most one explanation for each service. */
export function explain(world: World, formation: FormationRecord): FormationView {
  const own = world.instances.filter((record) => record.formation === formation.name);
  const byService = groupBy(own, (record) => record.service);
  const services = new Set([...Object.keys(formation.services), ...byService.keys()]);
  const views = [...services]
    .toSorted()
    .map((service) => serviceView(world, formation, service, byService.get(service) ?? []));
  const urls = Object.keys(formation.services).flatMap((service) => {
    const wanted = wantedOf(world, formation, service);
    return wanted.kind === "known"
      ? wanted.stable.service.edge.map(({ host, path }) => `${host}${path === "/" ? "" : path}`)
      : [];
  });
  return {
    name: formation.name,
    state: formation.state,
    current: formation.current,
    settled: views.every(({ state }) => state === "ready" || state === "down") && isAcknowledged(world, own),
    services: views,
    urls: [...new Set(urls)].toSorted(),
    boot: formation.boot,
  };
}

/** Whether every live proxy has in force what it is to have of these instances. */
function isAcknowledged(world: World, records: readonly InstanceRecord[]): boolean {
  return liveProxies(world).every((proxy) =>
    records.every(
      ({ id }) => proxy.wantedEndpoints.has(id) === (proxy.acknowledgedEndpoints?.has(id) ?? false),
    ),
  );
}

type Verdict = Pick<ServiceView, "state" | "explanation">;

function serviceView(
  world: World,
  formation: FormationRecord,
  name: string,
  records: readonly InstanceRecord[],
): ServiceView {
  const wanted = wantedOf(world, formation, name);
  if (wanted.kind !== "known") {
    const spec = records[0]?.spec;
    return {
      name,
      kind: "process",
      release: spec?.release ?? 0,
      wanted: wanted.kind === "removed" ? 0 : records.filter((record) => record.want === "run").length,
      ready: records.filter((record) => isReady(world, record)).length,
      canary: null,
      ...(wanted.kind === "removed"
        ? leaving(world, records, "It is no longer in the release")
        : missing(wanted.missing)),
      image: imageWords(spec?.image),
    };
  }
  const { stable, canary } = wanted;
  const ready = (release: number) =>
    records.filter((record) => record.release === release && record.want === "run" && isReady(world, record))
      .length;
  return {
    name,
    kind: stable.service.kind,
    release: stable.number,
    wanted: stable.count,
    ready: ready(stable.number),
    canary:
      canary === undefined
        ? null
        : {
            release: canary.number,
            weight: canary.weight,
            ready: ready(canary.number),
            wanted: canary.count,
          },
    ...withPause(judge(world, formation, stable, canary, records), formation, name, world.nowMs),
    image: imageWords(stable.service.spec.image),
  };
}

/** An operator's word comes first: it is why nobody is answered. */
function withPause(verdict: Verdict, formation: FormationRecord, service: string, nowMs: number): Verdict {
  const text = pauseText(formation.services[service]?.pause, service, nowMs);
  if (text === "") return verdict;
  return { ...verdict, explanation: verdict.explanation === "" ? text : `${text} ${verdict.explanation}` };
}

function pauseText(pause: ServicePause | undefined, service: string, nowMs: number): string {
  const now = pauseNow(pause, nowMs);
  if (pause === undefined || now === undefined) return "";
  const elapsedMs = Math.max(0, nowMs - pause.sinceMs);
  if (pause.kind === "maintenance") {
    return `Closed for maintenance for ${formatDuration(elapsedMs)}; \`gilliam maintenance ${service} off\` opens it.`;
  }
  const leftMs = pause.forMs - elapsedMs;
  return `Requests are held for ${formatDuration(leftMs)} more; \`gilliam hold ${service} off\` lets them go.`;
}

function judge(
  world: World,
  formation: FormationRecord,
  stable: WantedRelease,
  canary: WantedRelease | undefined,
  records: readonly InstanceRecord[],
): Verdict {
  if (formation.state === "down") return leaving(world, records, "The formation is down");
  if (stable.count === 0) return leaving(world, records, "It is scaled to 0");
  for (const wanted of [stable, canary]) {
    if (wanted === undefined) continue;
    const verdict = judgeRelease(world, wanted, records);
    if (verdict !== undefined) return verdict;
  }
  const kept = new Set([stable.number, canary?.number]);
  const old = records.filter(
    (record) => !record.boot && (record.want !== "run" || !kept.has(record.release)),
  );
  if (old.length > 0) return leaving(world, old, `${plural(old.length, "old instance")} to go`);
  const explanation =
    canary === undefined
      ? ""
      : `Release ${canary.number} gets ${canary.weight} % of the requests; \`gilliam promote\` or \`gilliam rollback\` ends the canary.`;
  return { state: "ready", explanation };
}

/** What keeps one release from having all it should; undefined when nothing does. */
function judgeRelease(
  world: World,
  wanted: WantedRelease,
  records: readonly InstanceRecord[],
): Verdict | undefined {
  const running = records.filter((record) => record.release === wanted.number && record.want === "run");
  const others = records.filter((record) => record.release !== wanted.number && record.want === "run");
  const serves = others.length > 0 ? ` Release ${others[0]?.release ?? 0} keeps serving.` : "";
  for (const record of running) {
    if (isReady(world, record)) continue;
    const trouble = explainTrouble(world, record);
    return { state: trouble.failing ? "failing" : "waiting", explanation: trouble.text + serves };
  }
  const live = liveProxies(world);
  for (const record of running) {
    const lacking = proxiesWithout(record.id, live);
    if (lacking.length === 0) continue;
    const refusal = lacking.find((proxy) => proxy.refused !== undefined);
    if (refusal?.refused !== undefined) {
      const { epoch, reason } = refusal.refused;
      return { state: "failing", explanation: `${refusal.id} refused epoch ${epoch}: ${reason}.${serves}` };
    }
    const epoch = Math.max(...lacking.map((proxy) => proxy.wantedEpoch));
    const explanation = `${record.id} is ready; ${names(lacking)} must acknowledge epoch ${epoch} before it counts.`;
    return { state: "changing", explanation };
  }
  if (running.length >= wanted.count) return undefined;
  const trouble = placementTrouble(world, wanted.service.spec);
  const count = `${running.length} of ${wanted.count} instances are placed`;
  if (trouble !== undefined) return { state: "waiting", explanation: `${count}: ${trouble}.${serves}` };
  return { state: "changing", explanation: `${count}; the rest follows as these come into traffic.` };
}

function leaving(world: World, records: readonly InstanceRecord[], why: string): Verdict {
  const [first] = records;
  if (first === undefined) return { state: "down", explanation: `${why}.` };
  const draining = records.find((record) => record.want === "drain");
  if (draining !== undefined) {
    const progress = new Proxies(world).haveLetGo(draining);
    const words = progress.kind === "waiting" ? progress.reason : "is about to be stopped";
    return { state: "changing", explanation: `${why}: ${draining.id} ${words}.` };
  }
  const grace = formatDuration(first.spec.stop.graceMs);
  return { state: "changing", explanation: `${why}: ${first.id} has up to ${grace} to stop.` };
}

function missing(what: string): Verdict {
  return {
    state: "waiting",
    explanation: `Nothing is changed, because ${what} is missing from the registry; deploy again to write it.`,
  };
}

/** One instance as `gilliam ps` shows it. */
export function explainInstance(world: World, record: InstanceRecord): InstanceView {
  const { id, formation, service, release, hostId, status } = record;
  const address = status?.address ?? record.address;
  const lacking = proxiesWithout(id, liveProxies(world));
  const known = world.proxies.some((proxy) => proxy.acknowledgedEndpoints?.has(id) === true);
  const trouble = record.want === "run" && !isReady(world, record) ? explainTrouble(world, record).text : "";
  const progress = record.want === "drain" ? new Proxies(world).haveLetGo(record) : undefined;
  const draining = progress?.kind === "waiting" ? progress.reason : undefined;
  return {
    id,
    formation,
    service,
    release,
    hostId,
    phase: record.want === "drain" && status?.phase !== "stopped" ? "draining" : (status?.phase ?? "pending"),
    reason: [record.drainReason, draining ?? trouble]
      .filter((text) => text !== undefined && text !== "")
      .join("; "),
    restarts: status?.restarts ?? 0,
    startedAtMs: status?.startedAtMs ?? null,
    address: address === undefined ? null : `${address.host}:${address.port}`,
    inTraffic: known && lacking.length === 0,
    lastLines: status?.lastLines ?? [],
  };
}

function isReady(world: World, record: InstanceRecord): boolean {
  const host = world.hosts.find(({ id }) => id === record.hostId);
  return healthOf(record, hostVoice(world, host)) === "ready";
}

function imageWords(image: ReleaseService["spec"]["image"] | undefined): string {
  switch (image?.kind) {
    case undefined:
      return "";
    case "source":
      return image.image.slice("sha256:".length, "sha256:".length + 12);
    case "gear":
      return `gear ${image.gear} ${image.version}`;
    case "docker":
      return image.reference;
    case "platform":
      return "platform";
  }
}

function plural(count: number, noun: string): string {
  return count === 1 ? `1 ${noun}` : `${count} ${noun}s`;
}
