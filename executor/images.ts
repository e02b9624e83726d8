import type { BuildOrder, BuildStatus } from "../model/host.ts";
import type { ImageRef } from "../model/run-spec.ts";

/** What runs: folders on this host, by image. */
export interface Images {
  /** Where the image is, or in plain words why it is not there. Never waits; a build reports through `onChange`. */
  resolve(image: ImageRef): ResolvedImage;
  /** Builds what is ordered and not there; deletes what is neither kept nor in use. */
  order(builds: readonly BuildOrder[], keep: readonly string[], inUse: () => ReadonlySet<string>): void;
  statuses(): BuildStatus[];
  onChange(callback: () => void): void;
  /** The output of a build, as far as it has come; undefined when there was none. */
  buildLog(image: string): string | undefined;
  close(): void;
}

export type ResolvedImage =
  | {
      readonly kind: "ready";
      /** Where it runs; empty: where the container image says. */
      readonly folder: string;
      /** Name of the container image; absent for processes. */
      readonly reference?: string;
      readonly defaultCommand: string | undefined;
    }
  | { readonly kind: "waiting"; readonly reason: string }
  | { readonly kind: "failed"; readonly reason: string };
