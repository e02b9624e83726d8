import { z } from "zod";
import { Protocol } from "./mesh.ts";

/**
 * The sidecar's API for the executor of its host, HTTP over a Unix socket that only they can open.
 * PUT /v1/instances/{id} (idempotent) answers when every port listens; DELETE closes them; GET /v1/instances lists.
 */
export const LocalPortsRequest = z.strictObject({
  instanceId: z.string().min(1),
  formation: z.string(),
  service: z.string(),
  release: z.int(),
  /** Path of the network namespace (`/run/netns/…`); null where instances share the host's loopback. */
  namespace: z.string().nullable(),
  ports: z
    .array(z.strictObject({ dependency: z.string(), port: z.int().min(1).max(65_535), protocol: Protocol }))
    .max(256),
});
export type LocalPortsRequest = z.infer<typeof LocalPortsRequest>;

export const LocalPortsAnswer = z.strictObject({
  instanceId: z.string(),
  /** Equal to what was asked inside a namespace; free ports of the shared loopback otherwise. */
  ports: z.array(
    z.strictObject({ dependency: z.string(), host: z.string(), port: z.int().min(1).max(65_535) }),
  ),
});
export type LocalPortsAnswer = z.infer<typeof LocalPortsAnswer>;

/** `GET /v1/instances`: every instance with local ports, those that are not open included. */
export const LocalPortsList = z.strictObject({
  instances: z.array(
    LocalPortsAnswer.extend({
      formation: z.string(),
      service: z.string(),
      release: z.int(),
      namespace: z.string().nullable(),
      /** `failed`: some port could not be opened again after a restart; tried on until it can or is closed. */
      state: z.enum(["opening", "open", "failed"]),
      /** Why it failed, in plain words; empty unless failed. */
      reason: z.string(),
    }),
  ),
});
export type LocalPortsList = z.infer<typeof LocalPortsList>;
