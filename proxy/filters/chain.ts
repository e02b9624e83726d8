import type { FilterUse } from "../../model/filter.ts";
import { FilteredExchange, type Filterable } from "./filtered.ts";
import type { FilterHost, LoadedFilter } from "./host.ts";
import type { FilterStats } from "./stats.ts";

/** One filter on one route. */
export interface ChainLink {
  readonly use: FilterUse;
  readonly stats: FilterStats;
  /** Undefined: it could not be loaded; `problem` says why. */
  readonly filter: LoadedFilter | undefined;
  readonly problem: string;
  /** What a failure means: the request goes on without it, or is refused. */
  readonly open: boolean;
  /** As the use or the filter says. */
  readonly timeoutMs: number | undefined;
}

/** The filters of a route in their order: requests go through from the first to the last, responses back. */
export class FilterChain {
  readonly links: readonly ChainLink[];
  readonly host: FilterHost;
  /** Some filter sees requests; responses; whole bodies of either. */
  readonly seesResponses: boolean;
  readonly requestBodyBytesMax: number;
  readonly responseBodyBytesMax: number;

  constructor(links: readonly ChainLink[], host: FilterHost) {
    this.links = links;
    this.host = host;
    const shapes = links.flatMap(({ filter }) => filter?.shape ?? []);
    this.seesResponses = shapes.some(({ onResponse }) => onResponse);
    this.requestBodyBytesMax = bytesMaxOf(
      shapes.filter(({ requestBody }) => requestBody).map(({ bodyBytesMax }) => bodyBytesMax),
    );
    this.responseBodyBytesMax = bytesMaxOf(
      shapes.filter(({ responseBody }) => responseBody).map(({ bodyBytesMax }) => bodyBytesMax),
    );
  }

  begin(exchange: Filterable): FilteredExchange {
    return new FilteredExchange(this, exchange);
  }
}

/** The smallest bound; 0: nobody wants the body. */
function bytesMaxOf(bounds: readonly number[]): number {
  return bounds.length === 0 ? 0 : Math.min(...bounds);
}
