import { createHash } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { UserError } from "../../../base/errors.ts";
import { runTool } from "../process/command.ts";
import { LABELS } from "./container-options.ts";
import type { Engine } from "./engine.ts";

/**
 * The image that built images stand on: a minimal Debian with Python, the pinned Node.js and npm. Made here with
 * debootstrap, in about a minute and once a machine: the tar archive is kept, so the next engine only imports it.
 */
export interface BaseOptions {
  readonly engine: Engine;
  /** Where archives are kept. */
  readonly cacheFolder: string;
  /** The Node.js that images run with: this very program, of this very version. */
  readonly nodeProgram: string;
  /** Folder of the npm package that goes with it; undefined: none. */
  readonly npmFolder: string | undefined;
  readonly onProgress: (text: string) => void;
}

const PACKAGES = ["python3", "python3-venv", "procps", "ca-certificates"];
const DEFAULT_SUITE = "bookworm";
/** Raised when the script below changes. */
const RECIPE = 1;
const MAKE_MS_MAX = 15 * 60_000;

/**
 * Arguments: folder to work in, suite, mirror, packages, Node.js, npm's folder or empty, the archive. Documentation,
 * caches and package lists stay out; nothing of the host but Node.js and npm goes in.
 */
const MAKE = `
set -e
# In memory where that can be had: dpkg waits for the disk after every file, and all of it is thrown away.
mount -t tmpfs -o size=2g gilliam-base "$1" 2> /dev/null && trap 'umount "$1"' EXIT || :
root=$1/root
debootstrap --variant=minbase --include="$4" "$2" "$root" "$3"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/doc "$root"/usr/share/man \\
  "$root"/usr/share/locale "$root"/usr/share/info "$root"/usr/share/lintian "$root"/usr/share/common-licenses
install -m 755 "$5" "$root/usr/local/bin/node"
if [ -n "$6" ]; then
  mkdir -p "$root/usr/local/lib/node_modules"
  cp -rL "$6" "$root/usr/local/lib/node_modules/npm"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
  ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
fi
rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
tar -C "$root" --numeric-owner --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* -cf "$7.part" .
mv "$7.part" "$7"
`;

/** Returns the image's name; makes or imports it when the engine does not have it. */
export async function ensureBaseImage(options: BaseOptions): Promise<string> {
  const { engine, cacheFolder, onProgress } = options;
  const digest = baseDigest(options);
  const reference = `gilliam-base:${digest}`;
  if ((await engine.image(reference)) !== undefined) return reference;
  const archive = join(cacheFolder, `base-${digest}.tar`);
  await makeBaseArchive(options, archive);
  onProgress(`importing the base image ${reference}`);
  const changes = ['CMD ["/bin/sh"]', `LABEL ${LABELS.part}=base`];
  await engine.importImage(createReadStream(archive), reference, changes, AbortSignal.timeout(MAKE_MS_MAX));
  return reference;
}

/** Where the archive of this machine's base image is, or would be. */
export function baseArchive(options: Pick<BaseOptions, "cacheFolder" | "npmFolder">): string {
  return join(options.cacheFolder, `base-${baseDigest(options)}.tar`);
}

/** Makes the archive unless it is there; two at once make it twice, and the last one stays. */
export async function makeBaseArchive(
  { cacheFolder, nodeProgram, npmFolder, onProgress }: Omit<BaseOptions, "engine">,
  archive: string,
): Promise<void> {
  if (existsSync(archive)) return;
  mkdirSync(cacheFolder, { recursive: true, mode: 0o755 });
  const work = mkdtempSync(join(cacheFolder, "making-"));
  const finished = `${work}.tar`;
  try {
    onProgress("making the base image with debootstrap: about a minute, once");
    const args = [
      work,
      suiteOf(osRelease()),
      findMirror(aptSources()),
      PACKAGES.join(","),
      nodeProgram,
      npmFolder ?? "",
      finished,
    ];
    const { code, stdout, stderr } = await runTool(
      ["/bin/sh", "-c", MAKE, "make-base", ...args],
      "",
      MAKE_MS_MAX,
    );
    if (code !== 0) {
      throw new UserError(
        `The base image cannot be made: ${lastLines(stderr.trim() === "" ? stdout : stderr)}`,
        {
          code: "no_base_image",
          status: 500,
          next: "Install debootstrap, and see that Debian's package mirror can be reached.",
        },
      );
    }
    renameSync(finished, archive);
  } finally {
    rmSync(work, { recursive: true, force: true });
    rmSync(`${finished}.part`, { force: true });
  }
}

/** The npm that belongs to this machine's Node.js; undefined when there is none. */
export function findNpm(path: string): string | undefined {
  for (const folder of path.split(":")) {
    try {
      const npm = dirname(dirname(realpathSync(join(folder, "npm"))));
      if (existsSync(join(npm, "bin", "npm-cli.js"))) return npm;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

function baseDigest({ npmFolder }: Pick<BaseOptions, "npmFolder">): string {
  const versionOf = (folder: string) => {
    const file = join(folder, "package.json");
    return existsSync(file)
      ? (JSON.parse(readFileSync(file, "utf8")) as { version?: string }).version
      : undefined;
  };
  const recipe = {
    recipe: RECIPE,
    suite: suiteOf(osRelease()),
    packages: PACKAGES,
    architecture: process.arch,
    node: process.version,
    npm: npmFolder === undefined ? "" : versionOf(npmFolder),
  };
  return createHash("sha256").update(JSON.stringify(recipe)).digest("hex").slice(0, 12);
}

/** The release of Debian this machine is; another system gets a fixed one. */
export function suiteOf(osReleaseText: string): string {
  if (!/^ID="?debian"?$/m.test(osReleaseText)) return DEFAULT_SUITE;
  return /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(osReleaseText)?.[1] ?? DEFAULT_SUITE;
}

/** The mirror that this machine itself takes its packages from: the first that is a Debian archive. */
export function findMirror(sources: string): string {
  const found = sources.match(/\bhttps?:\/\/[^\s\]]+\/debian\/?(?=\s|$)/m);
  return found?.[0] ?? DEFAULT_MIRROR;
}

const DEFAULT_MIRROR = "http://deb.debian.org/debian";

function aptSources(): string {
  const folder = "/etc/apt/sources.list.d";
  const files = [
    "/etc/apt/sources.list",
    ...(existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : []),
  ];
  return files
    .filter((file) => /\.(?:list|sources)$/.test(file) && existsSync(file))
    .map((file) => readFileSync(file, "utf8"))
    .join("\n")
    .replaceAll(/^\s*#.*$/gm, "");
}

function osRelease(): string {
  return existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
}

const lastLines = (text: string) => text.trim().split("\n").slice(-3).join("; ");
