import { expect, test } from "vitest";
import { planBuild } from "./language.ts";

const folder = (files: Record<string, string>, executables: string[] = []) => ({
  names: new Set([...Object.keys(files), ...executables]),
  executables,
  read: (name: string) => files[name],
});
const withDependencies = JSON.stringify({ dependencies: { pg: "8" }, scripts: { start: "node web.js" } });

test.for([
  {
    name: "Node with npm's lock file",
    files: { "package.json": withDependencies, "package-lock.json": "{}" },
    steps: ["npm ci"],
    starts: "node web.js",
    explains: "installed with npm ci, because there is a package-lock.json",
  },
  {
    name: "Node with pnpm",
    files: { "package.json": withDependencies, "pnpm-lock.yaml": "" },
    steps: ["pnpm install"],
    starts: "node web.js",
    explains: "pnpm-lock.yaml",
  },
  {
    name: "Node with yarn",
    files: { "package.json": withDependencies, "yarn.lock": "" },
    steps: ["yarn install"],
    starts: "node web.js",
    explains: "yarn.lock",
  },
  {
    name: "Node without a lock file",
    files: { "package.json": withDependencies },
    steps: ["npm install"],
    starts: "node web.js",
    explains: "commit a lock file",
  },
  {
    name: "Node without dependencies",
    files: { "package.json": '{"main":"app/my server.js"}' },
    steps: [],
    starts: "node 'app/my server.js'",
    explains: "nothing is installed",
  },
  {
    name: "Node whose start has a script before it",
    files: { "package.json": '{"scripts":{"start":"node .","prestart":"echo"}}' },
    steps: [],
    starts: "npm start",
    explains: "package.json",
  },
  {
    name: "a broken package.json", // npm would say so; without dependencies nobody needs it.
    files: { "package.json": "{", "server.js": "" },
    steps: [],
    starts: "node server.js",
    explains: "package.json",
  },
  {
    name: "Python with requirements",
    files: { "requirements.txt": "# web\nflask==3\n", "server.py": "" },
    steps: ["python3 -m venv", "pip install"],
    starts: "python3 server.py",
    explains: "requirements.txt",
  },
  {
    name: "Python with nothing required",
    files: { "requirements.txt": "# nothing\n", "only.py": "" },
    steps: [],
    starts: "python3 only.py",
    explains: "nothing is installed",
  },
  {
    name: "a Python project",
    files: { "pyproject.toml": "" },
    steps: ["python3 -m venv", "pip install"],
    starts: undefined,
    explains: "pyproject.toml",
  },
  {
    name: "Python beside a package.json", // The first row of the table wins.
    files: { "package.json": "{}", "server.py": "" },
    steps: [],
    starts: undefined,
    explains: "Node.js",
  },
  {
    name: "Go",
    files: { "go.mod": "" },
    steps: [],
    starts: undefined,
    explains: '"build: go build -o app ."',
  },
  { name: "nothing known", files: { "data.txt": "" }, steps: [], starts: undefined, explains: "as they are" },
])("$name", ({ files, steps, starts, explains }) => {
  const plan = planBuild(folder(files), undefined);
  expect(plan.steps.map(({ name }) => name)).toEqual(steps);
  expect(plan.defaultCommand).toBe(starts);
  expect(plan.explanation).toContain(explains);
});

test("an executable file starts itself", () => {
  const plan = planBuild(folder({ readme: "" }, ["my server"]), undefined);
  expect(plan.defaultCommand).toBe("./'my server'");
  expect(plan.explanation).toContain("my server");
});

test.for([
  { procfile: "release: migrate\nweb: gunicorn app:app\n", starts: "gunicorn app:app" },
  { procfile: "worker: python3 work.py\n", starts: "python3 work.py" }, // The only line there is.
  { procfile: "a: x\nb: y\n", starts: "python3 server.py" }, // Two, and neither is web: the language decides.
])("the Procfile says how to start ($starts)", ({ procfile, starts }) => {
  expect(planBuild(folder({ Procfile: procfile, "server.py": "" }), undefined).defaultCommand).toBe(starts);
});

test("the manifest's build command takes the place of the install step", () => {
  const plan = planBuild(folder({ "package.json": withDependencies, "package-lock.json": "{}" }), "make all");
  expect(plan.steps).toEqual([{ name: "build", command: "make all" }]);
  expect(plan.defaultCommand).toBe("node web.js");
  expect(plan.explanation).toBe("Node.js, built as the manifest says: make all");
});
