import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { ownCommand } from "./generators.ts";
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
  writeFileSync(path.join(folder, "mebibyte"), Buffer.alloc(1_048_576, "m"));
  writeFileSync(path.join(folder, "chunked"), Buffer.alloc(100_000, "c"));
  const ports = [await freePort(), await freePort(), await freePort()];
  const file = path.join(folder, "nginx.conf");
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr warn; ${userLine()}
events { worker_connections 8192; }
http {
  access_log off; default_type text/plain; keepalive_requests 1000000000; keepalive_timeout 3600s;
${tempPaths(folder)}
  server {
${ports.map((port) => `    listen 127.0.0.1:${port} backlog=4096;`).join("\n")}
    location = /mebibyte { root ${folder}; sendfile on; }
    # Passed on to the server below, so that the whole body is read before the answer begins.
    location = /chunked {
      proxy_pass http://unix:${folder}/page.sock:/chunked; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_method GET; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header Transfer-Encoding "";
      client_body_buffer_size 256k; proxy_buffers 32 16k;
    }
    location / { return 200 "${"x".repeat(BODY_BYTES)}"; }
  }
  # A page with includes has no length beforehand, so it is sent chunked.
  server { listen unix:${folder}/page.sock; root ${folder}; ssi on; ssi_types *; }
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

/** HTTP/1.1 that is upgraded to WebSocket and echoes. */
export async function startEchoUpstream(core: string): Promise<Upstream> {
  const ports = [await freePort(), await freePort(), await freePort()];
  const program = start(core, ownCommand("echo-upstream.ts", ports));
  for (const port of ports) await waitForPort(port, program, "the upstream");
  return { ports, stop: () => program.stop() };
}

/** As root its worker would be nobody, who may not look into a folder of ours. */
function userLine(): string {
  return process.getuid?.() === 0 ? "user root;" : "";
}

/** nginx wants places for temporary files even when it needs none. */
export function tempPaths(folder: string): string {
  return ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((kind) => `  ${kind}_temp_path ${folder}/${kind};`)
    .join("\n");
}
