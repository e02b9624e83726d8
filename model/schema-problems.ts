import type { z } from "zod";
import { didYouMean } from "./suggest.ts";
import type { Path, Positions } from "./yaml-text.ts";

type Issue = z.core.$ZodIssue;

/**
 * One line a problem for what a schema found in a YAML text. `keysAt` lists the keys allowed in the mapping at a
 * path; values below a path for which `hidden` holds are never repeated, since they may be secret.
 */
export function schemaProblems(
  issues: readonly Issue[],
  positions: Positions,
  keysAt: (path: Path) => readonly string[],
  hidden: (path: Path) => boolean = () => false,
): string[] {
  return issues.flatMap((issue) => issueProblems(issue, issue.path, positions, keysAt, hidden));
}

function issueProblems(
  issue: Issue,
  path: Path,
  positions: Positions,
  keysAt: (path: Path) => readonly string[],
  hidden: (path: Path) => boolean,
): string[] {
  if (issue.code === "unrecognized_keys") {
    const known = keysAt(path);
    return issue.keys.map((key) =>
      positions.problem(
        [...path, key],
        `is not a key here${didYouMean(key, known)}; allowed are ${known.join(", ")}`,
        { target: "key" },
      ),
    );
  }
  if (issue.code === "invalid_key") {
    const rule = issue.issues[0]?.message ?? "is not allowed here";
    return [positions.problem(path, `this name ${rule}`, { target: "key" })];
  }
  if (issue.code === "invalid_union") {
    // The branch whose kind of value was written knows best what is wrong with it.
    const branch = issue.errors.find((errors) =>
      errors.some((inner) => inner.path.length > 0 || inner.code !== "invalid_type"),
    );
    if (branch !== undefined) {
      return branch.flatMap((inner) =>
        issueProblems(inner, [...path, ...inner.path], positions, keysAt, hidden),
      );
    }
  }
  if (issue.code === "invalid_type" && !positions.has(path)) {
    return [positions.problem(path, `is missing; it ${issue.message}`)];
  }
  return [positions.problem(path, issue.message, { show: !hidden(path) })];
}
