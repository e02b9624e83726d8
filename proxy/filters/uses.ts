import type { FilterUse } from "../../model/filter.ts";
import type { MeshConfig } from "../../model/mesh.ts";

/** Every use of a filter in a configuration. */
export function usesIn(config: MeshConfig): FilterUse[] {
  return [...config.routes, ...config.edges].flatMap(({ actions }) => actions?.filters ?? []);
}
