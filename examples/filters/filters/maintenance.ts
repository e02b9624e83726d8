import { defineFilter } from "gilliam/filter";

interface Options {
  closed: boolean;
  /** When it opens again: ISO 8601. */
  until?: string;
  /** A request with this value in `x-preview` passes. */
  preview?: string;
}

/** A page instead of the service, with `retry-after`. */
export default defineFilter<Options>({
  name: "maintenance",
  onRequest(request, context) {
    const { options } = context;
    if (!options.closed) return;
    if (options.preview !== undefined && request.headers.get("x-preview") === options.preview) return;
    const waitMs = options.until === undefined ? 300_000 : Date.parse(options.until) - context.now();
    return {
      status: 503,
      headers: {
        "content-type": "text/html; charset=utf-8",
        "retry-after": String(Math.max(1, Math.ceil(waitMs / 1000))),
        "cache-control": "no-store",
      },
      body: "<!doctype html><title>Closed</title><h1>We are back soon</h1>\n",
    };
  },
});
