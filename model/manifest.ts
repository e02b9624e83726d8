import { z } from "zod";
import { callKeys } from "./call-limits.ts";
import { EdgeMapping, EdgeText, callActions, duration } from "./manifest-route.ts";
import { Protocol, ProxyProtocol } from "./mesh.ts";
import { NAME_PATTERN, NAME_RULE } from "./names.ts";

/**
 * What a person writes in gilliam.yaml: the one source of its types, its checks and its JSON Schema
 * (manifest.schema.generated.json, for editors). Every message says what is allowed.
 * Values are kept as written; resolve.ts turns them into a release.
 */

export const LIMITS = { services: 500, dependencies: 200, variables: 1_000, hosts: 200 } as const;

const name = z.string({ error: `must be a name: ${NAME_RULE}` }).regex(NAME_PATTERN, `must be ${NAME_RULE}`);

const PORT_RULE = "must be a port: a whole number from 1 to 65535";
const port = z.int({ error: PORT_RULE }).min(1, PORT_RULE).max(65_535, PORT_RULE);

const filled = (what: string) => {
  const rule = `must be ${what}, at most 4096 characters`;
  return z.string({ error: rule }).regex(/\S/, rule).max(4096, rule);
};

const protocol = z.enum(Protocol.options, {
  error: `must be one of ${Protocol.options.join(", ")}`,
});

const proxyProtocol = z.enum(ProxyProtocol.options, {
  error: `must be one of ${ProxyProtocol.options.join(", ")}`,
});

/** `KEY: value`; numbers and booleans become the text that was written. */
const environment = z
  .record(
    z
      .string()
      .regex(
        /^[A-Za-z_][A-Za-z0-9_]{0,127}$/,
        "must be letters, digits and underscores, not starting with a digit",
      ),
    z.union([z.string(), z.number(), z.boolean()], {
      error: 'must be a text, a number or a boolean; write "" for an empty text',
    }),
    { error: "must be a mapping of variables, like `LOG_LEVEL: info`" },
  )
  .refine(
    (variables) => Object.keys(variables).length <= LIMITS.variables,
    `has more than ${LIMITS.variables} variables`,
  );

const BALANCING_RULE =
  "must be least-request, round-robin, ewma, or { hash: address } or { hash: { header: NAME } } (or cookie, query)";
const hashName = z
  .string({ error: BALANCING_RULE })
  .regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$/, "must be a name of a header, a cookie or a query parameter");
const HashKey = z
  .strictObject(
    { header: hashName.optional(), cookie: hashName.optional(), query: hashName.optional() },
    { error: BALANCING_RULE },
  )
  .refine((key) => Object.values(key).filter((name) => name !== undefined).length === 1, BALANCING_RULE);
export const BalancingMapping = z.strictObject(
  { hash: z.union([z.literal("address", { error: BALANCING_RULE }), HashKey], { error: BALANCING_RULE }) },
  { error: BALANCING_RULE },
);
/** How requests are spread over instances: of a process for all who call it, of a dependency for this caller. */
const balancingKeys = {
  balancing: z
    .union([z.enum(["least-request", "round-robin", "ewma"], { error: BALANCING_RULE }), BalancingMapping], {
      error: BALANCING_RULE,
    })
    .optional()
    .describe("How requests are spread over instances. Default: least-request."),
  slowStart: duration(1)
    .optional()
    .describe("A new instance's share of requests grows over this time. Default: at once."),
};
export type BalancingKeys = Pick<z.infer<typeof DependencyMapping>, "balancing" | "slowStart">;

const RETRIES_RULE = "must be a whole number from 0 to 10";
export const DependencyMapping = z.strictObject(
  {
    port: port.describe("The local port: 127.0.0.1:PORT inside every instance."),
    protocol: protocol
      .optional()
      .describe("How the service speaks. Default: what the service itself declares."),
    timeout: duration(24)
      .optional()
      .describe("Longest time for a whole request, retries included; 0s is no limit."),
    retries: z
      .int({ error: RETRIES_RULE })
      .min(0, RETRIES_RULE)
      .max(10, RETRIES_RULE)
      .optional()
      .describe("Attempts beyond the first where a retry is safe; 0 switches retries off."),
    ...callKeys,
    optional: z
      .boolean({ error: "must be true or false" })
      .optional()
      .describe("The service starts and is deployed without it."),
    address: z
      .string({ error: 'must be a host and port outside, like "api.example.com:443"' })
      .regex(
        /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\]):\d{1,5}$/,
        'must be a host and port outside, like "api.example.com:443"',
      )
      .optional()
      .describe("An external host and port: declared egress."),
    proxyProtocol: proxyProtocol
      .optional()
      .describe("With `address`: connections begin with a header of the PROXY protocol, v1 or v2."),
    ...balancingKeys,
    ...callActions,
  },
  { error: "must be a local port, like 7001, or a mapping with `port`" },
);
export type DependencyMapping = z.infer<typeof DependencyMapping>;

const dependencyKey = z
  .string()
  .regex(
    /^[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?(?:\.[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?)?$/,
    "must be a service, like `api`, or a service of another formation, like `ledger.bank`",
  );

const HEALTH_RULE = 'must be an HTTP path like "/healthz", or `tcp`';
const INSTANCES_RULE = "must be a whole number from 0 to 1000";
const instances = z.int({ error: INSTANCES_RULE }).min(0, INSTANCES_RULE).max(1000, INSTANCES_RULE);

const CPU_RULE = "must be a number of cores above 0, like 0.5, at most 1024";
const MEMORY_RULE = "must be a size like 256MiB or 1GiB";
export const ResourcesSpec = z.strictObject(
  {
    cpu: z.number({ error: CPU_RULE }).positive(CPU_RULE).max(1024, CPU_RULE).optional().describe("Cores."),
    memory: z
      .string({ error: MEMORY_RULE })
      .regex(/^[1-9]\d{0,8}(?:\.\d{1,3})?(?:B|kB|KiB|MB|MiB|GB|GiB)$/, MEMORY_RULE)
      .optional()
      .describe("Beyond it the instance is killed and restarted."),
  },
  { error: "must be a mapping like { cpu: 0.5, memory: 256MiB }" },
);

const SIGNALS = ["SIGTERM", "SIGINT", "SIGQUIT"] as const;
export const StopSpec = z.strictObject(
  {
    signal: z.enum(SIGNALS, { error: `must be one of ${SIGNALS.join(", ")}` }).optional(),
    grace: duration(1).optional().describe("Between the signal and SIGKILL. Default: 10s."),
  },
  { error: "must be a mapping like { signal: SIGTERM, grace: 10s }" },
);

export const ProcessSpec = z.strictObject(
  {
    source: filled("a folder, relative to this file, like ./web").optional().describe("A folder to build."),
    image: filled("an image, like name:tag").optional().describe("A container image, instead of `source`."),
    command: filled("a command line")
      .optional()
      .describe("Default: found from the Procfile, then from the language."),
    build: filled("a command line")
      .optional()
      .describe("Replaces the language's own install step (npm ci, pip)."),
    port: port.optional().describe("Where it listens; also in $PORT."),
    protocol: protocol.optional().describe("How it speaks. Default: http."),
    proxyProtocol: proxyProtocol
      .optional()
      .describe("It expects a header of the PROXY protocol, v1 or v2, on every connection to its port."),
    instances: instances.optional().describe("Running copies. Default: 1."),
    health: z
      .string({ error: HEALTH_RULE })
      .regex(/^(?:\/[\x21-\x7e]{0,500}|tcp)$/, HEALTH_RULE)
      .optional()
      .describe("HTTP path that answers 2xx or 3xx when ready; or `tcp`. Default: tcp."),
    resources: ResourcesSpec.optional(),
    environment: environment.optional(),
    edge: z
      .array(z.union([EdgeText, EdgeMapping], { error: "must be a host name, or a mapping with `host`" }), {
        error: "must be a list of public host names, like [shop.localhost]",
      })
      .max(LIMITS.hosts, `has more than ${LIMITS.hosts} entries`)
      .optional()
      .describe("Public host names, host/path allowed; or mappings that say more."),
    dependencies: z
      .record(
        dependencyKey,
        z.union([port, DependencyMapping], {
          error: "must be a local port, like 7001, or a mapping with `port`",
        }),
        {
          error: "must be a mapping of service to local port, like `api: 7001`",
        },
      )
      .refine(
        (all) => Object.keys(all).length <= LIMITS.dependencies,
        `has more than ${LIMITS.dependencies} dependencies`,
      )
      .optional()
      .describe("What it may call. Nothing else can be reached."),
    ...balancingKeys,
    stop: StopSpec.optional(),
  },
  { error: "must be a mapping with `source`, `port` and so on" },
);
export type ProcessSpec = z.infer<typeof ProcessSpec>;

const ONE_RULE = "must be 0 or 1: two copies cannot share one volume";
export const AuxiliarySpec = z.strictObject(
  {
    gear: name.describe("How to run it, like postgres."),
    version: z
      .union([z.string(), z.number()], { error: "must be a version of the gear, like 18" })
      .optional()
      .describe("Default: the gear's own."),
    volume: name.optional().describe("A named folder that outlives instances and releases."),
    environment: environment.optional(),
    resources: ResourcesSpec.optional(),
    instances: z.int({ error: ONE_RULE }).min(0, ONE_RULE).max(1, ONE_RULE).optional(),
  },
  { error: "must be a mapping like { gear: postgres, volume: shop-db }" },
);
export type AuxiliarySpec = z.infer<typeof AuxiliarySpec>;

export const Manifest = z
  .strictObject(
    {
      formation: name.describe("The system's name: a namespace for its services."),
      processes: z
        .record(name, ProcessSpec, { error: "must be a mapping of services" })
        .default({})
        .describe("Services built from your own code."),
      auxiliary: z
        .record(name, AuxiliarySpec, { error: "must be a mapping of services" })
        .default({})
        .describe("Services made from gears: postgres and so on."),
      exports: z
        .array(name, { error: "must be a list of services, like [api]" })
        .default([])
        .describe("Services that other formations may depend on."),
    },
    { error: "must be a mapping with `formation` and `processes`" },
  )
  .meta({ title: "Gilliam manifest (gilliam.yaml)" });
export type Manifest = z.infer<typeof Manifest>;
