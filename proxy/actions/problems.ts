import type { RouteActions } from "../../model/route.ts";
import { problemOfEdits } from "./header-edits.ts";

/** Why actions cannot be put in force; undefined when they can. Control checked them already: this is the second look. */
export function problemOfActions({
  requestHeaders,
  responseHeaders,
  rewrite,
  redirect,
  respond,
}: RouteActions): string | undefined {
  const edits = [requestHeaders, responseHeaders].flatMap((one) =>
    one === undefined ? [] : [problemOfEdits(one)],
  );
  const problem = edits.find((one) => one !== undefined);
  if (problem !== undefined) return problem;
  for (const template of [rewrite, redirect?.to]) {
    if (template !== undefined && !/^[\x21-\x7e]*$/.test(template))
      return `"${template}" is no path and no URL`;
  }
  if (respond !== undefined && !/^[\x20-\x7e]*$/.test(respond.type))
    return `"${respond.type}" is no media type`;
  return undefined;
}
