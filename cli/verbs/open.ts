import { spawn } from "node:child_process";
import type { Context } from "../context.ts";
import { UserError } from "../../base/errors.ts";
import { settingsIn } from "../platform.ts";
import { publicUrls } from "../public-urls.ts";
import type { Verb } from "../verb.ts";

export const open: Verb = {
  name: "open",
  about: "Print a formation's public address and open it in a browser, if there is one.",
  examples: [
    ["gilliam open", "the formation of this folder"],
    ["curl $(gilliam open)", "for scripts: no browser unless on a terminal"],
  ],
  run: async (context) => {
    const view = await context.client.call("formation", { name: context.formation() });
    const urls = publicUrls(context, view);
    const [url] = urls;
    if (url === undefined) {
      throw new UserError(`${view.name} has no public address`, {
        code: "no_address",
        next: `Give a process one: \`edge: [${view.name}.localhost]\`, then gilliam deploy.`,
      });
    }
    if (context.json) context.printJson({ url, urls });
    else context.print(url);
    if (!context.json && context.shell.stdout.isTerminal) await openBrowser(context, url);
  },
};

/** Best effort: without a desktop the printed address is all there is. */
async function openBrowser({ shell }: Context, url: string): Promise<void> {
  const { env } = shell;
  const desktop = process.platform === "darwin" || Boolean(env["DISPLAY"]) || Boolean(env["WAYLAND_DISPLAY"]);
  if (!desktop) return;
  const opener = settingsIn(env).browser || (process.platform === "darwin" ? "open" : "xdg-open");
  const child = spawn(opener, [url], { stdio: "ignore", detached: true });
  await new Promise<void>((resolve) => {
    child.once("error", () => resolve());
    child.once("spawn", () => resolve());
  });
  child.unref();
}
