import net from "node:net";

/** Networks that may speak for others. */
export class TrustedNetworks {
  readonly #list = new net.BlockList();

  /** `10.0.0.0/8`, `192.0.2.7`, `fd00::/8`. @throws when one is not a network; see `isNetwork`. */
  constructor(networks: readonly string[]) {
    for (const network of networks) {
      const [address = "", bits] = network.split("/");
      const family = net.isIPv6(address) ? "ipv6" : "ipv4";
      this.#list.addSubnet(
        address,
        bits === undefined ? (family === "ipv6" ? 128 : 32) : Number(bits),
        family,
      );
    }
  }

  has(peer: string): boolean {
    const address = peer.startsWith("::ffff:") ? peer.slice(7) : peer;
    return this.#list.check(address, net.isIPv6(address) ? "ipv6" : "ipv4");
  }
}

/** Is `text` an address, or a network as `10.0.0.0/8`? */
export function isNetwork(text: string): boolean {
  const [address = "", bits, ...more] = text.split("/");
  const version = net.isIP(address);
  if (version === 0 || more.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 6 ? 128 : 32));
}
