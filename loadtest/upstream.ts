import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { freePort, start, waitForPort } from "./processes.ts";
import type { Running } from "./processes.ts";

/** Bytes of every answer. */
export const BODY_BYTES = 66;

/** Three endpoints that answer at once. */
export interface Upstream {
  readonly ports: readonly number[];
  stop(): Promise<void>;
}

/** HTTP/1.1: one nginx worker on three ports, the cheapest upstream at hand. */
export async function startHttp1Upstream(core: string, folder: string): Promise<Upstream> {
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
  return { ports, stop: () => program.stop() };
}

/** HTTP/2 without TLS, in the manner of gRPC: nghttpd echoes the message and says the status in trailers. */
export async function startGrpcUpstream(core: string): Promise<Upstream> {
  const programs: Running[] = [];
  const ports: number[] = [];
  for (let index = 0; index < 3; index++) {
    const port = await freePort();
    const answer = ["--echo-upload", "--trailer=grpc-status: 0"];
    const program = start(core, ["nghttpd", "--no-tls", ...answer, "-a", "127.0.0.1", String(port)]);
    programs.push(program);
    ports.push(port);
    await waitForPort(port, program, "the upstream");
  }
  return {
    ports,
    stop: async () => {
      for (const program of programs) await program.stop();
    },
  };
}

/** nginx wants places for temporary files even when it needs none. */
export function tempPaths(folder: string): string {
  return ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((kind) => `  ${kind}_temp_path ${folder}/${kind};`)
    .join("\n");
}
