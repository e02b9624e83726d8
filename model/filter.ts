import { z } from "zod";
import { Digest } from "./names.ts";

/** One use of a filter on a public route or a declared edge, as control tells a proxy. */
export const FilterUse = z.strictObject({
  /** As the manifest says it, like `./filters/auth.ts`: for people, logs and metrics. */
  file: z.string().min(1),
  /** `service.formation` whose manifest named it; two formations may have files of one name. */
  owner: z.string().min(1),
  /** Of its bundle: `GET /v1/blobs/{digest}`. */
  digest: Digest,
  /** What the manifest says for this use; the filter reads it as `context.options`. */
  options: z.json().optional(),
  /** What becomes of a request when the filter fails; absent: what the filter says, else closed. */
  onFailure: z.enum(["open", "closed"]).optional(),
  /** Longest run in milliseconds; absent: what the filter says, else a default by its kind. */
  timeoutMs: z.int().min(1).max(60_000).optional(),
  /** Where `context.routeTo(name)` may lead, by the name the manifest uses: `{ "web-b": "web-b.shop" }`. */
  clusters: z.record(z.string(), z.string()).optional(),
});
export type FilterUse = z.infer<typeof FilterUse>;
