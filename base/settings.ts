import { UserError } from "./errors.ts";
import { parseBytes, parseDurationMs } from "./units.ts";

/**
 * Settings are declared once, as a table: name, kind, default and one sentence. `readSettings` parses an
 * environment with it; `settingsReference` prints it, so the config reference cannot drift.
 */
export interface Setting<T> {
  readonly env: string;
  readonly about: string;
  readonly fallback: string | undefined;
  /** The parsed value, or undefined when `text` is not one. */
  readonly parse: (text: string) => T | undefined;
  readonly expects: string;
}

type SettingTable = Record<string, Setting<unknown>>;
export type Settings<T extends SettingTable> = {
  readonly [K in keyof T]: T[K] extends Setting<infer V> ? V : never;
};

export const setting = {
  /** Any text. A fallback of `undefined` makes the setting required. */
  text: (env: string, fallback: string | undefined, about: string): Setting<string> => ({
    env,
    fallback,
    about,
    expects: "a text",
    parse: (text) => text,
  }),
  /** Milliseconds, written like "30s". */
  duration: (env: string, fallback: string, about: string): Setting<number> => ({
    env,
    fallback,
    about,
    expects: 'a duration like "250ms", "30s" or "5m"',
    parse: parseDurationMs,
  }),
  /** Bytes, written like "64KiB". */
  bytes: (env: string, fallback: string, about: string): Setting<number> => ({
    env,
    fallback,
    about,
    expects: 'a size like "64KiB" or "10MiB"',
    parse: parseBytes,
  }),
  integer: (env: string, fallback: string, about: string, min = 0, max = 2 ** 31): Setting<number> => ({
    env,
    fallback,
    about,
    expects: `a whole number from ${min} to ${max}`,
    parse: (text) => {
      if (!/^\d{1,12}$/.test(text)) return undefined;
      const value = Number(text);
      return value >= min && value <= max ? value : undefined;
    },
  }),
  flag: (env: string, fallback: "true" | "false", about: string): Setting<boolean> => ({
    env,
    fallback,
    about,
    expects: '"true" or "false"',
    parse: (text) => (text === "true" ? true : text === "false" ? false : undefined),
  }),
  choice: <const C extends string>(
    env: string,
    choices: readonly C[],
    fallback: C,
    about: string,
  ): Setting<C> => ({
    env,
    fallback,
    about,
    expects: `one of ${choices.join(", ")}`,
    parse: (text) => choices.find((choice) => choice === text),
  }),
};

/** Parses every setting; throws one UserError that lists all the problems together. */
export function readSettings<const T extends SettingTable>(
  part: string,
  table: T,
  env: NodeJS.ProcessEnv,
): Settings<T> {
  const problems: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [key, { env: name, fallback, parse, expects }] of Object.entries(table)) {
    const text = env[name] ?? fallback;
    if (text === undefined) {
      problems.push(`${name} is not set; it must be ${expects}`);
      continue;
    }
    const value = parse(text);
    if (value === undefined) problems.push(`${name} must be ${expects}; it is "${text}"`);
    values[key] = value;
  }
  if (problems.length > 0) {
    throw new UserError(`Cannot start the ${part}: its settings are wrong`, {
      code: "bad_settings",
      problems,
    });
  }
  return values as Settings<T>;
}

/** One Markdown table row a setting: name, default, meaning. */
export function settingsReference(table: SettingTable): string {
  const rows = Object.values(table).map(
    ({ env, fallback, about, expects }) =>
      `| \`${env}\` | ${fallback === undefined ? "required" : `\`${fallback}\``} | ${about} (${expects}) |`,
  );
  return ["| setting | default | meaning |", "|---|---|---|", ...rows].join("\n");
}
