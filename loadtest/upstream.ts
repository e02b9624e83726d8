import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { freePort, start, waitForPort } from "./processes.ts";
import type { Running } from "./processes.ts";

/** Bytes of every answer. */
export const BODY_BYTES = 66;

export interface Upstream {
  readonly program: Running;
  readonly ports: readonly number[];
}

/** Three endpoints that answer at once: one nginx worker on three ports, the cheapest upstream at hand. */
export async function startUpstream(core: string, folder: string): Promise<Upstream> {
  mkdirSync(folder, { recursive: true });
  const ports = [await freePort(), await freePort(), await freePort()];
  const file = path.join(folder, "nginx.conf");
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr warn;
events { worker_connections 8192; }
http {
  access_log off; default_type text/plain; keepalive_requests 1000000000; keepalive_timeout 3600s;
${tempPaths(folder)}
  server {
${ports.map((port) => `    listen 127.0.0.1:${port} backlog=4096;`).join("\n")}
    location / { return 200 "${"x".repeat(BODY_BYTES)}"; }
  }
}
`,
  );
  const program = start(core, ["nginx", "-e", "stderr", "-p", folder, "-c", file]);
  await waitForPort(ports[0]!, program, "the upstream");
  return { program, ports };
}

/** nginx wants places for temporary files even when it needs none. */
export function tempPaths(folder: string): string {
  return ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((kind) => `  ${kind}_temp_path ${folder}/${kind};`)
    .join("\n");
}
