import type { Command } from "commander";
import { UserError } from "../../base/errors.ts";
import type { DeployAnswer } from "../../model/api.ts";
import type { Context } from "../context.ts";
import { prepareDeployment, uploadSources, type Prepared } from "../deployment.ts";
import { planText } from "../output/plan-text.ts";
import { list } from "../output/words.ts";
import { runSteps } from "../steps.ts";
import type { Verb } from "../verb.ts";
import { progressLine, timeoutOf, waitUntilSettled } from "../watch.ts";
import { publicUrls } from "../public-urls.ts";

interface Options {
  readonly stage?: boolean;
  readonly detach?: boolean;
  readonly yes?: boolean;
  readonly timeout?: string;
}

export const deploy: Verb<Options> = {
  name: "deploy",
  about: "Make a release of gilliam.yaml and bring it into service.",
  examples: [
    ["gilliam deploy", "build, start, wait until it serves, then let the old instances go"],
    ["gilliam deploy --stage", "only make the release, for a canary"],
    ["gilliam deploy --detach", "do not wait"],
    ["gilliam deploy --yes", "do not ask before removing a service"],
  ],
  configure: (command: Command) =>
    void command
      .option("--stage", "make the release, send no traffic to it")
      .option("-d, --detach", "return at once")
      .option("-y, --yes", "do not ask")
      .option("--timeout <duration>", "longest wait (default: 10m)"),
  run: async (context, _args, options) => {
    const timeoutMs = timeoutOf(options.timeout);
    const mode = options.stage === true ? "stage" : "deploy";
    using prepared = await prepareDeployment(context, mode);
    context.note(planText(prepared.plan, context.noteStyle));
    if (!(await mayGoOn(context, prepared, options))) {
      context.note("Nothing was changed.");
      return 1;
    }
    const answer = await send(context, prepared, mode);
    if (mode === "stage" || options.detach === true) {
      report(context, answer, mode);
      return 0;
    }
    const changed = answer.plan.changes
      .filter(({ action }) => action !== "keep")
      .map(({ service }) => service);
    const view = await waitUntilSettled(context, answer.formation, {
      // What was not changed cannot fail this deploy; a deploy of nothing new waits for everything.
      ...(changed.length === 0 ? {} : { services: changed }),
      timeoutMs,
      failure: `Release ${answer.release} of ${answer.formation} does not become ready`,
      next: failureHint(answer),
    });
    for (const service of view.services.filter(({ state }) => state === "failing")) {
      context.note(context.noteStyle.yellow(`! Not part of this change: ${progressLine(service)}`));
    }
    report(context, answer, mode, publicUrls(context, view));
    return 0;
  },
};

/** Removing a service is asked about, when somebody is there to ask. */
async function mayGoOn({ shell, json }: Context, { plan }: Prepared, { yes }: Options): Promise<boolean> {
  const removed = plan.changes.filter(({ action }) => action === "remove").map(({ service }) => service);
  if (removed.length === 0 || yes === true || json) return true;
  return (await shell.confirm(`This removes ${list(removed)}. Go on?`)) ?? true;
}

async function send(
  context: Context,
  { packed, file, manifest }: Prepared,
  mode: "deploy" | "stage",
): Promise<DeployAnswer> {
  let answer: DeployAnswer | undefined;
  await runSteps(context, [
    { title: "Sending the sources", run: (report) => uploadSources(context, packed, report) },
    {
      title: "Making the release",
      run: async () => {
        const { digests: sources, filterDigests: filters } = packed;
        const body = { manifest: file.text, file: file.shown, sources, filters, mode };
        answer = await context.client.call("deploy", { name: manifest.formation, body });
        return answer.created
          ? `Release ${answer.release} is made`
          : `Release ${answer.release} has all of this already`;
      },
    },
  ]);
  if (answer === undefined) throw new UserError("Control gave no answer", { code: "strange_answer" });
  return answer;
}

function failureHint({ formation, plan }: DeployAnswer): string {
  const back =
    plan.from > 0
      ? ` Release ${plan.from} keeps serving; \`gilliam rollback --formation ${formation}\` gives this one up.`
      : "";
  return `See \`gilliam status\` and \`gilliam logs\`, mend it and deploy again.${back}`;
}

function report(
  context: Context,
  answer: DeployAnswer,
  mode: "deploy" | "stage",
  urls: readonly string[] = [],
): void {
  if (context.json) {
    context.printJson(answer);
    return;
  }
  const { formation, release } = answer;
  if (mode === "stage") {
    const changed = answer.plan.changes.find(({ action }) => action === "replace")?.service ?? "SERVICE";
    context.print(
      `Release ${release} of ${formation} is staged. Send it a share: gilliam canary ${changed} --release ${release} --weight 10`,
    );
    return;
  }
  context.print(
    [
      `${context.style.bold(formation)} is on release ${release}.`,
      ...urls.map((url) => `  ${context.style.cyan(url)}`),
    ].join("\n"),
  );
}
