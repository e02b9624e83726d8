import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { MetricsRegistry } from "../../base/metrics.ts";
import type { AssignmentsHub } from "../assignments.ts";
import type { BlobStore } from "../blobs.ts";
import type { Controller } from "../controller.ts";
import type { EventLog } from "../events.ts";
import type { Executors } from "../executors.ts";
import type { FeedHub } from "../feed-hub.ts";
import type { Formations } from "../formations.ts";
import type { HostReports } from "../host-reports.ts";
import type { Store } from "../store.ts";
import type { Tokens } from "./auth.ts";
import type { Streams } from "./stream.ts";

/** Everything the routes work with; made in control.ts. */
export interface ApiParts {
  readonly store: Store;
  readonly controller: Controller;
  readonly formations: Formations;
  readonly hub: FeedHub;
  readonly assignments: AssignmentsHub;
  readonly reports: HostReports;
  readonly events: EventLog;
  readonly blobs: BlobStore;
  readonly executors: Executors;
  readonly streams: Streams;
  readonly metrics: MetricsRegistry;
  readonly onRequest: (route: string, method: string, status: number, durationMs: number) => void;
  readonly clock: Clock;
  readonly log: Log;
  readonly tokens: Tokens;
  readonly version: string;
  /** Where the API and its metrics are reached; known once it listens. */
  readonly ownUrl: () => string;
  /** Why Consul's catalog is not as it should be, for people. */
  readonly catalogTrouble: () => string | undefined;
  readonly limits: ApiLimits;
}

export interface ApiLimits {
  readonly bodyBytesMax: number;
  readonly requestMsMax: number;
  readonly connectionsMax: number;
  /** How long registrations of hosts and proxies outlive their last word, in milliseconds. */
  readonly registrationMs: number;
  /** Port of the edge in addresses for people. */
  readonly publicPort: number;
  /** Tests only: answers must fit their own schema. */
  readonly checkAnswers: boolean;
}
