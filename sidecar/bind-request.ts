import { UserError } from "../base/errors.ts";
import type { LocalPortsAnswer, LocalPortsRequest } from "../model/local-ports.ts";
import type { Protocol } from "../model/mesh.ts";
import type { RawHandle } from "../proxy/agent/handles.ts";
import type { LocalPlan } from "../proxy/agent/messages.ts";
import type { BoundPort } from "./open-ports.ts";

export interface Binders {
  readonly openInNamespace: (path: string, ports: readonly number[]) => Promise<BoundPort[]>;
  readonly openOnLoopback: (wanted: number | undefined) => BoundPort[];
  /** The socket of a listener that an earlier keeper's worker still listens on; undefined when there is none. */
  readonly inherit?: (listenerId: string) => RawHandle | undefined;
}

export interface BoundDependency {
  readonly dependency: string;
  readonly protocol: Protocol;
  readonly socket: BoundPort;
}

/**
 * Binds every port an instance asks for. On a shared loopback it keeps the numbers of `before`: with `strict`
 * another number is a failure, since a running instance already knows the old one.
 * @throws UserError as the binders do, and `port_twice`. Nothing stays bound then.
 */
export async function bindRequest(
  request: LocalPortsRequest,
  before: LocalPortsAnswer | undefined,
  strict: boolean,
  { openInNamespace, openOnLoopback, inherit }: Binders,
): Promise<BoundDependency[]> {
  const { instanceId, namespace, ports } = request;
  if (ports.length === 0) return [];
  const inherited = before === undefined || inherit === undefined ? [] : inheritAll(request, before, inherit);
  if (inherited.length > 0) return inherited;
  if (namespace !== null) {
    const byPort = new Map(ports.map((port) => [port.port, port]));
    if (byPort.size < ports.length) {
      throw new UserError(`Two dependencies of ${instanceId} have the same local port`, {
        code: "port_twice",
        next: "Give every dependency a local port of its own in gilliam.yaml.",
      });
    }
    const sockets = await openInNamespace(namespace, [...byPort.keys()]);
    return sockets.flatMap((socket) => {
      const port = byPort.get(socket.port);
      return port === undefined ? [] : [{ dependency: port.dependency, protocol: port.protocol, socket }];
    });
  }
  const known = new Map(before?.ports.map(({ dependency, port }) => [dependency, port]));
  const bound: BoundDependency[] = [];
  try {
    for (const { dependency, protocol } of ports) {
      const sockets = openKeeping(known.get(dependency), strict, openOnLoopback);
      bound.push(...sockets.map((socket) => ({ dependency, protocol, socket })));
    }
  } catch (error) {
    for (const { socket } of bound) socket.handle.close();
    throw error;
  }
  return bound;
}

/** The instance's sockets from before, where every port has its own; else none, and what there was is closed. */
function inheritAll(
  request: LocalPortsRequest,
  before: LocalPortsAnswer,
  inherit: (listenerId: string) => RawHandle | undefined,
): BoundDependency[] {
  const numbers = new Map(before.ports.map(({ dependency, port }) => [dependency, port]));
  const bound: BoundDependency[] = [];
  let whole = true;
  for (const { dependency, protocol } of request.ports) {
    const port = numbers.get(dependency);
    for (const host of ["127.0.0.1", "::1"] as const) {
      const handle = inherit(listenerId(request.instanceId, dependency, host));
      if (handle !== undefined && port !== undefined) {
        bound.push({ dependency, protocol, socket: { host, port, handle } });
      } else if (host === "127.0.0.1") whole = false; // Where there is no IPv6 there is no ::1.
    }
  }
  if (whole) return bound;
  for (const { socket } of bound) socket.handle.close();
  return [];
}

function listenerId(instanceId: string, dependency: string, host: BoundPort["host"]): string {
  return `${instanceId}/${dependency}/${host === "::1" ? "6" : "4"}`;
}

function openKeeping(
  wanted: number | undefined,
  strict: boolean,
  open: Binders["openOnLoopback"],
): BoundPort[] {
  try {
    return open(wanted);
  } catch (error) {
    if (wanted === undefined || strict) throw error;
    return open(undefined);
  }
}

/** The listener for one bound socket. Without a dot, a dependency is a service of the instance's own formation. */
export function planListener(
  request: LocalPortsRequest,
  { dependency, protocol, socket }: BoundDependency,
): LocalPlan {
  const { formation, instanceId, service } = request;
  return {
    kind: "local",
    id: listenerId(instanceId, dependency, socket.host),
    instanceId,
    from: `${service}.${formation}`,
    dependency,
    cluster: dependency.includes(".") ? dependency : `${dependency}.${formation}`,
    protocol,
  };
}
