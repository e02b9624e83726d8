import { UserError } from "../base/errors.ts";
import type { CanaryRequest, PauseRequest } from "../model/api.ts";
import type { FormationRecord, Release, ServiceDesire, ServicePause } from "../model/release.ts";

/**
 * What each verb makes of a formation's record: pure, the same request twice gives the same record.
 * All throw a UserError that says what stands in the way; the record given is never changed.
 */

/** Sends a release's traffic to it: every service of it, none other. A canary ends; a scale stays unless the manifest changed it. */
export function deployed(
  before: FormationRecord | undefined,
  release: Release,
  current: Release | undefined,
): FormationRecord {
  const services = Object.values(release.services).map(({ name, instances }): [string, ServiceDesire] => {
    const { count, sticky, pause } = before?.services[name] ?? {};
    const keepsCount = count !== undefined && current?.services[name]?.instances === instances;
    return [
      name,
      {
        release: release.number,
        ...(keepsCount ? { count } : {}),
        ...(sticky === undefined ? {} : { sticky }),
        ...(pause === undefined ? {} : { pause }),
      },
    ];
  });
  const moved = before === undefined || before.current !== release.number;
  return {
    name: release.formation,
    state: "up",
    current: release.number,
    previous: moved ? (before?.current ?? 0) : before.previous,
    services: Object.fromEntries(services),
    boot: false,
  };
}

/** The record of a formation whose first release is only staged: nothing runs yet. */
export function staged(before: FormationRecord | undefined, release: Release): FormationRecord {
  return (
    before ?? { name: release.formation, state: "up", current: 0, previous: 0, services: {}, boot: false }
  );
}

export function scaled(
  record: FormationRecord,
  counts: Readonly<Record<string, number>>,
  releases: readonly Release[],
): FormationRecord {
  const services = { ...record.services };
  for (const [name, count] of Object.entries(counts)) {
    const desire = desireOf(record, name);
    const { kind, spec } = serviceOf(releases, desire.release, name);
    if (count > 1 && (kind === "auxiliary" || spec.volume !== undefined)) {
      throw refused(`Service "${name}" cannot have ${count} instances: two copies cannot share its data`, {
        next: `Scale it to 0 or 1.`,
      });
    }
    services[name] = { ...desire, count };
  }
  return { ...record, services };
}

/** Sends callers away, lets them wait, or neither. The same maintenance said twice keeps its beginning. */
export function paused(record: FormationRecord, request: PauseRequest, nowMs: number): FormationRecord {
  const { pause: before, ...desire } = desireOf(record, request.service);
  const pause = pauseOf(request, before, nowMs);
  const after = pause === undefined ? desire : { ...desire, pause };
  return { ...record, services: { ...record.services, [request.service]: after } };
}

function pauseOf(
  request: PauseRequest,
  before: ServicePause | undefined,
  nowMs: number,
): ServicePause | undefined {
  switch (request.kind) {
    case "none":
      return undefined;
    case "hold":
      return { kind: "hold", sinceMs: nowMs, forMs: request.forMs };
    case "maintenance": {
      const sinceMs = before?.kind === "maintenance" ? before.sinceMs : nowMs;
      return { kind: "maintenance", sinceMs, retryAfterSeconds: request.retryAfterSeconds };
    }
  }
}

export function canaried(
  record: FormationRecord,
  { service, release, weight, sticky }: CanaryRequest,
  releases: readonly Release[],
): FormationRecord {
  const desire = desireOf(record, service);
  const wanted = serviceOf(releases, release, service);
  const stable = serviceOf(releases, desire.release, service);
  if (wanted.spec.release === stable.spec.release) {
    throw refused(
      `Release ${release} runs the same "${service}" as release ${desire.release}: there is nothing to compare`,
      { next: `Stage the change first: gilliam deploy --stage. \`gilliam releases\` lists what there is.` },
    );
  }
  if (wanted.spec.volume !== undefined && wanted.spec.volume === stable.spec.volume) {
    throw refused(
      `Service "${service}" keeps data in volume "${wanted.spec.volume}"; two releases cannot share it`,
      {
        next: "Deploy the release instead.",
      },
    );
  }
  const { sticky: _before, ...rest } = desire;
  return {
    ...record,
    services: {
      ...record.services,
      [service]: { ...rest, canary: { release, weight }, ...(sticky === undefined ? {} : { sticky }) },
    },
  };
}

/** The canary becomes what runs. Without a service: every canary there is. */
export function promoted(record: FormationRecord, service: string | undefined): FormationRecord {
  const canaries = Object.entries(record.services).filter(
    ([name, { canary }]) => canary !== undefined && (service === undefined || name === service),
  );
  if (service !== undefined) desireOf(record, service);
  if (canaries.length === 0) {
    throw refused(`There is no canary to promote${service === undefined ? "" : ` of service "${service}"`}`, {
      next: `Start one: gilliam canary ${service ?? "SERVICE"} --release N --weight 10.`,
    });
  }
  const services = { ...record.services };
  let current = 0;
  for (const [name, { canary, sticky: _sticky, ...desire }] of canaries) {
    services[name] = { ...desire, release: canary?.release ?? desire.release };
    current = Math.max(current, services[name].release);
  }
  const moved = current !== record.current;
  return { ...record, services, current, previous: moved ? record.current : record.previous };
}

/**
 * Back to `release`. Without one: while a canary runs, it is taken away and nothing else changes; otherwise back to
 * the release before the current one.
 */
export function rolledBack(
  record: FormationRecord,
  release: number | undefined,
  releases: readonly Release[],
): FormationRecord {
  const canaries = Object.values(record.services).some(({ canary }) => canary !== undefined);
  if (release === undefined && canaries) {
    const services = Object.entries(record.services).map(([name, { canary, sticky, ...desire }]) => [
      name,
      canary === undefined && sticky !== undefined ? { ...desire, sticky } : desire,
    ]);
    return { ...record, services: Object.fromEntries(services) as FormationRecord["services"] };
  }
  const number = release ?? record.previous;
  if (number === 0) {
    throw refused(`There is no release before ${record.current} to go back to`, {
      next: "`gilliam releases` lists what there is.",
    });
  }
  const target = releaseOf(releases, number);
  const current = releases.find((other) => other.number === record.current);
  const earlier = releases.filter((other) => other.number < number).at(-1)?.number ?? 0;
  return { ...deployed(record, target, current), state: record.state, previous: earlier };
}

/** Also what refuses an API write on the formation Gilliam itself runs as. */
export function assertChangeable(record: FormationRecord | undefined, isDeleting: boolean): void {
  if (record?.boot === true) {
    throw refused(
      `Formation "${record.name}" is Gilliam itself, run by the executor from its boot manifest; it is shown here, not changed`,
      { next: "Change the platform with ./bootstrap/up." },
    );
  }
  if (isDeleting) {
    throw refused(`This formation is being deleted`, { next: "Wait until it is gone, then deploy again." });
  }
}

function desireOf(record: FormationRecord, service: string): ServiceDesire {
  const desire = record.services[service];
  if (desire !== undefined) return desire;
  const names = Object.keys(record.services).sort().join(", ");
  throw new UserError(`Formation "${record.name}" has no service "${service}"`, {
    code: "no_such_service",
    status: 404,
    next: names === "" ? "Deploy it first." : `It has: ${names}.`,
  });
}

function releaseOf(releases: readonly Release[], number: number): Release {
  const release = releases.find((other) => other.number === number);
  if (release !== undefined) return release;
  const numbers = releases.map((other) => other.number).join(", ");
  throw new UserError(`There is no release ${number}`, {
    code: "no_such_release",
    status: 404,
    next: numbers === "" ? "Deploy something first." : `There are: ${numbers}.`,
  });
}

function serviceOf(releases: readonly Release[], number: number, service: string) {
  const found = releaseOf(releases, number).services[service];
  if (found !== undefined) return found;
  throw new UserError(`Release ${number} has no service "${service}"`, {
    code: "no_such_service",
    status: 404,
    next: `Name a release that has it; \`gilliam releases\` lists them.`,
  });
}

function refused(message: string, { next }: { next: string }): UserError {
  return new UserError(message, { code: "refused", status: 409, next });
}
