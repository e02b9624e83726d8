import fs from "node:fs";
import net from "node:net";
import { getSystemErrorName } from "node:util";
import { UserError } from "../../base/errors.ts";
import type { SocketAddress } from "./messages.ts";

/**
 * Raw sockets that are bound here and listened on elsewhere. The keeper must never accept, and in libuv whoever
 * listens also accepts; so it only binds, and the first worker's `listen` makes the socket a listening one.
 * It stays one, backlog and all, while any process holds a descriptor of it: that is what outlives a worker.
 * `_createServerHandle` is what node:cluster itself uses; it has no public counterpart.
 */
export interface RawHandle {
  close(): void;
  getsockname?(out: { address?: string; port?: number }): number;
  /** Below zero once it is closed; not on Windows. */
  readonly fd?: number;
}

export function isOpen({ fd }: RawHandle): boolean {
  return fd === undefined || fd >= 0;
}

const { _createServerHandle: createServerHandle } = net as unknown as {
  _createServerHandle: (
    address: string,
    port: number,
    addressType: 4 | 6 | -1,
    fd?: undefined,
    flags?: number,
  ) => RawHandle | number;
};

/** UV_TCP_REUSEPORT. */
const REUSE_PORT = 2;

/**
 * Binds a TCP socket; port 0 takes a free one.
 * @throws UserError `port_taken`, `address_unknown` or `port_forbidden`.
 */
export function bindTcp(wanted: SocketAddress): { handle: RawHandle; address: SocketAddress } {
  return bind(wanted, 0);
}

/**
 * Binds `count` sockets to one port, among which the kernel spreads connections by their addresses (SO_REUSEPORT).
 * Whoever listens on one socket together with others may take nearly all that comes; measured, see README.md.
 * @throws as `bindTcp`, also when another process of this user shares the port already.
 */
export function bindShared(
  wanted: SocketAddress,
  count: number,
): { handles: readonly RawHandle[]; address: SocketAddress } {
  // Once without sharing: else a second edge on the same port would silently take half of the first one's clients.
  const probe = bindTcp(wanted);
  if (count === 1) return { handles: [probe.handle], address: probe.address };
  probe.handle.close();
  const { address } = probe;
  return { address, handles: Array.from({ length: count }, () => bind(address, REUSE_PORT).handle) };
}

function bind({ host, port }: SocketAddress, flags: number): { handle: RawHandle; address: SocketAddress } {
  const handle = createServerHandle(host, port, net.isIPv6(host) ? 6 : 4, undefined, flags);
  if (typeof handle === "number") throw bindError(host, port, handle);
  const out: { address?: string; port?: number } = {};
  // libuv keeps EADDRINUSE of bind(2) for later; without this question listen(2) would take a random port.
  const error = handle.getsockname?.(out) ?? 0;
  if (error !== 0) {
    handle.close();
    throw bindError(host, port, error);
  }
  return { handle, address: { host: out.address ?? host, port: out.port ?? port } };
}

/** Binds a Unix socket that only its owner can open. The path must be free; see `removeStaleSocket`. */
export function bindUnix(path: string): RawHandle {
  const before = process.umask(0o177);
  try {
    const handle = createServerHandle(path, -1, -1);
    if (typeof handle === "number") {
      throw new UserError(`Cannot open the socket ${path}: ${getSystemErrorName(handle)}`, {
        code: "socket_failed",
        next: "Check that the folder exists and that this user may write to it.",
      });
    }
    return handle;
  } finally {
    process.umask(before);
  }
}

function bindError(host: string, port: number, errno: number): UserError {
  const name = getSystemErrorName(errno);
  const where = net.isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
  if (name === "EADDRINUSE") {
    return new UserError(`Port taken: another process already uses ${where}`, {
      code: "port_taken",
      status: 409,
      next: `Stop it (\`ss -ltnp 'sport = :${port}'\` names it) or choose another port.`,
    });
  }
  if (name === "EACCES") {
    return new UserError(`This user may not listen on ${where}`, {
      code: "port_forbidden",
      status: 409,
      next: "Choose a port above 1023.",
    });
  }
  return new UserError(`Cannot listen on ${where}: ${name}`, {
    code: "address_unknown",
    status: 409,
    next: "Choose an address this machine has.",
  });
}

/**
 * Removes what a killed predecessor left at `path`; nothing when there is nothing.
 * @throws UserError `socket_failed` when something other than a socket is there.
 */
export function removeStaleSocket(path: string): void {
  const found = fs.lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new UserError(`${path} is there already and is not a socket`, {
      code: "socket_failed",
      next: "Move it away, or choose another path.",
    });
  }
  fs.unlinkSync(path);
}
