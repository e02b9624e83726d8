import { UserError } from "../base/errors.ts";

/** A mistake in the command line or the manifest: exit code 2. */
export function usageError(
  message: string,
  options: { next?: string; problems?: readonly string[] } = {},
): UserError {
  return new UserError(message, { code: "usage", status: 400, ...options });
}

/** 0 fine, 1 failure, 2 wrong usage or a bad manifest. */
export function exitCodeOf(error: unknown): 1 | 2 {
  if (!(error instanceof UserError)) return 1;
  return error.code === "usage" || error.code === "bad_manifest" || error.status === 422 ? 2 : 1;
}
