import { z } from "zod";
import { parseDurationMs } from "../base/units.ts";
import { Protocol } from "./mesh.ts";
import { Name, Port } from "./names.ts";
import type { RunSpec } from "./run-spec.ts";
import { schemaProblems } from "./schema-problems.ts";
import { readYaml } from "./yaml-text.ts";

/**
 * A gear: how to run an auxiliary service, written in model/gears/NAME/gear.yaml.
 * `environment` and `url` are templates with `{name}` (the service), `{port}`, `{host}` (url only) and `{secret:KEY}`
 * for a key of `secrets`, which control makes up once for each service.
 */
const TEMPLATE_RULE = "may hold {name}, {host}, {port} and {secret:KEY}, with KEY from `secrets`";
const template = z.string({ error: `must be a text and ${TEMPLATE_RULE}` });

const GRACE_RULE = 'must be a duration like "30s", at most 1h';
const HEALTH_RULE = 'must be `tcp`, an HTTP path like "/healthz", or a mapping { command: … }';

export const Gear = z.strictObject({
  name: Name,
  /** Of the software inside, like "18.3". */
  version: z.coerce
    .string<string | number>()
    .regex(/^[0-9A-Za-z][0-9A-Za-z.+-]{0,60}$/, "must be a version like 18.3"),
  about: z.string().default(""),
  protocol: Protocol.default("tcp"),
  port: Port,
  health: z
    .union(
      [
        z.string().regex(/^(?:\/[\x21-\x7e]{0,500}|tcp)$/, HEALTH_RULE),
        z.strictObject({ command: z.string().min(1, HEALTH_RULE) }),
      ],
      { error: HEALTH_RULE },
    )
    .default("tcp"),
  volume: z
    .enum(["required", "optional", "none"], { error: "must be required, optional or none" })
    .default("none"),
  /** A shell command line, run in the gear's folder. */
  command: z.string().min(1),
  stopSignal: z.enum(["SIGTERM", "SIGINT", "SIGQUIT"]).default("SIGTERM"),
  stopGrace: z
    .string({ error: GRACE_RULE })
    .refine((text) => (parseDurationMs(text) ?? Infinity) <= 3_600_000, GRACE_RULE)
    .default("30s"),
  secrets: z
    .array(z.string().regex(/^[a-z][a-z0-9-]{0,39}$/, "must be lower-case letters, digits and dashes"))
    .default([]),
  environment: z
    .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, "must be a variable name"), template)
    .default({}),
  /** What dependents get as `X_URL`. */
  url: template,
});
export type Gear = z.infer<typeof Gear>;

export type ParsedGear =
  | { readonly ok: true; readonly gear: Gear }
  | { readonly ok: false; readonly problems: string[] };

/** Reads a gear.yaml; all problems at once, each with file, line and column. Never throws. */
export function parseGear(text: string, file: string): ParsedGear {
  const yaml = readYaml(text, file);
  if (!yaml.ok) return yaml;
  const { positions, value } = yaml;
  const parsed = Gear.safeParse(value);
  if (!parsed.success) {
    const keysAt = (path: readonly PropertyKey[]) =>
      path.length === 0 ? Object.keys(Gear.shape) : ["command"];
    return { ok: false, problems: schemaProblems(parsed.error.issues, positions, keysAt) };
  }
  const gear = { ...parsed.data, version: positions.sourceOf(["version"]) ?? parsed.data.version };
  const templates: [PropertyKey[], string][] = [
    [["url"], gear.url],
    ...Object.entries(gear.environment).map(([key, value]): [PropertyKey[], string] => [
      ["environment", key],
      value,
    ]),
  ];
  const problems = templates.flatMap(([path, template]) =>
    [...template.matchAll(/\{([^{}]*)\}/g)]
      .map(([, hole = ""]) => hole)
      .filter((hole) => !isHole(hole, gear, path[0] === "url"))
      .map((hole) => positions.problem(path, `{${hole}} is not known here; the text ${TEMPLATE_RULE}`)),
  );
  return problems.length > 0 ? { ok: false, problems } : { ok: true, gear };
}

function isHole(hole: string, { secrets }: Gear, isUrl: boolean): boolean {
  if (hole === "name" || hole === "port" || (hole === "host" && isUrl)) return true;
  return hole.startsWith("secret:") && secrets.includes(hole.slice("secret:".length));
}

/** The gears of several gear.yaml texts, by name. Problems of all of them together. */
export function parseGears(
  files: readonly { file: string; text: string }[],
): { ok: true; gears: Map<string, Gear> } | { ok: false; problems: string[] } {
  const gears = new Map<string, Gear>();
  const problems: string[] = [];
  for (const { file, text } of files) {
    const parsed = parseGear(text, file);
    if (!parsed.ok) problems.push(...parsed.problems);
    else if (gears.has(parsed.gear.name))
      problems.push(`${file}:1:1 name: there are two gears \`${parsed.gear.name}\``);
    else gears.set(parsed.gear.name, parsed.gear);
  }
  return problems.length > 0 ? { ok: false, problems } : { ok: true, gears };
}

/** Fills the holes that `values` knows (`{port}`, `{name}`, …); the others stay. */
export function fillTemplate(template: string, values: Readonly<Record<string, string>>): string {
  return template.replaceAll(/\{([^{}]*)\}/g, (whole, hole: string) =>
    Object.hasOwn(values, hole) ? (values[hole] ?? whole) : whole,
  );
}

/**
 * The spec with every `{secret:KEY}` filled in: in its own `secrets` from the service's own, in a dependency's URL
 * from the secrets of the service it leads to (percent-encoded there). `secretsOf` gets `service.formation`.
 * `missing` lists what was not known, like `db.shop password`; the text then keeps its hole.
 */
export function fillSecrets(
  spec: RunSpec,
  secretsOf: (address: string) => Readonly<Record<string, string>> | undefined,
): { spec: RunSpec; missing: string[] } {
  const missing = new Set<string>();
  const fill = (text: string, address: string, encode: (value: string) => string) =>
    text.replaceAll(/\{secret:([a-z0-9-]+)\}/g, (whole, key: string) => {
      const value = secretsOf(address)?.[key];
      if (value === undefined) missing.add(`${address} ${key}`);
      return value === undefined ? whole : encode(value);
    });
  const own = `${spec.service}.${spec.formation}`;
  const secrets = Object.entries(spec.secrets).map(([key, value]) => [key, fill(value, own, (text) => text)]);
  const dependencies = spec.dependencies.map((dependency) => {
    const target = dependency.name.includes(".") ? dependency.name : `${dependency.name}.${spec.formation}`;
    return { ...dependency, url: fill(dependency.url, target, encodeURIComponent) };
  });
  return {
    spec: { ...spec, secrets: Object.fromEntries(secrets) as Record<string, string>, dependencies },
    missing: [...missing],
  };
}
