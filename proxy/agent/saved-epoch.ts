import { readDurable, writeDurablePieces } from "../../base/durable-file.ts";
import { messageOf } from "../../base/errors.ts";
import type { Log } from "../../base/log.ts";
import { MeshConfig } from "../../model/mesh.ts";

/** The configuration on disk; undefined when there is none that can be trusted. Says in the log what it found. */
export function loadSavedEpoch(path: string, log: Log): MeshConfig | undefined {
  let read;
  try {
    read = readDurable(path);
  } catch (error) {
    log.error({ path, reason: messageOf(error) }, "cannot read the saved epoch");
    return undefined;
  }
  if (read.kind === "missing") {
    log.info({ path }, "no saved epoch; waiting for control");
    return undefined;
  }
  if (read.kind === "damaged") {
    log.error({ path, reason: read.reason }, "the saved epoch is damaged; waiting for control");
    return undefined;
  }
  const parsed = MeshConfig.safeParse(read.value);
  if (!parsed.success) {
    log.error({ path }, "the saved epoch was written by another version; waiting for control");
    return undefined;
  }
  const { epoch } = parsed.data;
  if (read.damaged) log.warn({ path, epoch }, "the saved epoch is damaged; using the one before it");
  return parsed.data;
}

export interface EpochSaverOptions {
  readonly path: string;
  readonly log: Log;
  /** This epoch is on disk, or cannot be brought there: it may be acknowledged. */
  readonly onSettled: (config: MeshConfig, saved: boolean) => void;
}

/**
 * Saves epochs one at a time without blocking the event loop; of several that come during a write only the
 * newest is written. A disk that is full costs the memory of a restart, never the traffic.
 */
export class EpochSaver {
  readonly #options: EpochSaverOptions;
  #next: MeshConfig | undefined;
  #writing: Promise<void> | undefined;
  #failed = false;

  constructor(options: EpochSaverOptions) {
    this.#options = options;
  }

  /** True while the newest epoch is not on disk because writing failed. */
  get failed(): boolean {
    return this.#failed;
  }

  save(config: MeshConfig): void {
    this.#next = config;
    this.#writing ??= this.#writeAll();
  }

  async idle(): Promise<void> {
    await this.#writing;
  }

  async #writeAll(): Promise<void> {
    const { log, onSettled, path } = this.#options;
    for (let config = this.#next; config !== undefined; config = this.#next) {
      this.#next = undefined;
      try {
        await writeDurablePieces(path, jsonPieces(config));
        if (this.#failed) log.info({ path, epoch: config.epoch }, "the epoch can be saved again");
        this.#failed = false;
      } catch (error) {
        if (!this.#failed) {
          log.error(
            { path, reason: messageOf(error) },
            "cannot save the epoch; a restart now would use an older one",
          );
        }
        this.#failed = true;
      }
      onSettled(config, !this.#failed);
    }
    this.#writing = undefined;
  }
}

/** A configuration as JSON, an item at a time: all of it at once would be a pause of many milliseconds. */
function* jsonPieces({ epoch, ...lists }: MeshConfig): Generator<string> {
  yield `{"epoch":${epoch}`;
  for (const [name, items] of Object.entries(lists)) {
    yield `,"${name}":[`;
    let comma = "";
    for (const item of items) {
      yield comma + JSON.stringify(item);
      comma = ",";
    }
    yield "]";
  }
  yield "}";
}
