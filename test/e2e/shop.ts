import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { type Excuse, judge, judgeOrders, type OrderSums } from "./history.ts";
import { Load, type LoadOptions } from "./load.ts";
import { type Platform, ROOT } from "./platform.ts";

/** What the scenarios on the shop have in common. */

export const SHOP = join(ROOT, "examples/shop");
export const SHOP_V2 = join(ROOT, "examples/shop-v2");

/** Room for the loaded machine that tests run on: six requests under way, some 150 a second. */
export function loadOn(platform: Platform): LoadOptions {
  return { edgeUrl: platform.addresses.edgeUrl, host: "shop.localhost", workers: 6, pauseMs: 20 };
}

export async function orderSums(platform: Platform): Promise<OrderSums> {
  const { status, body } = await platform.get("/orders");
  if (status !== 200) throw new Error(`/orders answered ${status}: ${body}`);
  return (JSON.parse(body) as { orders: OrderSums }).orders;
}

/**
 * Runs `scenario` under constant load and holds the record to the invariants: no failed request but the excused,
 * no order executed twice, none lost. `scenario` may return excuses.
 */
export async function underLoad(
  platform: Platform,
  scenario: () => Promise<readonly Excuse[] | void>,
): Promise<void> {
  const before = await orderSums(platform);
  const load = new Load(loadOn(platform));
  let excuses: readonly Excuse[] | void;
  try {
    excuses = await scenario();
  } finally {
    await load.stop();
  }
  const verdict = judge(load.history, excuses ?? []);
  expect(verdict.requests).toBeGreaterThan(20);
  expect(verdict.violations).toEqual([]);
  expect(judgeOrders(load.history, before, await orderSums(platform))).toEqual([]);
}

/** A copy of the shop with another manifest; deleted when disposed. */
export function shopVariant(change: (manifest: string) => string): Disposable & { readonly folder: string } {
  const folder = mkdtempSync(join(tmpdir(), "gilliam-shop-"));
  cpSync(SHOP, folder, { recursive: true });
  const file = join(folder, "gilliam.yaml");
  const before = readFileSync(file, "utf8");
  const after = change(before);
  if (after === before) throw new Error("the variant does not differ from the shop");
  writeFileSync(file, after);
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}
