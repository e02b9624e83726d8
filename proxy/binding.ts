import { SmoothSplit } from "./split.ts";
import { type EdgeStats, type EngineStats, RELEASES_MAX } from "./stats.ts";

/** The calls of one listener to one cluster: what it counts, and its place in the split. */
export class Binding {
  readonly from: string;
  readonly cluster: string;
  /** Of the declared edge it stands for, `web.shop/api`; empty for a public route. */
  readonly edgeId: string;
  /** One place in the deal of a split for each listener and cluster: exact for every consumer. */
  readonly split = new SmoothSplit();
  readonly #stats: EngineStats;
  readonly #byRelease = new Map<number, EdgeStats>();
  #last: EdgeStats | undefined;

  constructor(from: string, cluster: string, stats: EngineStats, edgeId = "") {
    this.from = from;
    this.edgeId = edgeId;
    this.cluster = cluster;
    this.#stats = stats;
  }

  stats(release: number): EdgeStats {
    if (this.#last?.release === release) return this.#last;
    let stats = this.#byRelease.get(release);
    if (stats === undefined) {
      if (this.#byRelease.size >= RELEASES_MAX) this.#byRelease.clear();
      stats = this.#stats.edge(this.from, this.cluster, release);
      this.#byRelease.set(release, stats);
    }
    this.#last = stats;
    return stats;
  }
}
