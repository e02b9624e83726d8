import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { errnoOf, messageOf, UserError } from "../base/errors.ts";
import { readSettings, type Settings } from "../base/settings.ts";
import { cliSettings } from "./settings.ts";
import type { Shell } from "./shell.ts";

/** What bootstrap writes to `platform.json`: addresses, no secrets. Unknown keys are for others. */
const PlatformFile = z.object({ controlUrl: z.string(), edgeUrl: z.string().optional() });
export type PlatformFile = z.infer<typeof PlatformFile>;

export interface Connection {
  readonly url: string;
  readonly token: string | undefined;
  readonly startHint: string;
}

export function settingsIn(env: Shell["env"]): Settings<typeof cliSettings> {
  return readSettings("command line", cliSettings, env);
}

/** `--state`, else $GILLIAM_STATE, else /var/lib/gilliam for root and the user's own state folder for others. */
export function stateFolder({ env, uid }: Shell, option: string | undefined): string {
  const chosen = option ?? settingsIn(env).state;
  if (chosen !== "") return chosen;
  if (uid === 0) return "/var/lib/gilliam";
  const home = env["XDG_STATE_HOME"] || join(env["HOME"] || homedir(), ".local/state");
  return join(home, "gilliam");
}

/** `./bootstrap/up`, as it must be typed from `cwd`. */
export function startHint({ cwd }: Pick<Shell, "cwd">, stateOption?: string): string {
  const up = fileURLToPath(new URL("../bootstrap/up", import.meta.url));
  const near = relative(cwd, up);
  const command = near.startsWith("..") ? up : `./${near}`;
  return stateOption === undefined ? command : `${command} --state ${stateOption}`;
}

/**
 * Where control is and how to be let in: $GILLIAM_URL and $GILLIAM_TOKEN, else the state folder of this machine.
 * @throws UserError "no_platform" when neither is there, "no_token" when the token cannot be read.
 */
export function findPlatform(shell: Shell, stateOption: string | undefined): Connection {
  const hint = startHint(shell, stateOption);
  const { url, token } = settingsIn(shell.env);
  if (url !== "" && stateOption === undefined) {
    if (URL.parse(url) === null || !/^https?:/.test(url)) {
      throw new UserError(`GILLIAM_URL must be like "http://127.0.0.1:7000"; it is "${url}"`, {
        code: "usage",
      });
    }
    return { url, token: token === "" ? undefined : token, startHint: hint };
  }
  const folder = stateFolder(shell, stateOption);
  const platform = readPlatform(folder);
  if (platform === undefined) {
    throw new UserError(
      `Gilliam does not run on this machine: there is no ${join(folder, "platform.json")}`,
      {
        code: "no_platform",
        next: `Start it: ${hint}. Or say where it runs: --state DIR, or GILLIAM_URL and GILLIAM_TOKEN.`,
      },
    );
  }
  return { url: platform.controlUrl, token: token || readToken(folder), startHint: hint };
}

/** The platform's addresses; undefined when none was started with this state folder. */
export function readPlatform(folder: string): PlatformFile | undefined {
  const path = join(folder, "platform.json");
  if (!existsSync(path)) return undefined;
  try {
    return PlatformFile.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch (error) {
    throw new UserError(`Cannot read ${path}: ${messageOf(error)}`, {
      code: "bad_state",
      next: "Is it a state folder of Gilliam? `./bootstrap/up` writes the file anew.",
      cause: error,
    });
  }
}

function readToken(folder: string): string | undefined {
  const path = join(folder, "token");
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw new UserError(`Cannot read the token ${path}: ${messageOf(error)}`, {
      code: "no_token",
      next: "Run this as the user who started Gilliam, or set GILLIAM_TOKEN.",
      cause: error,
    });
  }
}
