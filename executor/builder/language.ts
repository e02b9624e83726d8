/** Which language a source folder is written in, and what must be done to run it. Pure. */

export interface SourceFolder {
  /** Names in the top folder. */
  readonly names: ReadonlySet<string>;
  /** Those that are executable files. */
  readonly executables: readonly string[];
  /** Text of a file in the top folder; undefined when there is none. */
  readonly read: (name: string) => string | undefined;
}

export interface BuildStep {
  /** How a failure names it: `npm ci`. */
  readonly name: string;
  /** Shell command line, run in the folder. */
  readonly command: string;
}

export interface BuildPlan {
  /** What was found and why, one sentence. */
  readonly explanation: string;
  readonly steps: readonly BuildStep[];
  readonly defaultCommand: string | undefined;
}

/** `build` is the manifest's own build command: it takes the place of the language's install step. */
export function planBuild(folder: SourceFolder, build: string | undefined): BuildPlan {
  const found = findLanguage(folder);
  const procfile = procfileCommand(folder.read("Procfile"));
  const defaultCommand = procfile ?? found.defaultCommand;
  const explanation =
    procfile === undefined ? found.explanation : `${found.explanation}; the Procfile says how to start it`;
  if (build === undefined) return { explanation, steps: found.steps, defaultCommand };
  return {
    explanation: `${found.language}, built as the manifest says: ${build}`,
    steps: [{ name: "build", command: build }],
    defaultCommand,
  };
}

interface Language extends BuildPlan {
  readonly language: string;
}

function findLanguage(folder: SourceFolder): Language {
  return findNode(folder) ?? findPython(folder) ?? findCompiled(folder) ?? findPlain(folder);
}

const NODE_INSTALLERS = [
  { file: "package-lock.json", name: "npm ci", command: "npm ci --omit=dev --no-audit --no-fund" },
  { file: "npm-shrinkwrap.json", name: "npm ci", command: "npm ci --omit=dev --no-audit --no-fund" },
  { file: "pnpm-lock.yaml", name: "pnpm install", command: "pnpm install --prod --frozen-lockfile" },
  { file: "yarn.lock", name: "yarn install", command: "yarn install --production --frozen-lockfile" },
] as const;

function findNode({ names, read }: SourceFolder): Language | undefined {
  const text = read("package.json");
  if (text === undefined) return undefined;
  const manifest = parsePackage(text);
  const defaultCommand = nodeCommand(manifest, names);
  const language = "Node.js";
  const needed = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies }).length;
  if (needed === 0) {
    const explanation =
      "Node.js, because there is a package.json; it names no dependencies, so nothing is installed";
    return { language, explanation, steps: [], defaultCommand };
  }
  const installer = NODE_INSTALLERS.find(({ file }) => names.has(file));
  if (installer !== undefined) {
    const { file, name, command } = installer;
    const explanation = `Node.js, because there is a package.json; installed with ${name}, because there is a ${file}`;
    return { language, explanation, steps: [{ name, command }], defaultCommand };
  }
  return {
    language,
    explanation:
      "Node.js, because there is a package.json; installed with npm install: commit a lock file for builds that repeat",
    steps: [
      { name: "npm install", command: "npm install --omit=dev --no-audit --no-fund --no-package-lock" },
    ],
    defaultCommand,
  };
}

interface PackageManifest {
  readonly main?: unknown;
  readonly scripts?: Readonly<Record<string, unknown>>;
  readonly dependencies?: object;
  readonly optionalDependencies?: object;
}

function parsePackage(text: string): PackageManifest {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {}; // npm says what is wrong with it, better than we could.
  }
}

/** The start script itself, so that signals need not find their way through npm. */
function nodeCommand(
  { main, scripts = {} }: PackageManifest,
  names: ReadonlySet<string>,
): string | undefined {
  const { start } = scripts;
  if (typeof start === "string" && start !== "") {
    return "prestart" in scripts || "poststart" in scripts ? "npm start" : start;
  }
  if (typeof main === "string" && main !== "") return `node ${shellQuote(main)}`;
  const file = [
    "server.js",
    "index.js",
    "main.js",
    "app.js",
    "server.mjs",
    "index.mjs",
    "server.ts",
    "index.ts",
  ].find((name) => names.has(name));
  return file === undefined ? undefined : `node ${file}`;
}

function findPython({ names, read }: SourceFolder): Language | undefined {
  const requirements = read("requirements.txt");
  const scripts = [...names].filter((name) => name.endsWith(".py")).sort();
  if (requirements === undefined && !names.has("pyproject.toml") && scripts.length === 0) return undefined;
  const language = "Python";
  const file =
    ["server.py", "main.py", "app.py"].find((name) => names.has(name)) ??
    (scripts.length === 1 ? scripts[0] : undefined);
  const defaultCommand = file === undefined ? undefined : `python3 ${shellQuote(file)}`;
  const environment: BuildStep = { name: "python3 -m venv", command: "python3 -m venv .venv" };
  if (requirements !== undefined && /^\s*[^#\s]/m.test(requirements)) {
    return {
      language,
      explanation: "Python, because there is a requirements.txt; installed with pip into .venv",
      steps: [
        environment,
        { name: "pip install", command: ".venv/bin/python -m pip install --no-input -r requirements.txt" },
      ],
      defaultCommand,
    };
  }
  if (requirements === undefined && names.has("pyproject.toml")) {
    return {
      language,
      explanation: "Python, because there is a pyproject.toml; installed with pip into .venv",
      steps: [environment, { name: "pip install", command: ".venv/bin/python -m pip install --no-input ." }],
      defaultCommand,
    };
  }
  const why = requirements === undefined ? `there is a ${scripts[0]}` : "there is a requirements.txt";
  return {
    language,
    explanation: `Python, because ${why}; it names no dependencies, so nothing is installed`,
    steps: [],
    defaultCommand,
  };
}

const COMPILED = [
  { file: "go.mod", language: "Go", build: "go build -o app ." },
  { file: "Cargo.toml", language: "Rust", build: "cargo build --release" },
  { file: "pom.xml", language: "Java", build: "mvn -q package" },
  { file: "Gemfile", language: "Ruby", build: "bundle install --path vendor/bundle" },
  { file: "composer.json", language: "PHP", build: "composer install --no-dev" },
] as const;

function findCompiled({ names, executables }: SourceFolder): Language | undefined {
  const found = COMPILED.find(({ file }) => names.has(file));
  if (found === undefined) return undefined;
  const { file, language, build } = found;
  return {
    language,
    explanation: `${language}, because there is a ${file}; nothing is built: say how with "build: ${build}" in gilliam.yaml`,
    steps: [],
    defaultCommand: plainCommand(executables),
  };
}

function findPlain({ executables }: SourceFolder): Language {
  const defaultCommand = plainCommand(executables);
  const explanation =
    defaultCommand === undefined
      ? "no language was recognised, so the files are taken as they are"
      : `an executable file, ${executables.find((name) => defaultCommand.includes(name))}; taken as it is`;
  return { language: "as it is", explanation, steps: [], defaultCommand };
}

function plainCommand(executables: readonly string[]): string | undefined {
  const file =
    ["start", "start.sh", "run", "run.sh"].find((name) => executables.includes(name)) ??
    (executables.length === 1 ? executables[0] : undefined);
  return file === undefined ? undefined : `./${shellQuote(file)}`;
}

/** The command of `web:`, or of the only line there is. */
function procfileCommand(text: string | undefined): string | undefined {
  const lines = (text ?? "")
    .split("\n")
    .map((line) => /^([A-Za-z0-9_-]+):\s*(\S.*)$/.exec(line.trim()))
    .filter((match) => match !== null);
  const line = lines.find(([, name]) => name === "web") ?? (lines.length === 1 ? lines[0] : undefined);
  return line?.[2];
}

function shellQuote(text: string): string {
  return /^[A-Za-z0-9_./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
