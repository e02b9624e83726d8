import type { ProxyProtocol } from "../model/mesh.ts";
import { proxyHeaderText } from "./proxy-protocol-out.ts";
import type { ProxyEnds } from "./proxy-protocol.ts";

/** What an accepted handle can be asked. */
interface AskableHandle {
  getpeername(out: { address?: string; port?: number }): number;
  getsockname(out: { address?: string; port?: number }): number;
}

/** Who is at the other end of an accepted connection. */
export class Client {
  /** IPv4 addresses as such, also on a socket of IPv6; empty when the connection was gone before it could be asked. */
  readonly address: string;
  #handle: AskableHandle | undefined;
  #ends: ProxyEnds | undefined;
  readonly #headers: Partial<Record<ProxyProtocol, string>> = {};

  /**
   * `named`: what a PROXY header said about it. `nameless`: its address means nothing beyond this machine, and could be
   * mistaken for somebody who is trusted; it is not told to anybody.
   */
  constructor(handle: unknown, named?: ProxyEnds, nameless = false) {
    const asked = handle as AskableHandle;
    this.address = named?.address ?? withoutMapping(addressIn(asked));
    this.#ends = named;
    this.#handle = nameless || named !== undefined ? undefined : asked;
  }

  /** What an upstream is told of it at the beginning of a connection, Latin-1. Made when first asked for. */
  proxyHeader(version: ProxyProtocol): string {
    if (this.#handle !== undefined) {
      this.#ends = endsOf(this.#handle);
      this.#handle = undefined;
    }
    return (this.#headers[version] ??= proxyHeaderText(version, this.#ends));
  }
}

/** Of a request that no connection brought; it has no address. */
export const NO_CLIENT: Client = new Client({ getpeername: () => 0, getsockname: () => 0 }, undefined, true);

function addressIn(handle: AskableHandle): string {
  const out: { address?: string } = {};
  handle.getpeername(out);
  return out.address ?? "";
}

function endsOf(handle: AskableHandle): ProxyEnds | undefined {
  const peer: { address?: string; port?: number } = {};
  const own: { address?: string; port?: number } = {};
  handle.getpeername(peer);
  handle.getsockname(own);
  if (peer.address === undefined || own.address === undefined) return undefined;
  return {
    address: peer.address,
    port: peer.port ?? 0,
    ownAddress: own.address,
    ownPort: own.port ?? 0,
  };
}

function withoutMapping(address: string): string {
  return address.startsWith("::ffff:") ? address.slice(7) : address;
}
