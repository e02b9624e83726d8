import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../base/errors.ts";

/** Programs of this machine that the platform calls, the Debian package that has each, and what is lost without it. */
const PROGRAMS = [
  { program: "flock", debian: "util-linux", need: "always" },
  { program: "setpriv", debian: "util-linux", need: "root" },
  { program: "nsenter", debian: "util-linux", need: "root" },
  { program: "ip", debian: "iproute2", need: "root" },
  { program: "iptables", debian: "iptables", need: "root" },
  { program: "python3", debian: "python3", need: "shop" },
  { program: "nginx", debian: "nginx-light", need: "tests" },
  { program: "haproxy", debian: "haproxy", need: "tests" },
  { program: "openssl", debian: "openssl", need: "tests" },
  { program: "curl", debian: "curl", need: "tests" },
  { program: "dockerd", debian: "docker.io", need: "root tests" },
  { program: "debootstrap", debian: "debootstrap", need: "root tests" },
] as const;

/** Keeps packages that bring a server from starting it: the tests start their own (Debian policy manual, 9.3.3.1). */
const POLICY_FILE = "/usr/sbin/policy-rc.d";

export interface Need {
  readonly isRoot: boolean;
  /** The formation to deploy has Python in it. */
  readonly shop: boolean;
  /** Also what the tests compare with. */
  readonly tests?: boolean;
  readonly path: string;
}

/** Programs that are needed and not there. Pure but for looking. */
export function missingPrograms({
  isRoot,
  shop,
  tests = false,
  path,
}: Need): { program: string; debian: string }[] {
  return PROGRAMS.filter(
    ({ program, need }) =>
      (need === "always" ||
        (need === "root" && isRoot) ||
        (need === "shop" && shop) ||
        (need === "tests" && tests) ||
        (need === "root tests" && tests && isRoot)) &&
      !isOnPath(program, path),
  );
}

/**
 * Installs what is missing where it can: as root with apt-get. Does nothing, and needs no network, when all is there.
 * @throws UserError "missing_programs" naming each program and the package that has it.
 */
export function installPrograms(need: Need, say: (line: string) => void): void {
  const missing = missingPrograms(need);
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(({ debian }) => debian))];
  const mayInstall = need.isRoot && isOnPath("apt-get", need.path);
  if (mayInstall) {
    say(`Installing ${packages.join(", ")} with apt-get …`);
    installPackages(packages, need.path);
  }
  const still = missingPrograms(need);
  if (still.length === 0) return;
  throw new UserError(`This machine lacks ${still.map(({ program }) => program).join(", ")}`, {
    code: "missing_programs",
    problems: still.map(({ program, debian }) => `${program} is in Debian's package ${debian}`),
    next: mayInstall
      ? "apt-get could not install them: see what it says when you run it yourself"
      : `Install them (Debian: sudo apt-get install ${packages.join(" ")}), or bring up without the shop: --formation none`,
  });
}

function installPackages(packages: readonly string[], path: string): void {
  const env = { PATH: path, DEBIAN_FRONTEND: "noninteractive" };
  const ours = !existsSync(POLICY_FILE);
  if (ours) writeFileSync(POLICY_FILE, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    const install = () =>
      spawnSync("apt-get", ["install", "-y", "--no-install-recommends", ...packages], {
        env,
        encoding: "utf8",
      });
    if (install().status === 0) return;
    spawnSync("apt-get", ["update"], { env, encoding: "utf8" });
    install();
  } finally {
    if (ours) rmSync(POLICY_FILE, { force: true });
  }
}

export function isOnPath(program: string, path: string): boolean {
  return path.split(":").some((folder) => {
    const file = join(folder, program);
    try {
      accessSync(file, constants.X_OK);
      return existsSync(file);
    } catch {
      return false;
    }
  });
}
