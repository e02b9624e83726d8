import type Https from "node:https";

/**
 * Node's HTTP module for processes that should stay small. `import "node:http"` reads every export of the module,
 * and with that loads fetch and WebSocket (undici): 10 MB and 70 ms of CPU, measured on Node 24.21.
 */
export const http = process.getBuiltinModule("node:http");

/** Loaded when first needed: it brings TLS. */
export function loadHttps(): typeof Https {
  return process.getBuiltinModule("node:https");
}
