import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createServer } from "node:net";
import { errnoOf, UserError } from "../base/errors.ts";
import { PORTS, type PortName } from "./options.ts";

export type Ports = Record<PortName, number>;

/**
 * Decides every port before anything is changed: what was asked for, else what this state folder had, else the
 * standard one; 0 becomes a free one. @throws UserError "port_taken" naming every port that cannot be used, and by whom.
 */
export async function choosePorts(
  asked: Partial<Ports>,
  before: Partial<Ports> | undefined,
  edgeHost: string,
): Promise<Ports> {
  const problems: string[] = [];
  const chosen: Partial<Ports> = {};
  for (const [name, { flag, standard, about }] of Object.entries(PORTS) as [
    PortName,
    (typeof PORTS)[PortName],
  ][]) {
    const wanted = asked[name] ?? before?.[name] ?? standard;
    const host = name === "edge" ? edgeHost : "127.0.0.1";
    const taken = new Set(Object.values(chosen));
    const result = wanted === 0 ? await freePort(taken) : await tryListen(wanted, host);
    if (typeof result === "number" && !taken.has(result)) chosen[name] = result;
    else problems.push(`${problemWith(wanted, result)}; it is for ${about}: choose another with --${flag}`);
  }
  if (problems.length > 0) {
    throw new UserError(`Cannot use ${problems.length === 1 ? "a port" : `${problems.length} ports`}`, {
      code: "port_taken",
      problems,
      next: "Stop the program that holds the port, or choose others; 0 takes a free one. Nothing was changed",
    });
  }
  return chosen as Ports;
}

/** As `choosePorts`, for the edge's port of TLS. `others` are chosen already. */
export async function chooseTlsPort(
  wanted: number,
  edgeHost: string,
  others: ReadonlySet<number>,
): Promise<number> {
  const result = wanted === 0 ? await freePort(others) : await tryListen(wanted, edgeHost);
  if (typeof result === "number" && !others.has(result)) return result;
  throw new UserError(`Cannot use a port: ${problemWith(wanted, result)}`, {
    code: "port_taken",
    next: "Stop the program that holds the port, or choose another with --edge-tls-port. Nothing was changed",
  });
}

function problemWith(port: number, result: number | string): string {
  if (result === "EACCES") return `port ${port} needs root (ports below 1024 do)`;
  if (result === "EADDRINUSE") return `port ${port} is taken by ${holderOf(port) ?? "another program"}`;
  return typeof result === "string"
    ? `port ${port} cannot be used (${result})`
    : `port ${port} is wanted twice`;
}

/** The port when it can be listened on, else the error code. */
function tryListen(port: number, host: string): Promise<number | string> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (error) => resolve(errnoOf(error) ?? error.message));
    server.listen({ port, host, exclusive: true }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : port));
    });
  });
}

async function freePort(taken: ReadonlySet<number>): Promise<number | string> {
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const port = await tryListen(0, "127.0.0.1");
    if (typeof port === "string" || !taken.has(port)) return port;
  }
  return "no free port";
}

/** `nginx (process 812)`; undefined when /proc does not tell, as for other people's processes. */
export function holderOf(port: number): string | undefined {
  const inodes = ["tcp", "tcp6"].flatMap((table) => listeningInodes(table, port));
  if (inodes.length === 0) return undefined;
  const links = new Set(inodes.map((inode) => `socket:[${inode}]`));
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const holds = readdirSync(`/proc/${pid}/fd`).some((fd) => {
        try {
          return links.has(readlinkSync(`/proc/${pid}/fd/${fd}`));
        } catch {
          return false; // Closed meanwhile.
        }
      });
      if (holds) return `${readFileSync(`/proc/${pid}/comm`, "utf8").trim()} (process ${pid})`;
    } catch {
      // Ended meanwhile, or not ours to look at.
    }
  }
  return undefined;
}

/** Inodes of the sockets that listen on `port`, from /proc/net/tcp: local address, state 0A, inode. */
function listeningInodes(table: string, port: number): string[] {
  const hexadecimal = port.toString(16).toUpperCase().padStart(4, "0");
  let text: string;
  try {
    text = readFileSync(`/proc/net/${table}`, "utf8");
  } catch {
    return [];
  }
  return text
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(`:${hexadecimal}`) && fields[3] === "0A")
    .map((fields) => fields[9] ?? "");
}
