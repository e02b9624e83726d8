import { z } from "zod";
import { CallLimits } from "./call-limits.ts";
import type { FilterUse } from "./filter.ts";
import { ClusterPolicy, ProxyProtocol } from "./mesh.ts";
import { Name } from "./names.ts";
import { RouteActions, RouteMatch } from "./route.ts";
import { RunSpec } from "./run-spec.ts";

/** A public host and path of a service, as the manifest's `edge:` says. */
export const EdgeRoute = z.strictObject({
  host: z.string(),
  path: z.string().startsWith("/"),
  match: RouteMatch.optional(),
  actions: RouteActions.optional(),
});
export type EdgeRoute = z.infer<typeof EdgeRoute>;

/** How requests are spread over a service's instances; what is absent is the default. */
export const BalancingChoice = ClusterPolicy.pick({
  balancing: true,
  hash: true,
  slowStartMs: true,
}).partial();
export type BalancingChoice = z.infer<typeof BalancingChoice>;

/** One declared dependency, resolved: which cluster answers on which local port. */
export const ReleaseDependency = z.strictObject({
  name: z.string(),
  port: z.int(),
  /** `api.shop`, or absent for declared egress. */
  target: z.string().optional(),
  /** `api.stripe.com:443`: declared egress. */
  address: z.string().optional(),
  /** What the other end of such egress expects. */
  proxyProtocol: ProxyProtocol.optional(),
  optional: z.boolean(),
  requestTimeoutMs: z.int().optional(),
  retriesMax: z.int().optional(),
  call: CallLimits.optional(),
  actions: RouteActions.optional(),
  balancing: BalancingChoice.optional(),
});
export type ReleaseDependency = z.infer<typeof ReleaseDependency>;

export const ReleaseService = z.strictObject({
  name: Name,
  kind: z.enum(["process", "auxiliary"]),
  /** Environment values are kept, secrets are not: they are joined in when an instance is assigned. */
  spec: RunSpec,
  /** Copies the manifest asks for; `gilliam scale` overrides it in the formation, not here. */
  instances: z.int().min(0),
  edge: z.array(EdgeRoute),
  /** For everybody who calls it. */
  balancing: BalancingChoice.optional(),
  dependencies: z.array(ReleaseDependency),
});
export type ReleaseService = z.infer<typeof ReleaseService>;

/** Immutable, numbered snapshot of a formation. */
export const Release = z.strictObject({
  formation: Name,
  number: z.int().min(1),
  createdAtMs: z.number(),
  /** SHA-256 over the resolved content: the same deploy twice has the same, and is one release. */
  contentDigest: z.string(),
  /** The manifest as it was written. */
  manifest: z.string(),
  services: z.record(z.string(), ReleaseService),
  exports: z.array(Name),
});
export type Release = z.infer<typeof Release>;

/** Every use of a filter in a release. */
export function filtersOf({ services }: Pick<Release, "services">): FilterUse[] {
  return Object.values(services).flatMap(({ edge, dependencies }) =>
    [...edge, ...dependencies].flatMap(({ actions }) => actions?.filters ?? []),
  );
}

/** An operator's word about a service, since `sinceMs` (wall clock of control). A hold ends by itself. */
export const ServicePause = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("maintenance"),
    sinceMs: z.number(),
    retryAfterSeconds: z.int().min(0),
  }),
  z.strictObject({ kind: z.literal("hold"), sinceMs: z.number(), forMs: z.int().min(1) }),
]);
export type ServicePause = z.infer<typeof ServicePause>;

/** Desired state of one service of a formation. */
export const ServiceDesire = z.strictObject({
  /** The release whose spec this service runs. */
  release: z.int().min(1),
  /** Set by `gilliam scale`; absent: what the release says. */
  count: z.int().min(0).max(1000).optional(),
  canary: z.strictObject({ release: z.int().min(1), weight: z.int().min(0).max(100) }).optional(),
  sticky: z
    .discriminatedUnion("by", [
      z.strictObject({ by: z.literal("cookie"), name: z.string().min(1) }),
      z.strictObject({ by: z.literal("header"), name: z.string().min(1) }),
    ])
    .optional(),
  /** Set by `gilliam maintenance` and `gilliam hold`; outlives deploys, which are what it is for. */
  pause: ServicePause.optional(),
});
export type ServiceDesire = z.infer<typeof ServiceDesire>;

/** Desired state of a formation: what `deploy`, `scale`, `canary`, `promote`, `rollback`, `up` and `down` change. */
export const FormationRecord = z.strictObject({
  name: Name,
  /** `down` stops every instance and keeps everything else. */
  state: z.enum(["up", "down"]),
  /** The last release deployed with traffic. */
  current: z.int().min(0),
  /** The one before, for `rollback`. */
  previous: z.int().min(0),
  services: z.record(z.string(), ServiceDesire),
  /** The executor's own boot manifest made this one; it is shown, not changed, through the API. */
  boot: z.boolean(),
});
export type FormationRecord = z.infer<typeof FormationRecord>;
