import type { RunSpec } from "../model/run-spec.ts";

export interface Stoppable {
  readonly instanceId: string;
  readonly spec: Pick<RunSpec, "formation" | "service" | "dependencies">;
  /** Set on parts of the platform. */
  readonly boot: unknown;
}

/** Parts of the platform go last, in this order: first nobody comes in, then nobody is called, then nobody decides. */
const BOOT_ORDER = ["edge", "sidecar", "control"];

/**
 * Waves of instance ids to stop one after the other: a service only when nobody who depends on it still runs, so
 * that requests in flight can finish. Services in a cycle go together. Pure.
 */
export function stopOrder(instances: readonly Stoppable[]): string[][] {
  const waves: string[][] = [];
  let rest = instances.filter(({ boot }) => boot === undefined);
  while (rest.length > 0) {
    const needed = new Set(rest.flatMap(dependenciesOf));
    const free = rest.filter(({ spec }) => !needed.has(`${spec.service}.${spec.formation}`));
    const wave = free.length > 0 ? free : rest;
    waves.push(wave.map(({ instanceId }) => instanceId));
    rest = rest.filter((instance) => !wave.includes(instance));
  }
  const boot = instances.filter(({ boot }) => boot !== undefined);
  const rank = ({ spec }: Stoppable) => BOOT_ORDER.indexOf(spec.service);
  const ranks = [...new Set(boot.map(rank))].sort((a, b) => a - b);
  return [
    ...waves,
    ...ranks.map((at) => boot.filter((one) => rank(one) === at).map((one) => one.instanceId)),
  ];
}

function dependenciesOf({ spec }: Stoppable): string[] {
  const own = `${spec.service}.${spec.formation}`;
  return spec.dependencies
    .map(({ name }) => (name.includes(".") ? name : `${name}.${spec.formation}`))
    .filter((name) => name !== own);
}
