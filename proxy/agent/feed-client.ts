import { backoffMs, type BackoffPolicy } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { inSlices } from "../../base/slices.ts";
import { applyDelta } from "../../model/mesh-delta.ts";
import type { MeshConfig } from "../../model/mesh.ts";
import type { Applied } from "../engine.ts";
import { feedMessageSteps } from "./feed-message.ts";

/** How the feed is reached; feed-http.ts is the real one. */
export interface FeedTransport {
  /**
   * Resolves when control took the proxy on, which has said that it is at `epoch`; rejects when it did not.
   * Yields the stream's lines then, and ends or throws when it breaks.
   */
  open(epoch: number, signal: AbortSignal): Promise<AsyncIterable<string>>;
}

/** `again`: what was missing may come, so control is asked for this epoch once more. */
export type Put = Applied & { readonly again?: boolean };

export interface FeedClientOptions {
  readonly transport: FeedTransport;
  /** Puts a configuration in force, whole or not at all. */
  readonly apply: (config: MeshConfig) => Put | Promise<Put>;
  /** Called after each epoch that was applied or refused. */
  readonly onEpoch: () => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Without a line for this long control counts as silent and the stream is opened anew. @default 15_000 */
  readonly silentMs?: number;
  /** Full jitter, so that a restarted control is not met by every proxy at once. @default 250 ms to 5 s */
  readonly backoff?: BackoffPolicy;
}

export interface FeedState {
  readonly connected: boolean;
  /** Milliseconds on the clock when the last line came; undefined when none ever did. */
  readonly lastLineMs: number | undefined;
  readonly reconnects: number;
  /** The last epoch that could not be applied, until a later one is. */
  readonly refused: { readonly epoch: number; readonly reason: string } | undefined;
}

/**
 * Follows control's feed for as long as it runs and puts every epoch in force. Whatever goes wrong, the
 * configuration in force stays: a broken stream, a bad line or a refused epoch only means to ask again.
 */
export class FeedClient {
  readonly #options: FeedClientOptions;
  readonly #stop = new AbortController();
  #current: MeshConfig | undefined;
  #askWhole = false;
  #connected = false;
  #lastLineMs: number | undefined;
  #reconnects = 0;
  #attempt = 0;
  #refused: FeedState["refused"];
  #running: Promise<void> | undefined;

  /** `current` is what is in force already, from disk; undefined when nothing is. */
  constructor(options: FeedClientOptions, current: MeshConfig | undefined) {
    this.#options = options;
    this.#current = current;
  }

  get state(): FeedState {
    return {
      connected: this.#connected,
      lastLineMs: this.#lastLineMs,
      reconnects: this.#reconnects,
      refused: this.#refused,
    };
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error("the feed client was stopped"));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { backoff = { baseMs: 250, capMs: 5_000 }, clock, log, random } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const reason = await this.#follow();
      if (signal.aborted) return;
      if (this.#connected || this.#reconnects === 0) {
        log.warn({ reason, epoch: this.#current?.epoch ?? 0 }, "control is away; serving on");
      }
      this.#connected = false;
      this.#reconnects += 1;
      await clock.sleep(backoffMs(this.#attempt, backoff, random), signal).catch(() => undefined);
      this.#attempt += 1;
    }
  }

  /** One stream from its opening to its end; returns why it ended. */
  async #follow(): Promise<string> {
    const { clock, silentMs = 15_000, transport } = this.#options;
    const stream = new AbortController();
    const signal = AbortSignal.any([stream.signal, this.#stop.signal]);
    let silence = clock.after(silentMs, () => stream.abort(silent(silentMs)));
    try {
      const lines = await transport.open(this.#askWhole ? 0 : (this.#current?.epoch ?? 0), signal);
      this.#connected = true;
      this.#options.log.info({ epoch: this.#current?.epoch ?? 0 }, "following control");
      for await (const line of lines) {
        silence[Symbol.dispose]();
        silence = clock.after(silentMs, () => stream.abort(silent(silentMs)));
        await this.#heard(line);
      }
      return "control closed the stream";
    } catch (error) {
      return messageOf(stream.signal.aborted ? stream.signal.reason : error);
    } finally {
      silence[Symbol.dispose]();
    }
  }

  /** The next line waits until this one is in force. */
  async #heard(line: string): Promise<void> {
    const message = await inSlices(feedMessageSteps(line), this.#options.clock);
    this.#lastLineMs = this.#options.clock.nowMs();
    switch (message.kind) {
      case "alive":
        this.#attempt = 0;
        return;
      case "config":
        this.#askWhole = false;
        return this.#put(message.config);
      case "delta": {
        const { delta } = message;
        const next = this.#current === undefined ? undefined : applyDelta(this.#current, delta);
        if (next === undefined) {
          this.#askWhole = true;
          const have = this.#current?.epoch ?? 0;
          throw new Error(
            `a delta for epoch ${delta.base} came, but ${have} is in force; asking for all of it`,
          );
        }
        return this.#put(next);
      }
    }
  }

  async #put(config: MeshConfig): Promise<void> {
    const { apply, log, onEpoch } = this.#options;
    const missing = emptiedByAmnesia(this.#current, config);
    const outcome: Put = missing === undefined ? await apply(config) : { ok: false, reason: missing };
    if (outcome.ok) {
      this.#current = config;
      this.#refused = undefined;
      this.#attempt = 0;
      log.debug({ epoch: config.epoch }, "epoch in force");
    } else {
      this.#refused = { epoch: config.epoch, reason: outcome.reason };
      log.error(
        { refused: config.epoch, epoch: this.#current?.epoch ?? 0, reason: outcome.reason },
        "epoch refused",
      );
    }
    onEpoch();
    if (!outcome.ok && outcome.again === true) throw new Error(outcome.reason);
  }
}

/**
 * A control that lost its memory starts counting from the beginning and knows nobody. Nothing that runs may
 * stop because of that: an empty configuration older than the one in force is no information.
 */
export function emptiedByAmnesia(current: MeshConfig | undefined, next: MeshConfig): string | undefined {
  if (current === undefined || next.epoch >= current.epoch) return undefined;
  if (next.clusters.length > 0 || current.clusters.length === 0) return undefined;
  return (
    `epoch ${next.epoch} is empty and older than epoch ${current.epoch}, which is in force: ` +
    "control seems to have lost its state"
  );
}

function silent(silentMs: number): Error {
  return new Error(`control said nothing for ${silentMs / 1000} s`);
}
