import type { Plan } from "../../model/api.ts";
import type { Style } from "./style.ts";
import { count, list } from "./words.ts";

const MARKS = { create: "+", replace: "~", scale: "~", reroute: "~", remove: "-", keep: " " } as const;
const VERBS = {
  create: "is new",
  replace: "gets new instances",
  scale: "is scaled",
  reroute: "is routed differently; its instances stay",
  remove: "is stopped and removed",
  keep: "stays as it is",
} as const;

/** A plan like a diff: what is new, what changes and how, what goes; unchanged services in one line. */
export function planText(plan: Plan, style: Style): string {
  const color = { "+": style.green, "~": style.yellow, "-": style.red, " ": style.dim };
  const lines: string[] = [headline(plan, style)];
  for (const { service, action, differences } of plan.changes) {
    if (action === "keep") continue;
    const mark = MARKS[action];
    lines.push("", color[mark](`${mark} ${style.bold(service)} ${VERBS[action]}`));
    for (const difference of differences) lines.push(`    ${difference}`);
  }
  const kept = plan.changes.filter(({ action }) => action === "keep").map(({ service }) => service);
  const changes = plan.changes.length > kept.length;
  if (changes && kept.length > 0)
    lines.push(
      "",
      style.dim(
        `  ${list(kept)} ${kept.length === 1 ? "stays" : "stay"} as ${kept.length === 1 ? "it is" : "they are"}`,
      ),
    );
  for (const warning of plan.warnings) lines.push("", style.yellow(`! ${warning}`));
  if (changes) lines.push("", summary(plan));
  return lines.join("\n");
}

function headline({ formation, from, to, changes }: Plan, style: Style): string {
  const name = style.bold(formation);
  if (from === 0) return `${name}: this is its first release`;
  if (from === to || changes.every(({ action }) => action === "keep")) {
    return `${name}: nothing changes; release ${from} has all of this already`;
  }
  return `${name}: release ${from} → ${to}`;
}

function summary({ changes }: Plan): string {
  const number = (...actions: (keyof typeof MARKS)[]) =>
    changes.filter(({ action }) => actions.includes(action)).length;
  const parts = [
    [number("create"), "new"],
    [number("replace", "scale", "reroute"), "changed"],
    [number("remove"), "removed"],
    [number("keep"), "unchanged"],
  ] as const;
  const shown = parts.filter(([amount]) => amount > 0).map(([amount, word]) => `${amount} ${word}`);
  return `${count(changes.length, "service")}: ${shown.join(", ")}.`;
}
