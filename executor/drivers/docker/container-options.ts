import type { ContainerCreateOptions } from "dockerode";
import type { ContainerNeeds, Resources } from "../../driver.ts";

/**
 * How an instance becomes a container: everything the engine is told, and all of the hardening. Pure.
 * What is missing here is denied: capabilities, devices, the host's folders, ports, networks and namespaces.
 */

/** Most processes and threads of one instance: a fork bomb stays its own problem. */
const PIDS_MAX = 4096;
/** What each of its writable folders in memory may hold, in bytes; it counts as memory of the instance. */
const SCRATCH_BYTES = 256 * 1024 * 1024;
/** The engine keeps this much of the output until it is taken over: the executor may be away that long. */
const ENGINE_LOG = { "max-size": "16m", "max-file": "3" } as const;

export const HOME = "/home/gilliam";
export const TEMPORARY = "/tmp";
export const VOLUME = "/volume";

export const LABELS = {
  /** Which state folder it belongs to. */
  owner: "gilliam.owner",
  instance: "gilliam.instance",
  /** app, network, spare or exec. */
  part: "gilliam.part",
} as const;

export interface ContainerFacts {
  readonly owner: string;
  readonly instanceId: string;
  readonly part: "app" | "exec";
  readonly image: string;
  readonly uid: number;
  /** Undefined: what the image starts by itself. */
  readonly command: readonly string[] | undefined;
  /** Undefined: the image's own. */
  readonly folder: string | undefined;
  readonly environment: Readonly<Record<string, string>>;
  readonly resources: Resources;
  /** The container that owns the network namespace. */
  readonly networkContainer: string;
  /** Files of this instance that take the place of /etc/hosts and /etc/resolv.conf. */
  readonly hostsFile: string;
  readonly resolverFile: string;
  readonly volumeFolder: string | undefined;
  /** The user the image asks for; empty or root: none. */
  readonly imageUser: string;
  readonly needs: ContainerNeeds;
  /** Its own HEALTHCHECK runs; otherwise it is switched off, because the manifest names a better one. */
  readonly imageHealthCheck: boolean;
  readonly terminal: boolean;
  readonly stdin: boolean;
}

export function containerOptions(facts: ContainerFacts): ContainerCreateOptions {
  const { resources, needs, uid } = facts;
  const user = userOf(facts);
  const scratch = (extra: string) => `rw,nosuid,nodev,exec,size=${SCRATCH_BYTES},${extra}`;
  const owned = scratch(`mode=0700,uid=${uid},gid=${uid}`);
  return {
    Image: facts.image,
    User: user,
    Env: environmentList(facts.environment),
    // The command takes the place of whatever the image would start, its entry point included.
    ...(facts.command === undefined ? {} : { Entrypoint: [], Cmd: [...facts.command] }),
    ...(facts.folder === undefined ? {} : { WorkingDir: facts.folder }),
    Labels: {
      [LABELS.owner]: facts.owner,
      [LABELS.instance]: facts.instanceId,
      [LABELS.part]: facts.part,
    },
    ...(facts.imageHealthCheck ? {} : { Healthcheck: { Test: ["NONE"] } }),
    Tty: facts.terminal,
    OpenStdin: facts.stdin,
    StdinOnce: facts.stdin,
    AttachStdin: facts.stdin,
    AttachStdout: facts.part === "exec",
    AttachStderr: facts.part === "exec",
    HostConfig: {
      NetworkMode: `container:${facts.networkContainer}`,
      Init: true,
      Privileged: false,
      ReadonlyRootfs: needs.writableRoot !== true,
      CapDrop: ["ALL"],
      CapAdd: [...(needs.capabilities ?? [])],
      SecurityOpt: needs.newPrivileges === true ? [] : ["no-new-privileges"],
      PidMode: "",
      IpcMode: "private",
      Tmpfs: {
        [TEMPORARY]: scratch("mode=1777"),
        [HOME]: user === "" || user === "root" ? scratch("mode=1777") : owned,
        ...Object.fromEntries((needs.scratch ?? []).map((path) => [path, scratch("mode=1777")])),
      },
      Binds: [
        `${facts.hostsFile}:/etc/hosts:ro`,
        `${facts.resolverFile}:/etc/resolv.conf:ro`,
        ...(facts.volumeFolder === undefined
          ? []
          : [`${facts.volumeFolder}:${needs.volumePath ?? VOLUME}:rw`]),
        ...(needs.mounts ?? []),
      ],
      PidsLimit: PIDS_MAX,
      ...(resources.cpu === undefined ? {} : { NanoCpus: Math.round(resources.cpu * 1e9) }),
      ...(resources.memoryBytes === undefined
        ? {}
        : { Memory: resources.memoryBytes, MemorySwap: resources.memoryBytes }),
      Ulimits: [{ Name: "core", Soft: 0, Hard: 0 }],
      LogConfig: { Type: "json-file", Config: ENGINE_LOG },
      RestartPolicy: { Name: "no" },
      AutoRemove: false,
    },
  };
}

/** The tiny container that owns an instance's network namespace and does nothing, for as long as the instance lives. */
export function networkContainerOptions(owner: string, image: string): ContainerCreateOptions {
  return {
    Image: image,
    Labels: { [LABELS.owner]: owner, [LABELS.part]: "network" },
    HostConfig: {
      NetworkMode: "none",
      ReadonlyRootfs: true,
      CapDrop: ["ALL"],
      SecurityOpt: ["no-new-privileges"],
      IpcMode: "private",
      PidsLimit: 1,
      LogConfig: { Type: "none", Config: {} },
      RestartPolicy: { Name: "no" },
    },
  };
}

/** Never root unless the manifest says so; the image's own user where it names one, since its files belong to it. */
function userOf({ needs, imageUser, uid, volumeFolder }: ContainerFacts): string {
  if (needs.user === "image") return imageUser;
  const name = imageUser.split(":")[0] ?? "";
  const isRoot = name === "" || name === "root" || /^0+$/.test(name);
  // A volume belongs to its own user, which may not change with the image.
  return isRoot || volumeFolder !== undefined ? `${uid}:${uid}` : imageUser;
}

/** `HOSTNAME` without a value takes the engine's own addition away. */
function environmentList(environment: Readonly<Record<string, string>>): string[] {
  const list = Object.entries(environment).map(([key, value]) => `${key}=${value}`);
  return "HOSTNAME" in environment ? list : ["HOSTNAME", ...list];
}

/** Names that mean this instance's own local ports; whatever else is asked for is not answered. */
export function hostsFileText(names: readonly string[]): string {
  return [
    "127.0.0.1 localhost",
    "::1 localhost ip6-localhost ip6-loopback",
    ...names.map((name) => `127.0.0.1 ${name}`),
    "",
  ].join("\n");
}

export const RESOLVER_FILE_TEXT =
  "# Gilliam: there is no name server here; declared dependencies are in /etc/hosts.\noptions timeout:1 attempts:1\n";
