import { existsSync, statSync, writeFileSync } from "node:fs";
import type { Log } from "../../../base/log.ts";
import { mustRun, runTool } from "./command.ts";
import {
  PREFIX_LENGTH,
  bridgeAddress,
  chooseSubnet,
  findRanges,
  slotAddress,
  slotHardwareAddress,
  type Subnet,
} from "./subnet.ts";

/** Routing table, inside a namespace, that only answers from the declared port may use. */
const ANSWER_TABLE = 100;

/**
 * Network namespaces of the instances: each has a veth pair to one bridge, on an isolated port (instances cannot
 * reach one another), an address and no default route. What an instance may send is bound to its declared port as the
 * source: it can answer whoever connects to it, but it cannot connect to the host or anywhere else. So the local
 * ports, which the sidecar opens inside the namespace, are its only way out.
 */
export class NamespaceNetwork {
  readonly bridge: string;
  readonly #subnet: Subnet;
  readonly #log: Log;

  private constructor(bridge: string, subnet: Subnet, log: Log) {
    this.bridge = bridge;
    this.#subnet = subnet;
    this.#log = log;
  }

  /** Makes the bridge, or takes over the one an earlier executor made. Throws when this machine does not let us. */
  static async open(bridge: string, preferredBlock: number, log: Log): Promise<NamespaceNetwork> {
    const existing = await runTool(["ip", "-4", "-o", "address", "show", "dev", bridge]);
    const address = findRanges(existing.stdout)[0];
    if (existing.code === 0 && address?.endsWith(`/${PREFIX_LENGTH}`)) {
      const subnet = chooseSubnet(blockOf(address), []);
      if (subnet !== undefined && `${bridgeAddress(subnet)}/${PREFIX_LENGTH}` === address) {
        await mustRun(["ip", "link", "set", bridge, "up"]);
        return new NamespaceNetwork(bridge, subnet, log);
      }
    }
    if (existing.code === 0) await mustRun(["ip", "link", "delete", bridge]);
    const taken =
      (await mustRun(["ip", "-4", "-o", "address"])) +
      (await mustRun(["ip", "-4", "route", "show", "table", "all"]));
    const subnet = chooseSubnet(preferredBlock, findRanges(taken));
    if (subnet === undefined) throw new Error("every network in 10.64.0.0/10 is in use on this machine");
    await mustRun(["ip", "link", "add", bridge, "type", "bridge"]);
    switchOffIpv6(bridge);
    await mustRun(
      ["ip", "-batch", "-"],
      `address add ${bridgeAddress(subnet)}/${PREFIX_LENGTH} dev ${bridge}\nlink set ${bridge} up\n`,
    );
    return new NamespaceNetwork(bridge, subnet, log);
  }

  /** Namespace and host-side link have the same name; 15 characters is the most a link may have. */
  nameOf(slot: number): string {
    return `${this.bridge}-${slot}`;
  }

  pathOf(slot: number): string {
    return `/run/netns/${this.nameOf(slot)}`;
  }

  addressOf(slot: number): string {
    return slotAddress(this.#subnet, slot);
  }

  /**
   * Makes the namespace of `slot`; one that is there and whole is kept, whatever uses it. With `ownerPid` it is the
   * one that this process already lives in, which only gets its link.
   */
  async create(slot: number, port: number | undefined, ownerPid?: number): Promise<void> {
    const name = this.nameOf(slot);
    if (this.#isNamespaceOf(slot, ownerPid) && (await this.#isWhole(slot))) return;
    await this.delete(slot);
    await mustRun(
      ownerPid === undefined
        ? ["ip", "netns", "add", name]
        : ["ip", "netns", "attach", name, String(ownerPid)],
    );
    await mustRun(
      ["ip", "-batch", "-"],
      `link add ${name} type veth peer name eth0 address ${slotHardwareAddress(this.#subnet, slot)} netns ${name}\n`,
    );
    switchOffIpv6(name);
    await mustRun(
      ["ip", "-batch", "-"],
      `link set ${name} master ${this.bridge} up\nlink set dev ${name} type bridge_slave isolated on\n`,
    );
    // Ports below 1024 are no privilege where nobody else listens.
    await mustRun([
      "nsenter",
      `--net=${this.pathOf(slot)}`,
      "sh",
      "-c",
      "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start; echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6 || :",
    ]);
    await mustRun(
      ["ip", "-n", name, "-batch", "-"],
      `link set lo up\nlink set eth0 up\naddress add ${this.addressOf(slot)}/32 dev eth0\n`,
    );
    if (port !== undefined) await this.#letAnswer(name, port);
  }

  async delete(slot: number): Promise<void> {
    const name = this.nameOf(slot);
    // The link goes first: a namespace outlives its name while somebody holds a socket in it, a link does not.
    if (existsSync(`/sys/class/net/${name}`)) await runTool(["ip", "link", "delete", name]);
    if (existsSync(`/run/netns/${name}`)) await mustRun(["ip", "netns", "delete", name]);
  }

  /** Slots that have a namespace or a link, of this bridge's name, whoever made them. */
  async slots(): Promise<number[]> {
    const names =
      (await runTool(["ip", "netns", "list"])).stdout +
      (await runTool(["ip", "-o", "link", "show", "master", this.bridge])).stdout;
    const found = [...names.matchAll(new RegExp(`\\b${this.bridge}-(\\d+)\\b`, "g"))].map((match) =>
      Number(match[1]),
    );
    return [...new Set(found)];
  }

  async dismantle(): Promise<void> {
    for (const slot of await this.slots()) await this.delete(slot);
    await runTool(["ip", "link", "delete", this.bridge]);
  }

  #isNamespaceOf(slot: number, ownerPid: number | undefined): boolean {
    if (ownerPid === undefined) return true;
    const identity = (path: string) => statSync(path, { throwIfNoEntry: false })?.ino;
    const wanted = identity(`/proc/${ownerPid}/ns/net`);
    return wanted !== undefined && identity(this.pathOf(slot)) === wanted;
  }

  async #isWhole(slot: number): Promise<boolean> {
    const name = this.nameOf(slot);
    if (!existsSync(`/run/netns/${name}`) || !existsSync(`/sys/class/net/${name}/brport`)) return false;
    const { stdout } = await runTool(["ip", "-n", name, "-4", "-o", "address", "show", "dev", "eth0", "up"]);
    return findRanges(stdout).includes(`${this.addressOf(slot)}/32`);
  }

  /** Policy routing by source port needs no packet filter; kernels without it get a plain route, and a warning. */
  async #letAnswer(name: string, port: number): Promise<void> {
    const gateway = bridgeAddress(this.#subnet);
    const strict = await runTool(
      ["ip", "-n", name, "-batch", "-"],
      `rule add ipproto tcp sport ${port} lookup ${ANSWER_TABLE} pref 100\nroute add ${gateway} dev eth0 table ${ANSWER_TABLE}\n`,
    );
    if (strict.code === 0) return this.#letOnlyAnswer(name);
    this.#log.warn({ namespace: name, stderr: strict.stderr.trim() }, "instance can reach the host's ports");
    await mustRun(["ip", "-n", name, "route", "replace", gateway, "dev", "eth0"]);
  }

  /** From the declared port itself a connection to the host could still be opened: a packet filter sees who begins. */
  async #letOnlyAnswer(name: string): Promise<void> {
    const rule = [
      "-A",
      "OUTPUT",
      "!",
      "-o",
      "lo",
      "-p",
      "tcp",
      "--syn",
      "-j",
      "REJECT",
      "--reject-with",
      "tcp-reset",
    ];
    const { code, stderr } = await runTool([
      "nsenter",
      `--net=/run/netns/${name}`,
      "iptables",
      "-w",
      "5",
      ...rule,
    ]);
    if (code === 0) return;
    this.#log.warn(
      { namespace: name, stderr: stderr.trim() },
      "without iptables an instance can connect to the host from its own declared port",
    );
  }
}

/** Without this a link-local address would be a way around the rules above. */
function switchOffIpv6(link: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${link}/disable_ipv6`, "1");
  } catch {
    // No IPv6 in this kernel: nothing to switch off.
  }
}

function blockOf(address: string): number {
  const [, second = 0, third = 0] = address.split(".").map(Number);
  return ((second - 64) * 256 + third) / 4;
}
