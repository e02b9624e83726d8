import { formatDuration } from "../../base/units.ts";
import type { FormationView, PlatformView } from "../../model/api.ts";
import type { Context } from "../context.ts";
import { printable } from "../output/style.ts";
import { formationText } from "../output/views.ts";
import { count } from "../output/words.ts";
import { publicUrls } from "../public-urls.ts";
import type { Verb } from "../verb.ts";

export const status: Verb = {
  name: "status",
  about: "Say in plain words what runs, what does not, why, and what to do.",
  examples: [
    ["gilliam status", "the formation of this folder, or the whole platform"],
    ["gilliam status --formation gilliam", "Gilliam's own parts"],
    ["gilliam status --json", "for scripts"],
  ],
  run: async (context) => {
    const name = context.formationIfAny();
    const platform = await context.client.call("status", {});
    if (name !== undefined) {
      const view = await context.client.call("formation", { name });
      if (context.json) context.printJson(view);
      else {
        for (const alarm of platform.alarms) context.note(context.noteStyle.yellow(`! ${printable(alarm)}`));
        context.print(textOf(context, view));
      }
      return failing([view]);
    }
    const views = await context.client.call("formations", {});
    if (context.json) context.printJson({ platform, formations: views });
    else
      context.print(
        [platformText(context, platform), ...views.map((view) => textOf(context, view))].join("\n\n"),
      );
    return failing(views);
  },
};

/** A script can rely on it: 1 while something needs attention. */
function failing(views: readonly FormationView[]): number {
  return views.some(({ services }) => services.some(({ state }) => state === "failing")) ? 1 : 0;
}

function textOf(context: Context, view: FormationView): string {
  const { style, shell } = context;
  return formationText({ ...view, urls: publicUrls(context, view) }, style, shell.stdout.columns());
}

function platformText({ style, shell, client }: Context, platform: PlatformView): string {
  const { version, registry, startedAtMs, hosts, epoch, proxies, alarms } = platform;
  const since = formatDuration(Math.max(0, shell.clock.wallMs() - startedAtMs));
  const current = proxies.filter(({ behind }) => !behind).length;
  return [
    `${style.bold("Gilliam")} ${version}, control at ${client.baseUrl} for ${since}; registry: ${registry}`,
    `  ${count(hosts, "host")}, ${count(proxies.length, "proxy", "proxies")}; epoch ${epoch}, in force at ${current} of ${proxies.length}`,
    ...proxies
      .filter(({ refused }) => refused !== null)
      .map(({ id, refused }) =>
        style.red(`  ▲ ${id} refuses the configuration: ${printable(refused ?? "")}`),
      ),
    ...alarms.map((alarm) => style.yellow(`  ! ${printable(alarm)}`)),
  ].join("\n");
}
