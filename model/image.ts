import { canonicalJson, sha256 } from "./canonical.ts";

/** Raise it when the builder makes something else of the same source: old images are then built anew. */
export const BUILDER_VERSION = 1;

/** The name of the image that `source` (digest of its archive) builds into, with `build` as its build command. */
export function imageDigest({ source, build }: { source: string; build?: string | undefined }): string {
  return sha256(canonicalJson({ builder: BUILDER_VERSION, source, build }));
}
