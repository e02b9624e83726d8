import { createHash } from "node:crypto";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { createMetrics } from "../../base/metrics.ts";
import { seededRandom } from "../../base/random.ts";
import { MeshConfig } from "../../model/mesh.ts";
import type { FilterUse } from "../../model/filter.ts";
import { type AccessEvent, type Engine, createEngine } from "../../proxy/engine.ts";
import { FilterHost } from "../../proxy/filters/host.ts";
import { usesIn } from "../../proxy/filters/uses.ts";
import { RawClient, cluster } from "./kit.ts";

/** A filter's module as the CLI would bundle it. */
export function bundle(body: string, before = ""): string {
  return `${before}\nmodule.exports = { default: { ${body} } };`;
}

export interface FilterSpec extends Partial<Omit<FilterUse, "digest">> {
  readonly source: string;
}

export interface FilterRig extends AsyncDisposable {
  readonly engine: Engine;
  readonly filters: FilterHost;
  readonly port: number;
  readonly events: AccessEvent[];
  /** `onShop` hangs on shop.test, nothing on plain.test. */
  apply(onShop: readonly FilterSpec[]): Promise<void>;
  client(): Promise<RawClient>;
  ask(text: string, part?: string): Promise<string>;
  metrics(): Promise<string>;
}

/** An edge with two hosts to one upstream: `shop.test` with these filters, `plain.test` without; and `web-b` beside. */
export async function filterRig(
  upstreams: readonly number[],
  onShop: readonly FilterSpec[],
  options: { isolateAll?: boolean; protocol?: string; other?: readonly number[] } = {},
): Promise<FilterRig> {
  const events: AccessEvent[] = [];
  const sources = new Map<string, string>();
  const engine = createEngine({
    clock: systemClock,
    random: seededRandom(1),
    log: silentLog,
    name: "edge",
    onAccess: (event) => events.push(event),
  });
  const filters = new FilterHost({
    clock: systemClock,
    random: seededRandom(2),
    log: silentLog,
    load: (digest) => {
      const source = sources.get(digest);
      return source === undefined ? Promise.reject(new Error("no such blob")) : Promise.resolve(source);
    },
    isolateAll: options.isolateAll ?? false,
  });
  engine.useFilters(filters);
  const metrics = createMetrics("edge", { defaults: false });
  filters.registerMetrics(metrics);
  let epoch = 0;
  const apply = async (specs: readonly FilterSpec[]) => {
    epoch += 1;
    const uses = specs.map(({ source, ...use }) => {
      const digest = `sha256:${createHash("sha256").update(source).digest("hex")}`;
      sources.set(digest, source);
      return { file: "./filters/test.ts", owner: "web.shop", ...use, digest };
    });
    const config = MeshConfig.parse({
      epoch,
      clusters: [
        { ...cluster("web.shop", upstreams), protocol: options.protocol ?? "http" },
        cluster("web-b.shop", options.other ?? []),
      ],
      edges: [],
      routes: [
        { id: "shop.test/", host: "shop.test", path: "/", cluster: "web.shop", actions: { filters: uses } },
        { id: "plain.test/", host: "plain.test", path: "/", cluster: "web.shop" },
      ],
    });
    const problems = await filters.prepare(usesIn(config));
    if (problems.length > 0) throw new Error(problems.join("; "));
    const outcome = engine.apply(config);
    if (!outcome.ok) throw new Error(outcome.reason);
    filters.retain(usesIn(config));
  };
  await apply(onShop);
  const listener = await engine.listen({ kind: "edge", id: "public" }, { host: "127.0.0.1", port: 0 });
  const { port } = listener.address;
  return {
    engine,
    filters,
    port,
    events,
    apply,
    client: () => RawClient.connect(port),
    ask: async (text, part) => {
      await using client = await RawClient.connect(port);
      client.write(text);
      await (part === undefined ? client.untilEnd() : client.untilText(part));
      return client.text;
    },
    metrics: () => metrics.metrics(),
    [Symbol.asyncDispose]: async () => {
      await engine.close();
      await filters.close();
    },
  };
}

export function get(target: string, fields = "", host = "shop.test"): string {
  return `GET ${target} HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n${fields}\r\n`;
}
