import type { FormationView } from "../model/api.ts";
import type { Context } from "./context.ts";
import { readPlatform, stateFolder } from "./platform.ts";

/** A formation's public addresses as a browser takes them; where control names none, with the edge of this machine. */
export function publicUrls({ shell, options }: Context, { urls }: FormationView): string[] {
  const edge = URL.parse(readPlatform(stateFolder(shell, options.state))?.edgeUrl ?? "http://localhost:8080");
  return urls.map((url) => {
    if (/^https?:/.test(url)) return url;
    return `${edge?.protocol ?? "http:"}//${url.replace(/^([^/]+)/, edge?.port ? `$1:${edge.port}` : "$1")}`;
  });
}
