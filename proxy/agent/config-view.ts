import type { MeshConfig, ProxyReport } from "../../model/mesh.ts";

/** What `/config` shows: the configuration in force as a person wants to read it. Holds no secrets. */
export function configView(
  config: MeshConfig | undefined,
  { ejected, busy }: Pick<ProxyReport, "ejected" | "busy">,
) {
  return {
    epoch: config?.epoch ?? 0,
    clusters: (config?.clusters ?? []).map(({ name, protocol, endpoints, split, sticky, policy }) => ({
      name,
      protocol,
      endpoints: endpoints.map(({ id, host, port, release }) => ({
        id,
        address: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`,
        release,
        ejected: ejected[id] ?? null,
      })),
      split,
      sticky: sticky ?? null,
      policy,
    })),
    edges: config?.edges ?? [],
    routes: config?.routes ?? [],
    /** In flight to endpoints that are no longer in the configuration. */
    busy,
  };
}
