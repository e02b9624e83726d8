import type { BuildStatus, HostReport } from "../model/host.ts";
import type { InstanceStatus } from "../model/instance.ts";

interface Heard {
  readonly report: HostReport;
  readonly statuses: ReadonlyMap<string, InstanceStatus>;
  readonly atMs: number;
}

/** The last word of every host, in memory: facts that are reported again every two seconds need no disk. */
export class HostReports {
  readonly #heard = new Map<string, Heard>();

  /** Returns the report before this one. */
  put(report: HostReport, atMs: number): HostReport | undefined {
    const before = this.#heard.get(report.hostId)?.report;
    const statuses = new Map(report.instances.map((status) => [status.instanceId, status]));
    this.#heard.set(report.hostId, { report, statuses, atMs });
    return before;
  }

  get(hostId: string): HostReport | undefined {
    return this.#heard.get(hostId)?.report;
  }

  /** Steady wall time of its last word; undefined when it has not spoken since this control started. */
  lastSeenMs(hostId: string): number | undefined {
    return this.#heard.get(hostId)?.atMs;
  }

  get hostIds(): string[] {
    return [...this.#heard.keys()];
  }

  statusOf(hostId: string, instanceId: string): InstanceStatus | undefined {
    return this.#heard.get(hostId)?.statuses.get(instanceId);
  }

  /** By image, then by host. */
  builds(): ReadonlyMap<string, ReadonlyMap<string, BuildStatus>> {
    const builds = new Map<string, Map<string, BuildStatus>>();
    for (const [hostId, { report }] of this.#heard) {
      for (const status of report.builds) {
        const byHost = builds.get(status.image) ?? new Map<string, BuildStatus>();
        builds.set(status.image, byHost.set(hostId, status));
      }
    }
    return builds;
  }
}

/** What the difference of two reports is to people: one line a change of phase or of a build. */
export function changesOf(
  before: HostReport | undefined,
  after: HostReport,
): { kind: "instance" | "build"; instanceId?: string; text: string }[] {
  const phases = new Map(before?.instances.map(({ instanceId, phase }) => [instanceId, phase]));
  const states = new Map(before?.builds.map(({ image, state }) => [image, state]));
  return [
    ...after.instances
      .filter(({ instanceId, phase }) => phases.get(instanceId) !== phase)
      .map(({ instanceId, phase, reason }) => ({
        kind: "instance" as const,
        instanceId,
        text: `${instanceId} is ${phase}${reason === "" ? "" : `: ${reason}`}`,
      })),
    ...after.builds
      .filter(({ image, state }) => states.get(image) !== state)
      .map(({ image, state, reason, explanation }) => ({
        kind: "build" as const,
        text: `build ${image.slice(7, 19)} on ${after.hostId} is ${state}${
          reason === "" ? (explanation === "" ? "" : `: ${explanation}`) : `: ${reason}`
        }`,
      })),
  ];
}
