import type { Random } from "../../base/random.ts";
import type { RouteActions } from "../../model/route.ts";
import { hasField } from "../routing.ts";

export type FaultSpec = NonNullable<RouteActions["fault"]>;

/** Whether this request gets the fault: those with the field, if one is named, and of them a share. */
export function isHit(
  { percent, header }: FaultSpec,
  request: { readonly fields: string },
  random: Random,
): boolean {
  if (header !== undefined && !hasField(request.fields, header, true)) return false;
  return percent >= 100 || random() * 100 < percent;
}
