import type { Outline, ServiceOutline } from "./manifest-outline.ts";
import { parseServiceAddress } from "./names.ts";
import type { Positions } from "./yaml-text.ts";

/** Checks over the graph of a formation's own services. */
type Report = Positions["problem"];

/** A dependency may speak plain tcp to anything; otherwise both ends must agree. */
export function checkProtocols({ services, formation }: Outline, problem: Report): string[] {
  const said = new Map<string, string>();
  for (const { name, protocol, kind } of services) {
    if (protocol !== undefined && kind === "process") said.set(name, protocol);
  }
  const problems = services.flatMap((service) =>
    service.dependencies.flatMap(({ name, path, protocol, external }) => {
      const target = parseServiceAddress(name, formation ?? "");
      const local = target.formation === (formation ?? "") && !external;
      const isProcess = services.some(
        ({ kind, name: other }) => kind === "process" && other === target.service,
      );
      if (protocol === undefined || protocol === "tcp" || !local || !isProcess) return [];
      const other = said.get(target.service);
      said.set(target.service, other ?? protocol);
      if (other === undefined || other === protocol) return [];
      const what = `\`${target.service}\` speaks ${other}; use that, or say \`protocol: ${protocol}\` at \`${target.service}\``;
      return [problem([...path, "protocol"], what)];
    }),
  );
  return [...problems, ...services.flatMap((service) => checkProxyProtocol(service, said, problem))];
}

/** A connection with a PROXY header is one client's; one of HTTP/2 is shared by all of them. */
function checkProxyProtocol(
  { name, path, fields, port, dependencies }: ServiceOutline,
  said: ReadonlyMap<string, string>,
  problem: Report,
): string[] {
  const shared = (protocol: string | undefined) => protocol === "http2" || protocol === "grpc";
  const why = (protocol: string | undefined) =>
    `goes with http and tcp only: a connection of ${protocol} is shared by many clients, and its header can name only one`;
  const problems: string[] = [];
  if (fields.has("proxyProtocol")) {
    const at = [...path, "proxyProtocol"];
    if (port === undefined)
      problems.push(problem(at, "needs `port`: where the header is expected", { target: "key" }));
    else if (shared(said.get(name))) problems.push(problem(at, why(said.get(name)), { target: "key" }));
  }
  for (const dependency of dependencies) {
    if (!dependency.proxyProtocol) continue;
    const at = [...dependency.path, "proxyProtocol"];
    if (!dependency.external) {
      const what =
        "goes with `address` only; a service says itself what it expects, with `proxyProtocol` of its own";
      problems.push(problem(at, what, { target: "key" }));
    } else if (shared(dependency.protocol)) {
      problems.push(problem(at, why(dependency.protocol), { target: "key" }));
    }
  }
  return problems;
}

/** One problem a cycle, at the dependency that closes it. A cycle with an optional dependency in it is no cycle. */
export function checkCycles({ services, formation }: Outline, problem: Report): string[] {
  const byName = new Map(services.map((service) => [service.name, service]));
  const done = new Set<string>();
  const problems: string[] = [];
  // An explicit stack: a chain of hundreds of services must not exhaust the call stack.
  for (const start of services) {
    if (done.has(start.name)) continue;
    const trail: { service: ServiceOutline; next: number }[] = [{ service: start, next: 0 }];
    const onTrail = new Set([start.name]);
    for (let top = trail.at(-1); top !== undefined; top = trail.at(-1)) {
      const dependency = top.service.dependencies[top.next];
      top.next += 1;
      if (dependency === undefined) {
        trail.pop();
        onTrail.delete(top.service.name);
        done.add(top.service.name);
        continue;
      }
      const address = parseServiceAddress(dependency.name, formation ?? "");
      const target = address.formation === (formation ?? "") ? byName.get(address.service) : undefined;
      if (target === undefined || target === top.service || dependency.optional || dependency.external)
        continue;
      if (onTrail.has(target.name)) {
        const names = trail.map(({ service }) => service.name);
        const cycle = [...names.slice(names.indexOf(target.name)), target.name].join(" → ");
        const what = `closes a cycle: ${cycle}; remove one of these dependencies, or mark one \`optional: true\``;
        problems.push(problem(dependency.path, what, { target: "key" }));
      } else if (!done.has(target.name)) {
        trail.push({ service: target, next: 0 });
        onTrail.add(target.name);
      }
    }
  }
  return problems;
}
