import type { BuildOrder, BuildStatus } from "../model/host.ts";
import { wantedOf } from "./facts.ts";
import type { RunSpec } from "../model/run-spec.ts";
import type { World } from "./world.ts";

/** `none`: the image needs no building. `unordered`: nobody has said anything of it on that host. */
export type BuildState = BuildStatus["state"] | "none" | "unordered";

export function buildState(world: World, spec: RunSpec, hostId: string): BuildState {
  if (spec.image.kind !== "source") return "none";
  return buildOf(world, spec, hostId)?.state ?? "unordered";
}

export function buildOf(world: World, spec: RunSpec, hostId: string): BuildStatus | undefined {
  return spec.image.kind === "source" ? world.builds.get(spec.image.image)?.get(hostId) : undefined;
}

/**
 * What a host is to build: the images of its instances, and the wanted images of services it already runs, so that
 * one with a volume is not stopped before its successor can start. Each image once.
 */
export function buildOrders(world: World, hostId: string): BuildOrder[] {
  const orders = new Map<string, BuildOrder>();
  const order = ({ image }: RunSpec) => {
    if (image.kind !== "source") return;
    const { build } = image;
    orders.set(image.image, {
      image: image.image,
      source: image.source,
      ...(build === undefined ? {} : { build }),
    });
  };
  const services = new Set<string>();
  for (const record of world.instances) {
    if (record.hostId !== hostId || record.boot) continue;
    services.add(`${record.formation}/${record.service}`);
    if (record.want === "run") order(record.spec);
  }
  for (const formation of world.formations) {
    for (const name of Object.keys(formation.services)) {
      if (!services.has(`${formation.name}/${name}`)) continue;
      const wanted = wantedOf(world, formation, name);
      if (wanted.kind !== "known" || wanted.stable.count === 0) continue;
      order(wanted.stable.service.spec);
      if (wanted.canary !== undefined) order(wanted.canary.service.spec);
    }
  }
  return [...orders.values()];
}

/**
 * Images a host must not collect: of every release that is known, and of every instance it has. Releases that can no
 * longer be rolled back to leave the registry first.
 */
export function keepImages(world: World, hostId: string): string[] {
  const kept = new Set<string>();
  for (const release of world.releases.values()) {
    for (const { spec } of Object.values(release.services)) {
      if (spec.image.kind === "source") kept.add(spec.image.image);
    }
  }
  for (const { hostId: at, spec } of world.instances) {
    if (at === hostId && spec.image.kind === "source") kept.add(spec.image.image);
  }
  return [...kept];
}
