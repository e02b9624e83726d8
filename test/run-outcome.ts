import { z } from "zod";

/** What came of one step: how many passed, and the names of the others. */
export interface Outcome {
  readonly passed: number;
  readonly failures: readonly string[];
  readonly skipped: readonly string[];
}

/** As far as it is read: vitest's JSON reporter. */
const Report = z.object({
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      assertionResults: z.array(z.object({ fullName: z.string(), status: z.string() })),
    }),
  ),
});

/**
 * Counts a vitest report. Whatever did not run counts as failed: a file that cannot be loaded, a report that is
 * missing, an exit code that no test explains (an unhandled error, a timeout of the whole).
 */
export function readVitest(suite: string, code: number, text: string | undefined): Outcome {
  if (text === undefined) {
    return { passed: 0, failures: [`${suite}: vitest ended with ${code} and left no report`], skipped: [] };
  }
  const { testResults } = Report.parse(JSON.parse(text));
  const tests = testResults.flatMap(({ name, assertionResults }) =>
    assertionResults.map(({ fullName, status }) => ({
      name: `${suite}: ${shorten(name)}: ${fullName}`,
      status,
    })),
  );
  const of = (...states: string[]) =>
    tests.filter(({ status }) => states.includes(status)).map(({ name }) => name);
  const broken = testResults
    .filter(({ status, assertionResults }) => status === "failed" && !assertionResults.some(isFailed))
    .map(({ name }) => `${suite}: ${shorten(name)} as a whole`);
  const failures = [...of("failed"), ...broken];
  const unexplained =
    code !== 0 && failures.length === 0
      ? [`${suite}: vitest ended with ${code}, though no test failed: an unhandled error or a timeout`]
      : [];
  return {
    passed: of("passed").length,
    failures: [...failures, ...unexplained],
    skipped: of("skipped", "pending", "todo", "disabled"),
  };
}

const isFailed = ({ status }: { status: string }) => status === "failed";
const shorten = (path: string) => path.replace(`${process.cwd()}/`, "");
