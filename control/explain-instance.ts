import { formatDuration } from "../base/units.ts";
import type { InstanceStatus } from "../model/instance.ts";
import type { RunSpec } from "../model/run-spec.ts";
import { buildOf } from "./builds.ts";
import { hostVoice } from "./facts.ts";
import type { InstanceRecord, World } from "./world.ts";

export interface Trouble {
  /** True: waiting alone will not mend it. */
  readonly failing: boolean;
  /** Sentences: what is, and what to do. */
  readonly text: string;
}

/** Why an instance that should run is not ready. */
export function explainTrouble(world: World, record: InstanceRecord): Trouble {
  const { id, hostId, status } = record;
  const host = world.hosts.find((host) => host.id === hostId);
  const voice = hostVoice(world, host);
  if (voice !== "fresh") return silentHost(world, record, host?.lastSeenMs);
  const build = buildTrouble(world, record);
  if (build !== undefined) return build;
  if (status === undefined) return { failing: false, text: `${id} waits for host ${hostId} to take it up.` };
  switch (status.phase) {
    case "pending":
      return { failing: false, text: `${id} is pending: ${sentence(status.reason)}` };
    case "starting":
      return status.restarts > 0 || status.lastExit !== undefined
        ? crashing(world, id, status)
        : starting(world, record, status);
    case "failed":
      return crashing(world, id, status);
    case "ready":
      return { failing: false, text: `${id} is ready.` };
    case "draining":
    case "stopped":
      return { failing: false, text: `${id} is ${status.phase}: ${sentence(status.reason)}` };
  }
}

function silentHost(
  world: World,
  { id, hostId, spec }: InstanceRecord,
  lastSeenMs: number | undefined,
): Trouble {
  const silent =
    lastSeenMs === undefined
      ? "is not known"
      : `has been silent for ${formatDuration(world.nowMs - lastSeenMs)}`;
  const next =
    spec.volume === undefined
      ? `its instances are replaced on other hosts after ${formatDuration(world.settings.replaceMs)}`
      : `its volume ${spec.volume} is there, so it is not moved`;
  return { failing: true, text: `Host ${hostId} of ${id} ${silent}; ${next}. Look at its executor.` };
}

function buildTrouble(world: World, { spec, hostId }: InstanceRecord): Trouble | undefined {
  const build = buildOf(world, spec, hostId);
  switch (build?.state) {
    case undefined:
      return spec.image.kind === "source"
        ? { failing: false, text: `Waits for host ${hostId} to build its image.` }
        : undefined;
    case "ready":
      return undefined;
    case "queued":
      return { failing: false, text: `Its image is queued to be built on host ${hostId}.` };
    case "building":
      return {
        failing: false,
        text: `Its image is being built on host ${hostId}: ${sentence(build.explanation)}`,
      };
    case "failed":
      return {
        failing: true,
        text: `Its image could not be built: ${sentence(build.reason)}${quoted(build.lastLines)} Mend it and deploy again.`,
      };
  }
}

function starting(world: World, { id, spec, createdAtMs }: InstanceRecord, status: InstanceStatus): Trouble {
  const sinceMs = world.nowMs - (status.startedAtMs ?? createdAtMs);
  const late = world.nowMs - createdAtMs > world.settings.readyMsMax;
  const reason = status.reason === "" ? "" : `: ${sentence(status.reason)}`;
  const text = `${id} runs for ${formatDuration(sinceMs)} and does not answer ${checkWords(spec)} yet${reason || "."}`;
  const next = late
    ? ` Check that it listens where \`port\` and \`health\` say; \`gilliam logs ${spec.service}\` shows its output.`
    : "";
  return { failing: late, text: `${text}${next}` };
}

function checkWords({ health, port }: RunSpec): string {
  switch (health.kind) {
    case "http":
      return `GET ${health.path} on port ${port ?? "?"}`;
    case "tcp":
      return `on port ${port ?? "?"}`;
    case "command":
      return `\`${health.command}\``;
    case "none":
      return "(it has no check)";
  }
}

function crashing(world: World, id: string, status: InstanceStatus): Trouble {
  const { lastExit, nextStartAtMs, restarts } = status;
  const exit =
    lastExit === undefined
      ? `failed: ${sentence(status.reason)}`
      : lastExit.outOfMemory
        ? "was killed for using more memory than `resources.memory` allows."
        : lastExit.signal === null
          ? `exited with code ${lastExit.code ?? "?"}${codeWords(lastExit.code)}.`
          : `was ended by ${lastExit.signal}.`;
  const detail = lastExit !== undefined && status.reason !== "" ? ` ${capital(sentence(status.reason))}` : "";
  const again =
    nextStartAtMs === undefined || nextStartAtMs <= world.nowMs
      ? ""
      : ` Next start in ${formatDuration(nextStartAtMs - world.nowMs)}, restart ${restarts + 1}.`;
  return { failing: true, text: `${id} ${exit}${detail}${again}${quoted(status.lastLines)}` };
}

/** What a shell means by them. */
function codeWords(code: number | null): string {
  if (code === 127) return " (command not found: check `command`)";
  if (code === 126) return " (command is not executable: check `command`)";
  return "";
}

function quoted(lines: readonly string[]): string {
  const last = lines.filter((line) => line.trim() !== "").slice(-3);
  return last.length === 0
    ? ""
    : ` Last lines: ${last.map((line) => `"${line.trim().slice(0, 200)}"`).join(", ")}.`;
}

function sentence(text: string): string {
  const trimmed = text.trim();
  return trimmed === "" || /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
