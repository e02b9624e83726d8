/**
 * Which addresses the instances of this host get: a /22 out of 10.64.0.0/10, 1,021 instances and the bridge.
 * Pure; network.ts acts on it.
 */

/** `10.64.4.0/22` as its first address, a whole number; blocks are four /24 wide. */
export type Subnet = number;

const FIRST = 10 * 2 ** 24 + 64 * 2 ** 16;
const BLOCK_COUNT = 4096;
const BLOCK_SIZE = 1024;
export const PREFIX_LENGTH = 22;
/** Slots 1 … SLOT_MAX; address 1 of the block is the bridge, 0 and the last are unusable. */
export const SLOT_MAX = BLOCK_SIZE - 3;

/** The first free block, counting from a preferred one, that overlaps none of `taken`; undefined when all do. */
export function chooseSubnet(preferred: number, taken: readonly string[]): Subnet | undefined {
  const ranges = taken.map(parseRange).filter((range) => range !== undefined);
  for (let step = 0; step < BLOCK_COUNT; step += 1) {
    const start = FIRST + ((preferred + step) % BLOCK_COUNT) * BLOCK_SIZE;
    if (ranges.every(([from, to]) => to < start || from >= start + BLOCK_SIZE)) return start;
  }
  return undefined;
}

export function bridgeAddress(subnet: Subnet): string {
  return formatAddress(subnet + 1);
}

export function slotAddress(subnet: Subnet, slot: number): string {
  return formatAddress(subnet + 1 + slot);
}

/** Locally administered, and always the same for an address: a reused address never meets a stale ARP entry. */
export function slotHardwareAddress(subnet: Subnet, slot: number): string {
  const address = subnet + 1 + slot;
  const bytes = [24, 16, 8, 0].map((shift) => (address >>> shift) & 255);
  return ["02", "67", ...bytes.map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

/** Every `a.b.c.d/n` or bare address in the output of `ip address` and `ip route`. */
export function findRanges(text: string): string[] {
  return text.match(/\b\d{1,3}(?:\.\d{1,3}){3}(?:\/\d{1,2})?/g) ?? [];
}

export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

/** First and last address. */
function parseRange(text: string): [number, number] | undefined {
  const [host = "", length = "32"] = text.split("/");
  const bytes = host.split(".").map(Number);
  const bits = Number(length);
  if (bytes.length !== 4 || bytes.some((byte) => byte > 255) || bits > 32 || bits === 0) return undefined;
  const address = bytes.reduce((sum, byte) => sum * 256 + byte, 0);
  const size = 2 ** (32 - bits);
  const start = Math.floor(address / size) * size;
  return [start, start + size - 1];
}
