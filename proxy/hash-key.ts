import type { ClusterPolicy } from "../model/mesh.ts";
import { cookieValue, fieldValue } from "./headers.ts";
import type { RequestHead } from "./http1/request-head.ts";
import { parametersOf } from "./routing.ts";

/** What decides the endpoint of a request by consistent hash; undefined: it says nothing, any endpoint will do. */
export function hashKeyOf(
  hash: NonNullable<ClusterPolicy["hash"]>,
  request: RequestHead,
  peerAddress: string,
): string | undefined {
  switch (hash.by) {
    case "address":
      return peerAddress;
    case "header":
      return fieldValue(request.fields, hash.name);
    case "cookie":
      return cookieValue(request.cookie, hash.name);
    case "query":
      return parametersOf(request.target).find(([name]) => name === hash.name)?.[1];
  }
}
