import { UserError } from "../base/errors.ts";
import type { ExecMessage } from "../model/api.ts";
import type { Context } from "./context.ts";

/** Copies a command's output as it comes; resolves with its exit code. */
export async function relayCommand(context: Context, messages: AsyncIterable<ExecMessage>): Promise<number> {
  const { stdout, stderr, signal } = context.shell;
  const collected: ExecMessage[] = [];
  for await (const message of messages) {
    if (context.json) collected.push(message);
    switch (message.kind) {
      case "output":
        if (!context.json) (message.stream === "stdout" ? stdout : stderr).write(message.data);
        break;
      case "exit":
        if (context.json) context.printJson(collected);
        return message.code;
      case "failed":
        throw new UserError(message.message, { code: "command_failed" });
    }
  }
  if (signal.aborted) return 130;
  throw new UserError("The connection ended before the command did", {
    code: "connection_lost",
    next: "The command may still run. See: gilliam status",
  });
}

/** Standard input as the API takes it; nothing when it is a terminal or empty. */
export async function stdinBody({ shell }: Context): Promise<{ stdin?: string }> {
  const bytes = await shell.readStdin();
  return bytes === undefined || bytes.length === 0 ? {} : { stdin: Buffer.from(bytes).toString("base64") };
}
