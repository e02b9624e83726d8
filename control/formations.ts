import { randomBytes } from "node:crypto";
import type { Clock } from "../base/clock.ts";
import { UserError } from "../base/errors.ts";
import { formatDuration } from "../base/units.ts";
import type { CanaryRequest, DeployAnswer, DeployRequest, PauseRequest, Plan } from "../model/api.ts";
import type { Gear } from "../model/gear.ts";
import type { ManifestContext } from "../model/manifest-check.ts";
import { parseManifest } from "../model/manifest-parse.ts";
import { type RouteShape, routeKey, sameRequests } from "../model/route.ts";
import { planRelease } from "../model/plan.ts";
import { filtersOf, type FormationRecord, type Release } from "../model/release.ts";
import { exportedServices, resolveRelease, type ReleaseContent } from "../model/resolve.ts";
import type { BlobStore } from "./blobs.ts";
import type { EventLog } from "./events.ts";
import {
  assertChangeable,
  canaried,
  deployed,
  paused,
  promoted,
  rolledBack,
  scaled,
  staged,
} from "./operations.ts";
import { WRITES_MAX } from "./registry/limits.ts";
import type { Write } from "./registry/registry.ts";
import { keyOf, type Store } from "./store.ts";

export interface FormationsParts {
  readonly store: Store;
  readonly events: EventLog;
  readonly blobs: BlobStore;
  readonly gears: ReadonlyMap<string, Gear>;
  readonly clock: Clock;
  readonly releasesKeptMax: number;
  /** Called after every change, so that the controller looks at once. */
  readonly onChange: () => void;
}

/** How often a write is tried again when another one came between. */
const ATTEMPTS_MAX = 8;

interface Prepared {
  readonly content: ReleaseContent;
  readonly secrets: Readonly<Record<string, readonly string[]>>;
  readonly plan: Plan;
  /** A release that already has this very content. */
  readonly same: Release | undefined;
}

/** Every write on a formation: checked, recorded with check-and-set in one transaction, told as an event. */
export class Formations {
  readonly #parts: FormationsParts;

  constructor(parts: FormationsParts) {
    this.#parts = parts;
  }

  /** @throws UserError "no_such_formation" */
  get(name: string): FormationRecord {
    const { formations } = this.#parts.store;
    const record = formations.get(name);
    if (record !== undefined) return record;
    const names = formations.ids.sort().join(", ");
    throw new UserError(`There is no formation "${name}"`, {
      code: "no_such_formation",
      status: 404,
      next: names === "" ? "Deploy one: gilliam deploy FOLDER." : `There are: ${names}.`,
    });
  }

  /** What a deploy would change; changes nothing. @throws UserError "bad_manifest" with all problems. */
  plan(name: string, request: DeployRequest): Plan {
    assertChangeable(this.#parts.store.formations.get(name), this.#isDeleting(name));
    return this.#prepare(name, request).plan;
  }

  /**
   * Makes the release and, unless it is only staged, sends traffic to it. The same content is one release however
   * often it is deployed.
   * @throws UserError "bad_manifest", "blob_missing", "refused", "conflict" and the registry's
   */
  async deploy(name: string, request: DeployRequest): Promise<DeployAnswer> {
    const { store, blobs } = this.#parts;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const before = store.formations.get(name);
      assertChangeable(before, this.#isDeleting(name));
      const prepared = this.#prepare(name, request);
      const missing = [
        ...Object.entries(request.sources).filter(
          ([service]) => prepared.content.services[service] !== undefined,
        ),
        ...filtersOf(prepared.content).map(({ file, digest }): [string, string] => [file, digest]),
      ].filter(([, digest]) => !blobs.has(digest));
      if (missing.length > 0) throw blobsMissing(missing);
      const { same, content, plan } = prepared;
      if (!(await this.#makeSecrets(name, prepared.secrets))) continue;
      const release = same ?? { ...content, createdAtMs: this.#parts.clock.wallMs() };
      const current = before && store.releases.get(`${name}/${before.current}`);
      const after = request.mode === "stage" ? staged(before, release) : deployed(before, release, current);
      const text =
        request.mode === "stage"
          ? `release ${release.number} of ${name} is staged`
          : `release ${release.number} of ${name} is deployed`;
      const writes = [
        ...(same === undefined ? this.#releaseWrites(release, after) : []),
        ...(JSON.stringify(before) === JSON.stringify(after)
          ? []
          : [store.set(store.formations, name, after)]),
      ];
      if (await this.#write(writes, { kind: "release", formation: name, text })) {
        return {
          formation: name,
          release: release.number,
          created: same === undefined,
          plan: { ...plan, to: release.number },
        };
      }
    }
    throw conflict(name);
  }

  async scale(name: string, counts: Readonly<Record<string, number>>): Promise<void> {
    const text = Object.entries(counts).map(([service, count]) => `${service} to ${count}`);
    await this.#change(name, `${name} is scaled: ${text.join(", ")}`, (record, releases) =>
      scaled(record, counts, releases),
    );
  }

  async canary(name: string, request: CanaryRequest): Promise<void> {
    const { service, release, weight } = request;
    const text = `${weight} % of ${service}.${name} goes to release ${release}`;
    await this.#change(name, text, (record, releases) => canaried(record, request, releases));
  }

  /** Who calls the service is sent away, or waits, at every proxy; or no more. */
  async pause(name: string, request: PauseRequest): Promise<void> {
    const nowMs = this.#parts.clock.wallMs();
    const text = pauseText(`${request.service}.${name}`, request);
    await this.#change(name, text, (record) => paused(record, request, nowMs));
  }

  async promote(name: string, service: string | undefined): Promise<void> {
    const text = `the canary of ${service === undefined ? "" : `${service}.`}${name} is promoted`;
    await this.#change(name, text, (record) => promoted(record, service));
  }

  async rollback(name: string, release: number | undefined): Promise<void> {
    const text = `${name} is rolled back${release === undefined ? "" : ` to release ${release}`}`;
    await this.#change(name, text, (record, releases) => rolledBack(record, release, releases));
  }

  async setState(name: string, state: FormationRecord["state"]): Promise<void> {
    await this.#change(name, `${name} goes ${state}`, (record) => ({ ...record, state }));
  }

  /** Drains every instance, then forgets releases and secrets too. Volumes stay on their hosts. */
  async delete(name: string): Promise<void> {
    const { store, clock } = this.#parts;
    const record = this.get(name);
    assertChangeable(record, false);
    if (this.#isDeleting(name)) return;
    const writes = [
      store.set(store.formations, name, { ...record, state: "down" as const }),
      store.set(store.deletions, name, { sinceMs: clock.wallMs() }),
    ];
    const event = { kind: "formation", formation: name, text: `${name} is being deleted` } as const;
    if (!(await this.#write(writes, event))) throw conflict(name);
  }

  #isDeleting(name: string): boolean {
    return this.#parts.store.deletions.get(name) !== undefined;
  }

  async #change(
    name: string,
    text: string,
    change: (record: FormationRecord, releases: readonly Release[]) => FormationRecord,
  ): Promise<void> {
    const { store } = this.#parts;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const before = this.get(name);
      assertChangeable(before, this.#isDeleting(name));
      const after = change(before, store.releasesOf(name));
      if (JSON.stringify(before) === JSON.stringify(after)) return; // Said twice: nothing to do.
      const writes = [store.set(store.formations, name, after)];
      if (await this.#write(writes, { kind: "formation", formation: name, text })) return;
    }
    throw conflict(name);
  }

  async #write(
    writes: readonly Write[],
    draft: { kind: "release" | "formation"; formation: string; text: string },
  ): Promise<boolean> {
    const { store, events, onChange } = this.#parts;
    if (writes.length === 0) return true;
    const { event, writes: eventWrites } = events.prepare(draft);
    if (!(await store.write([...writes, ...eventWrites]))) return false;
    events.announce(event);
    onChange();
    return true;
  }

  #prepare(name: string, request: DeployRequest): Prepared {
    const { store, gears } = this.#parts;
    const parsed = parseManifest(request.manifest, request.file, this.#context(name));
    if (!parsed.ok) throw badManifest(request.file, parsed.problems);
    if (parsed.manifest.formation !== name) {
      throw badManifest(request.file, [
        `${request.file}: formation is "${parsed.manifest.formation}", but it is deployed as "${name}"`,
      ]);
    }
    const earlier = store.releasesOf(name);
    const resolved = resolveRelease({
      manifest: parsed.manifest,
      manifestText: request.manifest,
      sources: request.sources,
      filters: request.filters,
      gears,
      number: (earlier.at(-1)?.number ?? 0) + 1,
      earlier,
      exportsOf: (formation) => {
        const release = this.#currentRelease(formation);
        return release && exportedServices(release, gears);
      },
    });
    if (!resolved.ok) throw badManifest(request.file, resolved.problems);
    const { content, secrets } = resolved;
    const same = earlier.find(({ contentDigest }) => contentDigest === content.contentDigest);
    const plan = planRelease(this.#currentRelease(name), content, parsed.warnings);
    return { content, secrets, same, plan: { ...plan, to: same?.number ?? content.number } };
  }

  #currentRelease(formation: string): Release | undefined {
    const { store } = this.#parts;
    const current = store.formations.get(formation)?.current;
    return current === undefined ? undefined : store.releases.get(`${formation}/${current}`);
  }

  /** What a manifest may name outside itself, and what others hold already. */
  #context(name: string): ManifestContext {
    const { store, gears } = this.#parts;
    const others = store.formations.ids
      .filter((other) => other !== name)
      .flatMap((other) => this.#currentRelease(other) ?? []);
    const routes = new Map<string, { readonly formation: string; readonly route: RouteShape }[]>();
    const volumes = new Map<string, string>();
    for (const { formation, services } of others) {
      for (const { name: service, edge, spec } of Object.values(services)) {
        for (const route of edge) {
          const key = routeKey(route);
          routes.set(key, [...(routes.get(key) ?? []), { formation, route }]);
        }
        if (spec.volume !== undefined) volumes.set(spec.volume, `${service}.${formation}`);
      }
    }
    return {
      gears,
      exportsOf: new Map(others.map(({ formation, exports }) => [formation, exports])),
      routeOwner: (route) =>
        routes.get(routeKey(route))?.find((other) => sameRequests(other.route, route))?.formation,
      volumeOwner: (volume) => volumes.get(volume),
    };
  }

  /** Secrets are made up once for each service, before the release that needs them. */
  async #makeSecrets(
    formation: string,
    needed: Readonly<Record<string, readonly string[]>>,
  ): Promise<boolean> {
    const { store } = this.#parts;
    const writes = Object.entries(needed).flatMap(([service, names]): Write[] => {
      const id = `${formation}/${service}`;
      const known = store.secrets.get(id) ?? {};
      const fresh = names.filter((name) => known[name] === undefined);
      if (fresh.length === 0) return [];
      const made = fresh.map((name) => [name, randomBytes(24).toString("base64url")]);
      return [store.set(store.secrets, id, { ...known, ...Object.fromEntries(made) })];
    });
    for (let at = 0; at < writes.length; at += WRITES_MAX) {
      if (!(await store.write(writes.slice(at, at + WRITES_MAX)))) return false;
    }
    return true;
  }

  /** The release, and without the oldest ones nobody needs any more. */
  #releaseWrites(release: Release, after: FormationRecord): Write[] {
    const { store, releasesKeptMax } = this.#parts;
    const { formation, number } = release;
    const used = new Set([number, after.current, after.previous]);
    for (const { release: pointed, canary } of Object.values(after.services)) {
      used.add(pointed);
      if (canary !== undefined) used.add(canary.release);
    }
    const old = store.releasesOf(formation).filter((other) => !used.has(other.number));
    const dropped = old.slice(0, Math.max(0, old.length + used.size - releasesKeptMax)).slice(0, 8);
    return [
      { kind: "set", key: keyOf.release(formation, number), value: release, ifRevision: 0 },
      ...dropped.map((other) => store.remove(store.releases, `${formation}/${other.number}`)),
    ];
  }
}

function pauseText(service: string, request: PauseRequest): string {
  switch (request.kind) {
    case "maintenance":
      return `${service} is closed for maintenance`;
    case "hold":
      return `requests to ${service} are held for up to ${formatDuration(request.forMs)}`;
    case "none":
      return `${service} takes requests again`;
  }
}

function badManifest(file: string, problems: readonly string[]): UserError {
  return new UserError(`${file} has ${problems.length === 1 ? "a problem" : `${problems.length} problems`}`, {
    code: "bad_manifest",
    status: 422,
    problems,
    next: "Mend them all, then try again; nothing was changed.",
  });
}

function blobsMissing(missing: readonly [string, string][]): UserError {
  return new UserError("Source archives are missing", {
    code: "blob_missing",
    status: 409,
    problems: missing.map(([service, digest]) => `${service}: ${digest} was not uploaded`),
    next: "PUT /v1/blobs/{digest} first, then deploy.",
  });
}

function conflict(name: string): UserError {
  return new UserError(`Formation "${name}" is being changed by somebody else`, {
    code: "conflict",
    status: 409,
    next: "Look at it again, then repeat your change.",
  });
}
