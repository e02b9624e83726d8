import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { UserError } from "../base/errors.ts";

/** Ports on 127.0.0.1, in the order they are told to people. 0 takes a free one. */
export const PORTS = {
  edge: { flag: "edge-port", standard: 8080, about: "the public side: your services' pages and APIs" },
  control: { flag: "control-port", standard: 7000, about: "control's API and metrics" },
  executor: { flag: "executor-port", standard: 7010, about: "the executor's API and metrics" },
  sidecar: { flag: "sidecar-port", standard: 7020, about: "the sidecar's metrics" },
  edgeAdmin: { flag: "edge-admin-port", standard: 7030, about: "the edge's metrics" },
} as const;
export type PortName = keyof typeof PORTS;

export interface UpOptions {
  readonly state: string;
  /** Folder of the formation to deploy; undefined: none. */
  readonly formation: string | undefined;
  /** Only those that were given; the others come from the state folder, then from `PORTS`. */
  readonly ports: Partial<Record<PortName, number>>;
  /** Asked for TLS at the edge; undefined: as before, which is without at first. */
  readonly tls: TlsWish | undefined;
  /** Of the edge; undefined: as before, which is one at first. */
  readonly edgeWorkers: number | "auto" | undefined;
  /** The edge listens on every address of the machine, not only on 127.0.0.1. */
  readonly isPublic: boolean;
  readonly network: "auto" | "namespace" | "shared";
  /** `auto`: docker where we are root and an engine answers. */
  readonly driver: "auto" | "process" | "docker";
  readonly dockerSocket: string;
  /** Where the registry is kept; undefined: as before, else on this machine. */
  readonly consul: ConsulFlags | undefined;
}

/** Files are copied into the state folder, where control may read them. */
export interface ConsulFlags {
  readonly url: string;
  readonly datacenter: string;
  readonly prefix: string;
  readonly files: Partial<Record<ConsulFile, string>>;
}

export const CONSUL_FILES = ["token", "ca", "cert", "key"] as const;
export type ConsulFile = (typeof CONSUL_FILES)[number];

export interface TlsWish {
  /** 0 takes a free one. */
  readonly port: number;
  /** Folder of certificates; undefined: one that vouches for itself is made. */
  readonly dir: string | undefined;
}

export interface DownOptions {
  readonly state: string;
  readonly purge: boolean;
}

export type Command =
  | { readonly kind: "up"; readonly options: UpOptions }
  | { readonly kind: "down"; readonly options: DownOptions }
  | { readonly kind: "help"; readonly text: string };

/** What the options depend on besides the arguments. */
export interface Caller {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly uid: number;
  readonly cwd: string;
  /** The repository. */
  readonly root: string;
}

const STATE_HELP = `  --state DIR        state folder (default: $GILLIAM_STATE, else /var/lib/gilliam as root,
                     else ~/.local/state/gilliam)`;

const UP_HELP = `Usage: bootstrap/up [flags]

Brings Gilliam up on this machine and deploys the example shop. Safe to run twice: what runs is left alone.

${STATE_HELP}
  --formation DIR    what to deploy when it is not there yet; "none" for nothing (default: examples/shop)
  --public           let the edge listen on 0.0.0.0, not only on 127.0.0.1
  --network KIND     auto, namespace or shared: whether each instance has a network of its own
                     (default: auto, which is namespace as root where the kernel allows it)
  --driver KIND      auto, process or docker: how services run (default: auto, which is docker
                     as root where a Docker Engine answers)
  --docker-socket P  socket of the Docker Engine (default: /var/run/docker.sock)
  --consul URL       keep state, registrations and leadership in this Consul (default: on this machine);
                     what the registry of this machine holds moves there, and nothing that runs is restarted
  --consul-token-file FILE, --consul-ca FILE, --consul-cert FILE, --consul-key FILE
                     for access control and TLS; copied to STATE/consul/, where a new token may be put later
  --consul-datacenter NAME, --consul-prefix NAME
                     (default: the agent's own datacenter; gilliam)
${Object.values(PORTS)
  .map(
    ({ flag, standard, about }) =>
      `  --${`${flag} N`.padEnd(16)} ${about} (default: ${standard}; 0: a free one)`,
  )
  .join("\n")}
  --edge-tls-port N  the public side over TLS as well (default: off; 0: a free one)
  --edge-workers N   workers of the edge that share its ports, or auto: one a core (default: 1)
  --tls-dir DIR      its certificates, NAME.crt with NAME.key each; without it a self-signed one for *.localhost is made

Examples:
  bootstrap/up
  bootstrap/up --edge-tls-port 8443
  bootstrap/up --formation none --edge-port 80 --public
  bootstrap/up --state /tmp/trial --edge-port 0 --control-port 0 --executor-port 0 --sidecar-port 0 --edge-admin-port 0`;

const DOWN_HELP = `Usage: bootstrap/down [flags]

Stops Gilliam and everything it runs on this machine. What was deployed and stored stays, unless it is purged.

${STATE_HELP}
  --purge            also delete the state folder: releases, volumes, tokens

Examples:
  bootstrap/down
  bootstrap/down --purge`;

/** Pure. @throws UserError "usage", with every problem at once. */
export function parseCommand(args: readonly string[], caller: Caller): Command {
  const [verb, ...rest] = args;
  if (rest.includes("--help") || rest.includes("-h")) {
    return { kind: "help", text: verb === "down" ? DOWN_HELP : UP_HELP };
  }
  return verb === "down"
    ? { kind: "down", options: parseDown(rest, caller) }
    : { kind: "up", options: parseUp(rest, caller) };
}

function parseUp(args: readonly string[], caller: Caller): UpOptions {
  const values = parseFlags("up", args, {
    state: { type: "string" },
    formation: { type: "string" },
    driver: { type: "string" },
    "docker-socket": { type: "string" },
    network: { type: "string" },
    public: { type: "boolean" },
    "edge-tls-port": { type: "string" },
    "tls-dir": { type: "string" },
    "edge-workers": { type: "string" },
    ...Object.fromEntries(CONSUL_FLAGS.map((flag) => [flag, { type: "string" as const }])),
    ...(Object.fromEntries(
      Object.values(PORTS).map(({ flag }) => [flag, { type: "string" as const }]),
    ) as Record<string, { type: "string" }>),
  });
  const problems: string[] = [];
  const ports: Partial<Record<PortName, number>> = {};
  for (const [name, { flag }] of Object.entries(PORTS) as [PortName, { flag: string }][]) {
    const text = values[flag];
    if (typeof text !== "string") continue;
    const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
    if (port <= 65_535) ports[name] = port;
    else problems.push(`--${flag} must be a port from 1 to 65535, or 0 for a free one; it is "${text}"`);
  }
  for (const [first, a] of Object.entries(ports)) {
    const twin = Object.entries(ports).find(([second, b]) => second > first && a === b && a !== 0);
    if (twin) problems.push(`port ${a} is given twice, for ${first} and ${twin[0]}`);
  }
  const driver = values["driver"] ?? "auto";
  if (driver !== "auto" && driver !== "process" && driver !== "docker") {
    problems.push(`--driver must be auto, process or docker; it is "${driver}"`);
  }
  const tls = parseTls(values, caller, problems);
  const edgeWorkers = parseWorkers(values["edge-workers"], problems);
  const network = values["network"] ?? "auto";
  if (network !== "auto" && network !== "namespace" && network !== "shared") {
    problems.push(`--network must be auto, namespace or shared; it is "${network}"`);
  }
  const consul = parseConsul(values, caller, problems);
  if (problems.length > 0) throw usage("up", problems);
  const formation = values["formation"];
  return {
    state: stateFolder(values["state"], caller),
    formation:
      formation === "none"
        ? undefined
        : typeof formation === "string"
          ? resolve(caller.cwd, formation)
          : join(caller.root, "examples/shop"),
    ports,
    tls,
    edgeWorkers,
    isPublic: values["public"] === true,
    network: network as UpOptions["network"],
    driver: driver as UpOptions["driver"],
    dockerSocket:
      typeof values["docker-socket"] === "string"
        ? resolve(caller.cwd, values["docker-socket"])
        : "/var/run/docker.sock",
    consul,
  };
}

const CONSUL_FLAGS = [
  "consul",
  "consul-token-file",
  "consul-ca",
  "consul-cert",
  "consul-key",
  "consul-datacenter",
  "consul-prefix",
] as const;

function parseConsul(
  values: Readonly<Record<string, string | boolean | undefined>>,
  { cwd }: Caller,
  problems: string[],
): ConsulFlags | undefined {
  const text = (flag: (typeof CONSUL_FLAGS)[number]) => {
    const value = values[flag];
    return typeof value === "string" ? value : "";
  };
  const url = text("consul");
  if (url === "") {
    const alone = CONSUL_FLAGS.filter((flag) => values[flag] !== undefined);
    if (alone.length > 0) problems.push(`--${alone[0]} needs --consul URL`);
    return undefined;
  }
  if (!/^https?:\/\/[^/\s]+\/?$/.test(url)) {
    problems.push(`--consul must be like http://127.0.0.1:8500; it is "${url}"`);
  }
  const prefix = text("consul-prefix") || "gilliam";
  if (!/^[a-z0-9._-]{1,100}$/.test(prefix)) {
    problems.push(`--consul-prefix must be a-z, 0-9, dot, dash or underscore; it is "${prefix}"`);
  }
  const given = {
    token: text("consul-token-file"),
    ca: text("consul-ca"),
    cert: text("consul-cert"),
    key: text("consul-key"),
  };
  const files = Object.fromEntries(
    Object.entries(given).flatMap(([name, path]) => (path === "" ? [] : [[name, resolve(cwd, path)]])),
  );
  return { url: url.replace(/\/$/, ""), datacenter: text("consul-datacenter"), prefix, files };
}

function parseTls(
  values: Record<string, string | boolean | undefined>,
  { cwd }: Caller,
  problems: string[],
): TlsWish | undefined {
  const { "edge-tls-port": text, "tls-dir": dir } = values;
  if (typeof text !== "string") {
    if (dir !== undefined) problems.push("--tls-dir needs --edge-tls-port, like 443 or 8443");
    return undefined;
  }
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(port <= 65_535)) {
    problems.push(`--edge-tls-port must be a port from 1 to 65535, or 0 for a free one; it is "${text}"`);
  }
  return { port, dir: typeof dir === "string" ? resolve(cwd, dir) : undefined };
}

function parseWorkers(text: string | boolean | undefined, problems: string[]): UpOptions["edgeWorkers"] {
  if (typeof text !== "string" || text === "auto") return text === "auto" ? text : undefined;
  const count = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (count < 1 || count > 256) problems.push(`--edge-workers must be auto or 1 to 256; it is "${text}"`);
  return count;
}

function parseDown(args: readonly string[], caller: Caller): DownOptions {
  const values = parseFlags("down", args, { state: { type: "string" }, purge: { type: "boolean" } });
  return { state: stateFolder(values["state"], caller), purge: values["purge"] === true };
}

function parseFlags(
  verb: string,
  args: readonly string[],
  flags: Record<string, { type: "string" | "boolean" }>,
): Record<string, string | boolean | undefined> {
  try {
    const { values } = parseArgs({ args: [...args], options: flags, allowPositionals: false, strict: true });
    return values;
  } catch (error) {
    throw usage(verb, [(error as Error).message]);
  }
}

function usage(verb: string, problems: readonly string[]): UserError {
  return new UserError(`Wrong use of bootstrap/${verb}`, {
    code: "usage",
    problems,
    next: `bootstrap/${verb} --help lists the flags`,
  });
}

function stateFolder(flag: string | boolean | undefined, { env, uid, cwd }: Caller): string {
  const chosen = typeof flag === "string" && flag !== "" ? flag : env["GILLIAM_STATE"];
  if (chosen) return resolve(cwd, chosen);
  if (uid === 0) return "/var/lib/gilliam";
  return join(env["XDG_STATE_HOME"] || join(env["HOME"] || "/tmp", ".local/state"), "gilliam");
}
