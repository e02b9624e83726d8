import { type MetricsRegistry, gauge } from "../../base/metrics.ts";
import type { FeedState } from "./feed-client.ts";
import type { KeeperFacts } from "./messages.ts";

export interface AgentFacts {
  readonly epoch: () => number;
  readonly settledEpoch: () => number;
  readonly feed: () => FeedState;
  readonly nowMs: () => number;
  readonly accessDropped: () => number;
  readonly saveFailed: () => boolean;
  readonly keeper: () => KeeperFacts | undefined;
}

/** What is known around the engine, read when somebody scrapes. */
export function registerAgentMetrics(registry: MetricsRegistry, facts: AgentFacts): void {
  const read = (name: string, help: string, value: () => number | undefined) => {
    gauge(registry, name, help, [], (metric) => {
      const now = value();
      if (now !== undefined) metric.set(now);
    });
  };
  read("gilliam_feed_epoch", "Epoch in force; 0 before the first.", facts.epoch);
  read(
    "gilliam_feed_saved_epoch",
    "Epoch in force and on disk: the one control is told.",
    facts.settledEpoch,
  );
  read("gilliam_feed_connected", "1 while control's feed is followed.", () => Number(facts.feed().connected));
  read(
    "gilliam_feed_reconnects_total",
    "Streams that broke and were opened anew.",
    () => facts.feed().reconnects,
  );
  read(
    "gilliam_feed_refused_epoch",
    "Epoch that could not be applied; 0 for none.",
    () => facts.feed().refused?.epoch ?? 0,
  );
  read("gilliam_feed_silence_seconds", "Since control's last line.", () => {
    const { lastLineMs } = facts.feed();
    return lastLineMs === undefined ? undefined : (facts.nowMs() - lastLineMs) / 1000;
  });
  read("gilliam_feed_save_failed", "1 while the newest epoch cannot be written to disk.", () =>
    Number(facts.saveFailed()),
  );
  read("gilliam_access_log_dropped_total", "Access log lines that were not written.", facts.accessDropped);
  read("gilliam_keeper_resident_bytes", "Resident memory of the keeper.", () => facts.keeper()?.rssBytes);
  read(
    "gilliam_keeper_worker_deaths_total",
    "Workers that died and were replaced.",
    () => facts.keeper()?.deaths,
  );
  read(
    "gilliam_keeper_worker_hangs_total",
    "Workers replaced because they stood still.",
    () => facts.keeper()?.hangs,
  );
  read(
    "gilliam_keeper_hot_restarts_total",
    "Workers replaced on request.",
    () => facts.keeper()?.hotRestarts,
  );
}
