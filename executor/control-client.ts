import { equalJitterMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { AssignmentsMessage, type HostReport } from "../model/host.ts";

export interface ControlClientOptions {
  readonly url: string;
  readonly hostId: string;
  readonly token: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Control sends something every five seconds; a stream silent for this long is dead, in milliseconds. */
const SILENT_MS_MAX = 15_000;
const CALL_MS_MAX = 10_000;
const RECONNECT = { baseMs: 200, capMs: 5_000 };
/** A line longer than this is not from control, in characters. */
const LINE_MAX = 64 * 1024 * 1024;

/** Control as the executor of one host speaks to it. It may be away at any time, for as long as it likes. */
export class ControlClient {
  readonly #options: ControlClientOptions;
  #connected = false;

  constructor(options: ControlClientOptions) {
    this.#options = options;
  }

  /** True while the assignments stream is alive. */
  get connected(): boolean {
    return this.#connected;
  }

  /** Calls `onAssignments` with every list, for ever; comes back after each break. Resolves when aborted. */
  async watchAssignments(
    onAssignments: (message: AssignmentsMessage & { kind: "assignments" }) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, random, log } = this.#options;
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        await this.#readStream((message) => {
          attempt = 0;
          this.#connected = true;
          if (message.kind === "assignments") onAssignments(message);
        }, signal);
      } catch (error) {
        if (signal.aborted) return;
        const level = this.#connected || attempt === 0 ? "warn" : "debug";
        log[level]({ reason: messageOf(error) }, "control is away; everything runs on as it is");
      }
      this.#connected = false;
      await clock.sleep(equalJitterMs(attempt, RECONNECT, random), signal).catch(() => undefined);
    }
  }

  /** Throws when control does not take it; the next report says everything again. */
  async report(report: HostReport): Promise<void> {
    const response = await fetch(this.#url("status"), {
      method: "POST",
      headers: { ...this.#headers(), "content-type": "application/json" },
      body: JSON.stringify(report),
      signal: AbortSignal.timeout(CALL_MS_MAX),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`control answered ${response.status}: ${text.slice(0, 300)}`);
  }

  /** A source archive. */
  async fetchBlob(digest: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const response = await fetch(new URL(`/v1/blobs/${encodeURIComponent(digest)}`, this.#options.url), {
      headers: this.#headers(),
      signal,
    });
    if (!response.ok || response.body === null) {
      throw new Error(`control answered ${response.status} for archive ${digest}`);
    }
    return response.body;
  }

  async #readStream(onMessage: (message: AssignmentsMessage) => void, signal: AbortSignal): Promise<void> {
    const silence = new AbortController();
    const { clock } = this.#options;
    const arm = () => clock.after(SILENT_MS_MAX, () => silence.abort(new Error("control fell silent")));
    let timer = arm();
    try {
      const response = await fetch(this.#url("assignments"), {
        headers: this.#headers(),
        signal: AbortSignal.any([signal, silence.signal]),
      });
      if (!response.ok || response.body === null) throw new Error(`control answered ${response.status}`);
      let rest = "";
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        timer[Symbol.dispose]();
        timer = arm();
        const lines = (rest + chunk).split("\n");
        rest = lines.pop() ?? "";
        if (rest.length > LINE_MAX) throw new Error("control sent a line without end");
        for (const line of lines.filter((text) => text !== "")) {
          onMessage(AssignmentsMessage.parse(JSON.parse(line)));
        }
      }
      throw new Error("control closed the stream");
    } finally {
      timer[Symbol.dispose]();
    }
  }

  #url(path: string): URL {
    return new URL(`/v1/hosts/${encodeURIComponent(this.#options.hostId)}/${path}`, this.#options.url);
  }

  #headers(): Record<string, string> {
    return { authorization: `Bearer ${this.#options.token}` };
  }
}
